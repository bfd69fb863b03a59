"""What a module says of itself counts, whether it inherits from our classes or not."""

import pytest
import torch
from torch import nn

from mpc_gym.models import (
    CartPoleDynamics,
    ContextualCost,
    Cost,
    LinearCost,
    LinearDynamics,
    PendulumCost,
    PendulumDynamics,
    QuadraticCost,
    TerminalCost,
    keep_positive,
)
from mpc_gym.models.base import (
    cost_size,
    dynamics_sizes,
    is_diagonal,
    per_stage_parameters,
    positive_parameters,
    takes_context,
    unit_pairs,
)


class Saying(nn.Module):
    """A plain module of a user's, which says all that our classes can."""

    n_state, n_ctrl, size = 3, 1, 4
    positive_parameters = ("weight",)
    per_stage_parameters = ("weight",)
    is_diagonal = False
    unit_pairs = ((0, 2),)
    takes_context = True

    def forward(self, state, control):
        return state + control


def test_a_plain_module_is_asked_by_the_same_names() -> None:
    module = Saying()
    assert cost_size(module) == 4
    assert dynamics_sizes(module) == (3, 1)
    assert tuple(positive_parameters(module)) == tuple(per_stage_parameters(module)) == ("weight",)
    assert unit_pairs(module) == ((0, 2),)
    assert takes_context(module)
    assert not is_diagonal(module)


@pytest.mark.parametrize("module", [nn.Linear(2, 2), Cost()])
def test_a_module_that_says_nothing_has_the_defaults(module: nn.Module) -> None:
    assert cost_size(module) is None
    assert dynamics_sizes(module) == (None, None)
    assert not positive_parameters(module)
    assert not per_stage_parameters(module)
    assert not unit_pairs(module)
    assert is_diagonal(module)


def test_every_cost_of_ours_is_a_cost() -> None:
    quadratic = QuadraticCost.diagonal(torch.ones(4))
    costs = [
        PendulumCost(),
        quadratic,
        LinearCost(quadratic, 3, 1),
        TerminalCost(quadratic, 5, 3),
        ContextualCost(keep_positive(QuadraticCost.diagonal(torch.ones(4))), 3, 1),
    ]
    assert all(isinstance(cost, Cost) for cost in costs)
    assert [cost_size(cost) for cost in costs] == [None, 4, 4, 4, 4]


@pytest.mark.parametrize("size", [0, -1, "3"])
def test_an_impossible_size_is_refused_by_its_name(size) -> None:
    module = Saying()
    module.n_ctrl = size
    with pytest.raises(ValueError, match=r"dynamics\.n_ctrl must"):
        dynamics_sizes(module)


@pytest.mark.parametrize("dynamics", [PendulumDynamics(), CartPoleDynamics()])
def test_unit_pairs_are_cosine_and_sine_after_every_step(dynamics) -> None:
    torch.manual_seed(0)
    state = torch.randn(20, dynamics.n_state, dtype=torch.float64)
    following = dynamics(state, torch.randn(20, 1, dtype=torch.float64))
    ((cosine, sine),) = unit_pairs(dynamics)
    length = following[:, cosine] ** 2 + following[:, sine] ** 2
    torch.testing.assert_close(length, torch.ones_like(length))


def test_a_system_without_an_angle_has_no_unit_pairs() -> None:
    assert unit_pairs(LinearDynamics(torch.eye(2), torch.ones(2, 1))) == ()
