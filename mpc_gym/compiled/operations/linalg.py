"""The table of ATen operations that factorise small matrices.

Gaussian elimination with partial pivoting (Golub & Van Loan, Matrix Computations, section 3.4): the
pivot is chosen by `select`, so that the one program is right whichever row is the largest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from mpc_gym.compiled import program as s
from mpc_gym.compiled.operations.elementwise import elementwise
from mpc_gym.compiled.program import Array, Value

_select = elementwise(s.select, 3)
_subtract, _multiply, _divide = (elementwise(f, 2) for f in (s.subtract, s.multiply, s.divide))
_NOTHING = np.empty(0, dtype=object)  # in the place of a factorisation that only torch looks at


def _eliminated(a: Array, b: Array) -> tuple[Array, Array, Value]:
    """Upper triangular U and the right sides c of U x = c as of a x = b; the sign of the pivots."""
    rows = np.concatenate((a, b), axis=1)
    n = len(a)
    sign: Value = 1.0
    for k in range(n):
        for i in range(k + 1, n):
            larger = s.less(s.absolute(rows[k, k]), s.absolute(rows[i, k]))
            rows[[k, i]] = _select(larger, rows[[i, k]], rows[[k, i]])
            sign = s.select(larger, s.negative(sign), sign)
        for i in range(k + 1, n):
            factor = s.divide(rows[i, k], rows[k, k])
            rows[i, k] = 0.0
            rows[i, k + 1 :] = _subtract(rows[i, k + 1 :], _multiply(factor, rows[k, k + 1 :]))
    return rows[:, :n], rows[:, n:], sign


def _substituted(triangle: Array, b: Array, *, upper: bool, unit: bool = False) -> Array:
    """x of T x = b, for a triangular T."""
    x = np.array(b, dtype=object)
    n = len(triangle)
    for i in range(n - 1, -1, -1) if upper else range(n):
        known = range(i + 1, n) if upper else range(i)
        for j in known:
            x[i] = _subtract(x[i], _multiply(triangle[i, j], x[j]))
        x[i] = x[i] if unit else _divide(x[i], triangle[i, i])
    return x


def _solved(a: Array, b: Array) -> Array:
    triangle, c, _ = _eliminated(a, b)
    return _substituted(triangle, c, upper=True)


def _stacked(function: Callable[..., Array], *arrays: Array) -> Array:
    """A function of matrices, of each matrix of stacks that are broadcast."""
    batch = np.broadcast_shapes(*(a.shape[:-2] for a in arrays))
    each = [np.broadcast_to(a, (*batch, *a.shape[-2:])) for a in arrays]
    found = [function(*(a[index] for a in each)) for index in np.ndindex(batch)]
    result = np.empty((len(found), *found[0].shape), dtype=object)
    for place, value in enumerate(found):
        result[place] = value
    return result.reshape((*batch, *found[0].shape))


def _solve(a: Array, b: Array, *, left: bool = True, **_: Any) -> tuple[Array, Array, Array, Array]:
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    right = b[..., None] if vector else b
    if left:
        x = _stacked(_solved, a, right)
    else:
        x = np.swapaxes(
            _stacked(_solved, np.swapaxes(a, -1, -2), np.swapaxes(right, -1, -2)), -1, -2
        )
    return x[..., 0] if vector else x, _NOTHING, _NOTHING, s.as_array(0)


def _inverse(a: Array, **_: Any) -> tuple[Array, Array]:
    identity = np.eye(a.shape[-1]).astype(object)
    return _stacked(lambda m: _solved(m, identity), a), s.as_array(0)


def _pivots(a: Array) -> tuple[Array, Array]:
    """Diagonal of U [..., n], and sign [...], of each matrix."""

    def of_one(m: Array) -> Array:
        triangle, _, sign = _eliminated(m, m[:, :0])
        return np.array([[*np.diagonal(triangle), sign]], dtype=object)

    found = _stacked(of_one, a)[..., 0, :]
    return found[..., :-1], found[..., -1]


def _product(a: Array, start: Any) -> Array:
    result = start
    for i in range(a.shape[-1]):
        result = _multiply(result, a[..., i])
    return s.as_array(result)


def _determinant(a: Array) -> tuple[Array, Array, Array]:
    diagonal, sign = _pivots(a)
    return _product(diagonal, sign), _NOTHING, _NOTHING


def _sign_and_logarithm(a: Array) -> tuple[Array, Array, Array, Array]:
    diagonal, sign = _pivots(a)
    logarithms = elementwise(lambda v: s.log(s.absolute(v)), 1)(diagonal)
    total = reduce(elementwise(s.add, 2), np.moveaxis(logarithms, -1, 0))
    signs = _product(elementwise(s.sign, 1)(diagonal), sign)
    return signs, s.as_array(total), _NOTHING, _NOTHING


def _cholesky(a: Array, *, upper: bool = False, **_: Any) -> tuple[Array, Array]:
    def of_one(m: Array) -> Array:
        n = len(m)
        lower = np.full((n, n), 0.0, dtype=object)
        for j in range(n):
            for i in range(j, n):
                rest = m[j, i] if upper else m[i, j]
                for k in range(j):
                    rest = s.subtract(rest, s.multiply(lower[i, k], lower[j, k]))
                lower[i, j] = s.sqrt(rest) if i == j else s.divide(rest, lower[j, j])
        return lower.T if upper else lower

    return _stacked(of_one, a), s.as_array(0)


def _solve_triangular(
    a: Array, b: Array, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Array:
    def of_one(triangle: Array, right: Array) -> Array:
        if left:
            return _substituted(triangle, right, upper=upper, unit=unitriangular)
        x: Array = _substituted(triangle.T, right.T, upper=not upper, unit=unitriangular).T
        return x

    return _stacked(of_one, a, b)


def _cholesky_solve(b: Array, factor: Array, upper: bool = False) -> Array:
    lower = np.swapaxes(factor, -1, -2) if upper else factor

    def of_one(triangle: Array, right: Array) -> Array:
        y = _substituted(triangle, right, upper=False)
        return _substituted(triangle.T, y, upper=True)

    return _stacked(of_one, lower, b)


def _cholesky_inverse(factor: Array, upper: bool = False) -> Array:
    return _cholesky_solve(np.eye(factor.shape[-1]).astype(object), factor, upper)


LINALG: dict[str, Callable[..., Any]] = {
    # a singular matrix gives infinity or NaN here, not an error
    "aten._linalg_check_errors.default": lambda *_, **__: None,
    "aten._linalg_det.default": _determinant,
    "aten._linalg_slogdet.default": _sign_and_logarithm,
    "aten._linalg_solve_ex.default": _solve,
    "aten.cholesky_inverse.default": _cholesky_inverse,
    "aten.cholesky_solve.default": _cholesky_solve,
    "aten.linalg_cholesky_ex.default": _cholesky,
    "aten.linalg_inv_ex.default": _inverse,
    "aten.linalg_solve_triangular.default": _solve_triangular,
}
