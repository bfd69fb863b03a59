"""What every dynamics module has in common."""

import inspect
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.checks import check_number, check_size


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
            self.n_state = check_size("n_state", n_state)
        if n_ctrl is not None:
            self.n_ctrl = check_size("n_ctrl", n_ctrl)


def physical_parameter(
    name: str, value: float, *, positive: bool = False
) -> Float[nn.Parameter, ""]:
    """A scalar, learnable physical quantity.

    It is kept in float64, so that 9.8 is 9.8; a 0-dimensional float64 parameter does not promote
    the float32 states it is combined with.

    Raises:
        ValueError: `value` is not finite, not positive where it must be, or requires a gradient.
    """
    refuse_gradient(name, value)
    number = check_number(name, value, above=0.0 if positive else None)
    return nn.Parameter(torch.tensor(number, dtype=torch.float64))


def refuse_gradient(name: str, value: object) -> None:
    """Refuse a tensor whose gradient a copy would lose.

    Raises:
        ValueError: `value` requires a gradient.
    """
    if isinstance(value, Tensor) and value.requires_grad:
        raise ValueError(
            f"{name} must not require a gradient, as it is copied and the gradient would not come "
            f"back to it: pass {name}.detach(), and differentiate with respect to the module's "
            "own parameter, or call the module with torch.func.functional_call. For a value of "
            "each instance of a batch, write a module that takes a context"
        )


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
