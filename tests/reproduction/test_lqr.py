import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mpc_gym.imitation.metrics import Metrics
from reproduction import lqr

SETTINGS = {"seed": 3, "steps": 30, "path_steps": 0, "decay_steps": 20}
Array = NDArray[np.float64]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of the log every ten steps, for runs that are no longer than the tests need."""
    monkeypatch.setattr(lqr, "STRIDE", 10)


def solve_kkt(A: Array, B: Array, p: Array, x_init: Array) -> Array:
    """States and controls [T, n + m] of the LQR, from its KKT system as one dense matrix.

    The unknowns are the states, then the controls, then one multiplier for each equation.
    """
    n, m, T = 3, 3, lqr.HORIZON
    equations = np.zeros((T * n, T * (n + m)))
    right = np.zeros(T * n)
    equations[:n, :n], right[:n] = np.eye(n), x_init
    for t in range(1, T):
        rows = slice(t * n, (t + 1) * n)
        equations[rows, t * n : (t + 1) * n] = np.eye(n)
        equations[rows, (t - 1) * n : t * n] = -A
        equations[rows, T * n + (t - 1) * m : T * n + t * m] = -B
    size = T * (n + m)
    kkt = np.block([[np.eye(size), equations.T], [equations, np.zeros((T * n, T * n))]])
    linear = np.concatenate([np.tile(p[:n], T), np.tile(p[n:], T)])
    z = np.linalg.solve(kkt, np.concatenate([-linear, right]))[:size]
    return np.concatenate([z[: T * n].reshape(T, n), z[T * n :].reshape(T, m)], axis=1)


def test_the_expert_is_that_of_the_authors_program() -> None:
    torch.manual_seed(42)  # as there: p is drawn twice
    torch.randn(6)
    p = torch.randn(6)
    A = torch.eye(3) + 0.2 * torch.randn(3, 3)
    B = torch.randn(3, 3)
    expert = lqr.make_expert()
    for found, expected in ((expert.cost.c, p), (expert.dynamics.A, A), (expert.dynamics.B, B)):
        torch.testing.assert_close(found, expected.double(), rtol=0, atol=0)


def test_the_experts_plan_solves_the_kkt_system() -> None:
    mpc = lqr.make_expert()
    A, B, p = (v.numpy() for v in (mpc.dynamics.A, mpc.dynamics.B, mpc.cost.c))
    x_init = lqr.draw_starts(torch.Generator().manual_seed(0))[:5]
    expected = [solve_kkt(A, B, p, x) for x in x_init.numpy()]
    np.testing.assert_allclose(lqr.LQRExpert(mpc)(x_init), expected, atol=1e-9)
    plan = mpc(x_init)
    np.testing.assert_allclose(plan.states, np.array(expected)[..., :3], atol=1e-9)
    np.testing.assert_allclose(plan.controls, np.array(expected)[..., 3:], atol=1e-9)


def test_the_losses_are_the_expected_ones() -> None:
    expert = lqr.make_expert()
    learner = lqr.LQRLearner(
        lqr.LQRExpert(expert), lqr.draw_model(torch.Generator().manual_seed(1))
    )
    p = expert.cost.c.numpy()
    models = [
        (mpc.dynamics.A.detach().numpy(), mpc.dynamics.B.detach().numpy())
        for mpc in (learner.mpc, expert)
    ]
    # the error is offset + gains x with x ~ N(0, I); the mean of its square adds up
    offset = np.subtract(*(solve_kkt(A, B, p, np.zeros(3)) for A, B in models))
    gains = [np.subtract(*(solve_kkt(A, B, p, x) for A, B in models)) - offset for x in np.eye(3)]
    square = offset**2 + np.sum(np.square(gains), axis=0)
    losses = learner.losses()
    assert losses["imitation_loss"] == pytest.approx(square[:, :3].mean() + square[:, 3:].mean())
    (A, B), (A_true, B_true) = models
    expected = np.mean((A - A_true) ** 2) + np.mean((B - B_true) ** 2)
    assert losses["model_loss"] == pytest.approx(expected)


def test_the_gradient_of_the_imitation_loss_agrees_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(2)
    learner = lqr.LQRLearner(lqr.LQRExpert(lqr.make_expert()), lqr.draw_model(generator))
    x_init = lqr.draw_starts(generator)
    learner.imitation_loss(x_init).backward()
    for parameter in learner.mpc.dynamics.parameters():
        assert parameter.grad is not None
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter[1, 2] += step
                values.append(learner.imitation_loss(x_init).item())
                parameter[1, 2] -= step
        difference = (values[0] - values[1]) / 2e-5
        assert parameter.grad[1, 2].item() == pytest.approx(difference, rel=1e-5)


def test_the_path_begins_at_one_model_whatever_the_initial_one_is() -> None:
    expert = lqr.LQRExpert(lqr.make_expert())
    ends = []
    for seed in (0, 7):
        generator = torch.Generator().manual_seed(seed)
        learner = lqr.LQRLearner(expert, lqr.draw_model(generator))
        for step in range(600):
            rate = lqr.LEARNING_RATE * 0.99 ** max(step - 300, 0)
            learner.step(lqr.draw_starts(generator), rate, weight=lqr.path_weight(0, 1))
        ends.append([p.detach() for p in learner.mpc.dynamics.parameters()])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, atol=0.05, rtol=0)


def test_the_weight_falls_by_the_same_factor_at_every_step_and_then_is_zero() -> None:
    weights = [lqr.path_weight(step, 4) for step in range(6)]
    np.testing.assert_allclose(weights, [1.0, 0.1, 0.01, 0.001, 0.0, 0.0])
    assert lqr.path_weight(0, 0) == 0.0


@pytest.mark.slow
def test_a_learner_that_runs_into_a_valley_finds_the_model_by_the_path(tmp_path: Path) -> None:
    found = {
        learner: lqr.run(tmp_path / learner, 0, *steps, lqr.DECAY_STEPS)
        for learner, steps in lqr.STEPS.items()
    }
    assert found["paper"]["imitation_loss"][-1] > 0.1
    assert found["ours"]["imitation_loss"][-1] < 1e-6
    assert found["ours"]["model_loss"][-1] < 1e-6


def test_initial_models_are_those_of_the_authors_program() -> None:
    A, B = lqr.draw_model(torch.Generator().manual_seed(5))
    torch.manual_seed(5)  # as there
    assert torch.equal(A, (torch.eye(3) + 0.2 * torch.randn(3, 3)).double())
    assert torch.equal(B, torch.randn(3, 3).double())


def test_a_run_writes_its_log_and_returns_its_curves(tmp_path: Path) -> None:
    result = lqr.run(tmp_path, **SETTINGS)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert result["step"] == [0, 10, 20, 30, 40, 50] == [float(row["step"]) for row in rows]
    for name in ("imitation_loss", "model_loss"):
        assert result[name] == [float(row[name]) for row in rows]
    assert result["imitation_loss"][-1] < 0.5 * result["imitation_loss"][0]
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert json.loads(json.dumps(result)) == result


def test_an_interrupted_run_goes_on_and_ends_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lqr.run(tmp_path / "whole", **SETTINGS)
    monkeypatch.setattr(lqr, "CHECKPOINT_SECONDS", -math.inf)
    record, recorded = Metrics.record, []

    def interrupted(self: Metrics, row: dict[str, float]) -> None:
        record(self, row)
        recorded.append(row["step"])
        if recorded == [0, 10, 20]:  # after this row, and before its checkpoint
            raise KeyboardInterrupt

    monkeypatch.setattr(Metrics, "record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lqr.run(tmp_path / "stopped", **SETTINGS)
    assert lqr.run(tmp_path / "stopped", **SETTINGS) == whole
    assert recorded == [0, 10, 20, 20, 30, 40, 50]
    tables = []
    for name in ("whole", "stopped"):
        with (tmp_path / name / "metrics.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SETTINGS, "steps": 500}
    script = (
        "import sys, json; from pathlib import Path; from reproduction import lqr\n"
        "lqr.CHECKPOINT_SECONDS = 0; lqr.STRIDE = 10\n"
        "lqr.run(Path(sys.argv[1]), **json.loads(sys.argv[2]))"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path), json.dumps(settings)]
    process = subprocess.Popen(arguments, cwd=Path(lqr.__file__).parents[1])
    while not (tmp_path / lqr.CHECKPOINT).exists():
        assert process.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert lqr.run(tmp_path, **settings) == lqr.run(tmp_path / "whole", **settings)


def test_the_full_experiment_has_the_papers_settings() -> None:
    full = [run.settings for run in lqr.runs(quick=False)]
    assert [each["seed"] for each in full] == 2 * list(range(8))
    steps = [(each["steps"], each["path_steps"]) for each in full]
    assert steps == 8 * [(5000, 0)] + 8 * [(3000, 2000)]
    assert lqr.runs(quick=False, seed=5)[0].settings["seed"] == 5


def result(seed: int, imitation: list[float], model: list[float], learner: str) -> dict[str, Any]:
    return {
        "seed": seed,
        "learner": learner,
        "path_steps": 50,
        "steps": 100,
        "decay_steps": 50,
        "step": [0.0, 50.0, 100.0, 150.0],
        "imitation_loss": imitation,
        "model_loss": model,
        "A": np.eye(3).tolist(),
        "B": np.eye(3).tolist(),
    }


def test_the_finding_counts_seeds_and_says_why_some_failed(tmp_path: Path) -> None:
    good = result(0, [1.0, 1e-2, 1e-3, 1e-9], [1.0, 1e-2, 1e-4, 1e-8], learner="paper")
    bad = result(4, [1.0, 0.2, 0.16, 0.15], [1.0, 5.0, 15.0, 15.5], learner="paper")
    best = result(0, [1.0, 1e-2, 1e-3, 1e-9], [1.0, 1e-2, 1e-4, 1e-8], learner="ours")
    section = lqr.section({"a": good, "b": bad, "c": best}, tmp_path)
    paper, ours = section.findings
    assert (paper.learner, ours.learner) == ("paper", "ours")
    assert paper.statement == ours.statement
    assert not paper.holds
    assert paper.summary == "1 of 2 seeds, the true model in 1"
    assert ours.holds
    assert paper.numbers["seeds below 1e-6"] == 1
    assert paper.numbers["seeds that recover the true model"] == 1
    assert paper.numbers["median imitation loss at the constant rate"] == (1e-3 + 0.16) / 2
    assert "seeds 4." in paper.diagnosis
    assert "factor of 3," in paper.diagnosis  # the model loss from 5 to 15
    assert not ours.diagnosis
    assert [row[:2] for row in section.tables[0].rows] == [
        ["paper", 0],
        ["paper", 4],
        ["ours", 0],
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"lqr-paper.png", "lqr-ours.png"}
