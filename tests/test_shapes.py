"""The checker of array shapes, which asks once of arrays of each kind."""

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from tests.shapes import checked

TWO, THREE = torch.zeros(2), torch.zeros(3)


@jaxtyped(typechecker=checked)
def chosen(
    x: Float[Tensor, " n"], y: Float[Tensor, " n"] | None, results: list[object], which: int = 0
) -> Float[Tensor, " n"]:
    return results[which]


def test_arrays_that_fit_are_handed_through() -> None:
    for x in (TWO, THREE, TWO):
        assert chosen(x, x, [x]) is x
        assert chosen(x, None, [x]) is x


def test_what_does_not_fit_is_refused_each_time_whatever_was_in_order_before() -> None:
    assert chosen(TWO, TWO, [TWO, THREE]) is TWO
    for _ in range(2):
        with pytest.raises(TypeCheckError):
            chosen(TWO, THREE, [TWO])
        with pytest.raises(TypeCheckError):
            chosen(TWO, TWO.int(), [TWO])
        with pytest.raises(TypeCheckError):
            chosen(TWO, 3, [TWO])
        with pytest.raises(TypeCheckError):
            chosen(TWO, TWO, [TWO, THREE], 1)
        with pytest.raises(TypeCheckError):
            chosen(TWO, TWO, [TWO, THREE], which=1)
