"""A cost whose weights are an argument."""

import pytest
import torch
from torch import Tensor, nn

from mpc_gym.models import (
    ContextualCost,
    LinearCost,
    PendulumCost,
    QuadraticCost,
    TerminalCost,
    keep_positive,
)
from mpc_gym.models.base import takes_context

TIME = 5
GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def diagonal(*shape: int) -> QuadraticCost:
    return QuadraticCost.diagonal(normal(*shape).exp(), normal(4))


def test_its_entries_are_logarithms_of_the_weights_then_a_linear_term() -> None:
    linear = [*(f"linear state[{i}]" for i in range(3)), "linear control[0]"]
    pendulum = ContextualCost(keep_positive(PendulumCost()), 3, 1)
    assert list(pendulum.context_entries) == [
        "log angle_weight",
        "log speed_weight",
        "log torque_weight",
        *linear,
    ]
    for shape in ((4,), (TIME, 4)):
        quadratic = ContextualCost(keep_positive(diagonal(*shape)), 3, 1)
        assert list(quadratic.context_entries) == [*(f"log C[{i}]" for i in range(4)), *linear]
        assert quadratic.n_context == 8


@pytest.mark.parametrize("make", [PendulumCost, lambda: diagonal(4), lambda: diagonal(TIME, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_context_of_zeros_leaves_the_cost_as_it_is(make, dtype: torch.dtype) -> None:
    cost = make()
    state, control = normal(6, TIME, 3).to(dtype), normal(6, TIME, 1).to(dtype)
    expected = cost(state, control)
    contextual = ContextualCost(keep_positive(cost), 3, 1)
    found = contextual(state, control, torch.zeros(6, TIME, contextual.n_context, dtype=dtype))
    assert found.dtype == dtype
    assert torch.equal(found, expected)


def test_each_row_is_the_cost_with_the_weights_that_its_context_says() -> None:
    state, control, context = normal(6, 3), normal(6, 1), normal(6, 7)
    cost = ContextualCost(keep_positive(PendulumCost(2.0, 0.3, 0.1)), 3, 1)
    for x, u, c, found in zip(state, control, context, cost(state, control, context), strict=True):
        angle, speed, torque = (w * e for w, e in zip((2.0, 0.3, 0.1), c[:3].exp(), strict=True))
        linear = c[3:] @ torch.cat((x, u))
        expected = PendulumCost(angle.item(), speed.item(), torque.item())(x, u) + linear
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(cost(x, u, c), expected)


def test_weights_that_change_with_time_are_scaled_at_their_stage() -> None:
    weights = normal(TIME, 4).exp()
    state, control, context = normal(6, TIME, 3), normal(6, TIME, 1), normal(6, TIME, 8)
    cost = ContextualCost(keep_positive(QuadraticCost.diagonal(weights)), 3, 1)
    tau = torch.cat((state, control), -1)
    expected = (0.5 * weights * context[..., :4].exp() * tau**2 + context[..., 4:] * tau).sum(-1)
    torch.testing.assert_close(cost(state, control, context), expected)


def test_weights_under_other_terms_are_reached_and_the_terms_left_alone() -> None:
    inner = LinearCost(TerminalCost(PendulumCost(), TIME, 3), 3, 1)
    cost = ContextualCost(keep_positive(inner), 3, 1)
    assert cost.context_entries[0] == "log cost.cost.angle_weight"
    state, control = normal(6, TIME, 3), normal(6, TIME, 1)
    context = torch.zeros(6, TIME, 7, dtype=torch.float64)
    before = cost(state, control, context)
    context[..., :3] = torch.tensor(2.0).log()
    torch.testing.assert_close(cost(state, control, context), 2 * before)
    inner.p.data = normal(4)
    linear = torch.cat((state, control), -1) @ inner.p
    torch.testing.assert_close(cost(state, control, context), 2 * before + linear)


def test_its_derivatives_match_finite_differences() -> None:
    cost = ContextualCost(keep_positive(diagonal(4)), 3, 1)
    names = [name for name, _ in cost.named_parameters()]

    def value(state: Tensor, control: Tensor, context: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(cost, named, (state, control, context))

    inputs = (normal(3, 3), normal(3, 1), normal(3, 8), *cost.parameters())
    assert torch.autograd.gradcheck(value, [v.detach().clone().requires_grad_() for v in inputs])


def test_a_cost_without_positive_weights_gains_the_linear_term() -> None:
    class Distance(nn.Module):
        def forward(self, state: Tensor, control: Tensor) -> Tensor:
            return state.square().sum(-1) + 0 * control[..., 0]

    cost = ContextualCost(Distance(), 3, 1)
    state, control, context = normal(6, 3), normal(6, 1), normal(6, 4)
    tau = torch.cat((state, control), -1)
    expected = state.square().sum(-1) + (context * tau).sum(-1)
    torch.testing.assert_close(cost(state, control, context), expected)


def test_what_wraps_it_takes_a_context_too() -> None:
    cost = LinearCost(ContextualCost(keep_positive(PendulumCost()), 3, 1), 3, 1)
    assert takes_context(cost)
    state, control, context = normal(6, 3), normal(6, 1), normal(6, 7)
    assert torch.equal(cost(state, control, context), cost.cost(state, control, context))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (PendulumCost, r"cost\.angle_weight must be kept positive: pass keep_positive\(cost\)"),
        (lambda: keep_positive(QuadraticCost(torch.eye(4))), r"cost\.C.*full matrix"),
        (
            lambda: ContextualCost(keep_positive(PendulumCost()), 3, 1),
            "ContextualCost can be used once",
        ),
        (lambda: keep_positive(QuadraticCost(torch.ones(5))), r"n_state \+ n_ctrl = 5"),
    ],
)
def test_a_cost_that_it_cannot_change_is_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContextualCost(build(), 3, 1)


def test_a_context_of_another_size_is_refused_with_what_its_entries_are() -> None:
    cost = ContextualCost(keep_positive(PendulumCost()), 3, 1)
    with pytest.raises(ValueError, match=r"must have 7 entries \(log angle_weight, .*got 3"):
        cost(normal(6, 3), normal(6, 1), normal(6, 3))
