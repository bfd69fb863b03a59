"""Derivatives of plans with active constraints, against differences of plans found anew."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.constrained_systems import (
    OBSTACLE,
    SLOW,
    SYSTEMS,
    TRACK,
    ConstrainedSystem,
    GoalCost,
    PointMass,
    Within,
)
from mpc_gym import MPC
from mpc_gym.mpc.plan import Plan

FLOAT = torch.float64
ROUNDING = 1e-10
TOLERANCE = 1e-9  # of the plans
COUNT = 12


def values(plan: Plan) -> Tensor:
    """A number of each plan, that depends on all of it."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(plan.controls.shape[1:], generator=generator, dtype=FLOAT)
    b = torch.randn(plan.states.shape[1:], generator=generator, dtype=FLOAT)
    of_controls, of_states = (plan.controls * a).sum((1, 2)), (plan.states * b).sum((1, 2))
    return of_controls / plan.controls.shape[1] + of_states + 0.3 * plan.cost


def active(plan: Plan, mpc: MPC) -> Tensor:
    """Which rows and bounds hold the plans, and which rows are paid for, [batch, .]."""
    assert plan.multipliers is not None
    U = plan.controls.detach()
    held = (U == mpc.control_low.detach()) | (U == mpc.control_high.detach())
    paid = plan.multipliers >= (torch.inf if mpc.soft is None else mpc.soft.detach())
    return torch.cat([each.flatten(1) for each in (plan.multipliers > 0, paid, held)], 1)


def held_starts(mpc: MPC, system: ConstrainedSystem, count: int) -> Tensor:
    """Start states from which constraints hold the plan."""
    x_init = system.start_states(96, 0)
    with torch.no_grad():
        plan = mpc(x_init)
    assert plan.multipliers is not None
    found = x_init[plan.converged & plan.multipliers.flatten(1).any(1)][:count]
    assert len(found) == count
    return found


class Differences:
    """Central differences of fourth order, and for which plans they mean something.

    A plan is regular where the same rows and bounds hold it at all four points: where a row is
    just about to hold, or to let go, there is no derivative.
    """

    def __init__(self, mpc: MPC, solve: Callable[[Tensor | None], Plan]) -> None:
        with torch.no_grad():
            self.mpc, self.solve, self.plan = mpc, solve, solve(None)
            self.active = active(self.plan, mpc)
        self.regular = self.plan.converged.clone()

    def by(self, change: Callable[[float], None], size: float) -> Tensor:
        h = 1e-4 if size == 0 or size > 0.01 else 0.01 * size
        found = []
        for step in (-2, -1, 1, 2):
            change(step * h)
            with torch.no_grad():
                plan = self.solve(self.plan.controls)
            same = (active(plan, self.mpc) == self.active).all(1)
            change(0.0)
            self.regular &= plan.converged & same
            found.append(values(plan))
        return (8 * (found[2] - found[1]) - (found[3] - found[0])) / (12 * h)

    def by_entries(self, tensor: Tensor, *, each: bool = False) -> Tensor:
        """By every entry of a tensor, [batch, entries]; `each`: an entry of all its rows."""
        flat = tensor.data.flatten(1) if each else tensor.data.reshape(1, -1)
        columns = []
        for j in range(flat.shape[1]):
            before = flat[:, j].clone()

            def change(by: float, j: int = j, before: Tensor = before) -> None:
                flat[:, j] = before + by

            columns.append(self.by(change, 1.0 if each else before.abs().item()))
        return torch.stack(columns, 1)


def errors(found: Tensor, expected: Tensor) -> Tensor:
    """Relative, of each entry; one below a thousandth of its column's largest is that large.

    Beyond the rounding of the differences: of plans to 1e-14, by a step of 1e-4.
    """
    floor = (1e-3 * expected.abs().amax(0)).clamp(min=1e-9)
    beyond = ((found - expected).abs() - ROUNDING).clamp(min=0.0)
    return beyond / torch.maximum(expected.abs(), floor)


def gradients(plan: Plan, tensors: list[Tensor]) -> list[Tensor]:
    """Of the number of each plan, by every entry of the tensors, [batch, entries]."""
    rows = [
        torch.autograd.grad(value, tensors, retain_graph=True, materialize_grads=True)
        for value in values(plan)
    ]
    return [torch.stack([g.flatten() for g in column]) for column in zip(*rows, strict=True)]


def check(differences: Differences, found: list[Tensor], expected: list[Tensor]) -> None:
    regular = differences.regular
    assert regular.sum() >= 0.75 * len(regular), "few are degenerate"
    for one, other in zip(found, expected, strict=True):
        error = errors(one[regular], other[regular])
        assert error.median() <= 1e-6
        assert error.max() <= 1e-4


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_the_derivative_by_start_state_and_every_parameter_is_that_of_the_plan(
    system: ConstrainedSystem,
) -> None:
    mpc = system.controller(tolerance=TOLERANCE, backend="native")
    x_init = held_starts(mpc, system, COUNT).requires_grad_()
    parameters = list(mpc.parameters())
    plan = mpc(x_init)
    (by_start,) = torch.autograd.grad(values(plan).sum(), x_init, retain_graph=True)
    found = [by_start, *gradients(plan, parameters)]
    differences = Differences(mpc, lambda guess: mpc(x_init, guess))
    expected = [differences.by_entries(x_init, each=True)]
    expected += [differences.by_entries(each) for each in parameters]
    check(differences, found, expected)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_both_backends_give_the_same_plan_and_derivative(system: ConstrainedSystem) -> None:
    plans, found = [], []
    x_init = held_starts(system.controller(), system, 2).requires_grad_()
    for backend in ("native", "torch"):
        mpc = system.controller(tolerance=TOLERANCE, backend=backend)
        plan = mpc(x_init)
        plans.append(plan)
        found.append(torch.autograd.grad(values(plan).sum(), [x_init, *mpc.parameters()]))
    native, reference = plans
    for name in ("states", "controls", "cost", "multipliers"):
        one, other = getattr(native, name), getattr(reference, name)
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    assert torch.equal(native.converged, reference.converged)
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-8)


