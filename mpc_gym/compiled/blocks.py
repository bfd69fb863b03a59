"""Operations of a program on blocks: matrices, and columns, whose entries are not named one by one.

What is wide (a layer of a network, the products of a large Riccati recursion) would be thousands of
scalar operations, which take minutes to compile. As an operation on blocks it is one, and becomes a
loop. Beside the primitives, which work on all entries, there are

    block       entries of an input: a matrix or vector of parameters
    pack        scalars, and columns, one under the other
    view        some entries of a block, or all in another order (a transpose)
    element     one entry, a scalar
    sum         of all entries, a scalar
    matmul      the product of two matrices
    outer       sum of a_j b_j', of columns: the derivative of a scalar by a matrix

Views and elements take no time, and products with what is nearly all zero become those with the
columns that are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc_gym.compiled import program as s
from mpc_gym.compiled.program import Array, Expression, Operation, Program, Shape, Value

FEW = 16
"""A product with a column of at most so many entries that are not 0 is a sum of columns."""


LINEAR = frozenset({"pack", "view", "element", "sum", "matmul"})
"""Those that are linear in their operands, a product in its second."""


def size(shape: Shape) -> int:
    """Number of entries."""
    return shape[0] * shape[1]


def shape_of(value: Any) -> Shape | None:
    """Rows and columns of a block, None of a scalar."""
    return value.shape if isinstance(value, Expression) else None


def block(
    program: Program, prefix: str, start: int, strides: tuple[int, int], shape: Shape
) -> Expression:
    """The matrix whose entry i, j is the input `prefix` start + i strides[0] + j strides[1]."""
    strides = _used(strides, shape)
    return program.append(Operation("block", (), prefix, (start, *strides, *shape)), shape)


def pack(program: Program, parts: Sequence[Any], counts: Sequence[int] | None = None) -> Value:
    """A column of parts one under the other, each a scalar, so many times, or a column.

    0 where all are.
    """
    counts = [(shape_of(part) or (1, 1))[0] for part in parts] if counts is None else counts
    if all(s.is_zero(part) for part in parts):
        return 0.0
    if len(parts) == 1 and shape_of(parts[0]) is not None:
        found: Expression = parts[0]
        return found
    return packed(program, parts, counts, (sum(counts), 1))


def column(program: Program, value: Any, count: int) -> Expression:
    """The value itself, or a column of as many entries of a scalar."""
    if shape_of(value) is None:
        return packed(program, [value], [count], (count, 1))
    found: Expression = value
    return found


def parameters(program: Program, outputs: Sequence[Any]) -> list[Expression]:
    """The blocks of parameters that outputs depend on."""
    live = program.live(outputs)
    return [Expression(program, i) for i in live if program.operations[i].kind == "block"]


def place(of: Expression) -> tuple[str, int, tuple[int, int], Shape]:
    """The inputs that a block of parameters consists of: prefix, first number, strides, shape."""
    operation = of.program.operations[of.index]
    start, down, across, *shape = operation.static
    return operation.name, start, (down, across), (shape[0], shape[1])


def packed(
    program: Program, parts: Sequence[Any], counts: Sequence[int], shape: Shape
) -> Expression:
    """A matrix of parts, row by row: scalars, so many times each, and columns."""
    operands = tuple(p.index if isinstance(p, Expression) else float(p) for p in parts)
    return program.append(Operation("pack", operands, "", tuple(counts)), shape)


def view(of: Expression, start: int, strides: tuple[int, int], shape: Shape) -> Expression:
    """Entries start + i strides[0] + j strides[1] of a block, counted row by row, as a matrix."""
    whole, strides = _shape(of), _used(strides, shape)
    if shape == whole and start == 0 and strides == _used((whole[1], 1), whole):
        return of
    operation = of.program.operations[of.index]
    if operation.kind not in ("view", "block"):
        return of.program.append(Operation("view", (of.index,), "", (start, *strides)), shape)
    first, down, across = operation.static[:3]

    def distance(entries: int) -> int:
        rows, columns = divmod(entries, whole[1])
        return rows * down + columns * across

    start, strides = first + distance(start), (distance(strides[0]), distance(strides[1]))
    if operation.kind == "block":
        return block(of.program, operation.name, start, strides, shape)
    of = Expression(of.program, _index(operation.operands[0]))
    return view(of, start, strides, shape)


def _used(strides: tuple[int, int], shape: Shape) -> tuple[int, int]:
    """Strides, 0 along what has one entry alone."""
    return (strides[0] if shape[0] > 1 else 0, strides[1] if shape[1] > 1 else 0)


def transpose(matrix: Expression) -> Expression:
    """The transpose."""
    rows, columns = _shape(matrix)
    return view(matrix, 0, (1, columns), (columns, rows))


def piece(of: Any, start: int, count: int) -> Value:
    """Some entries of a column; of a scalar that stands for a column, the scalar."""
    if shape_of(of) is None:
        return s.add(of, 0.0)
    return view(of, start, (1, 0), (count, 1))


def element(of: Any, i: int) -> Value:
    """An entry of a block, counted row by row; of a scalar that stands for a block, the scalar."""
    shape = shape_of(of)
    if shape is None:
        return s.add(of, 0.0)
    program: Program = of.program
    operation = program.operations[of.index]
    row, column = divmod(i, shape[1])
    if operation.kind == "block":
        start, *strides = operation.static[:3]
        place = start + row * strides[0] + column * strides[1]
        return program.input(f"{operation.name}{place}")
    if operation.kind == "view":
        start, *strides = operation.static
        base = Expression(program, _index(operation.operands[0]))
        return element(base, start + row * strides[0] + column * strides[1])
    if operation.kind == "pack":
        for operand, count in zip(operation.operands, operation.static, strict=True):
            if i < count:
                value = program.value(operand)
                return element(value, i) if shape_of(value) is not None else value
            i -= count
    return program.append(Operation("element", (of.index,), "", (i,)), None)


def entries(of: Any, shape: tuple[int, ...]) -> Array:
    """All of them, as an array of that shape."""
    count = int(np.prod(shape, dtype=int))
    result = np.empty(count, dtype=object)
    for i in range(count):
        result[i] = element(of, i)
    return result.reshape(shape)


def total(of: Any, count: int) -> Value:
    """The sum of the entries of a block, or of a scalar that stands for so many."""
    if shape_of(of) is None:
        return s.multiply(of, float(count))
    if of.shape == (1, 1):
        return element(of, 0)
    program: Program = of.program
    return program.append(Operation("sum", (of.index,)), None)


def product(a: Expression, values: Value) -> Value:
    """A matrix times a column, or times a scalar that stands for one."""
    return 0.0 if s.is_zero(values) else matmul(a, column(a.program, values, _shape(a)[1]))


def matmul(a: Expression, b: Expression) -> Value:
    """The product of two matrices."""
    (rows, inner), (also_inner, columns) = _shape(a), _shape(b)
    assert inner == also_inner, (a.shape, b.shape)
    if columns == 1 and b.kind == "pack" and _is_sparse(b):
        result: Value = 0.0
        for i in range(inner):
            of_a = view(a, i, (inner, 0), (rows, 1))
            result = s.add(result, s.multiply(of_a, element(b, i)))
        return result
    assert b.kind != "block" or columns == 1, "the second factor is no matrix of parameters"
    if b.kind == "block":
        b = packed(b.program, [b], [inner], (inner, 1))
    return a.program.append(Operation("matmul", (a.index, b.index)), (rows, columns))


def _is_sparse(packed: Expression) -> bool:
    """Whether few of its entries are not 0, and none of them is part of a column."""
    operation = packed.program.operations[packed.index]
    nonzero = 0
    for operand, count in zip(operation.operands, operation.static, strict=True):
        value = packed.program.value(operand)
        if shape_of(value) is not None:
            return False
        nonzero += 0 if s.is_zero(value) else count
    return nonzero <= FEW


def outer(a: Any, b: Any, shape: Shape) -> Expression:
    """a b', of columns, or scalars that stand for columns."""
    program = (a if isinstance(a, Expression) else b).program
    left, right = (column(program, v, count) for v, count in zip((a, b), shape, strict=True))
    return left.program.append(Operation("outer", (left.index, right.index)), shape)


