"""The bits of a float64, and what is made of them without a branch."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Any, TypeAlias, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mpc_gym.compiled.cpu.native import native_exact

Bits: TypeAlias = np.uint64

# Numba gives an intrinsic the typing context and the argument types, and calls what it returns
# with the code generator's context and the signature, whether they are needed or not.


def _select(_: Any, __: Any, a: Any, ___: Any) -> Any:
    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return a(types.boolean, a, a), generate


def _bits(_: Any, __: Any) -> Any:
    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.uint64(types.float64), generate


def _from_bits(_: Any, __: Any) -> Any:
    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.uint64), generate


def _fused(_: Any, a: Any, __: Any, ___: Any) -> Any:
    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return a(a, a, a), generate


select = cast("Callable[[bool, float, float], float]", intrinsic(_select))
"""select(chosen, a, b): a if chosen else b, both evaluated; one LLVM `select`."""

bits = cast("Callable[[float], Bits]", intrinsic(_bits))
"""bits(x): the 64 bits of a float64, as an unsigned integer."""

from_bits = cast("Callable[[Bits], float]", intrinsic(_from_bits))
"""from_bits(b): the float64 that has these bits."""

fused = cast("Callable[[float, float, float], float]", intrinsic(_fused))
"""fused(a, b, c): a * b + c, rounded once."""

SIGN = np.uint64(1 << 63)
MAGNITUDE = np.uint64((1 << 63) - 1)
MANTISSA = np.uint64((1 << 52) - 1)
ONE, TWO = np.uint64(1), np.uint64(2)
EXPONENT_SHIFT = np.uint64(52)
SIGN_SHIFT = np.uint64(62)

# Adding it rounds a double to a whole number, whose low bits are then those of the sum.
ROUND = 6755399441055744.0  # 1.5 * 2^52
_ROUND_BIASED = ROUND + 1023.0


@native_exact
def copysign(magnitude: float, sign: float) -> float:
    """The magnitude of one number with the sign of another."""
    return from_bits((bits(magnitude) & MAGNITUDE) | (bits(sign) & SIGN))


@native_exact
def power_of_two(k: float) -> float:
    """2^k for a whole k from -1022 to 1023."""
    return from_bits(bits(k + _ROUND_BIASED) << EXPONENT_SHIFT)


@native_exact
def minimum(a: float, b: float) -> float:
    """The smaller one; NaN if either is."""
    return select(isnan(a), a, select(a < b, a, b))


@native_exact
def maximum(a: float, b: float) -> float:
    """The larger one; NaN if either is."""
    return select(isnan(a), a, select(a > b, a, b))
