"""What every dynamics module has in common."""

import inspect
import math
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Dynamics(nn.Module):
    """A discrete-time system `x_next = f(x, u)`.

    A subclass sets `n_state` and `n_ctrl` (as class attributes or through `__init__`) and defines
    `forward(state, control)`, which maps `[..., n_state]` and `[..., n_ctrl]` to `[..., n_state]`
    for any leading batch dimensions, each row on its own. It may take a third argument `context`
    of shape `[..., n_context]`.
    """

    n_state: int
    n_ctrl: int

    def __init__(self, n_state: int | None = None, n_ctrl: int | None = None) -> None:
        super().__init__()
        if n_state is not None:
            self.n_state = n_state
        if n_ctrl is not None:
            self.n_ctrl = n_ctrl


def physical_parameter(
    name: str, value: float, *, positive: bool = False
) -> Float[nn.Parameter, ""]:
    """A scalar, learnable physical quantity.

    It is kept in float64, so that 9.8 is 9.8; a 0-dimensional float64 parameter does not promote
    the float32 states it is combined with.

    Raises:
        ValueError: `value` is not finite, or not positive where it must be.
    """
    value = float(value)
    if not math.isfinite(value) or (positive and value <= 0):
        kind = "a positive number" if positive else "a finite number"
        raise ValueError(f"{name} must be {kind}, got {value}")
    return nn.Parameter(torch.tensor(value, dtype=torch.float64))


def time_step(dt: float) -> float:
    """Check the integration step `dt` [s].

    Raises:
        ValueError: `dt` is not a positive finite number.
    """
    dt = float(dt)
    if not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"dt must be a positive number of seconds, got {dt}")
    return dt


def angle(cosine: Tensor, sine: Tensor) -> Tensor:
    """The angle in [-pi, pi] whose cosine and sine are given up to a common positive factor."""
    return torch.atan2(sine, cosine)


def takes_context(module: nn.Module) -> bool:
    """Whether a module is called with a third argument, the context.

    It says so in an attribute `takes_context`; without one it does if its forward has a third
    argument that is called context or has no default.
    """
    says = getattr(module, "takes_context", None)
    return says if isinstance(says, bool) else _third_is_context(type(module).forward)


@cache
def _third_is_context(forward: Callable[..., object]) -> bool:
    parameters = inspect.signature(forward).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < 4:  # self, state, control
        return False
    return positional[3].name == "context" or positional[3].default is inspect.Parameter.empty
