import gymnasium as gym
import pytest
import torch

from mpc_gym.experiments.problems import CARTPOLE, PENDULUM, PROBLEMS, Problem, find_problem


@pytest.mark.parametrize("env_id", PROBLEMS)
def test_wrong_physics_names_parameters_of_the_environment_and_is_wrong(env_id: str) -> None:
    dynamics = gym.make(env_id).unwrapped.dynamics
    true = {name: parameter.item() for name, parameter in dynamics.named_parameters()}
    problem = find_problem(env_id)
    assert set(problem.wrong_physics) <= set(true)
    wrong = [
        quantity.name
        for quantity in problem.quantities
        if quantity.of(problem.wrong_physics) != pytest.approx(quantity.of(true), rel=0.2)
    ]
    assert len(wrong) >= 2


def moved(problem: Problem, physics: dict[str, float]) -> torch.Tensor:
    dynamics = gym.make(problem.env_id, **physics).unwrapped.dynamics
    generator = torch.Generator().manual_seed(0)
    angle, other = torch.randn(2, 64, generator=generator, dtype=torch.float64)
    if problem is PENDULUM:
        columns = (angle.cos(), angle.sin(), other)
    else:
        columns = (other, -other, angle.cos(), angle.sin(), other + 1)
    control = torch.randn(64, 1, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        return dynamics(torch.stack(columns, -1), control)


def test_pendulums_with_the_same_quantities_move_alike() -> None:
    physics = {"gravity": 10.0, "mass": 1.0, "length": 1.0}
    other = {"gravity": 5.0, "mass": 4.0, "length": 0.5}
    for quantity in PENDULUM.quantities:
        assert quantity.of(physics) == pytest.approx(quantity.of(other))
    torch.testing.assert_close(moved(PENDULUM, physics), moved(PENDULUM, other))


@pytest.mark.parametrize("problem", [PENDULUM, CARTPOLE], ids=lambda problem: problem.env_id)
def test_a_change_of_any_quantity_changes_the_motion(problem: Problem) -> None:
    physics = dict(problem.wrong_physics)
    for name, value in physics.items():
        changed = {**physics, name: 1.1 * value}
        assert not torch.allclose(moved(problem, physics), moved(problem, changed))


def test_an_environment_without_a_problem_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"env must be one of DiffPendulum-v0.*'Pendulum-v1'"):
        find_problem("Pendulum-v1")
