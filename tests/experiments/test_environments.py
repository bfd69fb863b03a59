import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from mpc_gym import make_mpc
from mpc_gym.cli import app
from mpc_gym.envs import DiffPendulumEnv
from mpc_gym.envs.registration import ENTRY_POINTS
from mpc_gym.experiments.agents import EpisodeOptions
from mpc_gym.experiments.compare import CompareOptions
from mpc_gym.experiments.demo import make_policies
from mpc_gym.experiments.environments import (
    ACROBOT,
    CAR,
    CARTPOLE,
    PENDULUM,
    PLANAR_QUADROTOR,
    System,
    check_env,
    environment_ids,
    environments_table,
    find_system,
)
from mpc_gym.imitation import collect
from tests import theirs

LISTED = {
    "DiffPendulum-v0": PENDULUM,
    "DiffCartPole-v0": CARTPOLE,
    "DiffAcrobot-v0": ACROBOT,
    "DiffPlanarQuadrotor-v0": PLANAR_QUADROTOR,
    "DiffCar-v0": CAR,
}


def test_the_table_holds_every_environment_with_its_limits_in_eighty_columns() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(environments_table())
    text = console.export_text()
    for expected in (*ENTRY_POINTS, "-8 to 8", "-100 to 100", "no limit", "wind 0.1", "200"):
        assert expected in text
    assert "…" not in text


@pytest.mark.parametrize("env_id", ENTRY_POINTS)
def test_wrong_physics_names_parameters_of_the_environment_and_is_wrong(env_id: str) -> None:
    dynamics = gym.make(env_id).unwrapped.dynamics
    true = {name: parameter.item() for name, parameter in dynamics.named_parameters()}
    system = find_system(env_id)
    assert set(system.wrong_physics) <= set(true)
    wrong = [
        quantity.name
        for quantity in system.quantities
        if quantity.of(system.wrong_physics) != pytest.approx(quantity.of(true), rel=0.2)
    ]
    assert len(wrong) >= 2


def moved(env_id: str, physics: dict[str, float]) -> torch.Tensor:
    env = gym.make(env_id, **physics).unwrapped
    random = np.random.default_rng(0)
    states = env.states_from(random.normal(size=(64, len(env.start_limit))))
    controls = random.normal(size=(64, len(env.action_space.low)))
    with torch.no_grad():
        return env.dynamics(torch.from_numpy(states), torch.from_numpy(controls))


def test_pendulums_with_the_same_quantities_move_alike() -> None:
    physics = {"gravity": 10.0, "mass": 1.0, "length": 1.0}
    other = {"gravity": 5.0, "mass": 4.0, "length": 0.5}
    for quantity in PENDULUM.quantities:
        assert quantity.of(physics) == pytest.approx(quantity.of(other))
    torch.testing.assert_close(moved("DiffPendulum-v0", physics), moved("DiffPendulum-v0", other))


@pytest.mark.parametrize(("env_id", "system"), LISTED.items())
def test_a_change_of_any_quantity_changes_the_motion(env_id: str, system: System) -> None:
    physics = dict(system.wrong_physics)
    for name, value in physics.items():
        changed = {**physics, name: 1.1 * value}
        assert not torch.allclose(moved(env_id, physics), moved(env_id, changed))


@pytest.mark.parametrize(("env_id", "system"), LISTED.items())
def test_the_motion_determines_as_many_numbers_as_are_named(env_id: str, system: System) -> None:
    """By the rank of the derivative of next states by the logarithms of what is learned."""
    true = gym.make(env_id).unwrapped.physics
    columns = [
        (
            moved(env_id, {**true, name: true[name] * 1.001})
            - moved(env_id, {**true, name: true[name] / 1.001})
        ).flatten()
        for name in system.wrong_physics
    ]
    scaled = torch.stack([column / column.norm() for column in columns])
    singular = torch.linalg.svdvals(scaled)
    assert (singular > 1e-3).sum() == len(system.quantities)


def test_every_expert_looks_as_far_ahead_as_its_system_asks() -> None:
    for env_id, system in LISTED.items():
        assert EpisodeOptions(env_id).horizon == system.horizon
        assert CompareOptions(env_id).planning.horizon == system.horizon
        assert CompareOptions(env_id, horizon=7).planning.horizon == 7
        mpc, _ = make_policies(env_id)
        assert mpc.mpc.horizon == system.horizon


def upright(states: np.ndarray) -> np.ndarray:
    cos1, sin1, cos2, sin2 = states[..., :4].T
    return -cos1 - (cos1 * cos2 - sin1 * sin2) > 1.9


