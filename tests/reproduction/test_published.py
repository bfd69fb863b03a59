"""The report in the documentation: verdicts that follow from its numbers, and a table that agrees.

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
REPORT = (FOLDER / "report.md").read_text(encoding="utf-8")
DATA = json.loads((FOLDER / "findings.json").read_text())
Key = tuple[str, str]  # the claim, and whose learner
FINDINGS: dict[Key, dict[str, Any]] = {
    (each["name"], each["learner"]): each for each in DATA["findings"]
}
NUMBERS = {key: each["numbers"] for key, each in FINDINGS.items()}
both = pytest.mark.parametrize("learner", ["paper", "ours"])


def agrees(name: str, learner: str, holds: bool) -> bool:
    return bool(FINDINGS[name, learner]["holds"]) is bool(holds)


def test_it_is_of_the_full_experiments() -> None:
    assert DATA["quick"] is False
    experiments = {each["experiment"] for each in DATA["findings"]}
    assert experiments == {"lqr", "nonconvex", "nonrealizable", "closed-loop", "runtime"}


@both
def test_the_lqr_is_imitated_where_every_loss_is_below_a_millionth(learner: str) -> None:
    numbers = NUMBERS["a", learner]
    losses, models = numbers["imitation losses"], numbers["model losses"]
    assert len(losses) == len(models) == numbers["seeds"] == 8
    assert agrees("a", learner, max(losses) < 1e-6)
    assert numbers["seeds below 1e-6"] == sum(loss < 1e-6 for loss in losses)
    assert numbers["seeds that recover the true model"] == sum(loss < 1e-6 for loss in models)


@both
@pytest.mark.parametrize(("name", "factor"), [("b, pendulum", 100), ("b, cart-pole", 1)])
def test_planners_imitate_better_than_the_network(name: str, factor: float, learner: str) -> None:
    groups = NUMBERS[name, learner].values()
    ratios = [each["network's loss"] / each["loss"] for each in groups]
    assert len(ratios) == 2  # methods
    assert {each["seeds"] for each in groups} == {8}
    assert agrees(name, learner, min(ratios) >= factor)


@both
def test_fitting_the_motion_and_imitating_are_level_where_medians_are_close(learner: str) -> None:
    medians = NUMBERS["c", learner].values()
    ratios = [max(each["sysid"], 1e-9) / max(each["mpc.dx"], 1e-9) for each in medians]
    assert len(ratios) == 2  # systems
    assert agrees("c", learner, all(0.1 <= ratio <= 10 for ratio in ratios))


@both
def test_imitation_beats_identification_where_the_expert_is_not_realizable(learner: str) -> None:
    numbers = NUMBERS["d", learner]
    imitation = zip(
        numbers["imitation loss, mpc.dx"], numbers["imitation loss, sysid"], strict=True
    )
    model = zip(numbers["model loss, mpc.dx"], numbers["model loss, sysid"], strict=True)
    assert numbers["seeds"] == 8
    assert agrees("d", learner, all(x < y for x, y in imitation) and all(x > y for x, y in model))


@both
def test_on_fresh_plans_too_where_every_seed_says_so(learner: str) -> None:
    numbers = NUMBERS["d, fresh plans", learner]
    pairs = list(
        zip(numbers["imitation losses, mpc.dx"], numbers["imitation losses, sysid"], strict=True)
    )
    assert len(pairs) == 8
    assert agrees("d, fresh plans", learner, all(x < y for x, y in pairs))


@both
def test_the_backward_time_is_constant_where_that_of_unrolling_is_linear(learner: str) -> None:
    exponents = NUMBERS["e", learner]["exponent of the iterations"]
    (implicit,) = (value for mode, value in exponents.items() if mode.startswith("implicit"))
    assert agrees("e", learner, abs(implicit) <= 0.25 and exponents["unrolled-reference"] >= 0.75)


@both
def test_an_expert_of_several_starts_is_imitated_where_medians_are_close(learner: str) -> None:
    medians = [each["median test loss"] for each in NUMBERS["starts", learner].values()]
    one, best = medians[0], min(medians[1:])
    assert agrees("starts", learner, max(best, 1e-9) <= 100 * max(one, 1e-9))


@pytest.mark.parametrize("system", ["pendulum", "cart-pole"])
def test_clones_are_level_with_the_expert_where_no_seed_is_two_percent_below(system: str) -> None:
    numbers = NUMBERS[f"closed loop, {system}", "ours"]
    lowest = numbers["lowest return of a seed less the expert's"]
    assert {f"{method} from 1" for method in ("mpc.dx", "sysid")} <= lowest.keys()
    tolerance = 0.02 * abs(numbers["expert's return"])
    assert agrees(f"closed loop, {system}", "ours", min(lowest.values()) >= -tolerance)


@pytest.mark.parametrize("name", ["exact, better", "exact, faster"])
def test_exact_gradients_win_where_they_win_more_often(name: str) -> None:
    groups = [numbers for key, numbers in NUMBERS[name, "paper"].items() if key != "all"]
    wins, runs = (sum(each[key] for each in groups) for key in ("exact is lower", "runs"))
    assert runs == 2 * 2 * 8  # systems, methods, seeds
    assert agrees(name, "paper", 2 * wins > runs)


def test_the_pictures_of_the_report_are_there_and_no_others() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(images/([^)]+)\)", REPORT)
    there = sorted(path.name for path in (FOLDER / "images").iterdir())
    assert sorted(shown) == there
    for name in there:
        with Image.open(FOLDER / "images" / name) as picture:
            picture.verify()


def test_the_table_of_findings_has_every_one_with_its_verdict_and_number() -> None:
    table = REPORT.split("## ")[1]
    rows = re.findall(r"^\| ([a-z][^|]*) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    cells = {
        (name, learner): cell
        for name, *both in rows
        for learner, cell in zip(("paper", "ours"), both, strict=True)
        if cell != "-"
    }
    assert cells == {
        key: f"{'yes' if each['holds'] else 'no'}: {each['summary']}"
        for key, each in FINDINGS.items()
    }
