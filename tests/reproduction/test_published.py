"""The report in the documentation: verdicts that follow from its numbers, and a README that agrees.

The verdicts are decided here anew, from the numbers alone, by the words of each claim.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/reproduction"
DATA = json.loads((FOLDER / "findings.json").read_text())
FINDINGS: dict[str, dict[str, Any]] = {each["name"]: each for each in DATA["findings"]}
NUMBERS = {name: each["numbers"] for name, each in FINDINGS.items()}


def agrees(name: str, holds: bool) -> bool:
    return bool(FINDINGS[name]["holds"]) is bool(holds)


def test_it_is_of_the_full_experiments() -> None:
    assert DATA["quick"] is False
    experiments = {each["experiment"] for each in DATA["findings"]}
    assert experiments == {
        "lqr", "nonconvex", "smoothed", "nonrealizable", "closed-loop", "runtime"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["a", "a, giving up"])
def test_the_lqr_is_imitated_where_every_loss_is_below_a_millionth(name: str) -> None:
    numbers = NUMBERS[name]
    losses, models = numbers["imitation losses"], numbers["model losses"]
    assert len(losses) == len(models) == numbers["seeds"] == 8
    assert agrees(name, max(losses) < 1e-6)
    assert numbers["seeds below 1e-6"] == sum(loss < 1e-6 for loss in losses)
    assert numbers["seeds that recover the true model"] == sum(loss < 1e-6 for loss in models)


@pytest.mark.parametrize(("name", "factor"), [("b, pendulum", 100), ("b, cart-pole", 1)])
def test_planners_imitate_better_than_the_network(name: str, factor: float) -> None:
    ratios = [each["network's loss"] / each["loss"] for each in NUMBERS[name].values()]
    assert len(ratios) == 6  # two methods, three numbers of plans
    assert agrees(name, min(ratios) >= factor)


@pytest.mark.parametrize("name", ["c", "c, falling rate"])
def test_fitting_the_motion_and_imitating_are_level_where_medians_are_close(name: str) -> None:
    ratios = [
        max(each["sysid"], 1e-9) / max(each["mpc.dx"], 1e-9) for each in NUMBERS[name].values()
    ]
    assert len(ratios) == 6  # two systems, three numbers of plans
    assert agrees(name, all(0.1 <= ratio <= 10 for ratio in ratios))


def test_smoothed_learners_are_free_where_every_seed_is_and_level_with_sysid() -> None:
    losses = NUMBERS["smoothed"]["mpc.dx smoothed"]["test losses"]
    assert len(losses) == 8
    assert agrees("smoothed", max(losses) < 1e-3)
    medians = NUMBERS["c, smoothed"].values()
    ratios = [max(each["sysid"], 1e-9) / max(each["mpc.dx smoothed"], 1e-9) for each in medians]
    assert len(ratios) == 3  # numbers of plans
    assert agrees("c, smoothed", all(0.1 <= ratio <= 10 for ratio in ratios))


def test_imitation_beats_identification_where_the_expert_is_not_realizable() -> None:
    numbers = NUMBERS["d"]
    imitation = zip(
        numbers["imitation loss, mpc.dx"], numbers["imitation loss, sysid"], strict=True
    )
    model = zip(numbers["model loss, mpc.dx"], numbers["model loss, sysid"], strict=True)
    assert numbers["seeds"] == 8
    assert agrees("d", all(x < y for x, y in imitation) and all(x > y for x, y in model))


def test_on_fresh_plans_too_where_every_seed_says_so() -> None:
    numbers = NUMBERS["d, fresh plans"]
    pairs = zip(
        numbers["imitation losses, mpc.dx"], numbers["imitation losses, sysid"], strict=True
    )
    assert agrees("d, fresh plans", all(x < y for x, y in pairs))


def test_the_backward_time_is_constant_where_that_of_unrolling_is_linear() -> None:
    exponents = NUMBERS["e"]["exponent of the iterations"]
    implicit = [abs(value) for mode, value in exponents.items() if mode.startswith("implicit")]
    assert agrees("e", max(implicit) <= 0.25 and exponents["unrolled-reference"] >= 0.75)


@pytest.mark.parametrize("name", ["exact, better", "exact, faster"])
def test_exact_gradients_win_where_they_win_more_often(name: str) -> None:
    groups = [numbers for system, numbers in NUMBERS[name].items() if system != "all"]
    wins, runs = (sum(each[key] for each in groups) for key in ("exact is lower", "runs"))
    assert runs == 2 * 3 * 3 * 4  # systems, methods, numbers of plans, seeds
    assert agrees(name, 2 * wins > runs)


def test_the_pictures_of_the_report_are_there_and_no_others() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(images/([^)]+)\)", (FOLDER / "report.md").read_text())
    there = sorted(path.name for path in (FOLDER / "images").iterdir())
    assert sorted(shown) == there
    for name in there:
        with Image.open(FOLDER / "images" / name) as picture:
            picture.verify()


def test_the_readme_has_every_finding_with_its_verdict() -> None:
    rows = re.findall(r"^\| (\(?[a-z][^|]*?) \|.*\| (yes|\*\*no\*\*) \|$", readme(), re.MULTILINE)
    verdicts = {name: verdict == "yes" for name, verdict in rows}
    assert verdicts == {name: each["holds"] for name, each in FINDINGS.items()}


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")
