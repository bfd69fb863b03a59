import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mpc_gym.experiments import Demo, learning_curve, metrics, table
from mpc_gym.experiments.demo import write_metrics
from mpc_gym.imitation import Evaluation


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_metrics_are_strict_json_and_hold_what_was_measured(demo: Demo) -> None:
    text = (demo.options.folder / "metrics.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=refuse)
    assert found == json.loads(json.dumps(metrics(demo)))
    for agent, score in demo.scores.items():
        returns = found["agents"][agent]["returns"]
        assert found["agents"][agent]["return_mean"] == pytest.approx(np.mean(returns))
        assert found["agents"][agent]["imitation_loss"] == score.imitation_loss
    gravity, mass, length = (
        found["parameters"]["mpc"][name] for name in ("gravity", "mass", "length")
    )
    quantities = found["quantities"]
    assert quantities["gravity / length"]["mpc"] == pytest.approx(gravity / length)
    assert quantities["1 / (mass length²)"]["mpc"] == pytest.approx(1 / (mass * length**2))
    error = quantities["gravity / length"]["relative_error"]
    assert error == pytest.approx(abs(gravity / length / 10 - 1))


def test_the_flights_are_counted_in_the_table_and_kept(demo: Demo) -> None:
    console = Console(width=80, record=True)
    console.print(table(demo))
    (line,) = (line for line in console.export_text().splitlines() if " hits an obstacle  " in line)
    assert demo.flights is not None
    kept = metrics(demo)["flights"]
    for agent, score in demo.flights.scores.items():
        crashes = int((score.lengths < demo.flights.max_steps).sum())
        assert f"{crashes} of {len(score.returns)}" in line
        assert kept[agent] == {"crashes": crashes, "returns": score.returns.tolist()}


def test_metrics_that_are_no_numbers_are_refused_and_leave_the_old_file(
    demo: Demo, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("old")
    damaged = replace(
        demo, physics={**demo.physics, "mpc": dict.fromkeys(demo.physics["mpc"], np.nan)}
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_metrics(damaged, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_mean_of_nothing_in_the_history_is_null(demo: Demo, tmp_path: Path) -> None:
    row = {**demo.histories["mpc"][1], "train/loss": np.inf}
    write_metrics(replace(demo, histories={"mpc": [row]}), tmp_path / "metrics.json")
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=refuse)["learning"]["mpc"]
    assert found == [{**row, "train/loss": None}]


def test_the_table_fits_a_terminal_of_eighty_columns(demo: Demo) -> None:
    returns = np.array([-1234.0, -1000.0, -1500.0])
    large = Evaluation(returns, np.array([200, 200, 200]), 1e-4)
    scores = {name: replace(score, evaluation=large) for name, score in demo.scores.items()}
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table(replace(demo, scores=scores)))
    text = capture.get()
    assert "…" not in text
    # mean and standard error of these three numbers, by hand
    assert text.count("-1245 ± 144") == 4
    for word in ("return", "imitation loss", "seconds per decision", "gravity / length", "mass"):
        assert word in text


def test_the_learning_curve_shows_both_policies_and_each_quantity(demo: Demo) -> None:
    losses, physics = learning_curve(demo).axes
    assert [line.get_label() for line in losses.lines] == ["MPC", "MLP"]
    measured = [row["validation/action_loss"] for row in demo.histories["mlp"]]
    np.testing.assert_array_equal(losses.lines[1].get_ydata(), measured)
    assert [line.get_label() for line in physics.lines] == [
        "gravity / length",
        "1 / (mass length²)",
    ]
    # gravity 15 and length 0.5 instead of 10 and 1: three times as much, an error of 2
    assert physics.lines[0].get_ydata()[0] == pytest.approx(2.0)
    assert all(axes.get_yscale() == "log" and axes.get_xlabel() for axes in (losses, physics))