def add_outer(a: Value, b: Value) -> Value:
    """The sum of derivatives by a matrix."""
    if s.is_zero(a):
        return b
    assert isinstance(a, Expression)
    assert isinstance(b, Expression)
    operands = tuple(o for each in (a, b) for o in a.program.operations[each.index].operands)
    return a.program.append(Operation("outer", operands), a.shape)


def is_outer(value: Any) -> bool:
    """Whether it is the derivative by a matrix."""
    return isinstance(value, Expression) and value.kind == "outer"


def tangent(program: Program, index: int, moving: Sequence[Value]) -> Value:
    """The derivative of a linear operation along a direction, from those of its operands."""
    operation, shape = program.operations[index], program.shapes.get(index)
    kind, static = operation.kind, operation.static
    if kind == "pack":
        return pack(program, moving, static)
    if kind == "matmul":
        assert s.is_zero(moving[0]), "a matrix of parameters"
        return product(Expression(program, _index(operation.operands[0])), moving[1])
    of = program.shapes[_index(operation.operands[0])]
    if kind == "sum":
        return total(moving[0], size(of))
    if kind == "element":
        return element(moving[0], static[0])
    assert shape is not None
    if shape_of(moving[0]) is None:
        return moving[0]
    return view(moving[0], static[0], (static[1], static[2]), shape)  # type: ignore[arg-type]


def shares(
    program: Program, index: int, weight: Value, passed_on: set[int]
) -> list[tuple[int, Value]]:
    """What a linear operation of that weight passes on to those of its operands.

    An element's is left to who knows the others of that block.
    """
    operation = program.operations[index]
    kind, static = operation.kind, operation.static
    first = _index(operation.operands[0]) if kind != "pack" else -1
    if kind == "sum":
        return [(first, weight)]
    if kind == "view":
        return [(first, _placed(program, index, first, weight))]
    found: list[tuple[int, Value]] = []
    if kind == "matmul":
        second = _index(operation.operands[1])
        a, b = (Expression(program, i) for i in (first, second))
        if first in passed_on:
            found.append((first, outer(weight, b, _shape(a))))
        if second in passed_on:
            found.append((second, product(transpose(a), weight)))
        return found
    start = 0
    for operand, count in zip(operation.operands, static, strict=True):
        if isinstance(operand, int) and operand in passed_on:
            share = piece(weight, start, count)
            if operand not in program.shapes:
                share = total(share, count)
            found.append((operand, share))
        start += count
    return found


def _placed(program: Program, index: int, of: int, weight: Value) -> Value:
    """What is passed on to a column by a piece of it: zeros above and below."""
    start, down, across = program.operations[index].static
    count, whole = program.shapes[index][0], program.shapes[of]
    assert (min(down, 1), across, whole[1]) == (down, 0, 1), "a piece of a column"
    parts = [(0.0, start), (weight, count), (0.0, whole[0] - start - count)]
    return pack(program, [p for p, n in parts if n], [n for _, n in parts if n])


def _index(operand: Any) -> int:
    assert isinstance(operand, int)
    return operand


def _shape(value: Expression) -> Shape:
    shape = value.shape
    assert shape is not None
    return shape
