from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mpc_gym import make_mpc
from mpc_gym.experiments.expert import LEARN, episode_seeds
from mpc_gym.experiments.learnable import initial_values
from mpc_gym.experiments.methods import METHODS, MethodOptions, make_policy
from mpc_gym.experiments.runs import execute
from mpc_gym.imitation import Stateless, collect, identify
from mpc_gym.imitation.transitions import transitions_of
from mpc_gym.models import current_values
from mpc_gym.policies import MPCPolicy, PlanningPolicy
from reproduction import closed_loop

STARTS = 16
EXPERT = np.linspace(-300, -100, STARTS)  # mean -200


def result(env: str, method: str, demonstrations: int, seed: int, gap: float) -> dict[str, Any]:
    """What a run would say of a method that earns so much more than the expert everywhere."""
    physics = {"dynamics.gravity": 14.0, "dynamics.mass": 0.5, "dynamics.length": 1.4}
    return {
        "env": env,
        "method": method,
        "demonstrations": demonstrations,
        "seed": seed,
        "returns": (EXPERT + gap).tolist(),
        "expert_returns": EXPERT.tolist(),
        "imitation_loss": 1e-3 * (seed + 1) / demonstrations,
        "parameters": physics if "dynamics" in METHODS[method].learns else {},
        "seconds": 1.0,
        "seconds_per_decision": 1e-3,
    }


def results(gaps: dict[str, float]) -> dict[str, Any]:
    """Three seeds of each method; the second is worse by one."""
    return {
        f"{method}/{number}/{seed}": result("DiffPendulum-v0", method, number, seed, gap)
        for method, best in gaps.items()
        for number in (1, 10)
        for seed, gap in enumerate((best, best - 1, best))
    }


def test_the_full_experiment_has_every_method_and_number_with_the_same_settings() -> None:
    runs = closed_loop.runs(quick=False)
    found = {
        (run.settings["env"], run.settings["method"], run.settings["demonstrations"])
        for run in runs
    }
    numbers = {"DiffPendulum-v0": (1, 10, 20, 100), "DiffCartPole-v0": (1, 10)}
    assert found == {
        (env, method, number)
        for env, counts in numbers.items()
        for method in ("mpc.dx", "sysid", "mlp")
        for number in counts
    }
    by_method: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        settings = dict(run.settings)
        assert settings.pop("seed") in range(8)
        del settings["demonstrations"]
        by_method.setdefault((settings["env"], settings["method"]), []).append(settings)
    for group in by_method.values():
        assert all(settings == group[0] for settings in group)
    assert len({run.name for run in runs}) == len(runs)
    assert {run.settings["seed"] for run in closed_loop.runs(quick=True, seed=7)} == {7, 8}


@pytest.mark.parametrize(
    ("gaps", "level", "efficient"),
    [
        ({"mpc.dx": 0.5, "sysid": 0.0, "mlp": -300.0}, True, True),
        ({"mpc.dx": -60.0, "sysid": 0.0, "mlp": -300.0}, False, True),
        ({"mpc.dx": 0.5, "sysid": -20.0, "mlp": 1.5}, False, False),
    ],
)
def test_the_findings_follow_from_the_returns(
    gaps: dict[str, float], level: bool, efficient: bool, tmp_path: Path
) -> None:
    section = closed_loop.section(results(gaps), tmp_path / "images")
    first, second = section.findings
    assert (first.holds, second.holds) == (level, efficient)
    error = EXPERT.std(ddof=1) / 4
    assert first.numbers["its standard error"] == pytest.approx(error)
    lowest = first.numbers["lowest return of a seed less the expert's"]
    assert lowest["sysid from 10"] == pytest.approx(gaps["sysid"] - 1)
    median = second.numbers["median return less the expert's"]
    assert median == pytest.approx({"mpc.dx from 1": gaps["mpc.dx"], "mlp from 10": gaps["mlp"]})
    assert ("Not level" in first.diagnosis) is not level


def test_the_section_shows_a_plot_and_what_was_learned(tmp_path: Path) -> None:
    gaps = {"mpc.dx": 0.5, "sysid": 0.0, "mlp": -300.0}
    section = closed_loop.section(results(gaps), tmp_path / "images")
    assert "(images/closed-loop-pendulum.png)" in section.text
    with Image.open(tmp_path / "images/closed-loop-pendulum.png") as picture:
        picture.verify()
    tables = {table.name: table for table in section.tables}
    learned = tables["closed-loop-pendulum-parameters"]
    assert list(learned.rows[0]) == [
        "the truth",
        "-",
        "gravity / length 10; 1 / (mass length²) 1",
    ]
    assert learned.rows[1][2] == "gravity / length 10; 1 / (mass length²) 1.02"
    scores = [row for row in tables["closed-loop-pendulum"].rows if row[0] == "mlp"]
    assert scores[0][2] == "-500.3 ± 15.9"


def test_a_run_of_it_scores_what_was_learned(tmp_path: Path) -> None:
    runs = [run for run in closed_loop.runs(quick=True) if run.settings["method"] == "mlp"][:1]
    (found,) = execute(runs, tmp_path, progress=False).values()
    assert len(found["returns"]) == len(found["expert_returns"]) == 4
    assert np.mean(found["returns"]) < np.mean(found["expert_returns"])


def test_one_demonstration_is_enough_where_a_fit_from_one_start_is_not() -> None:
    env, seed = "DiffCartPole-v0", 3
    learn = initial_values(env, METHODS["mpc.dx"])
    options = MethodOptions(learn, starts=closed_loop.OPTIONS.starts, updates=1)
    expert = Stateless(options.expert(env))
    demonstrations = collect(expert, env, 1, episode_seeds(LEARN, 1, seed)[0])
    truth = current_values(make_mpc(env).dynamics)

    policy = METHODS["mpc.dx"].train(demonstrations, env, seed, None, options)
    assert isinstance(policy, PlanningPolicy)
    for name, value in current_values(policy.mpc.dynamics).items():
        assert value.item() == pytest.approx(truth[name].item(), rel=1e-2), name

    policy = make_policy(MPCPolicy, env, learn=learn)
    identify(policy.mpc.dynamics, transitions_of(policy, demonstrations))
    assert policy.mpc.dynamics.pole_mass.item() < 0.1 * truth["pole_mass"].item()
