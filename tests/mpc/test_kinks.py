"""Kinks as they are rounded."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpc_gym.mpc.kinks import Kinks, RoundedCost, RoundedDynamics, gaps

KINKED: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "relu": (1, torch.relu),
    "relu of the module, in place": (1, nn.ReLU(inplace=True)),
    "relu6": (2, F.relu6),
    "leaky relu": (1, lambda x: F.leaky_relu(x, 0.2)),
    "leaky relu of the module": (1, nn.LeakyReLU()),
    "hardtanh": (2, F.hardtanh),
    "hardtanh with bounds": (2, lambda x: F.hardtanh(x, min_val=-0.5, max_val=0.25)),
    "abs": (1, torch.abs),
    "abs of Python": (1, abs),
    "clamp": (2, lambda x: x.clamp(-0.5, 0.7)),
    "clamp from below": (1, lambda x: torch.clamp(x, min=-0.5)),
    "clamp from above": (1, lambda x: x.clamp_max(0.5)),
    "clip": (1, lambda x: torch.clip(x, max=0.5)),
    "maximum": (1, lambda x: torch.maximum(x, 0.5 * x.flip(-1))),
    "max of two": (1, lambda x: torch.max(x, torch.zeros_like(x))),
    "minimum": (1, lambda x: torch.minimum(x, 0.5 * x.flip(-1))),
    "where": (1, lambda x: torch.where(x > 0.1, 3.0 * x, x + 0.2)),
    "where the other way": (1, lambda x: torch.where(x.lt(0.1), x + 0.2, 3.0 * x)),
    "sum of absolute values": (1, lambda x: torch.linalg.vector_norm(x, 1, -1)),
    "norm": (1, lambda x: x.norm(dim=-1)),
    "norm of linalg": (1, lambda x: torch.linalg.norm(x, dim=-1, keepdim=True)),
}
SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "max over a dimension": lambda x: x.max(-1).values,
    "a mask that nothing compares": lambda x: torch.where(x.isfinite(), x, 0.0),
    "of whole numbers": lambda x: x * torch.tensor([1, -2]).abs().clamp(min=1).sum(),
    "matrix norm": lambda x: torch.linalg.norm(x, dim=(-2, -1)),
    "of two comparisons": lambda x: torch.where((x > -1.0).logical_and_(x < 1.0), 3.0 * x, 0.0),
    "clamp to what is no number of it": lambda x: x * torch.tensor([3, -3, 2]).clamp(min=0),
}


def values() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    at_kinks = torch.tensor([[0.0, 0.0, 0.0], [0.1, -0.5, 0.5], [1.0, -1.0, 6.0]])
    return torch.cat((torch.randn(20, 3, generator=generator), at_kinks)).double()


@pytest.mark.parametrize("name", KINKED)
def test_rounded_function_is_near_and_smooth(name: str) -> None:
    count, function = KINKED[name]
    x, width = values(), 1e-3
    with Kinks(torch.full((len(x), count), width, dtype=torch.float64), (True,) * count):
        rounded = function(x.clone())
    exact = function(x.clone())
    distance = (rounded - exact).abs().max()
    assert 0.0 < distance <= 3 * width

    def second(row: Tensor) -> Tensor:
        with Kinks(torch.full((count,), width, dtype=torch.float64), (True,) * count):
            return function(row.clone()).sum()

    curvature = torch.stack([torch.func.hessian(second)(row) for row in x])
    assert curvature.isfinite().all()
    assert curvature.abs().max() > 1.0


@pytest.mark.parametrize("name", KINKED)
def test_every_kink_is_met_and_measured(name: str) -> None:
    count, function = KINKED[name]
    with Kinks() as kinks:
        found = function(values())
    assert len(kinks.gaps) == count
    torch.testing.assert_close(found, function(values()), rtol=0, atol=0)


@pytest.mark.parametrize("name", SMOOTH)
def test_all_else_is_left_as_it_is(name: str) -> None:
    function = SMOOTH[name]
    x = values().float() if name == "of whole numbers" else values()
    if name == "of whole numbers":
        x = x[:, :2]
    with Kinks(torch.ones(len(x), 4, dtype=x.dtype), (True,) * 4):
        found = function(x)
    torch.testing.assert_close(found, function(x), rtol=0, atol=0)


def test_kinks_that_are_not_chosen_are_left_as_they_are() -> None:
    x = values()
    with Kinks(torch.ones(len(x), 3, dtype=torch.float64), (False, True, False)):
        found = torch.relu(x), torch.abs(x), torch.where(x > 0.5, x, 0.0), torch.abs(x)
    assert torch.equal(found[0], x.relu())
    assert not torch.equal(found[1], x.abs())
    assert torch.equal(found[2], x * (x > 0.5))
    assert torch.equal(found[3], x.abs())  # beyond those that were counted


def test_a_choice_not_taken_does_not_spoil_the_blend() -> None:
    x = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    with Kinks(torch.full((2, 1), 1e-6, dtype=torch.float64), (True,)):
        found = torch.where(x > 0.0, torch.log(x), x)
    torch.testing.assert_close(found, torch.tensor([-1.0, 2.0]).double().where(x < 0, x.log()))


class Model(nn.Module):
    n_state, n_ctrl = 2, 1

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        pushed = torch.relu(state + control) * self.gain + context[..., :2]
        return pushed.clamp(-1.0, 1.0)


def test_rounded_module_reads_its_own_part_of_the_context() -> None:
    model, generator = Model(), torch.Generator().manual_seed(1)
    state, control, own = (torch.randn(5, k, generator=generator) for k in (2, 1, 2))
    rounded = RoundedDynamics(model, 2, 3, (True,) * 3)
    widths = torch.cat((torch.full((5, 1), torch.nan), torch.full((5, 3), 1e-4)), -1)
    found = rounded(state, control, torch.cat((own, widths), -1))
    torch.testing.assert_close(found, model(state, control, own), rtol=0, atol=3e-4)
    assert (found != model(state, control, own)).any()
    assert (rounded.n_state, rounded.n_ctrl) == (2, 1)
    cost = RoundedCost(model, 2, 3, (True,) * 3)
    torch.testing.assert_close(cost(state, control, torch.cat((own, widths), -1)), found)


def test_gaps_are_those_of_each_stage() -> None:
    states, controls, context = (
        *(torch.randn(4, 6, k).double() for k in (2, 1)),
        torch.zeros(4, 6, 2).double(),
    )
    first, low, high = gaps(Model(), states, controls, context)
    assert first is not None
    assert low is not None
    assert high is not None
    assert [tuple(gap.shape) for gap in (first, low, high)] == [(4, 12)] * 3
    expected = (states + controls).abs().flatten(1)
    torch.testing.assert_close(first, expected)


def test_kinks_of_parameters_and_of_the_context_alone_have_no_gaps() -> None:
    class Switched(Model):
        def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
            flagged = torch.where(context[..., :1] > 0.0, 1e3 * torch.relu(control), 0.0)
            return state * torch.relu(self.gain) + flagged

    states, controls = torch.randn(4, 6, 2).double(), torch.randn(4, 6, 1).double()
    found = gaps(Switched(), states, controls, torch.zeros(4, 6, 2).double())
    assert [gap is not None for gap in found] == [True, False, False]
