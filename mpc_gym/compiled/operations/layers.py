"""The table of ATen operations that the layers of networks are made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpc_gym.compiled import program as s
from mpc_gym.compiled.errors import UnsupportedOperation
from mpc_gym.compiled.operations.elementwise import elementwise
from mpc_gym.compiled.operations.reductions import matmul, mean, variance
from mpc_gym.compiled.operations.shapes import index_select, pad
from mpc_gym.compiled.program import Array

_add, _multiply, _subtract = (elementwise(f, 2) for f in (s.add, s.multiply, s.subtract))


def _normalised(
    a: Array, axes: tuple[int, ...], weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    center = mean(a, axes, keepdim=True)
    spread = variance(a, axes, correction=0.0, keepdim=True)
    return _scaled(a, center, spread, weight, bias, eps)


def _scaled(
    a: Array, center: Array, spread: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    scale = elementwise(lambda v: s.divide(1.0, s.sqrt(s.add(v, eps))), 1)(spread)
    result = _multiply(_subtract(a, center), scale)
    result = result if weight is None else _multiply(result, weight)
    return result if bias is None else _add(result, bias), center, scale


def _layer_norm(
    a: Array, shape: Sequence[int], weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    return _normalised(a, tuple(range(-len(shape), 0)), weight, bias, eps)


def _of_channels(value: Array | None, a: Array) -> Array | None:
    """One entry a channel, in the shape that broadcasts against [batch, channel, ...]."""
    return None if value is None else value.reshape(-1, *(1,) * (a.ndim - 2))


def _batch_norm(
    a: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    training: bool,
    _momentum: float,
    eps: float,
) -> tuple[Array, Array, Array]:
    factors = (_of_channels(weight, a), _of_channels(bias, a))
    center, spread = _of_channels(running_mean, a), _of_channels(running_var, a)
    if training or center is None or spread is None:
        return _normalised(a, (0, *range(2, a.ndim)), *factors, eps)
    return _scaled(a, center, spread, *factors, eps)


def _group_norm(
    a: Array,
    weight: Array | None,
    bias: Array | None,
    batch: int,
    _channels: int,
    _size: int,
    groups: int,
    eps: float,
) -> tuple[Array, Array, Array]:
    grouped = a.reshape(batch, groups, -1)
    result, center, scale = _normalised(grouped, (2,), None, None, eps)
    result = result.reshape(a.shape)
    if weight is not None:
        result = _multiply(result, _of_channels(weight, a))
    if bias is not None:
        result = _add(result, _of_channels(bias, a))
    return result, center, scale


def _convolution(
    a: Array,
    weight: Array,
    bias: Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _output_padding: Sequence[int],
    groups: int,
) -> Array:
    """Cross-correlation of [batch, channel, ...] with [out, channel / groups, ...]."""
    if transposed:
        raise UnsupportedOperation("it is transposed")
    a = pad(a, [p for size in reversed(padding) for p in (size, size)])
    kernel = weight.shape[2:]
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    shape = [(n - r - 1) // step + 1 for n, r, step in zip(a.shape[2:], reach, stride, strict=True)]
    windows = []
    for offset in itertools.product(*map(range, kernel)):
        starts = [d * o for d, o in zip(dilation, offset, strict=True)]
        places = tuple(
            slice(start, start + step * n, step)
            for start, step, n in zip(starts, stride, shape, strict=True)
        )
        window: Any = (slice(None), slice(None), *places)
        windows.append(a[window].reshape(*a.shape[:2], -1))
    patches = np.stack(windows, 2)  # (batch, channel, offset, place)
    parts = []
    for part, filters in zip(
        np.split(patches, groups, 1), np.split(weight, groups, 0), strict=True
    ):
        columns = part.reshape(len(a), -1, part.shape[-1])
        parts.append(matmul(filters.reshape(len(filters), -1), columns))
    result = np.concatenate(parts, 1).reshape(len(a), -1, *shape)
    return result if bias is None else _add(result, _of_channels(bias, a))


def _average_pool(
    a: Array,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    if ceil_mode or divisor_override is not None or (any(padding) and not count_include_pad):
        raise UnsupportedOperation("ceil_mode, divisor_override or count_include_pad=False")
    channels = a.shape[-3]
    filters = np.full((channels, 1, *kernel), 1.0 / np.prod(kernel), dtype=object)
    stacked = a if a.ndim == 4 else a[None]
    ones = [1, 1]
    stride = stride or kernel
    found = _convolution(stacked, filters, None, stride, padding, ones, False, [0, 0], channels)
    return found if a.ndim == 4 else found[0]


def _embedding(weight: Array, index: Any, *_: Any) -> Array:
    return index_select(weight, 0, index)


LAYERS: dict[str, Callable[..., Any]] = {
    "aten.avg_pool2d.default": _average_pool,
    "aten.convolution.default": _convolution,
    "aten.embedding.default": _embedding,
    "aten.native_batch_norm.default": _batch_norm,
    "aten.native_group_norm.default": _group_norm,
    "aten.native_layer_norm.default": _layer_norm,
}
