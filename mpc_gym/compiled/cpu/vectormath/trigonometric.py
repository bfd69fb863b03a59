"""Sine, cosine, tangent and their inverses."""

from __future__ import annotations

from math import isnan

import numpy as np

from mpc_gym.compiled.cpu.native import native_exact
from mpc_gym.compiled.cpu.vectormath.bits import (
    ONE,
    ROUND,
    SIGN,
    SIGN_SHIFT,
    TWO,
    Bits,
    bits,
    copysign,
    from_bits,
    select,
)

_TWO_OVER_PI = 0.63661977236758134308
_HALF_PI_1 = 1.57079632673412561417  # pi/2 in pieces of 33, 33 and 53 bits (fdlibm)
_HALF_PI_2 = 6.07710050630396597660e-11
_HALF_PI_3 = 2.02226624879595063154e-21
# Just above pi/4: k is off by one where rounding decided; a huge x must not leave the polynomial.
_LARGEST_REST = 0.79


@native_exact
def _quadrant(x: float) -> tuple[Bits, float]:
    """|x| = k pi/2 + r: the bits of k, and r (Cody & Waite 1980)."""
    magnitude = abs(x)
    rounded = magnitude * _TWO_OVER_PI + ROUND
    k = rounded - ROUND
    r = ((magnitude - k * _HALF_PI_1) - k * _HALF_PI_2) - k * _HALF_PI_3
    r = select(r > _LARGEST_REST, _LARGEST_REST, r)
    return bits(rounded), select(r < -_LARGEST_REST, -_LARGEST_REST, r)


@native_exact
def _sin_polynomial(r: float) -> float:
    z = r * r
    p = 1.58962301576546568060e-10
    p = p * z - 2.50507477628578072866e-8
    p = p * z + 2.75573136213857245213e-6
    p = p * z - 1.98412698295895385996e-4
    p = p * z + 8.33333333332211858878e-3
    p = p * z - 1.66666666666666307295e-1
    return r + r * z * p


@native_exact
def _cos_polynomial(r: float) -> float:
    z = r * r
    p = -1.13585365213876817300e-11
    p = p * z + 2.08757008419747316778e-9
    p = p * z - 2.75573141792967388112e-7
    p = p * z + 2.48015872888517045348e-5
    p = p * z - 1.38888888888730564116e-3
    p = p * z + 4.16666666666665929218e-2
    return 1.0 - (0.5 * z - z * z * p)


@native_exact
def sin(x: float) -> float:
    """Sine, within 2 ulp for |x| <= 1e6; past it the sine of an angle within 1 ulp of x."""
    k, r = _quadrant(x)
    value = select((k & ONE) == ONE, _cos_polynomial(r), _sin_polynomial(r))
    flip = ((k & TWO) << SIGN_SHIFT) ^ (bits(x) & SIGN)
    return from_bits(bits(value) ^ flip)


@native_exact
def cos(x: float) -> float:
    """Cosine, within 2 ulp for |x| <= 1e6; past it the cosine of an angle within 1 ulp of x."""
    k, r = _quadrant(x)
    value = select((k & ONE) == ONE, _sin_polynomial(r), _cos_polynomial(r))
    return from_bits(bits(value) ^ (((k + ONE) & TWO) << SIGN_SHIFT))


@native_exact
def tan(x: float) -> float:
    """Tangent, within 4 ulp for |x| <= 1e6."""
    k, r = _quadrant(x)
    sine, cosine = _sin_polynomial(r), _cos_polynomial(r)
    odd = (k & ONE) == ONE
    value = select(odd, -cosine, sine) / select(odd, sine, cosine)
    return from_bits(bits(value) ^ (bits(x) & SIGN))


_QUARTER_PI, _QUARTER_PI_TAIL = 7.85398163397448278999e-1, 3.06161699786838301793e-17


@native_exact
def _atan_polynomial(t: float) -> float:
    """atan(t) - t for |t| <= 7/16 (fdlibm)."""
    z = t * t
    p = 1.62858201153657823623e-2
    p = p * z - 3.65315727442169155270e-2
    p = p * z + 4.97687799461593236017e-2
    p = p * z - 5.83357013379057348645e-2
    p = p * z + 6.66107313738753120669e-2
    p = p * z - 7.69187620504482999495e-2
    p = p * z + 9.09088713343650656196e-2
    p = p * z - 1.11111104054623557880e-1
    p = p * z + 1.42857142725034663711e-1
    p = p * z - 1.99999999998764832476e-1
    p = p * z + 3.33333333333329318027e-1
    return -(t * z * p)


@native_exact
def hypot(x: float, y: float) -> float:
    """The distance of the point (x, y) from the origin, within 2 ulp."""
    ax, ay = abs(x), abs(y)
    large = select(ax > ay, ax, ay)
    scale = select(large > 1e150, 2.0**-600, select(large < 1e-140, 2.0**600, 1.0))
    back = select(large > 1e150, 2.0**600, select(large < 1e-140, 2.0**-600, 1.0))
    sx, sy = ax * scale, ay * scale
    infinite = (ax == np.inf) | (ay == np.inf)
    return select(infinite, np.inf, back * np.sqrt(sx * sx + sy * sy))


@native_exact
def atan2(y: float, x: float) -> float:
    """The angle of the point (x, y), within 2 ulp, with the C library's values at 0 and inf."""
    ax, ay = abs(x), abs(y)
    steep = ay > ax
    small, large = select(steep, ax, ay), select(steep, ay, ax)
    scale = select(large > 1e300, 2.0**-60, 1.0)
    both_infinite = small == np.inf
    small = select(both_infinite, 1.0, select(large == np.inf, 0.0, small * scale))
    large = select(both_infinite | (large == np.inf) | (large == 0.0), 1.0, large * scale)
    # atan(s/l) = pi/4 + atan((s-l)/(s+l)) where s/l is large for the polynomial
    diagonal = small > 0.4142135623730950 * large
    t = select(diagonal, small - large, small) / select(diagonal, small + large, large)
    # The angle is a multiple of pi/4 plus or minus atan(t); one addition, so one rounding.
    multiple = select(diagonal, 1.0, 0.0)
    multiple = select(steep, 2.0 - multiple, multiple)
    behind = bits(x) >= SIGN
    multiple = select(behind, 4.0 - multiple, multiple)
    sign = select(steep != behind, -1.0, 1.0)
    tail = sign * _atan_polynomial(t) + multiple * _QUARTER_PI_TAIL
    angle = multiple * _QUARTER_PI + (sign * t + tail)
    angle = select(isnan(x), x, select(isnan(y), y, angle))
    return copysign(angle, y)


@native_exact
def asin(x: float) -> float:
    """Arc sine, within 4 ulp; NaN for |x| > 1."""
    return atan2(x, np.sqrt((1.0 - x) * (1.0 + x)))


@native_exact
def acos(x: float) -> float:
    """Arc cosine, within 4 ulp; NaN for |x| > 1."""
    return atan2(np.sqrt((1.0 - x) * (1.0 + x)), x)
