"""The bounds of the controls are those of the time of the call, however they were changed."""

import pytest
import torch
from torch import Tensor

from mpc_gym.mpc.bounds import PresentBounds

SHAPE = (3, 2)


def present(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, PresentBounds]:
    """Bounds that were read once."""
    bounds = PresentBounds()
    bounds.of(low, high, SHAPE)
    return low, high, bounds


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_bounds_that_stay_are_the_same_tensors(dtype) -> None:
    low, high, bounds = present(torch.tensor([-2.0, -1.0]).to(dtype), torch.tensor(2.0).to(dtype))
    found = bounds.of(low, high, SHAPE)
    assert bounds.of(low.clone(), high.clone(), SHAPE) is found
    torch.testing.assert_close(found[0], torch.tensor([[-2.0, -1.0]] * 3, dtype=torch.float64))
    torch.testing.assert_close(found[1], torch.full(SHAPE, 2.0, dtype=torch.float64))


def test_a_number_that_was_overwritten_is_read() -> None:
    low, high, bounds = present(torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 1.0]))
    low.data[1] = 0.5
    high.numpy()[0] = 1.5
    found = bounds.of(low, high, SHAPE)
    assert found[0][2].tolist() == [-2.0, 0.5]
    assert found[1][2].tolist() == [1.5, 1.0]
    assert bounds.nearest_to_zero(found)[0, 2].tolist() == [0.0, 0.5]


def test_overwriting_does_not_reach_what_was_read_before() -> None:
    low, high, bounds = present(torch.tensor(-2.0).double(), torch.tensor(2.0).double())
    found = bounds.of(low, high, SHAPE)
    low.fill_(-1.0)
    assert (found[0] == -2.0).all()


def test_another_horizon_and_another_arrangement_are_told_apart() -> None:
    low, high, bounds = present(torch.tensor([-2.0, -1.0]), torch.tensor(2.0))
    assert bounds.of(low, high, (1, 2))[0].shape == (1, 2)
    square = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
    bounds.of(square, high, (2, 2))
    torch.testing.assert_close(bounds.of(square.mT, high, (2, 2))[0], square.mT.double())


def test_bounds_that_cross_are_refused_each_time() -> None:
    low, high, bounds = present(torch.tensor(-2.0), torch.tensor(2.0))
    high.fill_(-3.0)
    for _ in range(2):
        with pytest.raises(ValueError, match="control_low must not exceed control_high"):
            bounds.of(low, high, SHAPE)


def test_learned_bounds_are_differentiable() -> None:
    low = torch.tensor([-2.0, -1.0], requires_grad=True)
    bounds = PresentBounds()
    with torch.no_grad():
        assert not bounds.of(low, torch.tensor(2.0), SHAPE)[0].requires_grad
    bounds.of(low, torch.tensor(2.0), SHAPE)[0].sum().backward()
    assert low.grad is not None
    assert low.grad.tolist() == [3.0, 3.0]
