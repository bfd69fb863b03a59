"""The problem as the solver sees it: rollouts, derivatives, parameters put in place."""

import pytest
import torch
from torch import Tensor, nn

from mpc_gym.models import CartPoleDynamics, LinearDynamics, PendulumCost, QuadraticCost
from mpc_gym.mpc.model_checks import check_derivatives
from mpc_gym.mpc.problem import Expansion, Problem, RowFunction, takes_context
from tests.compiled.operations_table import (
    NOT_DIFFERENTIATED,
    ROWS,
    Row,
    difference,
    random_points,
)


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


class RowCost(nn.Module):
    """A weighted sum of what a row of the table of operations makes of state and control."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row

    def forward(self, state, control):
        z = torch.cat((state, control), -1)
        values = [self.row(each.clone()).double().reshape(-1) for each in z.reshape(-1, 4)]
        weights = torch.linspace(1.0, 2.0, len(values[0]), dtype=torch.float64)
        return torch.stack([weights @ value for value in values]).reshape(z.shape[:-1])


def problem_of(row: Row) -> Problem:
    dynamics = LinearDynamics(torch.eye(3).double(), torch.ones(3, 1).double())
    bound = torch.ones(1, 1, dtype=torch.float64)
    cost = RowFunction.of(RowCost(row))
    return Problem(RowFunction.of(dynamics), cost, -bound, bound, None)


@pytest.mark.parametrize("name", sorted(ROWS.keys() - NOT_DIFFERENTIATED))
def test_a_cost_made_of_any_operation_has_the_derivatives_of_finite_differences(name):
    problem = problem_of(ROWS[name])
    for point, along in random_points(4).reshape(2, 2, 4):
        with torch.no_grad():
            found = expansion_at(problem, point)
            slope = difference(lambda z: problem.l(z[None, :3], z[None, 3:], None)[0], point, along)
            change = difference(lambda z: expansion_at(problem, z).l_z[0, 0], point, along)
        torch.testing.assert_close(found.l_z[0, 0] @ along, slope, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(found.l_zz[0, 0] @ along, change, rtol=1e-6, atol=1e-7)


def expansion_at(problem: Problem, z: Tensor) -> Expansion:
    return problem.expand(z[None, None, :3], z[None, None, 3:], second_order=False)


@pytest.mark.parametrize("name", sorted(NOT_DIFFERENTIATED))
def test_an_operation_without_its_derivatives_in_pytorch_is_refused(name):
    x_init, U = random_points(1)[:, :3], random_points(1)[:, None, 3:]
    with pytest.raises(ValueError, match=r"^cost.* by autograd"):
        check_derivatives(problem_of(ROWS[name]), x_init, U)
