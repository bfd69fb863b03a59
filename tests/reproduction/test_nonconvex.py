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
    "hessian": "exact",
    "planning": "one start",
    "demonstrations": 50,
    "seed": 1,
    "epochs": 25,
    "patience": 200,
    "fall": 0.01,
    "rate": "constant",
}


def test_a_run_imitates_better_and_better_and_says_how_well(tmp_path: Path) -> None:
    result = nonconvex.run(tmp_path, **{**SETTINGS, "epochs": 100})
    assert result["imitation_loss"][-1] < 0.5 * result["imitation_loss"][0]
    assert result["validation_loss"] == min(result["imitation_loss"])
    assert result["best_loss"] == list(np.minimum.accumulate(result["imitation_loss"]))
    assert result["best_epoch"] == np.argmin(result["imitation_loss"])
    assert (result["epochs"], result["ended"]) == (100, "all epochs done")
    assert result["epoch"] == list(range(101))
    assert {name: result[name] for name in SETTINGS if name != "epochs"} == {
        name: value for name, value in SETTINGS.items() if name != "epochs"
    }
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
        {"method": "nn", "epochs": 2},
        {"method": "sysid"},
        {"rate": "falling"},
        {"method": "mpc.cost", "hessian": "gauss-newton"},
        {"system": "cartpole", "method": "mpc.cost.dx"},
        {"system": "cartpole", "planning": "eight, guided", "demonstrations": 10},
    ],
    ids=lambda change: " ".join(map(str, change.values())),
)
def test_an_interrupted_run_goes_on_and_ends_with_the_same_numbers(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "CHECKPOINT_SECONDS", 0.0)
    settings = {**SETTINGS, **change}
    whole = nonconvex.run(tmp_path / "whole", **settings)
    train, stop_at = Training._train_epoch, settings["epochs"] // 2

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
    assert len(trained) == settings["epochs"] - stop_at  # no epoch is trained again
    tables = [(tmp_path / name / METRICS).read_text() for name in ("whole", "parts")]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(tmp_path: Path) -> None:
    settings = {**SETTINGS, "epochs": 400}
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
    paper = [each for each in settings if each["rate"] == "constant"]
    for system in ("pendulum", "cartpole"):
        for method in ("nn", "sysid", "mpc.dx", "mpc.cost", "mpc.cost.dx"):
            chosen = [s for s in paper if (s["system"], s["method"]) == (system, method)]
            hessians = {"exact"} | ({"gauss-newton"} if method.startswith("mpc") else set())
            assert {s["hessian"] for s in chosen} == hessians
            assert {s["demonstrations"] for s in chosen} == {10, 50, 100}
            assert {s["seed"] for s in chosen} == set(range(4))
            assert len(chosen) == 12 * len(hessians)
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


LOSSES = {"nn": 0.3, "sysid": 2e-5, "mpc.dx": 1e-5, "mpc.cost": 1e-3, "mpc.cost.dx": 1e-2}


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
                result(method, 1e-12 * losses[method], rate="falling", **same)
                for method in ("sysid", "mpc.dx")
            ]
            if system == "cartpole":
                for planning, loss in (
                    ("eight of the expert", 70.0),
                    ("eight of both", 6.0),
                    ("eight, guided", 1e-4),
                ):
                    found.append(result("mpc.dx", loss, planning=planning, **same))
    return {str(i): each for i, each in enumerate(found)}


def test_the_section_states_the_papers_findings(tmp_path: Path) -> None:
    section = nonconvex.section(results(), tmp_path)
    findings = {finding.name: finding for finding in section.findings}
    assert all(finding.holds for finding in findings.values())
    assert not any(finding.diagnosis for finding in findings.values())
    assert findings["b, pendulum"].numbers["mpc.cost, 50 plans"]["ratio of medians"] == 300
    assert findings["c"].numbers["pendulum, 50 plans"]["ratio"] == pytest.approx(2)
    # both are as good as perfect
    assert findings["c, falling rate"].numbers["pendulum, 50 plans"]["ratio"] == 1
    better = findings["exact, better"].numbers
    assert better["all"] == {"exact is lower": 12, "Gauss-Newton is lower": 0, "runs": 12}
    faster = findings["exact, faster"].numbers["pendulum, mpc.dx"]
    assert faster["exact is lower"] == 2
    assert faster["median, Gauss-Newton"] is None  # one of two seeds never came so far
    assert findings["starts"].numbers["eight of the expert, 50 plans"]["median test loss"] == 70
    json.dumps([finding.numbers for finding in section.findings], allow_nan=False)
    for path in tmp_path.iterdir():
        assert path.name in section.text
    assert len(list(tmp_path.iterdir())) == 3
    assert "in 0 of 4 runs" in section.text
    table = next(table for table in section.tables if table.name == "nonconvex-epochs")
    assert table.rows[0][5] == "flat for 200 epochs: 2"


def test_a_finding_that_does_not_come_out_is_stated_as_such(tmp_path: Path) -> None:
    found = results(**{"mpc.cost": 0.03, "sysid": 2e-3})
    found["0"] |= {"best_epoch": 95, "ended": "all epochs done"}  # a network
    section = nonconvex.section(found, tmp_path)
    assert "in 1 of 4 runs" in section.text.replace("\n", " ")
    findings = {finding.name: finding for finding in section.findings}
    assert not findings["b, pendulum"].holds
    assert "mpc.cost with 50 plans (10 times lower)" in findings["b, pendulum"].diagnosis
    assert findings["b, cart-pole"].holds
    assert not findings["c"].holds
    assert "pendulum, 50 plans (sysid / mpc.dx = 200)" in findings["c"].diagnosis