def near(states: np.ndarray) -> np.ndarray:
    return np.hypot(states[..., 0], states[..., 1]).T < 0.1


def parked(states: np.ndarray) -> np.ndarray:
    return near(states) & (np.abs(np.arctan2(states[..., 3], states[..., 2])) < 0.1).T


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "solved"),
    [("DiffAcrobot-v0", upright), ("DiffPlanarQuadrotor-v0", near), ("DiffCar-v0", parked)],
)
def test_the_expert_solves_the_task_in_nearly_all_episodes(env_id: str, solved) -> None:
    """For the last second of each of 50 episodes."""
    (agent,) = EpisodeOptions(env_id).agents().values()
    played = collect(agent, env_id, 50, seed=600_000, progress_bar=False)
    ends = played.observations.reshape(50, 200, -1)[:, -20:]
    assert solved(ends).all(0).mean() >= 0.96


def test_an_environment_without_a_model_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"env must be one of DiffPendulum-v0.*'Pendulum-v1'"):
        find_system("Pendulum-v1")


@pytest.fixture
def their_id() -> Iterator[str]:
    theirs.register()
    yield theirs.THEIRS
    del gym.registry[theirs.THEIRS]


def test_an_environment_of_another_library_is_listed_and_taken(their_id: str) -> None:
    assert environment_ids() == [*ENTRY_POINTS, their_id]
    check_env(their_id)
    matrices = make_mpc(their_id).dynamics
    system = find_system.__wrapped__(their_id)
    np.testing.assert_allclose(system.wrong_physics["A"], 1.5 * matrices.A.detach())
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(environments_table())
    assert their_id in console.export_text()


class HeavyPendulum(DiffPendulumEnv):
    def __init__(self, *, load: float, **options: Any) -> None:
        super().__init__(mass=1.0 + load, **options)


def test_an_environment_that_its_id_alone_does_not_make_is_left_out() -> None:
    gym.register("HeavyPendulum-v0", HeavyPendulum)
    gym.register("HeavierPendulum-v0", HeavyPendulum, kwargs={"load": 1.0})
    try:
        assert environment_ids() == [*ENTRY_POINTS, "HeavierPendulum-v0"]
        environments_table()
    finally:
        gym.registry.pop("HeavyPendulum-v0")
        gym.registry.pop("HeavierPendulum-v0")


@pytest.mark.slow
def test_every_command_takes_an_environment_of_another_library(
    their_id: str, tmp_path: Path
) -> None:
    chosen = ["--env", their_id, "--folder", str(tmp_path / "new")]
    compared = ["--methods", "mpc.dx", "mlp", "--demonstrations", "1", "--seeds", "1"]
    for command, folder, arguments in (
        ("demo", "demo", ["--quick"]),
        ("train", "train", ["--demonstrations", "2", "--effort", "0.05"]),
        ("compare", "compare", [*compared, "--effort", "0.05", "--episodes", "2"]),
    ):
        chosen[-1] = str(tmp_path / folder)
        result = CliRunner().invoke(app, [command, *chosen, *arguments])
        assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert names == {"learning_curve.png", "metrics.json"}  # it does not draw
    policy = str(tmp_path / "train" / "policy")
    result = CliRunner().invoke(
        app, ["evaluate", "--env", their_id, "--policy", policy, "expert", "--episodes", "2"]
    )
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["record", *chosen])
    assert result.exit_code == 2
    assert "no render mode 'rgb_array'" in " ".join(result.output.replace("│", " ").split())


def test_the_module_that_registers_an_environment_may_stand_before_its_id() -> None:
    check_env("mpc_gym:DiffPendulum-v0")
    with pytest.raises(ValueError, match="env: 'no_such_package' cannot be imported"):
        check_env("no_such_package:DiffPendulum-v0")


def test_a_system_that_is_not_listed_begins_half_as_large_again(monkeypatch) -> None:
    monkeypatch.setattr("mpc_gym.experiments.environments.SYSTEMS", {})
    system = find_system.__wrapped__("DiffPendulum-v0")
    assert system.wrong_physics == {"gravity": 15.0, "mass": 1.5, "length": 1.5}
    assert [quantity.name for quantity in system.quantities] == list(system.wrong_physics)


def test_environments_of_libraries_without_models_are_not_made() -> None:
    gym.register_envs(pytest.importorskip("shimmy"))
    assert environment_ids() == [*ENTRY_POINTS]
    with pytest.raises(ValueError, match="env must be one of DiffPendulum-v0"):
        check_env("dm_control/cartpole-swingup-v0")
