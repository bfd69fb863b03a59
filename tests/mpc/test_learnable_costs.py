"""The controller with every combination of the learnable parts of a cost.

Positive weights, a linear term, a terminal value and weights from a context: until something is
learned the plan is the plain controller's; then its gradient is exact, on both backends.
"""

import copy
import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mpc_gym.models import (
    ContextualCost,
    LinearCost,
    LinearDynamics,
    PendulumCost,
    PendulumDynamics,
    QuadraticCost,
    TerminalCost,
    keep_positive,
)
from mpc_gym.mpc import MPC

HORIZON = 4
FULL = ("full", "full per stage")
COSTS = ("pendulum", "diagonal", "diagonal per stage", *FULL)
TERMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "linear": lambda cost: LinearCost(cost, 3, 1),
    "terminal": lambda cost: TerminalCost(cost, HORIZON, 3),
    "context": lambda cost: ContextualCost(cost, 3, 1),
}
ORDERS = [order for k in range(4) for order in itertools.permutations(TERMS, k)]
# Those that are compiled, which takes a second each: every cost, every term, each of them outermost
COMPILED = [
    ("pendulum", ("context", "linear", "terminal")),
    ("diagonal", ("terminal", "linear", "context")),
    ("diagonal per stage", ("terminal", "context", "linear")),
    ("full per stage", ("linear", "terminal")),
    ("full", ()),
]


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def plain_cost(kind: str, generator: torch.Generator) -> nn.Module:
    if kind == "pendulum":
        return PendulumCost(torque_weight=0.1)
    stages = (HORIZON,) if "per stage" in kind else ()
    linear = normal(generator, *stages, 4)
    if kind.startswith("diagonal"):
        return QuadraticCost.diagonal(normal(generator, *stages, 4).exp(), linear)
    root = normal(generator, *stages, 4, 4)
    return QuadraticCost(root @ root.mT + 0.2 * torch.eye(4), linear)


def wrapped(cost: nn.Module, terms: Sequence[str]) -> nn.Module:
    cost = keep_positive(copy.deepcopy(cost))
    for term in terms:
        cost = TERMS[term](cost)
    return cost


def controller(cost: nn.Module, backend: str) -> MPC:
    if any(isinstance(part, PendulumCost) for part in cost.modules()):
        dynamics: nn.Module = PendulumDynamics(max_speed=None)
    else:
        A = torch.tensor([[1.0, 0.1, 0.0], [-0.2, 0.9, 0.1], [0.0, 0.3, 0.8]])
        dynamics = LinearDynamics(A.double(), torch.ones(3, 1).double())
    return MPC(dynamics, cost, HORIZON, -2.0, 2.0, backend=backend, tolerance=1e-9)


def start_states(generator: torch.Generator, batch: int = 3) -> Tensor:
    angle, speed = 0.8 * normal(generator, 2, batch)
    return torch.stack((angle.cos(), angle.sin(), speed), -1)


def context_of(cost: nn.Module, batch: int = 3) -> Tensor | None:
    for part in cost.modules():
        if isinstance(part, ContextualCost):
            return torch.zeros(batch, HORIZON, part.n_context, dtype=torch.float64)
    return None


def learn_something(
    cost: nn.Module, context: Tensor | None, generator: torch.Generator, much: float = 0.2
) -> None:
    """Move every parameter, and the context, away from where it starts."""
    with torch.no_grad():
        for value in (*cost.parameters(), *(() if context is None else (context,))):
            value.add_(much * normal(generator, *value.shape))


def loss_of(mpc: MPC, x_init: Tensor, context: Tensor | None) -> Tensor:
    plan = mpc(x_init, context=context)
    assert plan.converged.all()
    weights = torch.linspace(-1.0, 1.0, HORIZON, dtype=torch.float64)
    return (plan.controls[..., 0] @ weights).sum() + 0.1 * plan.cost.sum()


