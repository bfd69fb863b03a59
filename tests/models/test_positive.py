"""Weights that learning cannot make negative: the values, the state, and what is refused."""

import copy
import pickle

import cloudpickle
import pytest
import torch
from torch import Tensor, nn

from mpc_gym.models import (
    CartPoleDynamics,
    LinearCost,
    PendulumCost,
    PendulumDynamics,
    QuadraticCost,
    current_values,
    keep_positive,
)

WEIGHTS = ("angle_weight", "speed_weight", "torque_weight")


def matrix(*shape: int, seed: int = 0) -> Tensor:
    """Random symmetric positive definite matrices [*shape, 4, 4]."""
    root = torch.randn(*shape, 4, 4, generator=torch.Generator().manual_seed(seed)).double()
    return root @ root.mT + 0.1 * torch.eye(4)


def costs() -> list[nn.Module]:
    return [
        PendulumCost(),
        QuadraticCost.diagonal(torch.tensor([1.0, 0.0, 0.3, 2.0])),
        QuadraticCost.diagonal(torch.linspace(0.1, 2.0, 20, dtype=torch.float64).reshape(5, 4)),
        QuadraticCost(matrix()),
        QuadraticCost(matrix(5)),
    ]


def values(cost: nn.Module) -> list[Tensor]:
    return [getattr(cost, name).detach().clone() for name in cost.positive_parameters]


@pytest.mark.parametrize("index", range(5))
def test_the_start_is_the_given_weight(index: int) -> None:
    cost, kept = costs()[index], keep_positive(costs()[index])
    for given, found in zip(values(cost), values(kept), strict=True):
        assert found.dtype == given.dtype
        if getattr(cost, "is_diagonal", True):
            assert torch.equal(found, given)
        else:
            torch.testing.assert_close(found, given, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("index", range(5))
def test_no_step_of_learning_however_large_makes_a_weight_negative(index: int) -> None:
    cost = keep_positive(costs()[index])
    optimiser = torch.optim.SGD(cost.parameters(), lr=30.0)
    for _ in range(5):
        optimiser.zero_grad()
        sum(getattr(cost, name).sum() for name in cost.positive_parameters).backward()
        optimiser.step()
    for weight in values(cost):
        if getattr(cost, "is_diagonal", True):
            assert bool((weight >= 0).all())
        else:
            eigenvalues = torch.linalg.eigvalsh(weight)
            assert bool((eigenvalues >= -1e-12 * eigenvalues.abs().max()).all())
            assert torch.equal(weight, weight.mT)


def test_a_weight_that_is_not_learned_stays_so() -> None:
    cost = PendulumCost()
    cost.speed_weight.requires_grad_(False)
    keep_positive(cost)
    assert [cost.get_parameter(f"parametrizations.{name}.original").requires_grad
            for name in WEIGHTS] == [True, False, True]  # fmt: skip


def test_its_derivative_is_the_weight_itself() -> None:
    cost = keep_positive(PendulumCost(angle_weight=3.0))
    cost.angle_weight.backward()
    assert cost.parametrizations.angle_weight.original.grad.item() == 3.0


def test_a_weight_of_zero_stays_zero() -> None:
    cost = keep_positive(QuadraticCost.diagonal(torch.tensor([1.0, 0.0])))
    with torch.no_grad():
        cost.parametrizations.C.original.add_(2.0)
    assert cost.C[0] > 1
    assert cost.C[1] == 0


@pytest.mark.parametrize("index", range(5))
def test_a_state_says_all_even_to_a_cost_that_started_elsewhere(index: int) -> None:
    learned, other = (keep_positive(costs()[index]) for _ in range(2))
    for name in other.positive_parameters:
        setattr(other, name, 2 * getattr(other, name).detach())
    with torch.no_grad():
        for parameter in learned.parameters():
            parameter.add_(0.1)
    other.load_state_dict(learned.state_dict())
    assert all(map(torch.equal, values(other), values(learned)))


@pytest.mark.parametrize("index", range(5))
def test_a_copy_is_learned_on_its_own(index: int) -> None:
    cost = keep_positive(costs()[index])
    before = values(cost)
    copied = copy.deepcopy(cost)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(0.1)
    assert all(map(torch.equal, values(cost), before))
    assert not any(map(torch.equal, values(copied), before))


@pytest.mark.parametrize("index", range(5))
def test_another_weight_can_be_assigned(index: int) -> None:
    cost = keep_positive(costs()[index])
    for name in cost.positive_parameters:
        wanted = 2 * getattr(cost, name).detach()
        setattr(cost, name, wanted)
        torch.testing.assert_close(getattr(cost, name), wanted, rtol=1e-6, atol=1e-6)


def test_a_parameter_that_another_module_shares_is_left_to_it() -> None:
    shared = nn.Parameter(torch.tensor([1.0, 2.0]))
    other, cost = QuadraticCost(shared), QuadraticCost(shared)
    keep_positive(cost)
    assert other.C is shared
    assert shared.tolist() == [1.0, 2.0]


def test_keeping_positive_twice_is_keeping_positive_once() -> None:
    cost = keep_positive(PendulumCost())
    names = set(cost.state_dict())
    assert keep_positive(cost) is cost
    assert set(cost.state_dict()) == names


def test_a_matrix_that_is_singular_or_not_symmetric_keeps_its_quadratic_form() -> None:
    C = torch.diag(torch.tensor([1.0, 0.0, 2.0, 0.5])).double()
    C[0, 2] = 1.0
    state, control = torch.linspace(-1, 2, 18).double().reshape(6, 3), torch.ones(6, 1).double()
    torch.testing.assert_close(
        keep_positive(QuadraticCost(C))(state, control), QuadraticCost(C)(state, control)
    )


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (PendulumCost(speed_weight=-0.1), r"speed_weight must be finite and not negative.*-0\.1"),
        (QuadraticCost(torch.tensor([1.0, -2.0])), r"C must be .*not negative.*-2"),
        (QuadraticCost(torch.tensor([1.0, torch.nan])), r"C must be finite.*nan"),
        (QuadraticCost(torch.diag(torch.tensor([1.0, -2.0]))), r"C must be positive semid.*-2"),
        (QuadraticCost(torch.full((2, 2), torch.inf)), r"C must be finite"),
        (nn.Linear(2, 2), "Linear has no positive_parameters"),
    ],
)
def test_what_cannot_be_kept_positive_is_refused_and_left_as_it_was(cost, message: str) -> None:
    names = set(cost.state_dict())
    with pytest.raises(ValueError, match=message):
        keep_positive(cost)
    assert set(cost.state_dict()) == names


