"""The table of ATen operations that put values in order.

Two values are exchanged by `select`, along a fixed sequence of comparisons, so that an order that
depends on the state is part of the program. Among equal values the first is taken first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mpc_gym.compiled import program as s
from mpc_gym.compiled.operations.elementwise import elementwise
from mpc_gym.compiled.program import Array, Value, as_array

Pair = tuple[Array, Array]


def _is_nan(a: Any) -> Value:
    return s.logical_not(s.equal(a, a))


def _precedes(a: Any, b: Any, *, descending: bool) -> Value:
    """Whether a comes before b; NaN counts as the largest."""
    small, large = (b, a) if descending else (a, b)
    return s.logical_or(
        s.less(small, large), s.logical_and(_is_nan(large), s.logical_not(_is_nan(small)))
    )


def _sort(a: Array, axis: int = -1, descending: bool = False, **_: Any) -> Pair:
    """Values in order, and where they were (bubble sort)."""
    values = np.array(np.moveaxis(a, axis, 0) if a.ndim else a[None], dtype=object)
    places = as_array(np.broadcast_to(_positions(len(values), values.ndim), values.shape)).copy()
    precedes = elementwise(lambda a, b: _precedes(a, b, descending=descending), 2)
    select = elementwise(s.select, 3)
    for end in range(len(values) - 1, 0, -1):
        for i in range(end):
            swap = precedes(values[i + 1, ...], values[i, ...])
            for each in (values, places):
                first, second = each[i, ...].copy(), each[i + 1, ...].copy()
                each[i, ...] = select(swap, second, first)
                each[i + 1, ...] = select(swap, first, second)
    if not a.ndim:
        return values[0, ...], places[0, ...]
    return np.moveaxis(values, 0, axis), np.moveaxis(places, 0, axis)


def _positions(count: int, ndim: int) -> Array:
    return np.arange(float(count)).astype(object).reshape(-1, *(1,) * (ndim - 1))


def _stable_sort(a: Array, *, dim: int = -1, descending: bool = False, **_: Any) -> Pair:
    return _sort(a, dim, descending)


def _topk(a: Array, count: int, axis: int = -1, largest: bool = True, _: bool = True) -> Pair:
    return _first(_sort(a, axis, descending=largest), axis, slice(0, count))


def _kth_value(a: Array, k: int, axis: int = -1, keepdim: bool = False) -> Pair:
    found = _first(_sort(a, axis), axis, slice(k - 1, k))
    return found if keepdim else (np.squeeze(found[0], axis), np.squeeze(found[1], axis))


def _first(pair: Pair, axis: int, part: slice) -> Pair:
    values, places = (np.moveaxis(np.moveaxis(a, axis, 0)[part], 0, axis) for a in pair)
    return values, places


def _median(a: Array) -> Array:
    flat = a.reshape(-1)
    values, _ = _sort(flat)
    middle = values[(len(flat) - 1) // 2, ...]
    return elementwise(lambda m, last: s.select(_is_nan(last), last, m), 2)(middle, values[-1, ...])


def _median_along(a: Array, axis: int, keepdim: bool = False) -> Pair:
    values, places = _sort(a, axis)
    middle = (a.shape[axis] - 1) // 2
    nan = elementwise(_is_nan, 1)(np.take(values, [-1], axis))
    select = elementwise(s.select, 3)
    found = [
        select(nan, np.take(each, [-1], axis), np.take(each, [middle], axis))
        for each in (values, places)
    ]
    if not keepdim:
        found = [np.squeeze(each, axis) for each in found]
    return found[0], found[1]


def _running(*, largest: bool) -> Callable[..., Pair]:
    """The largest or smallest so far and where it was, the last of equal ones; NaN wins."""

    def better(new: Any, old: Any) -> Value:
        smaller = s.less_equal(old, new) if largest else s.less_equal(new, old)
        return s.logical_or(smaller, _is_nan(new))

    def operation(a: Array, axis: int) -> Pair:
        values = np.array(np.moveaxis(a, axis, 0), dtype=object)
        places = as_array(
            np.broadcast_to(_positions(len(values), values.ndim), values.shape)
        ).copy()
        select = elementwise(s.select, 3)
        for i in range(1, len(values)):
            replaces = elementwise(better, 2)(values[i, ...], values[i - 1, ...])
            for each in (values, places):
                each[i, ...] = select(replaces, each[i, ...], each[i - 1, ...])
        return np.moveaxis(values, 0, axis), np.moveaxis(places, 0, axis)

    return operation


def _search(
    boundaries: Array, values: Any, *, right: bool = False, side: Any = None, **_: Any
) -> Array:
    """How many boundaries (of one axis, in order) lie below each value, or up to it."""
    from_right = right or side == "right"
    below = s.less_equal if from_right else s.less

    def count(value: Any) -> Value:
        found: Value = 0.0
        for boundary in boundaries:
            found = s.add(found, below(boundary, value))
        return found

    return elementwise(count, 1)(values)


ORDER: dict[str, Callable[..., Any]] = {
    "aten.bucketize.Tensor": lambda values, boundaries, **k: _search(boundaries, values, **k),
    "aten.cummax.default": _running(largest=True),
    "aten.cummin.default": _running(largest=False),
    "aten.kthvalue.default": _kth_value,
    "aten.median.default": _median,
    "aten.median.dim": _median_along,
    "aten.searchsorted.Tensor": _search,
    "aten.sort.default": _sort,
    "aten.sort.stable": _stable_sort,
    "aten.topk.default": _topk,
}
