"""The table of ATen operations that move elements about or make constants.

None of them costs anything in the program. A view is a NumPy view of the same elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mpc_gym.compiled.errors import UnsupportedOperation
from mpc_gym.compiled.primitives import CONDITIONS
from mpc_gym.compiled.program import Array, Expression, add, as_array, select

_PAST_THE_END = 2**62


def _slice(
    a: Array, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    end = None if end is None or end > _PAST_THE_END else end
    index = [slice(None)] * a.ndim
    index[axis] = slice(start, end, step)
    return a[tuple(index)]


def _select(a: Array, axis: int, index: int) -> Array:
    return np.moveaxis(a, axis, 0)[int(index), ...]


def _split_with_sizes(a: Array, sizes: Sequence[int], axis: int = 0) -> list[Array]:
    return np.split(a, np.cumsum(sizes)[:-1], axis)


def _squeeze(a: Array, axes: int | Sequence[int] | None = None) -> Array:
    candidates = range(a.ndim) if axes is None else np.atleast_1d(axes) % max(a.ndim, 1)
    return np.squeeze(a, tuple(int(i) for i in candidates if a.ndim and a.shape[i] == 1))


def _unsqueeze(a: Array, axis: int) -> Array:
    return np.expand_dims(a, axis)


def _expand(a: Array, shape: Sequence[int], **_: Any) -> Array:
    known = (1,) * (len(shape) - a.ndim) + a.shape
    return np.broadcast_to(a, [k if n == -1 else n for n, k in zip(shape, known, strict=True)])


def _repeat(a: Array, times: Sequence[int]) -> Array:
    return np.tile(a, times)


def _concatenate(arrays: Sequence[Array], axis: int = 0) -> Array:
    # torch.cat passes over empty vectors, whatever the shape of the others.
    kept = [a for a in arrays if a.shape != (0,)] or list(arrays[:1])
    return np.concatenate(kept, axis)


def _constant_index(index: Any) -> Any:
    """An index array as integers or a mask, which must not depend on state or control."""
    if index is None:
        return slice(None)
    values = as_array(index)
    if any(isinstance(v, Expression) for v in values.flat):
        raise UnsupportedOperation("it indexes with what depends on state, control or parameters")
    masks = values.size > 0 and isinstance(values.flat[0], bool)
    return values.astype(bool if masks else int)


def _index(a: Array, indices: Sequence[Any]) -> Array:
    return as_array(a[tuple(map(_constant_index, indices))])


def _index_put(a: Array, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Array:
    if len(indices) == 1 and _is_moving_mask(indices[0], a):
        return _put_where(a, indices[0], values, accumulate=accumulate)
    place = tuple(map(_constant_index, indices))
    result = np.array(a, dtype=object)
    if not accumulate:
        result[place] = values
        return result
    numbers = np.arange(a.size).reshape(a.shape)[place]
    flat = result.reshape(-1)
    for number, value in zip(
        numbers.flat, np.broadcast_to(values, numbers.shape).flat, strict=True
    ):
        flat[number] = add(flat[number], value)
    return result


def _is_moving_mask(index: Any, a: Array) -> bool:
    """Whether an index is a condition on state, control or parameters, for each element of a."""
    return (
        isinstance(index, np.ndarray)
        and index.shape == a.shape
        and any(isinstance(v, Expression) and v.kind in CONDITIONS for v in index.flat)
    )


def _put_where(a: Array, mask: Array, values: Any, *, accumulate: bool) -> Array:
    values = as_array(values)
    if values.size != 1:
        raise UnsupportedOperation(
            "how many values a mask asks for depends on state, control or parameters; "
            "torch.where is compiled"
        )
    value = values.reshape(())[()]
    result = np.empty(a.shape, dtype=object)
    for place in np.ndindex(a.shape):
        new = add(a[place], value) if accumulate else value
        result[place] = select(mask[place], new, a[place])
    return result


def _masked_select(a: Array, mask: Any) -> Array:
    both = np.broadcast_arrays(a, _constant_index(mask))
    found: Array = both[0][both[1].astype(bool)]
    return found


def _put(a: Array, index: Any, values: Array, accumulate: bool = False) -> Array:
    where = np.unravel_index(_constant_index(index), a.shape)
    return _index_put(a, where, values, accumulate)


def _masked_scatter(a: Array, mask: Any, source: Array) -> Array:
    chosen = np.broadcast_to(_constant_index(mask), a.shape).astype(bool)
    result = np.array(a, dtype=object)
    result[chosen] = source.reshape(-1)[: int(chosen.sum())]
    return result


def _scatter_add(a: Array, axis: int, index: Any, source: Array) -> Array:
    index = _constant_index(index)
    result = np.array(a, dtype=object)
    for place in np.ndindex(index.shape):
        target = list(place)
        target[axis] = index[place]
        result[tuple(target)] = add(result[tuple(target)], source[place])
    return result


def _unfold(a: Array, axis: int, size: int, step: int) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(a, size, axis)
    return _slice(windows, axis % a.ndim, 0, None, step)


def _diagonal_scatter(
    a: Array, part: Array, offset: int = 0, axis1: int = 0, axis2: int = 1
) -> Array:
    result = np.array(a, dtype=object)
    _diagonal(result, offset, axis1, axis2)[...] = part
    return result


def index_select(a: Array, axis: int, index: Any) -> Array:
    """The slices along an axis that a constant index names."""
    result: Array = np.take(a, _constant_index(index), axis)
    return result


def _gather(a: Array, axis: int, index: Any, **_: Any) -> Array:
    result: Array = np.take_along_axis(a, _constant_index(index), axis)
    return result


def _slice_scatter(
    a: Array,
    part: Array,
    axis: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Array:
    result = np.array(a, dtype=object)
    _slice(result, axis, start, end, step)[...] = part
    return result


def _scatter(a: Array, axis: int, index: Any, source: Any) -> Array:
    result = np.array(a, dtype=object)
    index = _constant_index(index)
    if isinstance(source, np.ndarray):
        source = source[tuple(slice(n) for n in index.shape)]
    np.put_along_axis(result, index, source, axis)
    return result


def _diagonal(a: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    diagonal = np.diagonal(a, offset, axis1, axis2)
    diagonal.flags.writeable = a.flags.writeable  # fill_ on a diagonal writes through it
    return diagonal


def _triangle(keep: Callable[..., Any]) -> Callable[..., Array]:
    def operation(a: Array, diagonal: int = 0) -> Array:
        return np.where(keep(np.ones(a.shape[-2:], dtype=bool), diagonal), a, 0.0)

    return operation


def _flip(a: Array, axes: Sequence[int]) -> Array:
    return np.flip(a, tuple(axes))


def pad(a: Array, padding: Sequence[int], value: float = 0.0) -> Array:
    """The array with values around it, or cut where negative, as `torch.nn.functional.pad`."""
    pairs = list(zip(padding[::2], padding[1::2], strict=True))[::-1]
    shape = [n + sum(pair) for n, pair in zip(a.shape[-len(pairs) :], pairs, strict=True)]
    result = np.full((*a.shape[: -len(pairs)], *shape), value, dtype=object)
    outer = [slice(None)] * (a.ndim - len(pairs))
    target = (
        *outer,
        *(
            slice(max(low, 0), n - max(high, 0))
            for (low, high), n in zip(pairs, shape, strict=True)
        ),
    )
    source = (
        *outer,
        *(
            slice(max(-low, 0), n - max(-high, 0))
            for (low, high), n in zip(pairs, a.shape[-len(pairs) :], strict=True)
        ),
    )
    inner: Array = a[source]
    result[target] = inner
    return result


def _copy_into(a: Array, values: Any, *_: Any) -> Array:
    a[...] = values
    return a


def _full(shape: Sequence[int], value: Any, **_: Any) -> Array:
    result = np.empty(tuple(shape), dtype=object)
    result[...] = value[()] if isinstance(value, np.ndarray) else value
    return result


def _arange(*bounds: float, dtype: torch.dtype | None = None, **_: Any) -> Array:
    return as_array(torch.arange(*bounds, dtype=dtype).numpy())


def _scalar(value: float, **_: Any) -> Array:
    return as_array(value)


def _same(a: Array, *_: Any, **__: Any) -> Array:
    return a


def _copy(a: Array, **_: Any) -> Array:
    return np.array(a, dtype=object)


SHAPES: dict[str, Callable[..., Any]] = {
    "aten.alias.default": _same,
    "aten.arange.start_step": _arange,
    "aten.cat.default": _concatenate,
    "aten.clone.default": _copy,
    "aten.constant_pad_nd.default": pad,
    "aten.copy.default": lambda a, values, *_: _copy_into(np.array(a, dtype=object), values),
    "aten.copy_.default": _copy_into,
    "aten.diagonal.default": _diagonal,
    "aten.diagonal_scatter.default": _diagonal_scatter,
    "aten.empty.memory_format": lambda shape, **k: _full(shape, 0.0),
    "aten.empty_like.default": lambda a, **k: _full(a.shape, 0.0),
    "aten.expand.default": _expand,
    "aten.fill.Scalar": lambda a, value: _full(a.shape, value),
    "aten.fill.Tensor": lambda a, value: _full(a.shape, value),
    "aten.flip.default": _flip,
    "aten.full.default": _full,
    "aten.full_like.default": lambda a, value, **k: _full(a.shape, value),
    "aten.gather.default": _gather,
    "aten.index.Tensor": _index,
    "aten.index_put.default": _index_put,
    "aten.index_select.default": index_select,
    "aten.lift_fresh_copy.default": _copy,
    "aten.masked_scatter.default": _masked_scatter,
    "aten.masked_select.default": _masked_select,
    "aten.permute.default": np.transpose,
    "aten.put.default": _put,
    "aten.repeat.default": _repeat,
    "aten.reshape.default": lambda a, shape: a.reshape(shape),
    "aten.scalar_tensor.default": _scalar,
    "aten.scatter.src": _scatter,
    "aten.scatter_add.default": _scatter_add,
    "aten.scatter.value": _scatter,
    "aten.select.int": _select,
    "aten.slice.Tensor": _slice,
    "aten.slice_scatter.default": _slice_scatter,
    "aten.split_with_sizes.default": _split_with_sizes,
    "aten.squeeze.default": _squeeze,
    "aten.squeeze.dim": _squeeze,
    "aten.squeeze.dims": _squeeze,
    "aten.squeeze_.default": _squeeze,
    "aten.squeeze_.dim": _squeeze,
    "aten.t.default": lambda a: a.T,
    "aten.t_.default": lambda a: a.T,
    "aten.transpose_.default": np.swapaxes,
    "aten.tril.default": _triangle(np.tril),
    "aten.triu.default": _triangle(np.triu),
    "aten.unfold.default": _unfold,
    "aten.unsqueeze.default": _unsqueeze,
    "aten.unsqueeze_.default": _unsqueeze,
    "aten.view.default": lambda a, shape: a.reshape(shape),
}
