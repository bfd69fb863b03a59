"""Plans over long horizons from nothing, which begin with problems of shorter ones."""

import pytest
import torch
from torch import nn

from mpc_gym.models import Dynamics, LinearDynamics, PendulumDynamics, QuadraticCost
from mpc_gym.mpc import MPC

FLOAT = torch.float64


class PlanarQuadrotor(Dynamics):
    """A body with two rotors; position, angle and their rates. By the method of Runge and Kutta."""

    def __init__(self, dt=0.05):
        super().__init__(6, 2)
        self.dt = dt

    def rate(self, state, control):
        angle, lift = state[..., 2], control.sum(-1)
        turn = 5.0 * (control[..., 0] - control[..., 1])
        sideways, upwards = -lift * torch.sin(angle), lift * torch.cos(angle) - 9.81
        forces = torch.stack((sideways, upwards, turn), -1)
        return torch.cat((state[..., 3:], forces), -1)

    def forward(self, state, control):
        dt = self.dt
        a = self.rate(state, control)
        b = self.rate(state + dt / 2 * a, control)
        c = self.rate(state + dt / 2 * b, control)
        d = self.rate(state + dt * c, control)
        return state + dt / 6 * (a + 2 * b + 2 * c + d)


class Hover(nn.Module):
    def forward(self, state, control):
        weights = torch.tensor([1.0, 1.0, 1.0, 0.1, 0.1, 0.1], dtype=state.dtype)
        return (weights * state.square()).sum(-1) + 0.01 * (control - 4.905).square().sum(-1)


def uniform(seed, count, *widths):
    generator = torch.Generator().manual_seed(seed)
    draws = 2 * torch.rand(count, len(widths), generator=generator, dtype=FLOAT) - 1
    return draws * torch.tensor(widths, dtype=FLOAT)


def pendulum(horizon, **options):
    goal = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.1])
    cost = QuadraticCost.from_goal(*goal, 0.001)
    return MPC(PendulumDynamics(max_speed=None), cost, horizon, **options)


def pendulums(seed, count):
    angle, speed = uniform(seed, count, torch.pi, 1.0).unbind(1)
    return torch.stack((angle.cos(), angle.sin(), speed), 1)


def test_a_pendulum_swings_up_over_a_hundred_stages_from_any_state():
    """From controls of zero, 6 to 9 of 100 plans do not converge, at three times the cost."""
    with torch.no_grad():
        plan = pendulum(100, backend="native")(pendulums(3, 128))
    assert plan.converged.float().mean() >= 0.99
    assert plan.iterations.double().mean() < 10
    assert plan.cost.mean() < 25


@pytest.mark.parametrize("horizon", [200, 500])
def test_over_more_it_stands_although_no_controls_alone_would_keep_it_there(horizon):
    with torch.no_grad():
        plan = pendulum(horizon, backend="native")(pendulums(8, 64))
    assert plan.converged.float().mean() >= 0.95
    upright = plan.states[:, horizon // 2 + 50, 0] > 0.99
    assert upright.float().mean() >= 0.9


@pytest.mark.parametrize("horizon", [100, 500])
def test_so_does_a_quadrotor_come_to_hover(horizon):
    """From controls of zero it falls: 0 of 100 plans over 500 stages converge."""
    mpc = MPC(PlanarQuadrotor(), Hover(), horizon, 0.0, 10.0, backend="native")
    with torch.no_grad():
        plan = mpc(uniform(4, 64, 3.0, 3.0, torch.pi, 2.0, 2.0, 3.0))
    assert plan.converged.all()
    assert plan.states[:, 90:].abs().max() < 1.0
    assert plan.iterations.double().mean() < 5


def turning(backend, horizon=70, **options):
    dynamics = LinearDynamics(
        torch.tensor([[1.1, 0.3], [-0.3, 1.0]]).double(), torch.tensor([[0.0], [1.0]]).double()
    )
    cost = QuadraticCost.diagonal(torch.tensor([1.0, 1.0, 0.1]))
    return MPC(dynamics, cost, horizon, -3.0, 3.0, backend=backend, **options)


def test_both_backends_find_the_same_in_as_many_iterations():
    x_init = uniform(5, 3, 1.0, 1.0)
    with torch.no_grad():
        native, reference = (turning(backend)(x_init) for backend in ("native", "torch"))
    assert torch.equal(native.iterations, reference.iterations)
    assert native.converged.all()
    torch.testing.assert_close(native.controls, reference.controls, rtol=1e-9, atol=1e-9)


def test_the_optimum_of_a_convex_problem_does_not_depend_on_it():
    x_init = uniform(6, 16, 1.0, 1.0)
    mpc = turning("native", tolerance=1e-9)
    with torch.no_grad():
        cold, warm = mpc(x_init), mpc(x_init, torch.full((16, 70, 1), 0.1, dtype=FLOAT))
    assert cold.converged.all()
    assert warm.converged.all()
    torch.testing.assert_close(cold.controls, warm.controls, rtol=1e-7, atol=1e-7)
    assert cold.iterations.max() < warm.iterations.min()


def test_each_instance_is_begun_by_what_is_known_of_it():
    """Zero is no guess; another one is begun from as it is, whatever the other instances have."""
    mpc, x_init = pendulum(90, backend="native"), pendulums(7, 6)
    guess = torch.zeros(6, 90, 1, dtype=FLOAT)
    with torch.no_grad():
        cold = mpc(x_init)
        guess[3:] = cold.controls[3:]
        mixed = mpc(x_init, guess)
        alone = mpc(x_init[3:], cold.controls[3:])
    assert torch.equal(mixed.controls[:3], cold.controls[:3])
    assert torch.equal(mixed.controls[3:], alone.controls)
    assert (mixed.iterations[3:] <= 2).all()


class LateBill(nn.Module):
    """Going up pays at once, and costs more once the clock, the second state, shows 60."""

    def forward(self, state, control):
        height, clock = state.unbind(-1)
        late = torch.sigmoid(10 * (clock - 60))
        paid = -(1 - late) * torch.tanh(height) + 0.01 * control[..., 0].square()
        return paid + late * 100 * torch.sigmoid(10 * (height - 5))


def test_no_plan_is_dearer_than_controls_of_zero(backend):
    """A window does not see the bill: the state cannot come back, and to stay costs nothing."""

    class Ratchet(Dynamics):
        def forward(self, state, control):
            up = torch.nn.functional.softplus(40 * control[..., 0] - 8) / 40
            return state + torch.stack((up, torch.ones_like(up)), -1)

    dynamics, cost = Ratchet(2, 1), LateBill()
    mpc = MPC(dynamics, cost, 100, -1.0, 1.0, backend=backend)
    x, control, of_zero = torch.zeros(2, 2, dtype=FLOAT), torch.zeros(2, 1, dtype=FLOAT), 0.0
    with torch.no_grad():
        plan = mpc(x)
        for _ in range(100):
            of_zero, x = of_zero + cost(x, control), dynamics(x, control)
    assert (plan.cost <= of_zero + 1e-9).all()
