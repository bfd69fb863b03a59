"""Scalars, triangles and small systems of equations in the program of a stage."""

from functools import reduce
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from mpc_gym.compiled import blocks, entries
from mpc_gym.compiled import program as s
from mpc_gym.compiled.program import Array, Program, Value


class Entries(NamedTuple):
    """Entries of a field, to which an output is added that is a block."""

    field: str
    start: int
    strides: tuple[int, int]


Outputs: TypeAlias = "dict[str | Entries, Value]"
"""By the entry of the record."""
Stage: TypeAlias = "tuple[Program, Outputs]"


DENSE = 2000
"""Terms from which on a product of matrices is one of blocks."""


def clip(value: Value, low: Value, high: Value) -> Value:
    """`value` within the bounds; NaN stays NaN."""
    value = s.select(s.less(value, low), low, value)
    return s.select(s.less(high, value), high, value)


def named(name: str, values: Array, *, following: bool = False) -> Outputs:
    """Entries as a field of the record: `name0`, `name1` ...; or of the following one."""
    prime = "'" if following else ""
    return {f"{name}{prime}{i}": entry for i, entry in enumerate(np.ravel(values))}


def triangle(n: int) -> int:
    """Entries of a triangle with its diagonal."""
    return n * (n + 1) // 2


def upper(matrix: Array) -> Array:
    """The upper triangle, row by row."""
    entries: Array = matrix[np.triu_indices(len(matrix))]
    return entries


def symmetric(entries: Array, n: int) -> Array:
    """The matrix with this upper triangle."""
    matrix = np.empty((n, n), dtype=object)
    rows, columns = np.triu_indices(n)
    matrix[rows, columns] = matrix[columns, rows] = entries
    return matrix


def any_nonzero(values: Array) -> Value:
    """Whether there is one."""
    return reduce(s.logical_or, (s.logical_not(s.equal(value, 0.0)) for value in values))


def larger(a: Value, b: Value) -> Value:
    """Of two, the first where one is NaN."""
    return s.select(s.less(a, b), b, a)


def smaller(a: Value, b: Value) -> Value:
    """Of two, the first where one is NaN."""
    return s.select(s.less(b, a), b, a)


def all_finite(values: list[Value], before: Value) -> Value:
    """`before`, or 0 if any value is infinite or NaN."""
    finite: Value = 1.0
    for value in values:
        finite = s.logical_and(finite, s.less(s.absolute(value), float("inf")))
    return s.select(finite, before, 0.0)


def product(program: Program, a: Array, b: Array) -> Array:
    """a @ b; where that has many terms as an operation on blocks."""
    if _nonzero(a).sum(0) @ _nonzero(b).sum(1) < DENSE:
        found: Array = a @ b
        return found
    left, right = (entries.matrix(program, values) for values in (a, b))
    return blocks.entries(blocks.matmul(left, right), (len(a), b.shape[1]))


def _nonzero(values: Array) -> Any:
    return np.array([[not s.is_zero(entry) for entry in row] for row in values], dtype=int)


def masked(H: Array, free: Array) -> Array:
    """H with the rows and columns of what is not free replaced by those of the identity."""
    result: Array = H.copy()
    for i, j in np.ndindex(*H.shape):
        result[i, j] = s.select(s.logical_and(free[i], free[j]), H[i, j], float(i == j))
    return result


def solve_free(H: Array, right: Array, free: Array) -> Array:
    """-H^-1 right on the free entries, zero on the others, by elimination without pivoting.

    H is symmetric, and positive definite on the free entries at a strict minimum.
    """
    m, columns = right.shape
    U, inverse, factors = _eliminated(masked(H, free))
    x = np.empty((m, columns), dtype=object)
    x[...] = right
    wide = m * m * columns >= DENSE
    if wide:  # rows as columns of a program
        x = np.empty((m, 1), dtype=object)
        x[:, 0] = [entries.stacked(_program_of(H), row) for row in right]
    for i in range(m):
        x[i] = [s.select(free[i], s.negative(entry), 0.0) for entry in x[i]]
    for i in range(m):
        for j in range(i + 1, m):
            x[j] = x[j] - x[i] * factors[i, j]
    for i in reversed(range(m)):
        for j in range(i + 1, m):
            x[i] = x[i] - x[j] * U[i, j]
        x[i] = x[i] * inverse[i]
    return np.array([blocks.entries(row[0], (columns,)) for row in x]) if wide else x


def _program_of(values: Array) -> Program:
    return next(value.program for value in values.flat if isinstance(value, s.Expression))


def definite(H: Array) -> Value:
    """Whether a symmetric matrix is positive definite."""
    U, _, _ = _eliminated(H)
    return reduce(s.logical_and, (s.less(0.0, pivot) for pivot in np.diagonal(U)))


def _eliminated(H: Array) -> tuple[Array, Array, Array]:
    """Upper triangular U, the inverses of its diagonal, and by what rows were subtracted."""
    m = len(H)
    U = H.copy()
    inverse, factors = np.empty(m, dtype=object), np.empty((m, m), dtype=object)
    for i in range(m):
        inverse[i] = s.divide(1.0, U[i, i])
        for j in range(i + 1, m):
            factors[i, j] = s.multiply(U[i, j], inverse[i])
            U[j, j:] = U[j, j:] - U[i, j:] * factors[i, j]
    return U, inverse, factors
