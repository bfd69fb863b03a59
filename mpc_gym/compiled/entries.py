"""Which block given scalars are the entries of.

The tracer and the stages know arrays of scalars. Entries that follow each other in a block are
found here, so that what uses them together can use the block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc_gym.compiled import blocks
from mpc_gym.compiled.program import Array, Expression, Program, Value

SHORTEST = 8
"""Entries that follow each other from which on they are used as one column."""


def entry_of(value: Any) -> tuple[int | str | None, int]:
    """What a value is an entry of, a block or inputs that may be read as one, and which."""
    if isinstance(value, Expression):
        operation = value.program.operations[value.index]
        if operation.kind == "element":
            of = operation.operands[0]
            assert isinstance(of, int)
            return of, operation.static[0]
        if operation.kind == "input":
            prefix = operation.name.rstrip("0123456789")
            if prefix in value.program.parameter_prefixes:
                return prefix, int(operation.name[len(prefix) :])
    return None, 0


def of_inputs(values: Array) -> Expression | None:
    """The block of inputs with these entries [rows, columns], evenly spaced; None if there is none.

    Only of inputs that may be read as blocks.
    """
    prefix, start = entry_of(values[0, 0])
    if not isinstance(prefix, str):
        return None
    neighbours = values[:, 0][:2][-1], values[0][:2][-1]
    strides = [entry_of(value)[1] - start for value in neighbours]
    for i, j in np.ndindex(*values.shape):
        if entry_of(values[i, j]) != (prefix, start + i * strides[0] + j * strides[1]):
            return None
    shape = (values.shape[0], values.shape[1])
    return blocks.block(values[0, 0].program, prefix, start, (strides[0], strides[1]), shape)


def stacked(program: Program, values: Array) -> Value:
    """The values one under the other, as a column."""
    return blocks.pack(program, *_runs(program, values))


def matrix(program: Program, values: Array) -> Expression:
    """A matrix of scalars: the block that they are the entries of, or a transpose, or a new one."""
    for array in (values, values.T):
        of = _whole(program, array)
        if of is not None:
            return of if array is values else blocks.transpose(of)
    rows, columns = (_runs(program, array.ravel()) for array in (values, values.T))
    if len(columns[0]) < len(rows[0]):
        return blocks.transpose(matrix(program, values.T))
    return blocks.packed(program, *rows, (values.shape[0], values.shape[1]))


def _whole(program: Program, values: Array) -> Expression | None:
    """The computed block whose entries these are, all of them in order."""
    of = entry_of(values[0, 0])[0]
    if not isinstance(of, int) or program.shapes[of] != values.shape:
        return None
    whole = all(entry_of(value) == (of, i) for i, value in enumerate(values.flat))
    return Expression(program, of) if whole else None


def _runs(program: Program, values: Array) -> tuple[list[Any], list[int]]:
    """The values, those that follow each other in a block together; how many each stands for."""
    parts: list[Any] = []
    counts: list[int] = []
    i = 0
    while i < len(values):
        of, place = entry_of(values[i])
        n = 1
        while of is not None and i + n < len(values) and entry_of(values[i + n]) == (of, place + n):
            n += 1
        if n < SHORTEST:
            n = 1
            parts.append(values[i])
        elif isinstance(of, str):
            parts.append(blocks.block(program, of, place, (1, 0), (n, 1)))
        else:
            assert of is not None
            parts.append(blocks.piece(Expression(program, of), place, n))
        counts.append(n)
        i += n
    return parts, counts
