"""Arrays of scalars that are the entries of a block, and functions on them as operations on blocks.

The tracer knows scalars alone. What comes out of a large product is a column, whose entries are
recognised where they are used next: a function of all of them becomes one operation on the column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpc_gym.compiled import blocks, entries
from mpc_gym.compiled.program import Array, Expression, Program, Value

SMALLEST_PRODUCT = 128
"""Multiplications from which on a product with parameters is one of blocks."""


def apply(function: Callable[..., Value], arrays: Sequence[Any]) -> Array | None:
    """The function of arrays that are broadcast, where one has columns in it; None elsewhere."""
    given = [np.asarray(array, dtype=object) for array in arrays]
    shape = np.broadcast_shapes(*(array.shape for array in given))
    count = int(np.prod(shape, dtype=int))
    if count < entries.SHORTEST or not any(map(_has_column, given)):
        return None
    program = _program(given)
    columns = [_operand(program, np.broadcast_to(array, shape).ravel()) for array in given]
    return blocks.entries(function(*columns), shape)


def total(values: Sequence[Any]) -> Value | None:
    """The sum of values among which are columns; None elsewhere."""
    array = np.array(values, dtype=object)
    if len(array) < entries.SHORTEST or not _has_column(array):
        return None
    return blocks.total(entries.stacked(_program([array]), array), len(array))


def product(a: Array, b: Array) -> Array | None:
    """a @ b for matrices, where one is of parameters and large; None elsewhere."""
    if a.shape[0] * a.shape[1] >= SMALLEST_PRODUCT:
        matrix = entries.of_inputs(a)
        if matrix is not None:
            found = [_times(matrix, b[:, j]) for j in range(b.shape[1])]
            return np.stack(found, 1) if found else None
    if b.shape[0] * b.shape[1] >= SMALLEST_PRODUCT and entries.of_inputs(b) is not None:
        transposed = product(b.T, a.T)
        return None if transposed is None else transposed.T
    return None


def _times(matrix: Expression, values: Array) -> Array:
    rows = blocks.shape_of(matrix)
    assert rows is not None
    return blocks.entries(
        blocks.product(matrix, entries.stacked(matrix.program, values)), (rows[0],)
    )


def _has_column(array: Array) -> bool:
    """Whether there are entries of a computed column, as many as make one."""
    half = entries.SHORTEST // 2
    flat = array.ravel()
    for i in range(0, len(flat) - 2 * half + 1, half):
        of, place = entries.entry_of(flat[i])
        if isinstance(of, int) and entries.entry_of(flat[i + half - 1]) == (of, place + half - 1):
            return True
    return False


def _operand(program: Program, values: Array) -> Value:
    first = values[0]
    if all(value is first or _same(value, first) for value in values):
        return first if isinstance(first, Expression) else float(first)
    parameters = entries.of_inputs(values[:, None])
    return entries.stacked(program, values) if parameters is None else parameters


def _program(arrays: Sequence[Array]) -> Program:
    return next(v.program for array in arrays for v in array.flat if isinstance(v, Expression))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Expression) and isinstance(b, Expression):
        return a.index == b.index
    return not isinstance(a, Expression) and not isinstance(b, Expression) and bool(a == b)
