"""Scalars, triangles and small systems of equations in the program of a stage."""

from functools import reduce
from typing import TypeAlias

import numpy as np

from mpc_gym.compiled import program as s
from mpc_gym.compiled.program import Array, Program, Value

Outputs: TypeAlias = "dict[str, Value]"
Stage: TypeAlias = "tuple[Program, Outputs]"


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


def solve_free(H: Array, right: Array, free: Array) -> Array:
    """-H^-1 right on the free entries, zero on the others, by elimination without pivoting.

    H is symmetric, and positive definite on the free entries at a strict minimum. Clamped rows and
    columns are replaced by those of the identity.
    """
    m = len(free)
    both = [[s.logical_and(free[i], free[j]) for j in range(m)] for i in range(m)]
    A = np.array(
        [[s.select(both[i][j], H[i, j], float(i == j)) for j in range(m)] for i in range(m)],
        dtype=object,
    )
    B = np.array(
        [[s.select(free[i], s.negative(entry), 0.0) for entry in right[i]] for i in range(m)],
        dtype=object,
    )
    for i in range(m):
        for j in range(i + 1, m):
            factor = s.divide(A[j, i], A[i, i])
            A[j] = A[j] - A[i] * factor
            B[j] = B[j] - B[i] * factor
    for i in reversed(range(m)):
        for j in range(i + 1, m):
            B[i] = B[i] - B[j] * A[i, j]
        B[i] = [s.divide(entry, A[i, i]) for entry in B[i]]
    return B
