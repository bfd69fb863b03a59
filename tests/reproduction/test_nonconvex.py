"""The imitation of non-convex experts: runs that can be killed, and what they show."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc_gym.imitation.metrics import METRICS
from mpc_gym.imitation.training import CHECKPOINT, Training
from reproduction import learning, nonconvex

SETTINGS: dict[str, Any] = {
    "system": "pendulum",
    "method": "mpc.dx",
    "learner": "paper",
    "planning": "one start",
    "hessian": "exact",
    "demonstrations": 50,
    "seed": 1,
    "steps": 50,
}


def test_a_run_imitates_better_and_better_and_says_how_well(tmp_path: Path) -> None:
    settings = {**SETTINGS, "steps": 200}
    result = nonconvex.run(tmp_path, **settings)
    assert result["imitation_loss"][-1] < 0.5 * result["imitation_loss"][0]
    assert result["validation_loss"] == min(result["imitation_loss"])
    assert result["best_loss"] == list(np.minimum.accumulate(result["imitation_loss"]))
    assert result["best_epoch"] == np.argmin(result["imitation_loss"])
    assert (result["epochs"], result["ended"]) == (100, "all epochs done")
    assert result["epoch"] == list(range(101))
    assert {name: result[name] for name in settings} == settings
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    with (tmp_path / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(float(row["epoch"])) for row in rows] == list(range(0, 101, 5))
    for row in rows:
        epoch = int(float(row["epoch"]))
        assert float(row["validation/loss"]) == result["imitation_loss"][epoch]
        assert float(row["validation/model_loss"]) == result["model_loss"][epoch]
    assert list(tmp_path.glob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    "change",
    [
        {"method": "nn", "steps": 4},
        {"method": "sysid"},
        {"learner": "ours"},
        {"method": "mpc.cost", "hessian": "gauss-newton"},
        {"system": "cartpole", "method": "mpc.cost.dx"},
        {"system": "cartpole", "learner": "ours", "planning": "eight of both"},
    ],
    ids=lambda change: " ".join(map(str, change.values())),
)
def test_an_interrupted_run_goes_on_and_ends_with_the_same_numbers(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "CHECKPOINT_SECONDS", 0.0)
    settings = {**SETTINGS, **change}
    whole = nonconvex.run(tmp_path / "whole", **settings)
    epochs = settings["steps"] // 2  # of 50 plans
    train, stop_at = Training._train_epoch, epochs // 2

    def interrupted(self: Training) -> dict[str, float]:
        if len(self.history) == stop_at + 1:
            raise KeyboardInterrupt
        return train(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            nonconvex.run(tmp_path / "parts", **settings)
    trained: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_train_epoch", lambda self: trained.append(1) or train(self))
        assert nonconvex.run(tmp_path / "parts", **settings) == whole
    assert len(trained) == epochs - stop_at  # no epoch is trained again
    tables = [(tmp_path / name / METRICS).read_text() for name in ("whole", "parts")]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(tmp_path: Path) -> None:
    settings = {**SETTINGS, "steps": 800}
    script = (
        "import sys, json; from pathlib import Path\n"
        "from reproduction import learning, nonconvex\n"
        "learning.CHECKPOINT_SECONDS = 0.0\n"
        "nonconvex.run(Path(sys.argv[1]), **json.loads(sys.argv[2]))"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "killed"), json.dumps(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(nonconvex.__file__).parents[1]
    process = subprocess.Popen(arguments, cwd=root, env=environment)
    while not (tmp_path / "killed" / CHECKPOINT).exists():
        assert process.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = nonconvex.run(tmp_path / "killed", **settings)
    assert resumed == nonconvex.run(tmp_path / "whole", **settings)


def test_the_full_experiment_has_the_papers_settings() -> None:
    runs = nonconvex.runs(quick=False)
    settings = [run.settings for run in runs if run.settings["planning"] == "one start"]
    for system in ("pendulum", "cartpole"):
        for learner, methods in (
            ("paper", ("nn", "sysid", "mpc.dx", "mpc.cost")),
            ("ours", ("sysid", "mpc.dx", "mpc.cost")),
        ):
            for method in methods:
                key = (system, learner, method, "exact")
                chosen = [
                    s for s in settings
                    if (s["system"], s["learner"], s["method"], s["hessian"]) == key
                ]  # fmt: skip
                assert {s["demonstrations"] for s in chosen} == {10}
                assert {s["seed"] for s in chosen} == set(range(8))
                assert len(chosen) == 8
                steps = {s["demonstrations"]: s["steps"] for s in chosen}
                if learner == "ours":
                    assert set(steps.values()) == {1500}
                elif method != "nn":
                    assert steps == {10: 1000}  # a thousand epochs
    assert nonconvex.runs(quick=False, seed=7)[0].settings["seed"] == 7
    assert len({run.name for run in runs}) == len(runs)


def result(method: str, loss: float, **change: Any) -> dict[str, Any]:
    """What a run returns, made up."""
    found = {
        **SETTINGS,
        "method": method,
        "test_loss": loss,
        "hundredfold": 40,
        "best_epoch": 80,
        "ended": "flat for 200 epochs",
        "epoch": [0.0, 50.0, 100.0],
        "best_loss": [1.0, 0.1, loss],
        **change,
    }
    return {**found, "epochs": 100}


LOSSES = {"nn": 0.3, "sysid": 2e-5, "mpc.dx": 1e-5, "mpc.cost": 1e-3}


def results(**changes: float) -> dict[str, dict[str, Any]]:
    """Two systems and seeds, with other losses of the pendulum where they are given."""
    found = []
    for system in ("pendulum", "cartpole"):
        losses = {**LOSSES, **(changes if system == "pendulum" else {})}
        for seed in (0, 1):
            same = {"system": system, "seed": seed}
            for method, loss in losses.items():
                found.append(result(method, loss, **same))
                if method.startswith("mpc"):
                    rough = {**same, "hessian": "gauss-newton", "hundredfold": 50 if seed else None}
                    found.append(result(method, 3 * loss, **rough))
            found += [
                result(method, 1e-7 * losses[method], learner="ours", **same)
                for method in ("sysid", "mpc.dx", "mpc.cost")
            ]
            if system == "cartpole":
                for learner, planning, loss in (
                    ("paper", "eight of the expert", 70.0),
                    ("paper", "eight of both", 6.0),
                    ("ours", "eight of both", 1e-10),
                ):
                    change = {"learner": learner, "planning": planning, **same}
                    found.append(result("mpc.dx", loss, **change))
    return {str(i): each for i, each in enumerate(found)}


def test_the_section_states_the_papers_findings(tmp_path: Path) -> None:
    section = nonconvex.section(results(), tmp_path)
    findings = {(finding.name, finding.learner): finding for finding in section.findings}
    failed = [key for key, finding in findings.items() if not finding.holds]
    assert failed == [("starts", "paper")]
    diagnosed = [key for key, finding in findings.items() if finding.diagnosis]
    assert diagnosed == failed
    ratio = findings["b, pendulum", "paper"].numbers["mpc.cost, 50 plans"]["ratio of medians"]
    # by the paper's own derivatives
    assert ratio == pytest.approx(0.3 / 3e-3)
    assert findings["c", "paper"].numbers["pendulum, 50 plans"]["ratio"] == pytest.approx(2 / 3)
    # both are as good as perfect
    assert findings["c", "ours"].numbers["pendulum, 50 plans"]["ratio"] == 1
    better = findings["exact, better", "paper"].numbers
    assert better["all"] == {"exact is lower": 8, "Gauss-Newton is lower": 0, "runs": 8}
    faster = findings["exact, faster", "paper"].numbers["pendulum, mpc.dx"]
    assert faster["exact is lower"] == 2
    assert faster["median, Gauss-Newton"] is None  # one of two seeds never came so far
    starts = findings["starts", "paper"].numbers
    assert starts["eight of the expert, 50 plans"]["median test loss"] == 70
    json.dumps([finding.numbers for finding in section.findings], allow_nan=False)
    for path in tmp_path.iterdir():
        assert path.name in section.text
    assert len(list(tmp_path.iterdir())) == 4
    assert "in 0 of 4 runs" in section.text.replace("\n", " ")
    table = next(table for table in section.tables if table.name == "nonconvex-epochs")
    assert table.rows[0][5] == "flat for 200 epochs: 2"


def test_a_finding_that_does_not_come_out_is_stated_as_such(tmp_path: Path) -> None:
    found = results(**{"mpc.cost": 0.03, "sysid": 2e-3})
    found["0"] |= {"best_epoch": 95, "ended": "all epochs done"}  # a network
    section = nonconvex.section(found, tmp_path)
    assert "in 1 of 4 runs" in section.text.replace("\n", " ")
    findings = {(finding.name, finding.learner): finding for finding in section.findings}
    paper = findings["b, pendulum", "paper"]
    assert not paper.holds
    assert paper.summary == "at least 3.33 times lower"
    assert "mpc.cost with 50 plans (3.33 times lower)" in paper.diagnosis
    assert findings["b, cart-pole", "paper"].holds
    assert findings["b, pendulum", "ours"].holds
    assert not findings["c", "paper"].holds
    assert "pendulum, 50 plans (sysid / mpc.dx = 66.7)" in findings["c", "paper"].diagnosis
    assert findings["c", "ours"].holds