def assert_unlearned_is_plain(kind: str, terms: Sequence[str], seed: int, backend: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    plain = plain_cost(kind, generator)
    x_init = start_states(generator)
    cost = wrapped(plain, terms)
    expected = controller(plain, backend)(x_init)
    found = controller(cost, backend)(x_init, context=context_of(cost))
    assert torch.equal(found.converged, expected.converged)
    rows = expected.converged
    torch.testing.assert_close(found.cost[rows], expected.cost[rows], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.controls[rows], expected.controls[rows], rtol=1e-9, atol=1e-9)


@settings(max_examples=15)
@given(st.sampled_from(COSTS), st.sampled_from(ORDERS), st.integers(0, 10_000))
def test_until_something_is_learned_the_plan_is_the_plain_one(kind, terms, seed):
    terms = [term for term in terms if term != "context" or kind not in FULL]
    assert_unlearned_is_plain(kind, terms, seed, "torch")


@pytest.mark.parametrize(("kind", "terms"), COMPILED)
def test_compiled_too_the_plan_is_the_plain_one_at_first(kind, terms):
    assert_unlearned_is_plain(kind, terms, 0, "native")


@pytest.mark.parametrize(("kind", "terms"), COMPILED)
def test_both_backends_give_the_same_plan_and_gradients(kind, terms):
    generator = torch.Generator().manual_seed(1)
    cost = wrapped(plain_cost(kind, generator), terms)
    context = context_of(cost)
    learn_something(cost, context, generator)
    x_init = start_states(generator)
    inputs = [*cost.parameters(), *(() if context is None else (context.requires_grad_(),))]
    found, expected = (
        torch.autograd.grad(loss_of(controller(cost, backend), x_init, context), inputs)
        for backend in ("native", "torch")
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
        assert one.abs().max() > 0


def assert_gradient_is_exact(mpc: MPC, x_init: Tensor, context: Tensor | None) -> None:
    """Compare with central differences, along one random direction of each input."""
    inputs = dict(mpc.cost.named_parameters())
    if context is not None:
        inputs["context"] = context.requires_grad_()
    gradients = torch.autograd.grad(loss_of(mpc, x_init, context), list(inputs.values()))
    generator = torch.Generator().manual_seed(0)
    step = 1e-5
    with torch.no_grad():
        for (name, value), gradient in zip(inputs.items(), gradients, strict=True):
            direction = normal(generator, *value.shape)
            around = []
            for offset in (step, -step):
                start = value.clone()
                value.add_(offset * direction)
                around.append(loss_of(mpc, x_init, context))
                value.copy_(start)
            expected = (around[0] - around[1]) / (2 * step)
            slope = (gradient * direction).sum()
            torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("much", [0.0, 0.2])
@pytest.mark.parametrize(("kind", "terms"), COMPILED)
def test_gradients_by_weights_terms_and_context_match_finite_differences(kind, terms, much):
    generator = torch.Generator().manual_seed(2)
    cost = wrapped(plain_cost(kind, generator), terms)
    context = context_of(cost)
    learn_something(cost, context, generator, much)
    assert_gradient_is_exact(controller(cost, "native"), start_states(generator), context)


def test_learning_and_loading_compile_nothing():
    generator = torch.Generator().manual_seed(3)
    kind, terms = COMPILED[0]
    cost = wrapped(plain_cost(kind, generator), terms)
    mpc = controller(cost, "native")
    x_init, context = start_states(generator), context_of(cost)
    state = copy.deepcopy(mpc.state_dict())
    first = loss_of(mpc, x_init, context).item()
    optimiser = torch.optim.Adam(mpc.parameters(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        loss_of(mpc, x_init, context).backward()
        optimiser.step()
        context = context + 0.01
    cost.cost.cost.cost.angle_weight = torch.tensor(2.0, dtype=torch.float64)
    assert loss_of(mpc, x_init, context).item() != pytest.approx(first)
    mpc.load_state_dict(state)
    assert loss_of(mpc, x_init, context_of(cost)).item() == first
    assert mpc._compiled.compilations == 1


def test_weights_made_positive_after_the_first_plan_are_used_at_once():
    cost = PendulumCost(torque_weight=0.1)
    mpc = controller(cost, "native")
    x_init = start_states(torch.Generator().manual_seed(4))
    before = mpc(x_init).cost
    keep_positive(cost)
    torch.testing.assert_close(mpc(x_init).cost, before, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        for parameter in cost.parameters():
            parameter.add_(torch.tensor(2.0).log())
    assert (mpc(x_init).cost > 1.5 * before).all()


def test_a_weight_of_another_number_of_stages_is_refused_by_its_dotted_name():
    inner = keep_positive(QuadraticCost.diagonal(torch.ones(HORIZON + 1, 4).double()))
    cost = LinearCost(LinearCost(inner, 3, 1), 3, 1)
    with pytest.raises(ValueError, match=r"cost\.cost\.cost\.C has 5 time steps, but horizon = 4"):
        controller(cost, "native")
    with pytest.raises(ValueError, match=r"cost\.last has 4 time steps, but horizon = 6"):
        MPC(PendulumDynamics(), TerminalCost(PendulumCost(), HORIZON, 3), 6)


def test_a_missing_or_wrong_context_is_refused_with_its_size():
    mpc = controller(wrapped(PendulumCost(), ["context", "linear"]), "native")
    x_init = start_states(torch.Generator().manual_seed(5))
    with pytest.raises(ValueError, match="context is missing"):
        mpc(x_init)
    with pytest.raises(ValueError, match="context must have 7 entries"):
        mpc(x_init, context=torch.zeros(3, HORIZON, 6))