def test_a_negative_weight_cannot_be_assigned_later() -> None:
    cost = keep_positive(PendulumCost())
    with pytest.raises(ValueError, match="angle_weight must be finite and not negative"):
        cost.angle_weight = torch.tensor(-1.0, dtype=torch.float64)
    assert cost.angle_weight.item() == 1.0


@pytest.mark.parametrize("dynamics", [PendulumDynamics(mass=0.3), CartPoleDynamics()])
def test_no_step_makes_a_mass_or_a_length_negative(dynamics: nn.Module) -> None:
    before = {name: value.item() for name, value in dynamics.named_parameters()}
    keep_positive(dynamics)
    found = current_values(dynamics)
    assert {name: value.item() for name, value in found.items()} == before
    optimizer = torch.optim.SGD(dynamics.parameters(), lr=100.0)
    sum(found[name] for name in dynamics.positive_parameters).backward()
    optimizer.step()
    after = current_values(dynamics)
    assert all(0 <= after[name].item() < before[name] for name in dynamics.positive_parameters)


def test_values_are_named_as_they_are_read_where_parts_are_nested() -> None:
    cost = LinearCost(keep_positive(PendulumCost(speed_weight=0.3)), 3, 1)
    found = current_values(cost)
    assert set(found) == {"p", *(f"cost.{name}" for name in PendulumCost.positive_parameters)}
    assert found["cost.speed_weight"].item() == 0.3


DUPLICATES = [
    copy.copy,
    copy.deepcopy,
    lambda module: pickle.loads(pickle.dumps(module)),
    lambda module: pickle.loads(cloudpickle.dumps(module)),
    lambda module: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(module)))),
]


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize(
    "duplicate", DUPLICATES, ids=["copy", "deepcopy", "pickle", "cloudpickle", "pickled twice"]
)
def test_what_was_learned_survives_every_way_of_being_copied(index: int, duplicate) -> None:
    cost = keep_positive(costs()[index])
    with torch.no_grad():
        for parameter in cost.parameters():
            parameter.add_(0.3)
    twin = duplicate(cost)
    assert type(twin).__mro__[1] is type(cost).__mro__[1]
    assert list(twin.state_dict()) == list(cost.state_dict())
    for given, found in zip(values(cost), values(twin), strict=True):
        assert torch.equal(found, given)


def test_an_unpickled_module_learns_on_its_own_and_stays_positive() -> None:
    cost = keep_positive(PendulumCost())
    twin = pickle.loads(pickle.dumps(cost))
    optimiser = torch.optim.SGD(twin.parameters(), lr=30.0)
    twin.angle_weight.backward()
    optimiser.step()
    assert 0.0 < twin.angle_weight < 1.0
    assert cost.angle_weight == 1.0
    twin.angle_weight = 2.0 * torch.ones((), dtype=torch.float64)
    assert twin.angle_weight == 2.0


def test_a_number_may_be_set_as_such():
    dynamics = keep_positive(PendulumDynamics())
    dynamics.mass = 1.6
    assert dynamics.mass.item() == 1.6
    with pytest.raises(ValueError, match="mass must be finite and not negative"):
        dynamics.mass = -1.6
