"""The table of ATen operations that sum: products of matrices, reductions, norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from mpc_gym.compiled import program as s
from mpc_gym.compiled.operations import rolled
from mpc_gym.compiled.operations.elementwise import elementwise
from mpc_gym.compiled.program import Array, Value

Axes = Sequence[int] | int | None

_add, _multiply = elementwise(s.add, 2), elementwise(s.multiply, 2)
_subtract, _divide = elementwise(s.subtract, 2), elementwise(s.divide, 2)


def matmul(a: Array, b: Array) -> Array:
    """a @ b for vectors, matrices and stacks of matrices."""
    if a.ndim == b.ndim == 2 or (min(a.ndim, b.ndim) == 1 and max(a.ndim, b.ndim) == 2):
        left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        found = rolled.product(left, right)
        if found is not None:
            return found.reshape(a.shape[:-1] + b.shape[1:])
    elif a.ndim == b.ndim > 2 and len(a) == len(b) > 0:
        return np.stack([matmul(*pair) for pair in zip(a, b, strict=True)])
    # Not np.matmul: it would multiply plain numbers by itself, and 0 * x would not fold.
    left = a[..., None, :, None] if a.ndim == 1 else a[..., :, :, None]
    right = b[:, None] if b.ndim == 1 else b
    product = _multiply(left, right[..., None, :, :])  # [..., row, inner, column]
    result = _reduce(s.add, product, -2, keep=False, empty=0.0)
    if a.ndim == 1:
        result = result[..., 0, :]
    return result[..., 0] if b.ndim == 1 else result


def _addmm(c: Array, a: Array, b: Array, *, beta: float = 1.0, alpha: float = 1.0) -> Array:
    return _add(_multiply(beta, c), _multiply(alpha, matmul(a, b)))


def _axes(a: Array, axes: Axes) -> tuple[int, ...]:
    """The axes of a reduction, counted from the front; none given means all."""
    if axes is None or (not isinstance(axes, int) and len(axes) == 0):
        return tuple(range(a.ndim))
    axes = (axes,) if isinstance(axes, int) else axes
    return tuple(axis % a.ndim for axis in axes) if a.ndim else ()


def _reduce(
    function: Callable[..., Any], a: Array, axes: Axes, *, keep: bool, empty: float | None = None
) -> Array:
    """Combine the elements along the axes by a function of two values."""

    def combine(elements: Sequence[Value]) -> Any:
        found = rolled.total(elements) if function is s.add else None
        if found is not None:
            return found
        return reduce(function, elements) if len(elements) or empty is None else empty

    return _along(combine, a, axes, keep=keep)


def _along(
    function: Callable[[Sequence[Value]], Any], a: Array, axes: Axes, *, keep: bool
) -> Array:
    """Apply a function of a list of values to what lies along the axes."""
    reduced = _axes(a, axes)
    kept = [axis for axis in range(a.ndim) if axis not in reduced]
    shape = tuple(a.shape[axis] for axis in kept)
    rows = np.transpose(a, (*kept, *reduced)).reshape(*shape, -1)
    result = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        result[index] = function(list(rows[index]))
    return np.expand_dims(result, reduced) if keep else result


def _sum(a: Array, axes: Axes = None, keepdim: bool = False, **_: Any) -> Array:
    return _reduce(s.add, a, axes, keep=keepdim, empty=0.0)


def mean(a: Array, axes: Axes = None, keepdim: bool = False, **_: Any) -> Array:
    """The mean along the axes."""
    count = math.prod(a.shape[axis] for axis in _axes(a, axes))
    return _divide(_sum(a, axes, keepdim), float(count))


def _product(a: Array, axis: Axes = None, keepdim: bool = False, **_: Any) -> Array:
    return _reduce(s.multiply, a, axis, keep=keepdim, empty=1.0)


def variance(
    a: Array, axes: Axes = None, *, correction: float | None = 1.0, keepdim: bool = False
) -> Array:
    """The variance along the axes."""
    count = math.prod(a.shape[axis] for axis in _axes(a, axes))
    deviation = _subtract(a, mean(a, axes, keepdim=True))
    freedom = max(count - (1.0 if correction is None else correction), 0.0)
    return _divide(_sum(_multiply(deviation, deviation), axes, keepdim), freedom)


def _safe_sqrt(a: Any) -> Value:
    """sqrt with derivative 0 at 0, where a norm has its kink."""
    zero = s.equal(a, 0.0)
    return s.select(zero, 0.0, s.sqrt(s.select(zero, 1.0, a)))


def _safe_root(a: Any, order: float) -> Value:
    zero = s.equal(a, 0.0)
    return s.select(zero, 0.0, s.power(s.select(zero, 1.0, a), 1.0 / order))


def _vector_norm(
    a: Array, order: float = 2.0, axes: Axes = None, keepdim: bool = False, **_: Any
) -> Array:
    magnitude = elementwise(s.absolute, 1)
    if order == math.inf:
        return _amax(magnitude(a), axes, keepdim)
    if order == -math.inf:
        return _amin(magnitude(a), axes, keepdim)
    if order == 0:
        return _sum(elementwise(lambda v: s.logical_not(s.equal(v, 0.0)), 1)(a), axes, keepdim)
    if order == 1:
        return _sum(magnitude(a), axes, keepdim)
    if order == 2:
        return elementwise(_safe_sqrt, 1)(_sum(_multiply(a, a), axes, keepdim))
    powers = elementwise(lambda v: s.power(s.absolute(v), order), 1)(a)
    return elementwise(lambda v: _safe_root(v, order), 1)(_sum(powers, axes, keepdim))


def _extreme(values: Sequence[Value], better: Callable[[Any, Any], Value]) -> tuple[Value, Value]:
    """The best value and its index, the first of several equal ones; NaN wins."""
    best, index = values[0], s.add(0.0, 0.0)
    for i, value in enumerate(values[1:], 1):
        replaces = s.logical_or(better(value, best), s.logical_not(s.equal(value, value)))
        best, index = s.select(replaces, value, best), s.select(replaces, float(i), index)
    return best, index


def _shared_extreme(values: Sequence[Value], better: Callable[[Any, Any], Value]) -> Value:
    """The best value; its derivative is shared evenly by all that attain it."""
    best = _extreme(values, better)[0]
    if len(values) == 1 or not isinstance(best, s.Expression):
        return best
    attains = [s.equal(value, s.detach(best)) for value in values]
    total = reduce(s.add, [s.select(c, v, 0.0) for c, v in zip(attains, values, strict=True)])
    return s.divide(total, reduce(s.add, attains))


def _larger(a: Any, b: Any) -> Value:
    return s.less(b, a)


def _amax(a: Array, axes: Axes = None, keepdim: bool = False) -> Array:
    return _along(lambda v: _shared_extreme(v, _larger), a, axes, keep=keepdim)


def _amin(a: Array, axes: Axes = None, keepdim: bool = False) -> Array:
    return _along(lambda v: _shared_extreme(v, s.less), a, axes, keep=keepdim)


def _extreme_with_index(better: Callable[[Any, Any], Value]) -> Callable[..., tuple[Array, Array]]:
    def operation(a: Array, axis: int, keepdim: bool = False) -> tuple[Array, Array]:
        values = _along(lambda v: _extreme(v, better)[0], a, axis, keep=keepdim)
        return values, _along(lambda v: _extreme(v, better)[1], a, axis, keep=keepdim)

    return operation


def _stable_maximum(a: Array, axes: Axes) -> Array:
    """The largest value, kept as an axis, without a derivative: it cancels in what uses it."""
    largest = _along(lambda v: _extreme(v, _larger)[0], a, axes, keep=True)
    return elementwise(s.detach, 1)(largest)


def _variance_and_mean(
    a: Array, axes: Axes = None, *, correction: float | None = 1.0, keepdim: bool = False
) -> tuple[Array, Array]:
    return variance(a, axes, correction=correction, keepdim=keepdim), mean(a, axes, keepdim)


def _distance(a: Array, b: Array, order: float = 2.0) -> Array:
    return _vector_norm(_subtract(a, b), order)


def _distances(a: Array, b: Array, order: float, _: int | None = None) -> Array:
    """[..., P, R] between the rows of [..., P, M] and [..., R, M]."""
    return _vector_norm(_subtract(a[..., :, None, :], b[..., None, :, :]), order, -1)


def _place(better: Callable[[Any, Any], Value]) -> Callable[..., Array]:
    def operation(a: Array, axis: int | None = None, keepdim: bool = False) -> Array:
        return _along(lambda v: _extreme(v, better)[1], a, axis, keep=keepdim)

    return operation


def _logsumexp(a: Array, axes: Axes, keepdim: bool = False) -> Array:
    largest = _stable_maximum(a, axes)
    total = _sum(elementwise(s.exp, 1)(_subtract(a, largest)), axes, keepdim=True)
    result = _add(elementwise(s.log, 1)(total), largest)
    return result if keepdim else np.squeeze(result, _axes(a, axes))


def _softmax(a: Array, axis: int, *_: Any) -> Array:
    powers = elementwise(s.exp, 1)(_subtract(a, _stable_maximum(a, axis)))
    return _divide(powers, _sum(powers, axis, keepdim=True))


def _log_softmax(a: Array, axis: int, *_: Any) -> Array:
    return _subtract(a, _logsumexp(a, axis, keepdim=True))


def _accumulate(function: Callable[[Any, Any], Value]) -> Callable[..., Array]:
    def operation(a: Array, axis: int, **_: Any) -> Array:
        result = np.array(a, dtype=object)
        along = np.moveaxis(result, axis, 0) if result.ndim else result[None]
        for i in range(1, len(along)):
            along[i, ...] = elementwise(function, 2)(along[i - 1], along[i])
        return result

    return operation


def _all_of(function: Callable[[Any, Any], Value], empty: float) -> Callable[..., Array]:
    def operation(a: Array, axes: Axes = None, keepdim: bool = False) -> Array:
        conditions = elementwise(s.condition, 1)(a)
        return _reduce(function, conditions, axes, keep=keepdim, empty=empty)

    return operation


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "aten._cdist_forward.default": _distances,
    "aten._log_softmax.default": _log_softmax,
    "aten._softmax.default": _softmax,
    "aten.addmm.default": _addmm,
    "aten.addmv.default": _addmm,
    "aten.amax.default": _amax,
    "aten.amin.default": _amin,
    "aten.argmax.default": _place(_larger),
    "aten.argmin.default": _place(s.less),
    "aten.baddbmm.default": _addmm,
    "aten.bmm.default": matmul,
    "aten.cumprod.default": _accumulate(s.multiply),
    "aten.cumsum.default": _accumulate(s.add),
    "aten.dist.default": _distance,
    "aten.linalg_vector_norm.default": _vector_norm,
    "aten.logsumexp.default": _logsumexp,
    "aten.max.default": _amax,
    "aten.max.dim": _extreme_with_index(_larger),
    "aten.mean.default": mean,
    "aten.mean.dim": mean,
    "aten.min.default": _amin,
    "aten.min.dim": _extreme_with_index(s.less),
    "aten.mm.default": matmul,
    "aten.prod.default": _product,
    "aten.prod.dim_int": _product,
    "aten.sum.dim_IntList": _sum,
    "aten.var.correction": variance,
    "aten.var_mean.correction": _variance_and_mean,
    **{
        f"aten.{name}.{overload}": _all_of(function, empty)
        for name, function, empty in (("all", s.logical_and, 1.0), ("any", s.logical_or, 0.0))
        for overload in ("default", "dim", "dims")
    },
}
