"""Every mistake a user can make is an error that names the argument."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mpc_gym.models import LinearDynamics, PendulumCost, PendulumDynamics, QuadraticCost
from mpc_gym.mpc import MPC


def make(dynamics=None, cost=None, horizon=4, **options):
    return MPC(dynamics or PendulumDynamics(), cost or PendulumCost(), horizon, **options)


def x_init(batch=2):
    return torch.tensor([[1.0, 0.0, 0.5]], dtype=torch.float64).expand(batch, 3)


class Returns(nn.Module):
    """A model whose output is whatever a function makes of state and control."""

    n_state, n_ctrl = 3, 1

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, state, control):
        return self.function(state, control)


class WithContext(nn.Module):
    def forward(self, state, control, context):
        return (state[..., 0] - context[..., 0]) ** 2 + control[..., 0] ** 2


nan, inf = math.nan, math.inf


class TestConstructor:
    @pytest.mark.parametrize("name", ["horizon", "max_iterations", "starts"])
    @pytest.mark.parametrize("value", [True, 2.5, "3", None])
    def test_a_count_is_an_integer(self, name, value):
        with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1"):
            make(**{name: value})

    @pytest.mark.parametrize("name", ["horizon", "max_iterations", "starts"])
    @pytest.mark.parametrize("value", [0, -1])
    def test_a_count_is_at_least_one(self, name, value):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
            make(**{name: value})

    @pytest.mark.parametrize("value", [0, -1e-3, nan, inf, "small", None])
    def test_the_tolerance_is_a_positive_number(self, value):
        with pytest.raises(ValueError, match="tolerance must be a positive number"):
            make(tolerance=value)

    @pytest.mark.parametrize("name", ["hessian", "differentiate", "backend"])
    @pytest.mark.parametrize("value", ["newton", "", None])
    def test_an_unknown_option_is_answered_with_those_there_are(self, name, value):
        with pytest.raises(ValueError, match=f"{name} must be one of '"):
            make(**{name: value})

    @pytest.mark.parametrize("name", ["dynamics", "cost"])
    def test_dynamics_and_cost_are_modules(self, name):
        with pytest.raises(TypeError, match=f"{name} must be a torch.nn.Module, got function"):
            make(**{name: lambda state, control: state})

    @pytest.mark.parametrize(
        ("low", "high"),
        [
            (1.0, -1.0),
            (torch.tensor([3.0]), 2.0),
            (-1.0, torch.tensor([[1.0], [1.0], [-1.5], [1.0]])),
            (3.0, 2.0),
        ],
    )
    def test_bounds_that_cross_are_refused(self, low, high):
        with pytest.raises(ValueError, match="control_low must not exceed control_high"):
            make(control_low=low, control_high=high)

    @pytest.mark.parametrize("name", ["control_low", "control_high"])
    @pytest.mark.parametrize("value", [nan, torch.tensor([nan])])
    def test_a_bound_that_is_nan_is_refused(self, name, value):
        with pytest.raises(ValueError, match=f"{name} must not be NaN"):
            make(**{name: value})

    @pytest.mark.parametrize(("low", "high"), [(inf, None), (None, -inf), (inf, inf)])
    def test_bounds_with_no_number_between_are_refused(self, low, high):
        with pytest.raises(ValueError, match=r"control_low must be below \+inf"):
            make(control_low=low, control_high=high)

    @pytest.mark.parametrize("name", ["control_low", "control_high"])
    @pytest.mark.parametrize("value", ["far", {}, [None]])
    def test_a_bound_that_is_no_number_is_refused(self, name, value):
        with pytest.raises(TypeError, match=f"{name} must be an array, dense tensor or list"):
            make(**{name: value})

    @pytest.mark.parametrize("shape", [(2,), (4, 2), (3, 1), (4,), (1, 4, 1)])
    def test_a_bound_of_another_shape_is_refused(self, shape):
        with pytest.raises(ValueError, match=r"control_high must be .*got shape"):
            make(control_high=torch.ones(shape))

    def test_a_cost_for_another_number_of_states_is_refused(self):
        with pytest.raises(ValueError, match=r"cost is for n_state \+ n_ctrl = 5"):
            make(cost=QuadraticCost(torch.ones(5)))

    def test_a_cost_with_another_number_of_stages_is_refused(self):
        with pytest.raises(ValueError, match=r"cost\.C has 3 time steps, but horizon = 4"):
            make(cost=QuadraticCost.diagonal(torch.ones(3, 4)))

    def test_a_part_of_a_cost_with_another_number_of_stages_is_refused(self):
        class Doubled(nn.Module):
            def __init__(self):
                super().__init__()
                self.part = QuadraticCost.diagonal(torch.ones(3, 4))

            def forward(self, state, control):
                return 2.0 * self.part(state, control)

        with pytest.raises(ValueError, match=r"cost\.part\.C has 3 time steps, but horizon = 4"):
            make(cost=Doubled())


class TestStartState:
    @pytest.mark.parametrize("value", [[[1.0, 0.0, 0.5]], np.zeros((1, 3)), None, 3.0])
    def test_it_is_a_tensor(self, value):
        with pytest.raises(TypeError, match="x_init must be a tensor"):
            make()(value)

    def test_it_is_floating_point(self):
        with pytest.raises(TypeError, match=r"x_init must be floating point, got torch.int64"):
            make()(torch.ones(2, 3, dtype=torch.long))

    @pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 2, 3), ()])
    def test_it_is_a_batch_of_states(self, shape):
        with pytest.raises(ValueError, match=r"x_init must be \[batch, n_state=3\]"):
            make()(torch.ones(shape))

    def test_a_wrong_first_call_does_not_settle_the_number_of_states(self):
        class Decay(nn.Module):
            def forward(self, state, control):
                return 0.9 * state + control

        class Square(nn.Module):
            def forward(self, state, control):
                return state.square().sum(-1) + control.square().sum(-1)

        mpc = make(Decay(), Square())
        assert mpc.n_state is None
        with pytest.raises(ValueError, match=r"x_init must be \[batch, n_state\]"):
            mpc(torch.ones(7))
        assert mpc(torch.ones(1, 2)).converged.all()
        assert mpc.n_state == 2
        with pytest.raises(ValueError, match=r"x_init must be \[batch, n_state=2\]"):
            mpc(torch.ones(1, 3))


class TestWarmStart:
    @pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1), (1, 4, 1), (2, 4, 2)])
    def test_it_has_a_control_for_every_stage(self, shape):
        with pytest.raises(ValueError, match=r"warm_start must be .* = \[2, 4, 1\]"):
            make()(x_init(), warm_start=torch.zeros(shape))

    @pytest.mark.parametrize("value", [np.zeros((2, 4, 1)), [[0.0]], 0.0])
    def test_it_is_a_tensor(self, value):
        with pytest.raises(TypeError, match="warm_start must be a tensor"):
            make()(x_init(), warm_start=value)

    def test_it_is_floating_point(self):
        with pytest.raises(TypeError, match="warm_start must be floating point"):
            make()(x_init(), warm_start=torch.zeros(2, 4, 1, dtype=torch.long))


class TestContext:
    def test_it_is_asked_for_where_the_model_needs_it(self):
        with pytest.raises(ValueError, match="context is missing"):
            make(cost=WithContext())(x_init())

    def test_it_is_refused_where_nothing_takes_it(self):
        with pytest.raises(ValueError, match="context was given, but"):
            make()(x_init(), context=torch.zeros(2, 1))

    @pytest.mark.parametrize("value", [1.0, np.zeros((2, 1)), torch.zeros(2, 1).long()])
    def test_it_is_a_floating_point_tensor(self, value):
        with pytest.raises(TypeError, match=r"context must be (a tensor|floating point), got"):
            make(cost=WithContext())(x_init(), context=value)

    @pytest.mark.parametrize("shape", [(2,), (3, 1), (2, 3, 1), (2, 4, 1, 1)])
    def test_it_is_given_for_each_instance_or_stage(self, shape):
        with pytest.raises(ValueError, match=r"context must be \[batch=2, n_context\] or"):
            make(cost=WithContext())(x_init(), context=torch.zeros(shape))


class TestModel:
    @pytest.mark.parametrize(
        "wrong",
        [
            lambda x, u: x[..., :2],
            lambda x, u: x[..., None],
            lambda x, u: torch.cat((x, u), -1),
            lambda x, u: x.sum(),
        ],
    )
    def test_dynamics_that_return_another_shape_are_refused(self, wrong):
        with pytest.raises(ValueError, match=r"dynamics must map state .* to \[2, 3\], got"):
            make(Returns(wrong))(x_init())

    @pytest.mark.parametrize(
        "wrong", [lambda x, u: x, lambda x, u: u**2, lambda x, u: (x.sum(-1) + u[..., 0]).sum()]
    )
    def test_a_cost_that_returns_another_shape_is_refused(self, wrong):
        with pytest.raises(ValueError, match=r"cost must map state .* to \[2, 4\], got"):
            make(cost=Returns(wrong))(x_init())

    @pytest.mark.parametrize("name", ["dynamics", "cost"])
    def test_a_model_that_returns_no_tensor_is_refused(self, name):
        with pytest.raises(TypeError, match=f"{name} must return a tensor, got NoneType"):
            make(**{name: Returns(lambda x, u: None)})(x_init())

    def test_a_model_that_computes_in_another_precision_is_refused(self):
        with pytest.raises(TypeError, match=r"dynamics must compute in .*got torch.float32"):
            make(Returns(lambda x, u: x.float()))(x_init())

    @pytest.mark.parametrize("value", [nan, inf, -inf])
    @pytest.mark.parametrize(("part", "name"), [("dynamics", "gravity"), ("cost", "angle_weight")])
    def test_a_parameter_that_is_not_finite_is_refused(self, value, part, name):
        mpc = make()
        with torch.no_grad():
            getattr(getattr(mpc, part), name).fill_(value)
        with pytest.raises(ValueError, match=f"parameter {part}.{name} is not finite: {value}"):
            mpc(x_init())

    def test_learned_bounds_that_cross_are_refused_when_solving(self):
        low = nn.Parameter(torch.tensor([-1.0]))
        mpc = make(LinearDynamics(torch.eye(3), torch.ones(3, 1)), control_low=low)
        with torch.no_grad():
            low.fill_(2.5)
        with pytest.raises(ValueError, match="control_low must not exceed control_high"):
            mpc(x_init())