class Circles(nn.Module):
    """Outside a disc whose centre and radius each instance has in its context."""

    def forward(self, state: Tensor, _control: Tensor, context: Tensor) -> Tensor:
        distance = (state[..., :2] - context[..., :2]).square().sum(-1)
        return (context[..., 2].square() - distance).unsqueeze(-1)


def check_against_reference(
    make: Callable[[str], MPC], x_init: Tensor, tensor: Tensor, context: Tensor | None = None
) -> None:
    """Compare the derivative by a tensor with differences, and with that of the reference."""
    mpc = make("native")
    (found,) = gradients(mpc(x_init, context=context), [tensor])
    assert found.abs().amax() > 1e-3
    each = context is not None
    if context is not None:
        found = torch.autograd.grad(values(mpc(x_init, context=context)).sum(), context)[0]
    differences = Differences(mpc, lambda guess: mpc(x_init, guess, context))
    check(differences, [found], [differences.by_entries(tensor, each=each)])
    few = None if context is None else context[:2]
    one, other = (values(make(name)(x_init[:2], context=few)) for name in ("native", "torch"))
    one, other = (torch.autograd.grad(each.sum(), tensor)[0] for each in (one, other))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_the_derivative_by_the_context_of_a_constraint_is_that_of_the_plan() -> None:
    context = torch.tensor([[0.0, 0.1, 0.6]], dtype=FLOAT).repeat(COUNT, 1).requires_grad_()

    def make(backend: str) -> MPC:
        cost = GoalCost(OBSTACLE.goal, OBSTACLE.weights, OBSTACLE.penalty)
        options = {"constraints": Circles(), "backend": backend, "tolerance": TOLERANCE}
        return MPC(PointMass(), cost, 20, -2.0, 2.0, **options)

    check_against_reference(make, OBSTACLE.start_states(COUNT, 3), context, context)


def test_bounds_that_require_a_gradient_have_one_beside_constraints() -> None:
    high = torch.full((SLOW.horizon, 1), 1.9, dtype=FLOAT, requires_grad=True)

    def make(backend: str) -> MPC:
        cost = GoalCost(SLOW.goal, SLOW.weights, SLOW.penalty)
        options = {"constraints": Within(2, 0.5), "backend": backend, "tolerance": TOLERANCE}
        return MPC(SLOW.dynamics(), cost, SLOW.horizon, -2.0, high, **options)

    x_init = SLOW.start_states(256, 0)
    with torch.no_grad():
        plan = make("native")(x_init)
    both = (plan.controls == 1.9).any(2).any(1) & plan.multipliers.flatten(1).any(1)
    x_init = x_init[both & plan.converged][:COUNT]
    assert len(x_init) == COUNT
    check_against_reference(make, x_init, high)


@pytest.mark.parametrize("kind", [nn.Parameter, Tensor.requires_grad_])
def test_the_price_of_soft_constraints_has_a_derivative_where_it_is_paid(
    kind: Callable[[Tensor], Tensor],
) -> None:
    price = kind(torch.tensor([0.02, 0.01], dtype=FLOAT))

    def make(backend: str) -> MPC:
        return SLOW.controller(tolerance=TOLERANCE, backend=backend, soft=price)

    x_init = SLOW.start_states(256, 0)
    with torch.no_grad():
        plan = make("native")(x_init)
    assert plan.violation is not None
    x_init = x_init[plan.violation > 1e-3][:COUNT]
    assert len(x_init) == COUNT
    check_against_reference(make, x_init, price)


def test_a_plan_that_has_not_converged_has_a_gradient_of_zero() -> None:
    x_init = SLOW.start_states(2, 0)
    x_init[0, 2] = 5.0  # too fast to slow down within a step
    x_init.requires_grad_()
    with pytest.warns(UserWarning, match="1 of 2 control problems did not converge"):
        plan = SLOW.controller()(x_init)
    assert plan.converged.tolist() == [False, True]
    (found,) = torch.autograd.grad(values(plan).sum() - 0.3 * plan.cost.sum(), x_init)
    assert not found[0].any()
    assert found[1].any()


def test_a_second_derivative_is_refused_in_words() -> None:
    x_init = TRACK.start_states(2, 0).requires_grad_()
    plan = TRACK.controller()(x_init)
    with pytest.raises(NotImplementedError, match="create_graph"):
        torch.autograd.grad(values(plan).sum(), x_init, create_graph=True)


def test_a_parameter_that_was_overwritten_since_the_solve_is_not_differentiated_wrongly() -> None:
    mpc = TRACK.controller()
    plan = mpc(TRACK.start_states(2, 0))
    with torch.no_grad():
        mpc.constraints.limit.add_(0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        values(plan).sum().backward()


def test_learning_through_a_constraint_finds_the_limit_of_the_expert() -> None:
    mpc = TRACK.controller()
    x_init = held_starts(mpc, TRACK, 8)
    with torch.no_grad():
        expert = mpc(x_init).controls
    with torch.no_grad():
        mpc.constraints.limit.fill_(0.75)
    optimiser = torch.optim.Adam([mpc.constraints.limit], lr=0.03)
    for _ in range(25):
        optimiser.zero_grad()
        (mpc(x_init).controls - expert).square().mean().backward()
        optimiser.step()
    assert mpc.constraints.limit.item() == pytest.approx(0.6, abs=0.02)
