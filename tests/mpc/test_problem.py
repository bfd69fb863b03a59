"""The problem as the solver sees it: rollouts, derivatives, parameters put in place."""

import pytest
import torch
from torch import nn

from mpc_gym.models import CartPoleDynamics, LinearDynamics, PendulumCost, QuadraticCost
from mpc_gym.mpc.problem import Problem, RowFunction, takes_context


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


class TestRowFunction:
    def test_it_computes_in_float64_whatever_the_module_holds(self):
        dynamics = LinearDynamics(torch.eye(2), torch.ones(2, 1)).float()
        function = RowFunction.of(dynamics)
        x, u = normal(3, 2), normal(3, 1)
        assert function(x, u, None).dtype == torch.float64
        torch.testing.assert_close(function(x, u, None), x + u)
        assert dynamics.A.dtype == torch.float32

    def test_other_parameters_can_stand_in_and_the_module_keeps_its_own(self):
        dynamics = LinearDynamics(torch.eye(2).double(), torch.ones(2, 1).double())
        function = RowFunction.of(dynamics)
        other = function.with_parameters([2 * p.detach() for p in function.parameters()])
        x, u = normal(3, 2), normal(3, 1)
        torch.testing.assert_close(other(x, u, None), 2 * (x + u))
        torch.testing.assert_close(function(x, u, None), x + u)
        torch.testing.assert_close(dynamics.A.detach(), torch.eye(2).double())

    def test_a_detached_function_gives_no_gradient(self):
        function = RowFunction.of(CartPoleDynamics())
        x, u = normal(2, 5), normal(2, 1)
        assert function(x, u, None).requires_grad
        assert not function.detached()(x, u, None).requires_grad

    def test_buffers_are_kept_and_integer_ones_left_alone(self):
        class Table(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("column", torch.tensor(1))
                self.register_buffer("gain", torch.tensor(3.0))

            def forward(self, state, control):
                return self.gain * state[..., self.column] + control[..., 0]

        x, u = normal(2, 2), normal(2, 1)
        found = RowFunction.of(Table())(x, u, None)
        torch.testing.assert_close(found, 3 * x[:, 1] + u[:, 0])


def test_a_third_positional_argument_is_the_context():
    class WithContext(nn.Module):
        def forward(self, state, control, context):
            return state + control + context

    class WithKeyword(nn.Module):
        def forward(self, state, control, *, scale=1.0):
            return scale * (state + control)

    assert takes_context(WithContext())
    assert not takes_context(WithKeyword())
    assert not takes_context(PendulumCost())


class Gust(nn.Module):
    def forward(self, state, control, context):
        return state + control + context


@pytest.fixture
def windy():
    """x_{t+1} = x_t + u_t + c_t, over three instances and four stages."""
    bound = torch.ones(4, 1, dtype=torch.float64)
    cost = QuadraticCost(torch.ones(2).double())
    context = normal(3, 4, 1, seed=2)
    return Problem(RowFunction.of(Gust()), RowFunction.of(cost), -bound, bound, context)


def test_a_rollout_adds_up_controls_and_context(windy):
    x_init, U = normal(3, 1, seed=3), normal(3, 4, 1, seed=4)
    moved = (U + windy.context).cumsum(1)[:, :-1]
    expected = torch.cat((x_init[:, None], x_init[:, None] + moved), 1)
    X = windy.rollout(x_init, U)
    torch.testing.assert_close(X, expected)
    torch.testing.assert_close(windy.total_cost(X, U), 0.5 * (X**2 + U**2).sum((1, 2)))


def test_some_rows_keep_their_own_context(windy):
    index = torch.tensor([2, 0])
    some = windy.rows(index)
    assert torch.equal(some.context, windy.context[index])
    assert torch.equal(some.context_at(1), windy.context[index, 1])
    assert some.horizon == 4


def test_the_expansion_has_the_derivatives_of_each_stage():
    dynamics = CartPoleDynamics()
    cost = QuadraticCost(torch.diag(torch.arange(1.0, 7)).double(), normal(6, seed=5))
    bound = torch.ones(3, 1, dtype=torch.float64)
    problem = Problem(RowFunction.of(dynamics), RowFunction.of(cost), -bound, bound, None)
    X, U = normal(2, 3, 5, seed=6), normal(2, 3, 1, seed=7)
    Z = torch.cat((X, U), -1)
    expansion = problem.detached().expand(X, U, second_order=True)
    torch.testing.assert_close(expansion.l_z, Z @ cost.C.detach() + cost.c.detach())
    torch.testing.assert_close(expansion.l_zz, cost.C.detach().expand(2, 3, 6, 6))
    assert expansion.F.shape == (2, 2, 5, 6), "the last stage has no successor"

    def step(z):
        return dynamics(z[:5], z[5:])

    for b in range(2):
        for t in range(2):
            torch.testing.assert_close(
                expansion.F[b, t], torch.autograd.functional.jacobian(step, Z[b, t])
            )
            for i in range(5):
                torch.testing.assert_close(
                    expansion.f_zz[b, t, i],
                    torch.autograd.functional.hessian(lambda z, i=i: step(z)[i], Z[b, t]),
                )
    assert problem.expand(X, U, second_order=False).f_zz is None
