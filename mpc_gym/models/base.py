"""What dynamics and costs are asked for: two contracts, and a function for each of the attributes.

A module of another class need not inherit from them. What it says of itself, in attributes of the
same names, counts as much; for what it does not say, the defaults here hold.
"""

import inspect
from collections.abc import Callable, Collection, Sequence
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

    Attributes:
        n_state: number of states.
        n_ctrl: number of controls.
        positive_parameters: names of the parameters that `keep_positive` keeps positive.
        unit_pairs: the pairs of entries of the state that are the cosine and the sine of an angle.
        takes_context: whether forward is called with a context; None: see `takes_context`.
    """

    n_state: int
    n_ctrl: int
    positive_parameters: Collection[str] = ()
    unit_pairs: Sequence[tuple[int, int]] = ()
    takes_context: bool | None = None

    def __init__(self, n_state: int | None = None, n_ctrl: int | None = None) -> None:
        super().__init__()
        if n_state is not None:
            self.n_state = check_size("n_state", n_state)
        if n_ctrl is not None:
            self.n_ctrl = check_size("n_ctrl", n_ctrl)


class Cost(nn.Module):
    """A stage cost `l(x, u)`.

    A subclass defines `forward(state, control)`, which maps `[..., n_state]` and `[..., n_ctrl]` to
    `[...]`, each row on its own. It may take a third argument `context` of shape
    `[..., n_context]`. The reward of an environment is minus its cost.

    Attributes:
        size: n_state + n_ctrl that it is for; None: any.
        positive_parameters: names of the parameters that `keep_positive` keeps positive.
        per_stage_parameters: names of the parameters and buffers whose first dimension is time. A
            cost that has some is called on whole trajectories, `[..., T, n_state]`.
        is_diagonal: whether the positive parameters are weights, each of one entry; False: they are
            matrices.
        takes_context: whether forward is called with a context; None: see `takes_context`.
    """

    size: int | None = None
    positive_parameters: Collection[str] = ()
    per_stage_parameters: Collection[str] = ()
    is_diagonal: bool = True
    takes_context: bool | None = None


def positive_parameters(module: nn.Module) -> Collection[str]:
    """Names of the parameters of dynamics or a cost that must stay positive."""
    names: Collection[str] = getattr(module, "positive_parameters", ())
    return names


def per_stage_parameters(cost: nn.Module) -> Collection[str]:
    """Names of the parameters and buffers of a cost whose first dimension is time."""
    names: Collection[str] = getattr(cost, "per_stage_parameters", ())
    return names


def is_diagonal(cost: nn.Module) -> bool:
    """Whether the positive parameters of a cost are weights, and not matrices."""
    return bool(getattr(cost, "is_diagonal", True))


def cost_size(cost: nn.Module) -> int | None:
    """The n_state + n_ctrl that a cost is for; None: any."""
    size = getattr(cost, "size", None)
    return size if isinstance(size, int) else None


def dynamics_sizes(dynamics: nn.Module) -> tuple[int | None, int | None]:
    """n_state and n_ctrl of dynamics; None where they do not say.

    Raises:
        ValueError: one is not positive.
    """
    sizes = {name: getattr(dynamics, name, None) for name in ("n_state", "n_ctrl")}
    n_state, n_ctrl = (
        None if size is None else check_size(f"dynamics.{name}", size)
        for name, size in sizes.items()
    )
    return n_state, n_ctrl


def unit_pairs(dynamics: nn.Module) -> Sequence[tuple[int, int]]:
    """The pairs of entries of the state that are the cosine and the sine of an angle."""
    pairs: Sequence[tuple[int, int]] = getattr(dynamics, "unit_pairs", ())
    return pairs


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
