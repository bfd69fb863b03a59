"""Derivatives of a function of rows, by plain reverse-mode autograd.

A function of rows maps z [rows, ..., N] to y [rows, ..., k], or to [rows, ...] as a cost does, and
what it makes of a row depends on that row alone. Then the gradient of a sum over rows holds the
derivative of each of them, and one pass in reverse finds them all, with copies of z in the batch:

    J_i  = d y_i / d z                    a copy of z for each output i
    H_ij = d (d y_i / d z_j) / d z        a copy of z for each output i and input j

Forward mode and `torch.func` would need fewer rows, but not every operation has a formula there,
and nested forward mode is wrong for several (linalg.solve, layer_norm, det in torch 2.13). Reverse
over reverse needs what training through a gradient needs, and no more.

The results can be differentiated further where gradients are enabled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

_MAX_NUMBERS = 2**22
"""In the copies of z that are evaluated together, where there are several outputs."""


def first_derivatives(
    g: Callable[..., Tensor], z: Tensor, *rest: Tensor | None, outputs: int | None = None
) -> Tensor:
    """Jacobian [rows, ..., outputs, N] of a function of rows, or gradient [rows, ..., N].

    Args:
        g: maps z and the rest to [rows, ..., outputs], or to [rows, ...] where `outputs` is None.
        z: where, [rows, ..., N].
        rest: its other arguments, by which it is not differentiated, with the same rows.
        outputs: how many there are.
    """
    keep = torch.is_grad_enabled()
    parts = []
    with recording():
        for first, last in _portions(outputs, z.numel()):
            at = independent(_copies(z, last - first))
            y = _value(g, at, rest, last - first)
            parts.append(_gradient(_own(y, outputs, (first, last)), at, create_graph=keep))
    return _joined(parts, z, outputs)


def second_derivatives(
    g: Callable[..., Tensor], z: Tensor, *rest: Tensor | None, outputs: int | None = None
) -> tuple[Tensor, Tensor]:
    """`first_derivatives`, and the Hessian [rows, ..., outputs, N, N] or [rows, ..., N, N]."""
    keep = torch.is_grad_enabled()
    N = z.shape[-1]
    slopes, curvatures = [], []
    with recording():
        for first, last in _portions(outputs, N * z.numel()):
            copies = last - first
            at = independent(_copies(z, copies * N))
            y = _value(g, at, rest, copies * N)
            slope = _gradient(_own(y, outputs, (first, last)), at, create_graph=True)
            each = slope.reshape(copies, N, *z.shape)
            curvature = _gradient(each.diagonal(dim1=1, dim2=-1), at, create_graph=keep)
            hessian = curvature.reshape(copies, N, *z.shape).movedim(1, -2).flatten(0, 1)
            slopes.append(each[:, 0].flatten(0, 1))
            curvatures.append(0.5 * (hessian + hessian.mT))
    return _joined(slopes, z, outputs), _joined(curvatures, z, outputs)


@contextmanager
def recording() -> Iterator[None]:
    """Gradients are recorded, also where the caller has turned them off.

    What the caller has done with saved tensors (`torch.utils.checkpoint`, `save_on_cpu`) is for
    the caller's own graph: here it would evaluate everything again for each of them.
    """
    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
        # not without need: torch.func supports no hooks
        if _top_hooks(False) is not None:
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_same, _same))
        yield


_top_hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks


def _same(saved: Tensor) -> Tensor:
    return saved


def _portions(outputs: int | None, numbers: int) -> Iterator[tuple[int, int]]:
    """From which to which output is evaluated together, a copy of so many numbers for each."""
    count = 1 if outputs is None else outputs
    size = max(1, _MAX_NUMBERS // max(1, numbers))
    return ((first, min(first + size, count)) for first in range(0, count, size))


def _copies(a: Tensor, count: int) -> Tensor:
    """Copies of the rows, one after the other."""
    a = a.clone() if a.is_inference() else a
    return a.expand(count, *a.shape).reshape(count * a.shape[0], *a.shape[1:])


def independent(z: Tensor) -> Tensor:
    """The same values, to differentiate by; not by what depends on z in another way."""
    return z.view_as(z) if z.requires_grad else z.detach().requires_grad_()


def _value(
    g: Callable[..., Tensor], at: Tensor, rest: tuple[Tensor | None, ...], copies: int
) -> Tensor:
    # the fused implementations of attention have no second derivative
    with sdpa_kernel(SDPBackend.MATH):
        return g(at, *(None if a is None else _copies(a, copies) for a in rest))


def _own(y: Tensor, outputs: int | None, portion: tuple[int, int]) -> Tensor:
    """Of the copies made for each output of a portion, that output."""
    if outputs is None:
        return y
    first, last = portion
    copies = last - first
    each = y[..., first:last].reshape(copies, y.shape[0] // copies, *y.shape[1:-1], copies)
    return each.diagonal(dim1=0, dim2=-1)


def _gradient(of: Tensor, by: Tensor, *, create_graph: bool) -> Tensor:
    """Gradient of the sum; zero where it does not depend on it."""
    if not of.requires_grad:
        return torch.zeros_like(by)
    total = of.sum()
    return torch.autograd.grad(total, by, create_graph=create_graph, materialize_grads=True)[0]


def _joined(parts: list[Tensor], z: Tensor, outputs: int | None) -> Tensor:
    """Derivatives [portion * rows, ..., N, ...] of each portion of the outputs, put together."""
    found = torch.cat(parts) if len(parts) > 1 else parts[0]
    if outputs is not None:
        found = found.reshape(outputs, z.shape[0], *found.shape[1:]).movedim(0, z.ndim - 1)
    return found if torch.is_grad_enabled() else found.detach()
