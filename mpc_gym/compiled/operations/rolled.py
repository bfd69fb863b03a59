"""Arrays of scalars that are the entries of a block, and functions on them as operations on blocks.

The tracer knows scalars alone. What comes out of a large product is a column, whose entries are
recognised where they are used next: a function of all of them becomes one operation on the column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpc_gym.compiled import blocks
from mpc_gym.compiled.program import Array, Expression, Program, Value

SMALLEST_PRODUCT = 128
"""Multiplications from which on a product with parameters is one of blocks."""
SHORTEST = 8
"""Entries of a column from which on functions are of the column."""


def apply(function: Callable[..., Value], arrays: Sequence[Any]) -> Array | None:
    """The function of arrays that are broadcast, where one has columns in it; None elsewhere."""
    given = [np.asarray(array, dtype=object) for array in arrays]
    shape = np.broadcast_shapes(*(array.shape for array in given))
    count = int(np.prod(shape, dtype=int))
    if count < SHORTEST or not any(map(_has_column, given)):
        return None
    program = _program(given)
    columns = [_operand(program, np.broadcast_to(array, shape).ravel()) for array in given]
    return blocks.entries(function(*columns), shape)


def total(values: Sequence[Any]) -> Value | None:
    """The sum of values among which are columns; None elsewhere."""
    array = np.array(values, dtype=object)
    if len(array) < SHORTEST or not _has_column(array):
        return None
    return blocks.total(column(_program([array]), array), len(array))


def product(a: Array, b: Array) -> Array | None:
    """a @ b for matrices, where one is of parameters and large; None elsewhere."""
    if a.shape[0] * a.shape[1] >= SMALLEST_PRODUCT:
        matrix = _parameters(a)
        if matrix is not None:
            found = [_times(matrix, b[:, j]) for j in range(b.shape[1])]
            return np.stack(found, 1) if found else None
    if b.shape[0] * b.shape[1] >= SMALLEST_PRODUCT and _parameters(b) is not None:
        transposed = product(b.T, a.T)
        return None if transposed is None else transposed.T
    return None


def column(program: Program, values: Array) -> Value:
    """The values one under the other, entries of columns together."""
    parts: list[Any] = []
    counts: list[int] = []
    i = 0
    while i < len(values):
        of, place = _entry(values[i])
        n = 1
        if of is not None:
            while i + n < len(values) and _entry(values[i + n]) == (of, place + n):
                n += 1
        if of is not None and n >= SHORTEST:
            parts.append(blocks.piece(Expression(values[i].program, of), place, n))
        else:
            n = 1
            parts.append(values[i])
        counts.append(n)
        i += n
    return blocks.pack(program, parts, counts)


def _times(matrix: Expression, values: Array) -> Array:
    rows = blocks.shape_of(matrix)
    assert rows is not None
    return blocks.entries(blocks.product(matrix, column(matrix.program, values)), (rows[0],))


def _has_column(array: Array) -> bool:
    """Whether there are entries of a column, as many as make one."""
    flat = array.ravel()
    for i in range(0, len(flat) - SHORTEST + 1, SHORTEST // 2):
        of, place = _entry(flat[i])
        if of is not None and _entry(flat[i + SHORTEST // 2 - 1]) == (
            of,
            place + SHORTEST // 2 - 1,
        ):
            return True
    return False


def _operand(program: Program, values: Array) -> Value:
    first = values[0]
    if all(value is first or _same(value, first) for value in values):
        return first if isinstance(first, Expression) else float(first)
    parameters = _parameters(values[:, None])
    return column(program, values) if parameters is None else parameters


def _program(arrays: Sequence[Array]) -> Program:
    return next(v.program for array in arrays for v in array.flat if isinstance(v, Expression))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Expression) and isinstance(b, Expression):
        return a.index == b.index
    return not isinstance(a, Expression) and not isinstance(b, Expression) and bool(a == b)


def _entry(value: Any) -> tuple[int | None, int]:
    """The block that a value is an entry of, and which."""
    if isinstance(value, Expression):
        operation = value.program.operations[value.index]
        if operation.kind == "element":
            of = operation.operands[0]
            assert isinstance(of, int)
            return of, operation.static[0]
    return None, 0


def _parameters(values: Array) -> Expression | None:
    """The block of parameters with these entries, evenly spaced along rows and columns."""
    corner = _place(values[0, 0])
    if corner is None:
        return None
    program, prefix, start = corner
    strides = []
    for axis in range(2):
        places = [_place(value) for value in np.moveaxis(values, axis, 0)[:2, 0]]
        if any(place is None or place[1] != prefix for place in places):
            return None
        strides.append(places[-1][2] - start)  # type: ignore[index]
    for i, j in np.ndindex(*values.shape):
        name = f"{prefix}{start + i * strides[0] + j * strides[1]}"
        value = values[i, j]
        if not isinstance(value, Expression) or value.program.operations[value.index].name != name:
            return None
    shape = (values.shape[0], values.shape[1])
    return blocks.block(program, prefix, start, (strides[0], strides[1]), shape)


def _place(value: Any) -> tuple[Program, str, int] | None:
    """The prefix and number of an input that is a parameter."""
    if not isinstance(value, Expression):
        return None
    operation = value.program.operations[value.index]
    prefix = operation.name.rstrip("0123456789")
    if operation.kind != "input" or prefix not in value.program.parameter_prefixes:
        return None
    return value.program, prefix, int(operation.name[len(prefix) :])
