"""Checks of what a user hands to the controller."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._functorch import (
    is_functorch_wrapped_tensor,
    is_legacy_batchedtensor,
    peek_interpreter_stack,
)
from torch.autograd import forward_ad

from mpc_gym.checks import check_floating
from mpc_gym.compiled.calls import line_in_traceback
from mpc_gym.compiled.errors import ImpureModule
from mpc_gym.compiled.parameters import numeric_parameters, parametrised_name, per_stage_names
from mpc_gym.models.base import cost_size, dynamics_sizes
from mpc_gym.mpc.problem import Problem, RowFunction

_unpack_dual: Callable[[Tensor], Any] = forward_ad.unpack_dual

_FEW = 16  # numbers, which Python looks at sooner than NumPy is called
_INSTEAD = (
    "use torch.autograd.grad, .backward() or torch.autograd.functional without vectorize, and a "
    "batch of start states in the place of vmap"
)


def check_no_transform(values: Iterable[Tensor | None], module: nn.Module) -> None:
    """Raise a TypeError if `torch.func` transforms a value, or a parameter of the module.

    Or if one has a forward-mode tangent. The solver would see neither.
    """
    if peek_interpreter_stack() is None and forward_ad._current_level < 0:
        return
    for value in (*values, *module.parameters()):
        if value is None:
            continue
        if is_functorch_wrapped_tensor(value):
            raise TypeError(
                "MPC is called inside a transform of torch.func (grad, vmap, jacrev, ...), which "
                f"it does not support: {_INSTEAD}"
            )
        if forward_ad._current_level >= 0 and _unpack_dual(value).tangent is not None:
            raise TypeError(
                "MPC is called in forward-mode differentiation, which it does not support: "
                f"{_INSTEAD}"
            )


def check_not_batched(gradient: Tensor) -> None:
    """Raise a TypeError if a gradient stands for several (`vectorize`, `is_grads_batched`)."""
    if is_legacy_batchedtensor(gradient) or is_functorch_wrapped_tensor(gradient):
        raise TypeError(f"the gradient of a plan is found one at a time: {_INSTEAD}")


def check_stages(cost: nn.Module, horizon: int) -> None:
    """Raise a ValueError unless a cost that changes with time has `horizon` stages."""
    values = numeric_parameters(cost)
    for name in sorted(per_stage_names(cost, values)):
        stages = len(values[name])
        if stages != horizon:
            raise ValueError(
                f"cost.{parametrised_name(name)} has {stages} time steps, but horizon = {horizon}; "
                "give one entry for each stage, or one for all"
            )


def infer_sizes(
    dynamics: nn.Module, cost: nn.Module, low: object, high: object
) -> tuple[int | None, int]:
    """n_state and n_ctrl, from whatever tells them.

    n_state may stay unknown (None) until the first start state is seen. n_ctrl is taken from the
    dynamics, a bound with one entry a control, or a quadratic cost; otherwise it is 1.
    """
    n_state, n_ctrl = dynamics_sizes(dynamics)
    for bound in (low, high):
        if n_ctrl is None and isinstance(bound, Tensor) and bound.ndim:
            n_ctrl = bound.shape[-1]
    size = cost_size(cost)
    if size is not None:
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


def check_x_init(x_init: Tensor, n_state: int | None) -> None:
    """Raise unless x_init is a floating-point tensor [batch, n_state]; None: any n_state."""
    check_floating("x_init", x_init)
    if x_init.ndim != 2 or n_state not in (None, x_init.shape[1]) or x_init.shape[1] == 0:
        size = "n_state" if n_state is None else f"n_state={n_state}"
        raise ValueError(
            f"x_init must be [batch, {size}], got {list(x_init.shape)}"
            + ("; use x_init[None] for a single state" if x_init.ndim == 1 else "")
        )


def check_warm_start(warm_start: Tensor, shape: tuple[int, int, int]) -> None:
    """Raise unless warm_start is a floating-point tensor of this shape."""
    check_floating("warm_start", warm_start)
    if tuple(warm_start.shape) != shape:
        raise ValueError(
            f"warm_start must be [batch, horizon, n_ctrl] = {list(shape)}, "
            f"got {list(warm_start.shape)}"
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
    check_floating("context", context)
    if context.ndim not in (2, 3) or context.shape[:-1] not in ((batch,), (batch, horizon)):
        raise ValueError(
            f"context must be [batch={batch}, n_context] or [batch={batch}, horizon={horizon}, "
            f"n_context], got {list(context.shape)}"
        )
    if context.ndim == 2:
        context = context.unsqueeze(1).expand(-1, horizon, -1)
    return context.double()


def is_finite(value: Tensor | None) -> bool:
    """Whether all numbers are; of a few on the CPU, NumPy says so in a fifth of the time."""
    if value is None:
        return True
    if not value.is_cpu:
        return bool(value.isfinite().all())
    fixed = value.detach() if value.requires_grad else value
    numbers = (fixed if fixed.dtype == torch.float64 else fixed.double()).numpy()
    if numbers.size <= _FEW:
        return all(map(math.isfinite, numbers.ravel().tolist()))
    return bool(np.isfinite(numbers).all())


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


def check_takes_batches(module: nn.Module, error: Exception) -> None:
    """Raise an ImpureModule if an error says that a batch was taken for a single number."""
    if any(text in str(error) for text in _TAKES_NUMBER):
        raise ImpureModule(
            f"{type(module).__name__} takes a tensor for one Python number or truth value (float, "
            "int, if, .item()), but states and controls come in batches: compute with tensors, "
            "choose with torch.where, and keep constants as numbers or buffers "
            f"({line_in_traceback(error.__traceback__)}: {error})"
        ) from error


_TAKES_NUMBER = ("to Python scalars", "to Scalar", "is ambiguous", "converted to an index")


@torch.no_grad()
def check_model_output(problem: Problem, x_init: Tensor, U: Tensor) -> None:
    """Raise unless dynamics and cost return float64 tensors of the shapes they must."""
    batch, horizon, _ = U.shape
    u = U[:, 0]
    next_state = _called(problem.f, x_init, u, problem.context_at(0))
    _check_output("dynamics", next_state, x_init, u, x_init.shape)
    X = x_init.unsqueeze(1).expand(-1, horizon, -1)
    _check_output("cost", _called(problem.l, X, U, problem.context), X, U, (batch, horizon))


def _called(function: RowFunction, x: Tensor, u: Tensor, context: Tensor | None) -> object:
    try:
        return function(x, u, context)
    except (RuntimeError, TypeError, ValueError) as error:
        check_takes_batches(function.module, error)
        raise


def _check_output(
    name: str, found: object, state: Tensor, control: Tensor, expected: tuple[int, ...]
) -> None:
    if not isinstance(found, Tensor):
        raise TypeError(f"{name} must return a tensor, got {type(found).__name__}")
    if found.shape != expected:
        raise ValueError(
            f"{name} must map state {list(state.shape)} and control {list(control.shape)} to "
            f"{list(expected)}, got {list(found.shape)}"
        )
    if found.dtype != torch.float64:
        raise TypeError(
            f"{name} must compute in the dtype of its inputs, torch.float64, got {found.dtype}; "
            "cast its constants with .to(state.dtype)"
        )
