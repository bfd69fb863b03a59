"""The values of parameters that a program reads: those of the time of the call."""

import numpy as np
import pytest
import torch
from torch import nn

from mpc_gym.compiled.parameters import LiveTensors, numeric_parameters, unflatten
from mpc_gym.models import LinearDynamics


def dynamics() -> LinearDynamics:
    A = torch.arange(9, dtype=torch.float64).reshape(3, 3)
    return LinearDynamics(A, torch.ones(3, 1, dtype=torch.float64))


def change_in_place(module: nn.Module) -> None:
    module.get_parameter("A").data.fill_(2.0)


def transpose(module: nn.Module) -> None:
    module.get_parameter("A").data = module.get_parameter("A").data.mT  # the same memory


def replace(module: nn.Module) -> None:
    module.A = nn.Parameter(torch.full((3, 3), 5.0, dtype=torch.float64))


def narrow(module: nn.Module) -> None:
    module.float()


@pytest.mark.parametrize("change", [change_in_place, transpose, replace, narrow])
def test_whatever_changes_a_value_is_read(change) -> None:
    module = dynamics()
    live = LiveTensors((module, name) for name in numeric_parameters(module))
    live.vector()
    for _ in range(2):
        change(module)
        expected = np.concatenate(
            [p.detach().double().numpy().ravel() for p in module.parameters()]
        )
        np.testing.assert_array_equal(live.vector(), expected)
        np.testing.assert_array_equal(live.arrays()[0], module.A.detach().double())


def test_a_vector_is_a_copy() -> None:
    module = dynamics()
    live = LiveTensors([(module, "A")])
    before = live.vector()
    change_in_place(module)
    np.testing.assert_array_equal(before, np.arange(9.0))


def test_a_vector_is_cut_into_what_it_was_made_of() -> None:
    flat = np.arange(14.0).reshape(2, 7)
    parts = unflatten(flat, {"scalar": (), "matrix": (2, 3)})
    np.testing.assert_array_equal(parts["scalar"], [0.0, 7.0])
    np.testing.assert_array_equal(parts["matrix"], flat[:, 1:].reshape(2, 2, 3))
    assert unflatten(np.empty(0), {}) == {}
