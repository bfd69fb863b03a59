"""Smoothed plans and their derivatives beside those of ipopt with the same barrier parameter."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.constrained_systems import OBSTACLE, SLOW, TRACK, ConstrainedSystem
from benchmarks.problems import CARTPOLE, PENDULUM, PaperProblem
from mpc_gym import MPC

SYSTEMS = {each.name: each for each in (PENDULUM, CARTPOLE, SLOW, TRACK, OBSTACLE)}
with np.load(Path(__file__).parent / "data" / "barrier_plans.npz", allow_pickle=False) as file:
    DATA = dict(file)
COUNT = 4

of_every_system = pytest.mark.parametrize("name", SYSTEMS)
of_every_mu = pytest.mark.parametrize("mu", [1.0, 1e-2, 1e-3])


def controller(name: str, mu: float) -> tuple[MPC, torch.Tensor, list[torch.Tensor]]:
    """With start states, and the physics by which the file has derivatives."""
    system: PaperProblem | ConstrainedSystem = SYSTEMS[name]
    mpc = system.controller(backend="native", smoothing=mu, tolerance=1e-9)
    x_init = torch.as_tensor(system.start_states(COUNT, seed=0))
    physics = []
    if isinstance(system, PaperProblem):
        physics = [getattr(mpc.dynamics, each) for each in system.parameters]
    return mpc, x_init, physics


@of_every_system
@of_every_mu
def test_plan_and_gradient_are_those_of_ipopt_with_this_barrier_parameter(
    name: str, mu: float
) -> None:
    mpc, x_init, physics = controller(name, mu)
    U, gradient = (torch.tensor(DATA[f"{name} {mu:g} {key}"]) for key in ("U", "gradient"))
    U = U.reshape(COUNT, mpc.horizon, -1)
    x_init.requires_grad_()
    # in whole newtons, which says round which side of an obstacle
    plan = mpc(x_init, U.round())
    assert plan.converged.all()
    torch.testing.assert_close(plan.controls, U, rtol=0, atol=1e-6)
    for row in range(COUNT):
        loss = plan.controls[row].square().mean()
        by_state, *by_physics = torch.autograd.grad(loss, [x_init, *physics], retain_graph=True)
        found = torch.cat((by_state[row], *(each.reshape(1) for each in by_physics)))
        size = gradient[row].abs().max().item()
        torch.testing.assert_close(found, gradient[row], rtol=0, atol=1e-6 * size)


@of_every_system
def test_limits_matter_in_these_plans(name: str) -> None:
    """Else the comparison would be one of plans without a barrier."""
    mpc, x_init, _ = controller(name, 1e-2)
    smoothed = mpc(x_init).controls
    mpc.smoothing = 0.0
    assert (smoothed - mpc(x_init).controls).abs().max() > 1e-3


@of_every_system
def test_the_file_is_what_its_script_writes(name: str) -> None:
    pytest.importorskip("casadi")
    from benchmarks.scripts.barrier_plans import PROBLEMS

    problem = PROBLEMS[name]()
    U = problem.solver(1e-2)(problem.instances[0])
    np.testing.assert_allclose(U, DATA[f"{name} 0.01 U"][0], rtol=0, atol=1e-8)
