"""The imitation of an expert that the learner cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest

from reproduction import nonrealizable
from reproduction.learning import make_planner
from reproduction.problems import windy_pendulum

SETTINGS: dict[str, Any] = {"seed": 1, "steps": 120}


def test_both_methods_come_closer_to_the_expert_each_in_its_own_loss(tmp_path: Path) -> None:
    sysid, mpc = (
        nonrealizable.run(tmp_path / variant, variant, **SETTINGS)
        for variant in ("sysid", "mpc.dx")
    )
    assert mpc["imitation_loss"][0] == sysid["imitation_loss"][0]
    assert mpc["imitation_loss"][-1] < 0.5 * mpc["imitation_loss"][0]
    assert sysid["model_loss"][-1] < 0.5 * sysid["model_loss"][0]
    assert sysid["model_loss"][-1] < mpc["model_loss"][-1]
    assert (tmp_path / "sysid" / "metrics.csv").exists()
    assert json.loads(json.dumps(mpc, allow_nan=False)) == mpc
    assert nonrealizable.run(tmp_path / "mpc.dx", "mpc.dx", **SETTINGS) == mpc


def test_more_plans_are_learned_from_and_judged_on_the_same_fresh_ones(tmp_path: Path) -> None:
    few, many = (
        nonrealizable.run(tmp_path / variant, variant, seed=1, steps=64)
        for variant in ("sysid, ours", "sysid, ours, 1,000 plans")
    )
    assert (few["epochs"], many["epochs"]) == (16, 2)
    assert few["imitation_loss"][0] != many["imitation_loss"][0]


def test_the_learner_is_the_plain_pendulum() -> None:
    system = windy_pendulum(3)
    physics = dict(make_planner(system, "mpc.dx", "exact", 1).dynamics.named_parameters())
    assert physics["wind"].item() == physics["damping"].item() == 0
    assert not physics["wind"].requires_grad
    assert not physics["damping"].requires_grad


def test_the_full_experiment_has_the_papers_settings() -> None:
    runs = nonrealizable.runs(quick=False)
    assert len({run.name for run in runs}) == len(runs) == 8 * len(nonrealizable.VARIANTS)
    for name, variant in nonrealizable.VARIANTS.items():
        settings = [run.settings for run in runs if run.settings["variant"] == name]
        assert [each["seed"] for each in settings] == list(range(8))
        steps = 1000 if variant.learner == "paper" else 1500  # 250 epochs of the paper's
        assert {each["steps"] for each in settings} == {steps}


def result(variant: str, seed: int, loss: float, model: float, fresh: float) -> dict[str, Any]:
    return {
        "variant": variant,
        "seed": seed,
        "last_test_loss": fresh,
        "last_test_model_loss": model,
        "epoch": [0.0, 100.0, 240.0, 250.0],
        "imitation_loss": [1.0, 0.1, 0.5 * loss, 1.5 * loss],
        "model_loss": [1.0, 0.1, model, model],
        "parameters": {"dynamics.gravity": 18.0, "dynamics.mass": 0.25, "dynamics.length": 2.0},
    }


def results(exact: float, paper: float, fresh: float) -> dict[str, dict[str, Any]]:
    """Two seeds; the paper's mpc.dx has these losses, and ours lower ones than sysid.

    Args:
        exact: loss of the paper's mpc.dx with exact derivatives.
        paper, fresh: its loss with its own, Gauss-Newton's, and that on fresh plans.
    """
    losses = {"mpc.dx": (exact, 0.004, exact), nonrealizable.GAUSS_NEWTON: (paper, 0.004, fresh)}
    found = []
    for seed in (0, 1):
        for name, variant in nonrealizable.VARIANTS.items():
            if variant.method == "sysid":
                found.append(result(name, seed, 0.2, 0.002, 0.2))
            else:
                found.append(result(name, seed, *losses.get(name, (0.15, 0.004, 0.19))))
    return {str(i): each for i, each in enumerate(found)}


def test_the_section_states_the_papers_finding_of_the_mean_of_the_last_epochs(
    tmp_path: Path,
) -> None:
    section = nonrealizable.section(results(0.05, 0.1, 0.1), tmp_path)
    assert all(finding.holds for finding in section.findings)
    finding = section.findings[0]
    assert (finding.name, finding.learner) == ("d", "paper")
    assert finding.numbers["imitation loss, mpc.dx"] == pytest.approx([0.1, 0.1])
    assert finding.numbers["seeds with a higher model loss"] == 2
    row = dict(zip(section.tables[1].columns, section.tables[1].rows[0], strict=True))
    assert row["gravity / length"] == 9
    assert row["1 / (mass length^2)"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["nonrealizable.png"]


def test_where_it_does_not_come_out_the_section_says_so(tmp_path: Path) -> None:
    section = nonrealizable.section(results(0.35, 0.3, 0.3), tmp_path)
    seeds, ours, fresh, fresh_ours, hessian = section.findings
    assert not seeds.holds
    assert seeds.diagnosis == "Not so in seeds 0, 1."
    assert not fresh.holds
    assert "0.3 on others" in fresh.diagnosis
    assert not hessian.holds
    assert ours.holds
    assert fresh_ours.holds
    assert fresh_ours.summary == "2 of 2 seeds, medians 0.19 and 0.2"
    lower = {row[0]: row[-1] for row in section.tables[0].rows}
    assert lower[nonrealizable.GAUSS_NEWTON] == "0 of 2"
    assert lower["mpc.dx, ours"] == "2 of 2"
    assert lower["sysid"] == "-"
