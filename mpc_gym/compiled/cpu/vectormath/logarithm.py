"""Logarithms and powers."""

from __future__ import annotations

from math import isnan

import numpy as np

from mpc_gym.compiled.cpu.native import native_exact
from mpc_gym.compiled.cpu.vectormath.bits import (
    EXPONENT_SHIFT,
    MANTISSA,
    SIGN,
    bits,
    copysign,
    from_bits,
    fused,
    select,
)
from mpc_gym.compiled.cpu.vectormath.exponential import LN2_HIGH, LN2_LOW, scaled_exp

_SMALLEST_NORMAL = 2.2250738585072014e-308
_SQRT_HALF_BITS = np.uint64(0x3FE6A09E667F3BCD)
_TO_SQRT_HALF = np.uint64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
_TWO_52 = 4503599627370496.0
_TWO_52_BITS = np.uint64(0x4330000000000000)


@native_exact
def split_by_two(x: float) -> tuple[float, float]:
    """x = 2^k m with m from sqrt(1/2) to sqrt(2), for positive finite x: k and m."""
    subnormal = x < _SMALLEST_NORMAL
    shifted = bits(select(subnormal, x * 2.0**54, x)) + _TO_SQRT_HALF
    k = from_bits((shifted >> EXPONENT_SHIFT) | _TWO_52_BITS) - (_TWO_52 + 1023.0)
    m = from_bits((shifted & MANTISSA) + _SQRT_HALF_BITS)
    return k - select(subnormal, 54.0, 0.0), m


@native_exact
def log(x: float) -> float:
    """Natural logarithm, within 1 ulp; -inf at 0, NaN below."""
    k, m = split_by_two(x)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    p = 1.479819860511658591e-1
    p = p * z + 1.531383769920937332e-1
    p = p * z + 1.818357216161805012e-1
    p = p * z + 2.222219843214978396e-1
    p = p * z + 2.857142874366239149e-1
    p = p * z + 3.999999999940941908e-1
    p = p * z + 6.666666666666735130e-1
    half_square = 0.5 * f * f
    value = k * LN2_HIGH - ((half_square - (s * (half_square + z * p) + k * LN2_LOW)) - f)
    value = select(x == np.inf, np.inf, select(x == 0.0, -np.inf, value))
    return select(x >= 0.0, value, np.nan)


@native_exact
def log1p(x: float) -> float:
    """log(1 + x), within 3 ulp."""
    u = 1.0 + x
    lost = (x - (u - 1.0)) / u  # what the rounding of 1 + x dropped
    value = log(u) + select((u > 0.0) & (u < np.inf), lost, 0.0)
    return select(x == 0.0, x, value)


@native_exact
def asinh(x: float) -> float:
    """Inverse hyperbolic sine, within 4 ulp."""
    magnitude = abs(x)
    large = magnitude > 1e150  # where the square overflows
    bounded = select(large, 1.0, magnitude)
    square = bounded * bounded
    value = log1p(bounded + square / (1.0 + np.sqrt(square + 1.0)))
    value = select(large, log(magnitude) + 0.6931471805599453, value)
    return copysign(select(isnan(x), x, value), x)


_TWO_THIRDS, _TWO_THIRDS_TAIL = 0.66666666666666663, 3.700743415417188e-17


@native_exact
def _log_in_two(x: float) -> tuple[float, float]:
    """log(x) of a positive finite x as the sum of two doubles: 2 atanh(f / (2 + f)) + k ln 2."""
    k, m = split_by_two(x)
    f = m - 1.0
    denominator = 2.0 + f
    s = f / denominator
    s_tail = (fused(-s, denominator, f) - s * (f - (denominator - 2.0))) / denominator
    z = s * s
    p = 1.0 / 21.0
    p = p * z + 1.0 / 19.0
    p = p * z + 1.0 / 17.0
    p = p * z + 1.0 / 15.0
    p = p * z + 1.0 / 13.0
    p = p * z + 1.0 / 11.0
    p = p * z + 1.0 / 9.0
    p = p * z + 1.0 / 7.0
    p = p * z + 1.0 / 5.0
    cube = s * z
    cube_tail = fused(s, z, -cube) + s * fused(s, s, -z) + 3.0 * z * s_tail
    third = _TWO_THIRDS * cube
    third_tail = fused(_TWO_THIRDS, cube, -third) + _TWO_THIRDS * cube_tail
    third_tail = third_tail + _TWO_THIRDS_TAIL * cube + 2.0 * cube * z * p
    high, tail = _sum_in_two(2.0 * s, third)
    tail = tail + (2.0 * s_tail + third_tail)
    total, lost = _sum_in_two(k * LN2_HIGH, high)
    tail = lost + (tail + k * LN2_LOW)
    return _sum_in_two(total, tail)


@native_exact
def _sum_in_two(a: float, b: float) -> tuple[float, float]:
    """a + b and its rounding error (Knuth 1969)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@native_exact
def power(x: float, y: float) -> float:
    """x ** y, within 2 ulp, with the C library's values at zeros, infinities and negative x."""
    magnitude = abs(x)
    ordinary = (magnitude > 0.0) & (magnitude < np.inf)
    high, tail = _log_in_two(select(ordinary, magnitude, 1.0))
    exponent = select(abs(y) < 1e300, y, 0.0)
    product = exponent * high
    product_tail = fused(exponent, high, -product) + exponent * tail
    value = scaled_exp(product, select(abs(product) < 800.0, product_tail, 0.0), 0.0)
    # limits: x is 0 or infinite, y is huge
    grows = (magnitude > 1.0) == (y > 0.0)
    value = select(ordinary & (abs(y) < 1e300), value, select(grows, np.inf, 0.0))
    value = select(magnitude == 1.0, 1.0, value)
    whole = np.floor(y) == y
    half = 0.5 * y
    odd = whole & (np.floor(half) != half)
    negative = bits(x) >= SIGN
    value = select(negative & odd, -value, value)
    value = select((x < 0.0) & (magnitude < np.inf) & (not whole), np.nan, value)
    value = select(isnan(x), x, select(isnan(y), y, value))
    return select((y == 0.0) | (x == 1.0), 1.0, value)
