"""The bounds of the controls as a solver takes them."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.checks import check_bounds

Pair = tuple[Float[Tensor, "time n_ctrl"], Float[Tensor, "time n_ctrl"]]


class _Latest(NamedTuple):
    content: tuple[Any, ...]
    bounds: Pair
    nearest: Float[Tensor, "1 time n_ctrl"]  # to zero, within them


class PresentBounds:
    """The bounds of one controller, in float64 and for each stage, read and checked at each plan.

    They are made anew where one of their numbers has changed, by whatever means, and are the same
    two tensors until then: whoever made something of them can tell by that.
    """

    def __init__(self) -> None:
        self._latest: _Latest | None = None

    def __reduce__(self) -> tuple[type["PresentBounds"], tuple[()]]:
        return PresentBounds, ()

    def of(self, low: Tensor, high: Tensor, shape: tuple[int, int]) -> Pair:
        """The bounds of this shape; where they are to be differentiated, made anew each time.

        Raises:
            ValueError: they are none; they may have been learned, or overwritten.
        """
        learned = torch.is_grad_enabled() and (low.requires_grad or high.requires_grad)
        if learned or not low.is_cpu or not high.is_cpu:
            check_bounds(low, high)
            return low.double().expand(shape), high.double().expand(shape)
        content = shape, low.tolist(), high.tolist()  # sooner than bytes, while there are few
        latest = self._latest  # read once: another thread may replace it
        if latest is None or latest.content != content:
            check_bounds(low, high)
            fixed = (each.detach().double().clone().expand(shape) for each in (low, high))
            latest = self._latest = _made(content, *fixed)
        return latest.bounds

    def nearest_to_zero(self, bounds: Pair) -> Float[Tensor, "#1 time n_ctrl"]:
        """The controls within these bounds that are nearest to zero; not to be written to."""
        latest = self._latest
        if latest is not None and latest.bounds is bounds:
            return latest.nearest
        return _made((), *(each.detach() for each in bounds)).nearest


def _made(content: tuple[Any, ...], low: Tensor, high: Tensor) -> _Latest:
    nearest = torch.zeros_like(low).clamp(low, high).unsqueeze(0)
    return _Latest(content, (low, high), nearest)
