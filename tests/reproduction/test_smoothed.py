"""Smoothed learners: how their training plans are made, and what the runs show."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpc_gym import MPC
from mpc_gym.imitation import FallingSmoothing
from reproduction import smoothed
from reproduction.learning import ImitationLoss, make_planner
from reproduction.problems import PENDULUM, expert_plans


def test_training_plans_are_smoothed_in_the_first_epochs_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, list[float]] = {True: [], False: []}

    def watched(*given: Any, **options: Any) -> MPC:
        mpc = make_planner(*given, **options)
        mpc.register_forward_pre_hook(
            lambda mpc, _: seen[torch.is_grad_enabled()].append(mpc.smoothing.item())
        )
        return mpc

    monkeypatch.setattr(smoothed, "make_planner", watched)
    result = smoothed.run(tmp_path, smoothed.BOTH, demonstrations=10, seed=0, epochs=10)
    falling = [10.0, 10 ** (1 - 2.5), 1e-4]
    five_steps = np.repeat([*falling, *[0.0] * 7], 5)
    np.testing.assert_allclose(seen[True], five_steps, rtol=1e-12)
    assert set(seen[False]) == {0.0}
    assert (result["learner"], result["epochs"]) == (smoothed.BOTH, 10)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_smoothing_gives_a_gradient_where_every_control_is_held() -> None:
    plans = expert_plans(PENDULUM, 0)
    gradients = []
    for smoothing in (None, FallingSmoothing(10.0, 1e-4, 300)):
        mpc = make_planner(PENDULUM, "mpc.dx", "exact", 1)
        controls = mpc(plans.states[:100, 0]).controls[:, :-1]  # the last moves nothing
        rows = (controls.abs() == PENDULUM.limit).flatten(1).all(1).nonzero()[:, 0]
        assert len(rows) > 3
        objective = ImitationLoss(mpc, plans, smoothing=smoothing)(rows).objective()
        assert objective is not None
        objective.backward()
        gradients.append(mpc.dynamics.mass.grad.abs().item())
    assert gradients[0] == 0.0
    assert gradients[1] > 1e-3


@pytest.mark.slow
def test_a_learner_that_is_stuck_comes_free(tmp_path: Path) -> None:
    losses = {
        learner: smoothed.run(tmp_path / learner, learner, 10, seed=3, epochs=1000)["test_loss"]
        for learner in (smoothed.DX, smoothed.BOTH)
    }
    assert losses[smoothed.DX] > 1.0
    assert losses[smoothed.BOTH] < 1e-6


def test_every_learner_sees_few_plans_and_the_smoothed_one_more() -> None:
    runs = smoothed.runs(quick=False)
    assert len({run.name for run in runs}) == len(runs) == 8 * (5 + 2 * 2)
    assert {run.settings["epochs"] for run in runs} == {1000}
    for learner, counts in ((smoothed.DX, {10}), (smoothed.BOTH, {10, 50, 100})):
        found = [run.settings for run in runs if run.settings["learner"] == learner]
        assert {each["demonstrations"] for each in found} == counts
        assert {each["seed"] for each in found} == set(range(8))
    assert smoothed.runs(quick=True, seed=5)[0].settings["seed"] == 5


def results(loss: float) -> dict[str, dict[str, Any]]:
    """Made up: two seeds, all alike but one of the smoothed learner."""
    found = []
    for run in smoothed.runs(quick=False):
        if run.settings["seed"] > 1:
            continue
        own = run.settings["learner"] == smoothed.BOTH and run.settings["seed"] == 1
        test_loss = loss if own else 1e-7
        curve = {"epoch": [0.0, 10.0], "best_loss": [1.0, test_loss]}
        found.append({**run.settings, "test_loss": test_loss, **curve})
    return {str(i): each for i, each in enumerate(found)}


@pytest.mark.parametrize(("loss", "free", "level"), [(5e-7, 2, True), (2e-3, 1, False)])
def test_the_section_says_how_many_are_free_and_whether_they_are_level_with_sysid(
    loss: float, free: int, level: bool, tmp_path: Path
) -> None:
    section = smoothed.section(results(loss), tmp_path)
    findings = {finding.name: finding for finding in section.findings}
    numbers = findings["smoothed"].numbers[smoothed.BOTH]
    assert (numbers["seeds below 0.001"], numbers["seeds"]) == (free, 2)
    assert findings["smoothed"].holds is (free == 2)
    assert findings["c, smoothed"].holds is level
    assert ("50 plans" in findings["c, smoothed"].diagnosis) is not level
    assert [path.name for path in tmp_path.iterdir()] == ["smoothed.png"]
    assert "smoothed.png" in section.text
    table = section.tables[0]
    assert [row[-1] for row in table.rows if row[0] == smoothed.BOTH] == [f"{free} of 2"] * 3
