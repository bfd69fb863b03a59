"""The primitives of a scalar program, and their values on constants."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

COMMUTATIVE = frozenset({"add", "multiply", "equal", "logical_and", "logical_or"})

CONDITIONS = frozenset({"less", "less_equal", "equal", "logical_and", "logical_or", "logical_not"})
"""Primitives whose result is 1 or 0; a boolean in LLVM."""

_FOLD: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "negative": np.negative,
    "power": np.power,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan2": np.arctan2,
    "hypot": np.hypot,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "sigmoid": lambda a: 1.0 / (1.0 + np.exp(-a)),
    "erf": np.vectorize(math.erf, otypes=[float]),
    "absolute": np.absolute,
    "floor": np.floor,
    "rint": np.rint,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_not": np.logical_not,
    "select": np.where,
    "detach": lambda a: a,
}


def fold(kind: str, *values: float) -> float:
    """The value of a primitive on constants, with NaN and infinity as IEEE 754 has them."""
    with np.errstate(all="ignore"):
        return float(_FOLD[kind](*map(np.float64, values)))


def primitive(kind: str) -> Callable[..., Any]:
    """A primitive as a function of NumPy arrays; to be called with `np.errstate(all="ignore")`."""
    return _FOLD[kind]
