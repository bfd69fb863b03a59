"""Every benchmark runs from its first line to its last; what it measures means nothing here."""

import csv
import importlib.util
import json

import pytest

from benchmarks import (
    constraints,
    cost_map,
    environments,
    learned_dynamics,
    learners,
    learning,
    limits,
    pendulum_v1,
    solver,
    systems,
    targets,
    tasks,
    training,
)
from benchmarks.options import Options
from benchmarks.report import Table

# the others take as long as they do for a user: they are in the slow test
PARTS = [
    targets._latency,
    targets._backward,
    targets._convergence,
    targets._gradients,
    targets._optima,
    targets._bitwise,
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__.strip("_"))
def test_a_part_of_the_targets_adds_rows(part):
    table = Table("targets", "Targets", targets.COLUMNS)
    part(Options(quick=True), table)
    assert table.rows
    assert all(isinstance(met, bool) or met == "" for *_, met in table.rows)


def test_the_environments_are_measured_beside_gymnasiums(monkeypatch, capsys):
    monkeypatch.setattr(environments, "COUNT", 4)
    monkeypatch.setattr(environments, "REPEATS", 3)
    environments.main(["--quick"])
    printed = capsys.readouterr().out
    assert "DiffCartPole-v0" in printed
    assert "SyncVectorEnv" in printed


def test_networks_learn_the_motion_of_others_environments(tmp_path, capsys):
    pytest.importorskip("shimmy")
    pytest.importorskip("mujoco")
    learned_dynamics.main(["--quick", "--folder", str(tmp_path)])
    assert capsys.readouterr().out.count("40 steps") == 2
    runs = json.loads((tmp_path / "learned-cartpole-swingup.json").read_text())["runs"]
    assert [(run["seed"], run["steps"], len(run["returns"])) for run in runs] == [(0, 40, 1)]


def test_planning_with_constraints_is_measured_beside_casadi(tmp_path, capsys):
    constraints.main(["--quick", "--folder", str(tmp_path)])
    assert "100.0%" in capsys.readouterr().out
    with (tmp_path / "constraints.csv").open() as file:
        assert [row["system"] for row in csv.DictReader(file)] == ["to the origin"]


def test_known_tasks_are_planned_and_kept_beside_those_of_an_earlier_run(tmp_path, capsys):
    tasks.main(["--quick", "--folder", str(tmp_path)])
    assert "written model" in capsys.readouterr().out
    first = json.loads((tmp_path / "tasks.json").read_text())
    tasks.main(["--quick", "--tasks", "CartPole-v1", "--folder", str(tmp_path)])
    rows = json.loads((tmp_path / "tasks.json").read_text())
    assert [(row["task"], row["agent"]) for row in rows] == [
        (row["task"], row["agent"]) for row in first
    ]
    learned = {row["agent"]: row["steps"] for row in rows if row["source"] == "here"}
    assert learned["written model"] == 0
    assert learned["identified, 1 random episodes"] > 0
    table = (tmp_path / "tasks.md").read_text().splitlines()
    assert len(table) == len(rows) + 2
    assert any(
        line.startswith("| CartPole-v1 | written model | 500.00 | 1 | 0 |") for line in table
    )


def test_systems_of_every_size_are_measured_beside_casadi(tmp_path):
    systems.main(["--quick", "--folder", str(tmp_path)])

    def rows(name):
        with (tmp_path / f"systems_{name}.csv").open() as file:
            return list(csv.DictReader(file))

    for name in ("first", "controls", "horizons"):
        assert rows(name), name
    assert [row["backend"] for row in rows("solves")] == 2 * ["native"]
    assert all(float(row["mpc_gym"]) > 0 for row in rows("times"))
    assert "acados 0.5.1" in rows("published")[0]["published by"]
    if importlib.util.find_spec("casadi"):
        assert all(row["compared"] == "4" for row in rows("costs"))
    assert (tmp_path / "systems_times.png").stat().st_size > 10_000


def test_an_untrained_planner_is_scored_beside_published_agents(capsys):
    pendulum_v1.main(["--quick", "--rivals", "1"])
    printed = capsys.readouterr().out
    assert "TQC (published)" in printed
    assert "TQC, trained here, seed 0" in printed
    assert "MlpPolicy" in printed


def test_training_is_timed_beside_an_mlp(capsys):
    training.main(["--quick", "--envs", "1", "--rounds", "1"])
    assert "MPCPolicy" in capsys.readouterr().out


def test_a_network_that_writes_the_cost_is_trained_once_and_scored_on_all_dynamics(
    tmp_path, capsys
):
    chosen = ["--only", "MLP", "wrong cost, cost_map", "--folder", str(tmp_path)]
    cost_map.main(["--quick", *chosen])
    first = capsys.readouterr().out.splitlines()
    run = json.loads((tmp_path / "wrong_cost_cost_map_0.json").read_text())
    assert len(set(run["scores"].values())) == len(cost_map.CHANGES)
    assert run["rows"][-1]["return"] == run["scores"]["nominal"]
    cost_map.main(["--quick", *chosen])
    again = capsys.readouterr().out.splitlines()
    assert again == first[-len(again) :], "nothing is trained twice"
    assert [line.split(" | ")[0] for line in again[-2:]] == ["| MLP", "| wrong cost, cost_map"]


@pytest.mark.slow
def test_learning_at_the_limits_is_the_same_of_the_same_seed(tmp_path, capsys):
    chosen = ["--methods", "plan", "unclamped", "annealed", "--only", "PPO", "cloning"]
    for name in ("once", "again"):
        limits.main(["--quick", *chosen, "--folder", str(tmp_path / name)])
    once, again = (
        json.loads((tmp_path / name / "limits.json").read_text()) for name in ("once", "again")
    )
    assert once == again
    assert [run["method"] for run in once] == 2 * ["plan", "unclamped", "annealed"]
    cloned = [run["score"] for run in once if run["algorithm"] == limits.CLONING]
    assert len(set(cloned)) == len(cloned), "each learns by a gradient of its own"
    assert "cloning: error of the actions" in capsys.readouterr().out


@pytest.mark.slow
def test_learning_writes_its_table_and_its_figure_and_trains_nothing_twice(tmp_path, capsys):
    folders = ["--runs", str(tmp_path / "runs"), "--folder", str(tmp_path)]
    learning.main(["--quick", *folders])
    found = json.loads((tmp_path / "learning.json").read_text())
    assert {f"{row['algorithm']}, {row['kind']}" for row in found["rows"]} == set(learners.LEARNERS)
    assert all(row["failed"] in (0, 1) for row in found["rows"])
    assert (tmp_path / "learning.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "PPO, MLP, cart-pole, seed 0" in printed
    learning.main(["--quick", "--finished", *folders])
    assert json.loads((tmp_path / "learning.json").read_text()) == found
    again = capsys.readouterr().out
    assert "seed 0" not in again
    assert (
        again.strip().splitlines()
        == printed.strip().splitlines()[-len(again.strip().splitlines()) :]
    )


@pytest.mark.slow
def test_every_section_of_the_solver_writes_its_tables(tmp_path):
    solver.main(["--quick", "--folder", str(tmp_path)])
    for name in ("targets", "comparison", "gradients", "differentiation", "scaling"):
        with (tmp_path / f"{name}.csv").open() as file:
            assert list(csv.DictReader(file)), name
