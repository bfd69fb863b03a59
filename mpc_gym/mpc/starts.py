"""Initial guesses for a problem with several local minima."""

from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def initial_guesses(
    first: Float[Tensor, "batch time n_ctrl"],
    low: Float[Tensor, "time n_ctrl"],
    high: Float[Tensor, "time n_ctrl"],
    count: int,
) -> Float[Tensor, "count*batch time n_ctrl"]:
    """`count` guesses for every instance, all instances of a guess together.

    The first is given. The others hold the controls at their bounds: throughout, then switching
    once from one bound to the other, at 1/2, 1/4, 3/4, 1/8 ... of the horizon. Each comes with
    its mirror image; further controls run through the combinations of signs. A control without
    bounds moves between -1 and 1.
    """
    if count == 1:
        return first
    horizon, n_ctrl = low.shape
    low = torch.where(low.isfinite(), low, torch.where(high.isfinite(), high, 0.0) - 1.0)
    high = torch.where(high.isfinite(), high, low + 2.0)
    at_high = _switching_patterns(count - 1, horizon, n_ctrl).to(first.device)
    others = torch.where(at_high, high, low).unsqueeze(1).expand(-1, *first.shape)
    return torch.cat((first.unsqueeze(0), others)).flatten(0, 1)


@cache
def _switching_patterns(count: int, horizon: int, n_ctrl: int) -> Bool[Tensor, "count time n_ctrl"]:
    """Where each guess but the first holds a control at its upper bound."""
    guess = torch.arange(count).reshape(-1, 1, 1)
    switch = [round(horizon * van_der_corput(index // 2)) for index in range(count)]
    late = torch.arange(horizon).reshape(-1, 1) >= torch.tensor(switch).reshape(-1, 1, 1)
    mirrored = (guess >> torch.arange(n_ctrl)) & 1 == 1
    return late ^ mirrored


def van_der_corput(index: int) -> float:
    """The sequence 0, 1/2, 1/4, 3/4, 1/8, 5/8 ... that fills [0, 1) evenly (base 2)."""
    value, digit = 0.0, 0.5
    while index:
        value += digit * (index & 1)
        index >>= 1
        digit /= 2
    return value
