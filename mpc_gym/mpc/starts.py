"""Initial guesses for a problem with several local minima."""

import torch
from jaxtyping import Float
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
    horizon, n_ctrl = low.shape
    low = torch.where(low.isfinite(), low, torch.where(high.isfinite(), high, 0.0) - 1.0)
    high = torch.where(high.isfinite(), high, low + 2.0)
    guesses = [first]
    for index in range(count - 1):
        switch = round(horizon * van_der_corput(index // 2))
        sign = torch.ones(horizon, n_ctrl, dtype=first.dtype, device=first.device)
        sign[:switch] = -1.0
        for control in range(n_ctrl):
            if (index >> control) & 1:
                sign[:, control] *= -1.0
        guesses.append(torch.where(sign > 0, high, low).expand_as(first))
    return torch.cat(guesses)


def van_der_corput(index: int) -> float:
    """The sequence 0, 1/2, 1/4, 3/4, 1/8, 5/8 ... that fills [0, 1) evenly (base 2)."""
    value, digit = 0.0, 0.5
    while index:
        value += digit * (index & 1)
        index >>= 1
        digit /= 2
    return value
