"""The mean of a policy where its plan sits at a limit."""

import math

import pytest
import torch
from torch import Tensor

from mpc_gym.make_mpc import make_mpc
from mpc_gym.mpc import MPC, Plan
from mpc_gym.policies.limits import (
    GAUSSIAN_SCALE,
    SQUASHED_LIMIT,
    SQUASHED_SCALE,
    ActionLimits,
)


def limits(low: float = -2.0, high: float = 2.0) -> ActionLimits:
    return ActionLimits(torch.tensor([low]), torch.tensor([high]))


def plan_of(unclamped: Tensor, low: float = -2.0, high: float = 2.0) -> Plan:
    """A plan of one control that is `unclamped` [batch, 1] without its bounds.

    It has the derivatives of a solver's plan: none of the control where the bound holds.
    """
    u = torch.where((unclamped > low) & (unclamped < high), unclamped, unclamped.clamp(low, high))
    batch = len(unclamped)
    return Plan(
        states=torch.zeros(batch, 1, 1, dtype=unclamped.dtype),
        controls=u[:, None],
        cost=torch.zeros(batch),
        converged=torch.ones(batch, dtype=torch.bool),
        iterations=torch.ones(batch, dtype=torch.int64),
        unclamped=unclamped,
    )


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None].requires_grad_()


