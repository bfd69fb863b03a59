"""The first control without its bounds, against the optimal cost as a function of that control."""

import pytest
import torch
from torch import Tensor

from mpc_gym import MPC
from mpc_gym.models import LinearDynamics, PendulumDynamics, QuadraticCost

HORIZON = 12
BACKENDS = ("torch", "native")

# the reference takes many seconds for these
SLOW_REFERENCE = [pytest.param("torch", marks=pytest.mark.slow), "native"]


def pendulum(backend: str, mass: float = 1.0, first: Tensor | None = None) -> MPC:
    """A pendulum at the torque limit 2; `first` holds the first torque instead."""
    cost = QuadraticCost.diagonal(
        torch.tensor([1.0, 1.0, 0.1, 0.1]), torch.tensor([-1.0, 0.0, 0.0, 0.0])
    )
    low = torch.full((HORIZON, 1), -2.0, dtype=torch.float64)
    high = -low
    if first is not None:
        low = torch.cat((first.reshape(1, 1), low[1:]))
        high = torch.cat((first.reshape(1, 1), high[1:]))
    dynamics = PendulumDynamics(mass=mass, max_speed=None)
    return MPC(dynamics, cost, HORIZON, low, high, backend=backend, tolerance=1e-9)


def states(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    theta = 6.3 * torch.rand(count, generator=generator, dtype=torch.float64)
    speed = 2 * torch.randn(count, generator=generator, dtype=torch.float64)
    return torch.stack((theta.cos(), theta.sin(), speed), -1)


def slope(x: Tensor, u: float, guess: Tensor, mass: float = 1.0) -> float:
    """Derivative of the optimal cost by the first control, which is held at u."""
    first = torch.tensor(u, dtype=torch.float64, requires_grad=True)
    pendulum("torch", mass, first)(x, guess).cost.sum().backward()
    assert first.grad is not None
    return first.grad.item()


@pytest.mark.parametrize("backend", SLOW_REFERENCE)
def test_it_is_one_newton_step_of_the_optimal_cost_beyond_the_bound(backend: str) -> None:
    x = states(12)
    plan = pendulum(backend)(x, unclamped=True)
    held = plan.controls[:, 0, 0].abs() == 2.0
    assert 3 < held.sum() < 12
    assert plan.unclamped is not None
    torch.testing.assert_close(plan.unclamped[~held], plan.controls[~held, 0], rtol=1e-9, atol=1e-9)
    for row in held.nonzero()[:, 0].tolist():
        x_row, guess = x[row : row + 1], plan.controls[row : row + 1].detach()
        u, h = plan.controls[row, 0, 0].item(), 1e-4
        first = slope(x_row, u, guess)
        second = (slope(x_row, u + h, guess) - slope(x_row, u - h, guess)) / (2 * h)
        beyond = abs(first / second) * (1 if u > 0 else -1)
        assert plan.unclamped[row, 0].item() - u == pytest.approx(beyond, rel=1e-4)


@pytest.mark.parametrize("backend", SLOW_REFERENCE)
def test_its_derivative_lives_where_the_derivative_of_the_control_is_zero(backend: str) -> None:
    x, h = states(12), 1e-5
    mpc = pendulum(backend)
    plan = mpc(x, unclamped=True)
    assert plan.unclamped is not None
    mass = mpc.dynamics.mass
    for row in (plan.controls[:, 0, 0].abs() == 2.0).nonzero()[:, 0].tolist():
        x_row, guess = x[row : row + 1], plan.controls[row : row + 1].detach()
        u = plan.controls[row, 0, 0].item()
        curvature = (slope(x_row, u + h, guess) - slope(x_row, u - h, guess)) / (2 * h)
        change = (slope(x_row, u, guess, 1 + h) - slope(x_row, u, guess, 1 - h)) / (2 * h)
        sign = 1 if (plan.unclamped[row, 0].item() - u) * -slope(x_row, u, guess) > 0 else 0
        assert sign == 1, "the step leads down the slope"
        outward = 1 if curvature > 0 else -1
        (found,) = torch.autograd.grad(plan.unclamped[row, 0], mass, retain_graph=True)
        (plain,) = torch.autograd.grad(plan.controls[row, 0, 0], mass, retain_graph=True)
        assert plain.item() == 0.0
        assert found.item() == pytest.approx(-outward * change / curvature, rel=1e-3)


def test_free_controls_keep_the_derivative_of_the_plan() -> None:
    x = states(12)
    mpc = pendulum("native")
    plan = mpc(x, unclamped=True)
    assert plan.unclamped is not None
    free = (plan.controls[:, 0, 0].abs() < 2.0).nonzero()[:, 0]
    parameters = [mpc.dynamics.mass, mpc.dynamics.gravity, mpc.cost.C]
    expected = torch.autograd.grad(plan.controls[free, 0].sum(), parameters, retain_graph=True)
    found = torch.autograd.grad(plan.unclamped[free].sum(), parameters)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_losses_on_plan_and_unclamped_control_add_up() -> None:
    x = states(12).requires_grad_()
    mpc = pendulum("native")
    plan = mpc(x, unclamped=True)
    assert plan.unclamped is not None
    losses = (plan.unclamped.square().sum(), plan.states.sin().sum(), plan.cost.sum())
    inputs = [x, *mpc.dynamics.parameters()]
    apart = [torch.autograd.grad(loss, inputs, retain_graph=True) for loss in losses]
    together = torch.autograd.grad(sum(losses), inputs)
    expected = [sum(column) for column in zip(*apart, strict=True)]
    torch.testing.assert_close(list(together), expected, rtol=1e-9, atol=1e-9)


def linear(backend: str, limit: float | Tensor) -> MPC:
    generator = torch.Generator().manual_seed(1)
    A = torch.eye(2, dtype=torch.float64) + 0.1 * torch.randn(
        2, 2, generator=generator, dtype=torch.float64
    )
    B = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    R = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    cost = QuadraticCost(R @ R.T + torch.eye(4, dtype=torch.float64))
    low = -limit if isinstance(limit, float) else -limit.abs()
    high = limit if isinstance(limit, float) else limit.abs()
    return MPC(LinearDynamics(A, B), cost, 3, low, high, backend=backend, tolerance=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_two_controls_the_step_is_that_to_the_unbounded_optimum_turned_outward(
    backend: str,
) -> None:
    x = torch.tensor([[1.0, -0.7], [0.4, 1.2]], dtype=torch.float64)
    unbounded = linear(backend, 1e6)(x).controls[:, 0]
    limit = torch.full((3, 2), 1e6, dtype=torch.float64)
    limit[0] = 0.05
    mpc = linear(backend, limit)
    plan = mpc(x, unclamped=True)
    held = plan.controls[:, 0].detach()
    assert bool((held.abs() == 0.05).all())
    assert plan.unclamped is not None
    step = (plan.unclamped - held) * held.sign()
    torch.testing.assert_close(step, (unbounded - held).abs().detach(), rtol=1e-8, atol=1e-8)


def test_an_unconverged_plan_keeps_its_control() -> None:
    plan = pendulum("native")(states(12), max_iterations=1, unclamped=True)
    assert not bool(plan.converged.all())
    assert plan.unclamped is not None
    rows = ~plan.converged
    assert torch.equal(plan.unclamped[rows], plan.controls[rows, 0])


def test_a_plan_has_no_unclamped_control_unless_asked() -> None:
    assert pendulum("native")(states(2)).unclamped is None
    mpc = MPC(PendulumDynamics(), QuadraticCost(torch.eye(4)), 4, differentiate="unrolled")
    with pytest.raises(ValueError, match="unclamped"):
        mpc(states(2), unclamped=True)


def test_starts_and_iterations_can_be_chosen_for_one_call() -> None:
    x = states(12)
    mpc = pendulum("native")
    several = pendulum("native")
    several.starts = 8
    assert torch.equal(mpc(x, starts=8).cost, several(x).cost)
    assert int(mpc(x, max_iterations=2).iterations.max()) == 2
    with pytest.raises(ValueError, match="starts"):
        mpc(x, starts=0)
