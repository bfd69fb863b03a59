"""What `Plan.converged` promises, where it is hard to keep: units, saddles, unstable systems."""

import math

import pytest
import torch
from torch import nn

from benchmarks.system_models import NAMED
from mpc_gym.models import (
    CartPoleDynamics,
    Dynamics,
    LinearDynamics,
    QuadraticCost,
    keep_positive,
)
from mpc_gym.mpc import MPC

FLOAT = torch.float64


class Model(Dynamics):
    """One state and one control."""

    n_state = n_ctrl = 1

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, state, control):
        return self.function(state, control)


class StageCost(nn.Module):
    """A function of the first state and the first control."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, state, control):
        return self.function(state[..., 0], control[..., 0])


def plan_of(mpc, x_init, warm_start=None):
    with torch.no_grad():
        return mpc(torch.tensor(x_init, dtype=FLOAT), warm_start=warm_start)


def unstable(backend):
    return MPC(
        Model(lambda x, u: 3 * x + torch.sin(x) + u),
        StageCost(lambda x, u: x**2 + 0.1 * u**2),
        20,
        backend=backend,
    )


def test_an_unstable_system_converges_to_its_optimum_and_not_before_it(backend):
    plan = plan_of(unstable(backend), [[-0.25]])
    assert plan.converged.all()
    assert plan.cost.item() == pytest.approx(0.158212, abs=1e-6)


def test_so_it_does_from_random_guesses():
    generator = torch.Generator().manual_seed(0)
    guesses = 4 * torch.rand(256, 20, 1, generator=generator, dtype=FLOAT) - 2
    plan = plan_of(unstable("native"), [[-0.25]] * 256, guesses)
    assert plan.converged.all()
    assert (plan.cost < 0.15822).all()


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e7])
def test_the_unit_of_a_control_changes_nothing(backend, unit, bounded):
    limit = 2.0 * unit if bounded else None
    mpc = MPC(
        Model(lambda x, u: x + 0.5 * torch.sin(x) + 0.4 * u / unit),
        StageCost(lambda x, u: (x - 1) ** 2 + torch.cosh(u / unit) + 0.1 * torch.cos(3 * x)),
        8,
        None if limit is None else -limit,
        limit,
        backend=backend,
    )
    plan = plan_of(mpc, [[2.0]])
    expected = plan_of(
        MPC(
            Model(lambda x, u: x + 0.5 * torch.sin(x) + 0.4 * u),
            StageCost(lambda x, u: (x - 1) ** 2 + torch.cosh(u) + 0.1 * torch.cos(3 * x)),
            8,
            backend=backend,
            tolerance=1e-11,
        ),
        [[2.0]],
    )
    assert plan.converged.all()
    torch.testing.assert_close(plan.cost, expected.cost, rtol=1e-12, atol=0)
    torch.testing.assert_close(plan.controls / unit, expected.controls, rtol=0, atol=1e-7)


@pytest.mark.parametrize("weight", [1.0, 1e8])
def test_a_large_weight_of_what_is_zero_does_not_hide_the_rest_of_the_cost(backend, weight):
    mpc = MPC(
        Model(lambda x, u: x + 0 * u),
        StageCost(lambda x, u: weight / 2 * x**2 + 1e-6 * torch.sqrt(1 + u**2)),
        3,
        None,
        None,
        backend=backend,
    )
    plan = plan_of(mpc, [[0.0]], torch.full((1, 3, 1), 2.0, dtype=FLOAT))
    assert plan.converged.all()
    assert plan.cost.item() == pytest.approx(3e-6, rel=1e-9)


class TestSaddles:
    def test_a_cart_pole_that_hangs_still_swings_up(self, backend):
        goal = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0], dtype=FLOAT)
        weights = torch.tensor([0.1, 0.1, 1.0, 1.0, 0.1], dtype=FLOAT)
        cost = QuadraticCost.from_goal(goal, weights, 0.001)
        mpc = MPC(CartPoleDynamics(), cost, 40, -100.0, 100.0, backend=backend)
        plan = plan_of(mpc, [[0.0, 0.0, -1.0, 0.0, 0.0]])
        assert plan.converged.all()
        assert plan.cost < 59.8, "60.0 is the cost of hanging"

    @pytest.mark.parametrize("low", [-2.0, 0.0])
    def test_a_maximum_is_left(self, backend, low):
        """At u = 0 the gradient is zero; with low = 0 one side of it is closed."""
        mpc = MPC(
            Model(lambda x, u: x + u**2),
            StageCost(lambda x, u: (x - 1) ** 2 + 0.01 * u**2),
            6,
            low,
            2.0,
            backend=backend,
        )
        plan = plan_of(mpc, [[0.0]])
        assert plan.converged.all()
        assert plan.cost.item() == pytest.approx(1.01, abs=1e-4)

    def test_so_is_one_of_two_controls_in_any_unit(self, backend):
        class Squares(Dynamics):
            def forward(self, state, control):
                return state + (control[..., :1] * control[..., 1:]) * 1e4

        mpc = MPC(
            Squares(1, 2),
            StageCost(lambda x, u: (x - 1) ** 2 + 1e-3 * u**2),
            3,
            torch.tensor([-1.0, -1e-3]),
            torch.tensor([1.0, 1e-3]),
            backend=backend,
        )
        plan = plan_of(mpc, [[0.0]])
        assert plan.converged.all()
        assert plan.cost.item() == pytest.approx(1.00001, abs=1e-6)


class TestSeveralStarts:
    """A narrow valley at 1, and a wide slope that ends at the bound 3, where a descent is short."""

    def plan(self, backend, guess, max_iterations, depth=20.0):
        cost = StageCost(lambda x, u: -depth * torch.exp(-10 * (u - 1) ** 2) - 0.1 * u**2 + 0 * x)
        mpc = MPC(Model(lambda x, u: x + 0 * u), cost, 1, -3.0, 3.0, backend=backend, starts=3)
        guess = torch.full((1, 1, 1), guess, dtype=FLOAT)
        x_init = torch.zeros(1, 1, dtype=FLOAT)
        with torch.no_grad():
            plan = mpc(x_init, warm_start=guess, max_iterations=max_iterations)
        return plan, cost(x_init, guess[:, 0]).item()

    def test_a_cheaper_plan_wins_although_it_did_not_converge(self, backend):
        plan, before = self.plan(backend, 1.4, 1)
        assert not plan.converged.any()
        assert plan.cost.item() < before < -4.0

    def test_one_that_converged_and_is_hardly_dearer_wins(self, backend):
        plan, _ = self.plan(backend, 0.9, 1, depth=0.8035)
        assert plan.converged.all()
        assert plan.cost.item() == pytest.approx(-0.9)

    def test_no_plan_is_dearer_than_the_guess(self, backend):
        plan, before = self.plan(backend, 1.0, 1, depth=0.8035)
        assert -0.9035 == pytest.approx(before)
        assert not plan.converged.any()
        assert plan.cost.item() <= before


def test_a_plan_whose_cost_no_other_rollout_finds_is_not_converged(backend):
    """Chaos: rounding grows by up to six in each stage, and no control acts against it."""

    def plan(horizon):
        mpc = MPC(
            Model(lambda x, u: 3 * torch.sin(2 * x) + 0 * u),
            StageCost(lambda x, u: x**2 + 0.1 * u**2),
            horizon,
            None,
            None,
            backend=backend,
        )
        return plan_of(mpc, [[0.7]])

    assert plan(5).converged.all()
    assert not plan(55).converged.any()


def test_where_feedback_finds_it_the_plan_is_converged_and_its_derivative_exact(backend):
    """Without feedback rounding grows by 2.5 to 3.4 in each stage, which no controls survive."""

    class Unstable(Model):
        def __init__(self):
            super().__init__(None)
            self.gain = nn.Parameter(torch.tensor(2.5, dtype=FLOAT))

        def forward(self, state, control):
            return self.gain * state + 0.3 * torch.sin(3 * state) + control

    mpc = MPC(
        Unstable(),
        StageCost(lambda x, u: (x - 0.2) ** 2 + 0.1 * u**2),
        55,
        None,
        None,
        backend=backend,
        tolerance=1e-9,
    )
    x_init = torch.tensor([[0.7]], dtype=FLOAT)

    def loss():
        plan = mpc(x_init)
        assert plan.converged.all()
        return plan.controls.square().sum() + plan.states[:, 20].sum()

    (slope,) = torch.autograd.grad(loss(), mpc.dynamics.gain)
    found = []
    with torch.no_grad():
        for sign in (1, -1):
            mpc.dynamics.gain.fill_(2.5 + sign * 1e-5)
            found.append(loss())
    assert slope.item() == pytest.approx((found[0] - found[1]).item() / 2e-5, rel=1e-7)


class TestGuessesThatRunAway:
    def cubic(self, backend, low=None, high=None):
        return MPC(
            Model(lambda x, u: x**3 + u),
            StageCost(lambda x, u: x**2 + 0.1 * u**2),
            12,
            low,
            high,
            backend=backend,
        )

    def test_a_plan_is_found_where_that_is_possible(self, backend):
        plan = plan_of(self.cubic(backend), [[3.0]])
        assert plan.converged.all()
        assert plan.cost < 100

    def test_so_it_is_where_positive_weights_change_with_time(self, backend):
        weights = torch.tensor([2.0, 0.2], dtype=FLOAT).expand(12, 2)
        cost = QuadraticCost.diagonal(weights)
        keep_positive(cost)
        mpc = MPC(Model(lambda x, u: x**3 + u), cost, 12, None, None, backend=backend)
        plan = plan_of(mpc, [[3.0]])
        assert plan.converged.all()
        torch.testing.assert_close(plan.cost, plan_of(self.cubic(backend), [[3.0]]).cost)

    def test_where_it_is_not_the_guess_is_returned_within_its_bounds(self, backend):
        guess = torch.full((1, 12, 1), 0.7, dtype=FLOAT)
        plan = plan_of(self.cubic(backend, -1.0, 1.0), [[30.0]], guess)
        assert not plan.converged.any()
        assert torch.equal(plan.controls, guess)
        assert plan.cost.isnan().all()
        assert plan.states.isnan().all()

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize(("low", "high", "expected"), [(0.5, 1.0, 0.5), (None, None, 0.0)])
    def test_entries_of_a_guess_that_are_not_finite_become_as_near_zero_as_may_be(
        self, backend, value, low, high, expected
    ):
        guess = torch.full((1, 12, 1), value, dtype=FLOAT)
        plan = plan_of(self.cubic(backend, low, high), [[0.1]], guess)
        assert not plan.converged.any()
        assert (plan.controls == expected).all()


def test_bounds_that_are_equal_hold_a_control_against_any_curvature(backend):
    mpc = MPC(
        LinearDynamics(torch.eye(1).double(), torch.ones(1, 1).double()),
        StageCost(lambda x, u: 0 * x - u**2),
        2,
        0.0,
        0.0,
        backend=backend,
    )
    assert plan_of(mpc, [[0.0]]).converged.all()


def test_kinks_that_are_not_rounded_are_said_to_be_a_likely_cause():
    def larger(a, b):
        return torch.stack((a, b), -1).amax(-1)

    cost = StageCost(
        lambda x, u: larger(x - u, 0 * x) + larger(x + 0.3 * u, -x - 0.3 * u) + 0.1 * u
    )
    mpc = MPC(Model(lambda x, u: x + larger(u, 0 * u) - 0.1), cost, 6, max_iterations=30)
    x_init = torch.tensor([[0.7], [-0.4]], dtype=FLOAT, requires_grad=True)
    with pytest.warns(UserWarning, match="did not converge.*a kink that is not rounded"):
        assert not mpc(x_init).converged.all()


def test_controls_that_come_ever_closer_to_their_bounds_arrive():
    """On the way the exact program is curved downwards along them, so no Newton step is taken."""
    system = NAMED["network 2 x 64 (4, 1)"]
    mpc = system.controller()
    mpc.expected_unconverged = 1.0
    plan = mpc(system.start_states(256, 0))
    assert plan.converged.double().mean() >= 0.99
    assert plan.iterations.double().mean() < 30


class Valley(nn.Module):
    """Steep along one direction of three controls, and linear: 1/2 (s'u)^2 + 0.05 u'u + q'u."""

    def forward(self, _state, control, context):
        s, q = context[..., :3], context[..., 3:]
        across = (s * control).sum(-1)
        return 0.5 * across.square() + (0.05 * control.square() + q * control).sum(-1)


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_a_convex_plan_in_a_narrow_valley_with_bounds_is_an_optimum(backend):
    """Of such plans, one in six was called converged where the gradient leads from a bound."""
    generator = torch.Generator().manual_seed(5)
    s, q = (torch.rand((100, 1, 3), generator=generator, dtype=FLOAT) - 0.5 for _ in range(2))
    s, q = 1000.0 * s, q * torch.tensor([1.0, 1.0, 0.2], dtype=FLOAT)
    dynamics = LinearDynamics(torch.eye(1), torch.zeros(1, 3))
    mpc = MPC(dynamics, Valley(), 1, 0.0, 1.0, backend=backend)
    plan = mpc(torch.zeros(100, 1, dtype=FLOAT), context=torch.cat((s, q), -1))
    assert plan.converged.all()
    u = plan.controls
    across = s * (s * u).sum(-1, keepdim=True)
    slope = across + 0.1 * u + q
    flat = slope.abs() <= 1e-9 * across.abs().clamp(min=1.0)
    assert (flat | ((u == 0.0) & (slope > 0)) | ((u == 1.0) & (slope < 0))).all()
