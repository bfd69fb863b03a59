"""Checks of what a user hands to the controller."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mpc_gym.mpc.problem import Problem


def check_option(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise a ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        choices = ", ".join(repr(choice) for choice in allowed)
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def infer_sizes(
    dynamics: nn.Module, cost: nn.Module, low: object, high: object
) -> tuple[int | None, int]:
    """n_state and n_ctrl, from whatever tells them.

    n_state may stay unknown (None) until the first start state is seen. n_ctrl is taken from the
    dynamics, a bound with one entry a control, or a quadratic cost; otherwise it is 1.
    """
    n_state = getattr(dynamics, "n_state", None)
    n_ctrl = getattr(dynamics, "n_ctrl", None)
    for bound in (low, high):
        if n_ctrl is None and isinstance(bound, Tensor) and bound.ndim:
            n_ctrl = bound.shape[-1]
    size = getattr(cost, "size", None)
    if isinstance(size, int):
        if n_ctrl is None and n_state is not None:
            n_ctrl = size - n_state
        if n_state is None and n_ctrl is not None:
            n_state = size - n_ctrl
        if n_state is not None and n_ctrl is not None and size != n_state + n_ctrl:
            raise ValueError(
                f"cost is for n_state + n_ctrl = {size}, but the dynamics has n_state = {n_state} "
                f"and n_ctrl = {n_ctrl}"
            )
    return n_state, 1 if n_ctrl is None else n_ctrl


def check_bounds(low: Tensor, high: Tensor) -> None:
    """Raise a ValueError unless low <= high, and neither is NaN."""
    for name, bound in (("control_low", low), ("control_high", high)):
        if not bound.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {bound.dtype}")
        if bool(bound.isnan().any()):
            raise ValueError(f"{name} must not be NaN; use None for no bound")
    if bool((low > high).any()):
        raise ValueError(
            "control_low must not exceed control_high, got "
            f"control_low = {low.tolist()} and control_high = {high.tolist()}"
        )


def check_x_init(x_init: Tensor, n_state: int | None) -> None:
    """Raise unless x_init is a floating-point tensor [batch, n_state]."""
    if not isinstance(x_init, Tensor):
        raise TypeError(f"x_init must be a tensor, got {type(x_init).__name__}; use torch.tensor")
    if not x_init.is_floating_point():
        raise TypeError(f"x_init must be floating point, got {x_init.dtype}; use x_init.double()")
    if x_init.ndim != 2 or x_init.shape[1] != n_state:
        raise ValueError(
            f"x_init must be [batch, n_state={n_state}], got {list(x_init.shape)}"
            + ("; use x_init[None] for a single state" if x_init.ndim == 1 else "")
        )


def check_context(context: Tensor | None, batch: int, horizon: int, wanted: bool) -> Tensor | None:
    """The context as float64 [batch, horizon, n_context]."""
    if context is None:
        if wanted:
            raise ValueError(
                "context is missing: the dynamics or the cost takes a third argument; "
                "call mpc(x_init, context=...) with [batch, n_context]"
            )
        return None
    if not wanted:
        raise ValueError(
            "context was given, but neither dynamics.forward nor cost.forward takes a third "
            "argument"
        )
    if not isinstance(context, Tensor) or not context.is_floating_point():
        raise TypeError("context must be a floating-point tensor")
    if context.ndim not in (2, 3) or context.shape[:-1] not in ((batch,), (batch, horizon)):
        raise ValueError(
            f"context must be [batch={batch}, n_context] or [batch={batch}, horizon={horizon}, "
            f"n_context], got {list(context.shape)}"
        )
    if context.ndim == 2:
        context = context.unsqueeze(1).expand(-1, horizon, -1)
    return context.double()


def check_finite_parameters(module: nn.Module) -> None:
    """Raise a ValueError that names the first parameter or buffer of the model that is not finite.

    The bounds may be infinite, and have a check of their own.
    """
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if name in ("control_low", "control_high") or not value.is_floating_point():
            continue
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"parameter {name} is not finite: {value.tolist()}; "
                "a smaller learning rate or gradient clipping may keep it so"
            )


@torch.no_grad()
def check_model_output(problem: Problem, x_init: Tensor, U: Tensor) -> None:
    """Raise a ValueError unless dynamics and cost return the shapes they must."""
    batch, horizon, n_ctrl = U.shape
    found = problem.f(x_init, U[:, 0], problem.context_at(0)).shape
    if found != x_init.shape:
        raise ValueError(
            f"dynamics must map state {list(x_init.shape)} and control {[batch, n_ctrl]} to "
            f"{list(x_init.shape)}, got {list(found)}"
        )
    X = x_init.unsqueeze(1).expand(-1, horizon, -1)
    found = problem.l(X, U, problem.context).shape
    if found != (batch, horizon):
        raise ValueError(
            f"cost must map state {list(X.shape)} and control {list(U.shape)} to "
            f"{[batch, horizon]}, got {list(found)}"
        )