def value_and_slope(function, z: Tensor, **bounds: float) -> tuple[Tensor, Tensor]:
    value = function(plan_of(z, **bounds))
    (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize(
    ("mean", "corner"),
    [
        (ActionLimits.gaussian_mean, 2.0),
        (ActionLimits.squashed_mean, 2.0 * SQUASHED_LIMIT),
        (ActionLimits.squashed_mean, 2.0),
    ],
)
def test_a_mean_and_its_derivative_are_continuous_at_the_limit(mean, corner, side):
    z = side * column(corner - 1e-7, corner + 1e-7).detach()
    value, slope = value_and_slope(lambda plan: mean(limits(), plan), z.requires_grad_())
    assert value[1].item() == pytest.approx(value[0].item(), abs=1e-4)
    assert slope[1].item() == pytest.approx(slope[0].item(), rel=1e-4)
    assert slope[0].item() > 0.1


@pytest.mark.parametrize("mean", [ActionLimits.gaussian_mean, ActionLimits.squashed_mean])
def test_the_derivative_of_a_mean_is_that_of_its_finite_differences(mean):
    z = column(-40.0, -2.3, -1.99, -1.0, 0.0, 0.7, 1.985, 2.0 + 1e-3, 2.5, 40.0)
    _, slope = value_and_slope(lambda plan: mean(limits(), plan), z)
    h = 1e-6
    with torch.no_grad():
        change = mean(limits(), plan_of(z + h)) - mean(limits(), plan_of(z - h))
    torch.testing.assert_close(slope, change / (2 * h), rtol=1e-5, atol=1e-8)
    assert (slope > 0).all(), "a bound that is pressed hard teaches little, but never nothing"


def test_a_gaussian_mean_is_the_plan_within_the_limits_and_clips_to_it_beyond():
    z = column(-50.0, -2.4, -1.0, 0.0, 1.999, 2.01, 9.0)
    plan = plan_of(z)
    mean = limits().gaussian_mean(plan)
    torch.testing.assert_close(mean.clamp(-2, 2), plan.controls[:, 0], rtol=0, atol=0)
    scale = 2 * GAUSSIAN_SCALE  # half the range is 2
    expected = [-2 - scale * math.log(1 + 48 / scale), 2 + scale * math.log(1 + 7 / scale)]
    assert mean[[0, -1], 0].tolist() == pytest.approx(expected)


def test_a_squashed_mean_is_atanh_of_the_plan_up_to_close_to_the_limit():
    z = column(-1.9, -0.5, 0.0, 1.0)
    expected = torch.atanh(z / 2)
    torch.testing.assert_close(limits().squashed_mean(plan_of(z)), expected)


def test_beyond_the_limit_a_squashed_mean_grows_as_a_logarithm_to_where_tanh_still_moves():
    pressed = [0.0, 1.0, 10.0, 1000.0]  # in half ranges
    mean = limits().squashed_mean(plan_of(column(*(2 + 2 * press for press in pressed))))
    slope = 1 / (1 - SQUASHED_LIMIT**2)
    expected = [
        math.atanh(SQUASHED_LIMIT)
        + SQUASHED_SCALE * math.log(1 + slope * (1 - SQUASHED_LIMIT + press) / SQUASHED_SCALE)
        for press in pressed
    ]
    assert mean[:, 0].tolist() == pytest.approx(expected)
    assert 1 - math.tanh(mean[1].item()) ** 2 > 1e-4


def test_a_squashed_action_is_the_plans_control_with_the_derivative_of_tanh_of_the_mean():
    z = column(-30.0, -2.0001, -1.99, -1.0, 0.0, 1.5, 1.985, 2.2, 30.0)
    action, slope = value_and_slope(limits().squashed_action, z)
    torch.testing.assert_close(action, plan_of(z).controls[:, 0].detach() / 2)
    _, expected = value_and_slope(lambda plan: torch.tanh(limits().squashed_mean(plan)), z)
    torch.testing.assert_close(slope, expected)
    assert (slope > 0).all()
    smooth = torch.tanh(limits().squashed_mean(plan_of(z))).detach()
    assert (action - smooth).abs().max() <= 1 - SQUASHED_LIMIT


@pytest.mark.parametrize("method", ["gaussian_mean", "squashed_mean", "squashed_action"])
def test_beyond_a_bound_of_the_mpc_within_the_limits_the_plan_is_left_as_it_is(method):
    z = column(-3.0, 0.5, 1.5)
    mean = getattr(limits(), method)
    value, slope = value_and_slope(mean, z, low=-1.0, high=1.0)
    inner = plan_of(column(-1.0, 0.5, 1.0), low=-1.5, high=1.5)  # controls that nothing holds
    torch.testing.assert_close(value, mean(inner).detach())
    assert slope[0] == slope[2] == 0.0
    assert slope[1] > 0.0


@pytest.mark.parametrize("unit", [1e-7, 1e7])
def test_the_means_of_a_control_are_the_same_in_whatever_unit_it_is(unit):
    z = column(-3.0, -0.3, 0.5, 1.5)
    for bounds in ({"low": -2.0, "high": 2.0}, {"low": -1.0, "high": 1.0}):
        scaled = {name: unit * bound for name, bound in bounds.items()}
        plan, other = plan_of(z, **bounds), plan_of(unit * z, **scaled)
        same = limits(-2.0 * unit, 2.0 * unit)
        torch.testing.assert_close(
            same.gaussian_mean(other) / unit, limits().gaussian_mean(plan), rtol=1e-6, atol=0
        )
        torch.testing.assert_close(
            same.squashed_mean(other), limits().squashed_mean(plan), rtol=1e-5, atol=0
        )


def test_without_limits_a_gaussian_mean_is_the_plan():
    z = column(-1e6, 0.0, 3.0)
    open_ended = ActionLimits(torch.tensor([-math.inf]), torch.tensor([math.inf]))
    plan = plan_of(z, low=-math.inf, high=math.inf)
    torch.testing.assert_close(open_ended.gaussian_mean(plan), z)


def test_scaled_and_unscaled_controls_are_each_others_inverse_in_an_asymmetric_range():
    asymmetric = limits(-1.0, 5.0)
    control = column(-1.0, 0.0, 2.0, 5.0).detach()
    torch.testing.assert_close(
        asymmetric.scaled(control)[:, 0], torch.tensor([-1.0, -2 / 3, 0.0, 1.0]).double()
    )
    torch.testing.assert_close(asymmetric.unscaled(asymmetric.scaled(control)), control)


@pytest.fixture(scope="module")
def swing_up() -> tuple[MPC, Tensor]:
    """The pendulum, at states where its torque is at the limit and where it is not."""
    angle = torch.linspace(-3.0, 3.0, 13)
    return make_mpc("DiffPendulum-v0", horizon=5), torch.stack(
        (angle.cos(), angle.sin(), torch.zeros(13)), -1
    )


@pytest.mark.parametrize("method", ["gaussian_mean", "squashed_mean", "squashed_action"])
def test_the_physics_have_a_gradient_wherever_a_real_plan_is(swing_up, method):
    mpc, states = swing_up
    plan = mpc(states, unclamped=True)
    held = plan.controls[:, 0, 0].abs() == 2.0
    assert 0 < held.sum() < len(held)
    mean = getattr(limits(), method)(plan)
    torch.testing.assert_close(  # the angle 0 is balanced whatever the mass
        torch.stack(
            [
                torch.autograd.grad(each, mpc.dynamics.mass, retain_graph=True)[0] != 0
                for each in mean[:, 0]
            ]
        ),
        states[:, 1] != 0,
    )
