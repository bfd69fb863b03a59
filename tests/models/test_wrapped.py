"""Linear and terminal terms around a stage cost."""

import pytest
import torch
from torch import Tensor, nn

from mpc_gym.models import LinearCost, PendulumCost, QuadraticCost, TerminalCost, keep_positive
from mpc_gym.models.base import takes_context

TIME = 5
GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def trajectories() -> tuple[Tensor, Tensor]:
    return normal(6, TIME, 3), normal(6, TIME, 1)


class Tracking(nn.Module):
    """A cost that takes a context."""

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        return (state - context).square().sum(-1) + control.square().sum(-1)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda cost: LinearCost(cost, 3, 1),
        lambda cost: TerminalCost(cost, TIME, 3),
        lambda cost: TerminalCost(LinearCost(cost, 3, 1), TIME, 3),
        lambda cost: LinearCost(TerminalCost(cost, TIME, 3), 3, 1),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wrapped_cost_is_the_cost_until_it_is_learned(wrap, dtype: torch.dtype) -> None:
    state, control = (each.to(dtype) for each in trajectories())
    plain = PendulumCost()
    found = wrap(plain)(state, control)
    assert found.dtype == dtype
    assert torch.equal(found, plain(state, control))


def test_the_linear_term_is_one_of_state_and_control() -> None:
    state, control = trajectories()
    plain = PendulumCost()
    cost = LinearCost(plain, 3, 1)
    cost.p.data = normal(4)
    expected = state @ cost.p[:3] + control @ cost.p[3:]
    torch.testing.assert_close(cost(state, control) - plain(state, control), expected)


def test_the_terminal_term_is_that_of_the_last_state_alone() -> None:
    state, control = trajectories()
    plain = PendulumCost()
    cost = TerminalCost(plain, TIME, 3)
    cost.curvature.data, cost.q.data = normal(3, 3), normal(3)
    assert torch.equal(cost.matrix, cost.matrix.mT)
    last = state[:, -1]
    expected = torch.zeros(6, TIME, dtype=torch.float64)
    expected[:, -1] = 0.5 * torch.einsum("bi,ij,bj->b", last, cost.matrix, last) + last @ cost.q
    torch.testing.assert_close(cost(state, control) - plain(state, control), expected)


def test_what_starts_at_zero_has_a_gradient_there() -> None:
    state, control = trajectories()
    cost = LinearCost(TerminalCost(PendulumCost(), TIME, 3), 3, 1)
    cost(state, control).sum().backward()
    last = state[:, -1]
    torch.testing.assert_close(cost.cost.curvature.grad, 0.5 * last.mT @ last)
    torch.testing.assert_close(cost.cost.q.grad, last.sum(0))
    torch.testing.assert_close(cost.p.grad, torch.cat((state, control), -1).sum((0, 1)))


def test_gradients_leave_the_curvature_symmetric() -> None:
    cost = TerminalCost(PendulumCost(), TIME, 3)
    optimiser = torch.optim.Adam(cost.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        cost(*trajectories()).sum().backward()
        optimiser.step()
    assert cost.matrix.abs().min() > 0
    torch.testing.assert_close(cost.curvature, cost.matrix)


def test_what_the_inner_cost_says_of_itself_is_passed_on_under_its_dotted_names() -> None:
    inner = keep_positive(QuadraticCost.diagonal(torch.ones(TIME, 4), torch.zeros(TIME, 4)))
    cost = TerminalCost(LinearCost(inner, 3, 1), TIME, 3)
    assert set(cost.per_stage_parameters) == {"cost.cost.C", "cost.cost.c", "last"}
    assert cost.positive_parameters == ("cost.cost.C",)
    assert cost.size == 4
    assert TerminalCost(PendulumCost(), TIME, 3).size is None
    assert not takes_context(cost)


def test_positivity_reaches_the_innermost_cost() -> None:
    cost = keep_positive(TerminalCost(LinearCost(PendulumCost(), 3, 1), TIME, 3))
    assert cost.cost.cost.parametrizations.angle_weight.original.item() == 0.0


def test_a_context_is_passed_to_the_cost_that_takes_one() -> None:
    state, control = trajectories()
    goal = normal(6, TIME, 3)
    cost = LinearCost(TerminalCost(Tracking(), TIME, 3), 3, 1)
    assert takes_context(cost)
    assert torch.equal(cost(state, control, goal), Tracking()(state, control, goal))


def test_a_terminal_value_carries_over_to_another_horizon() -> None:
    learned, longer = (TerminalCost(PendulumCost(), horizon, 3) for horizon in (TIME, 9))
    learned.q.data = normal(3)
    longer.load_state_dict(learned.state_dict())
    assert torch.equal(longer.q, learned.q)
    assert longer.last.tolist() == [0.0] * 8 + [1.0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LinearCost(PendulumCost(), 0, 1), "n_state must be at least 1, got 0"),
        (lambda: LinearCost(PendulumCost(), 3, -1), "n_ctrl must be at least 1, got -1"),
        (lambda: TerminalCost(PendulumCost(), 0, 3), "horizon must be at least 1"),
        (lambda: LinearCost(QuadraticCost(torch.ones(4)), 3, 2), r"n_state \+ n_ctrl = 4, got"),
        (lambda: TerminalCost(QuadraticCost(torch.ones(4)), 5, 4), r"= 4, got n_state = 4$"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
