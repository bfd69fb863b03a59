"""Elementary functions without branches, so that LLVM vectorises a loop that calls them.

A call to the C library keeps a loop scalar. These are inlined instead, compute every case and
choose with `select`. They follow IEEE 754 on NaN, infinities, signed zeros and subnormal numbers
and are off by at most a few units in the last place (ulp); each says how many. Coefficients are
those of fdlibm (Sun Microsystems 1993) and Cephes (Moshier 1989), where no other source is named.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mpc_gym.compiled.native import native_exact

_INF = np.inf
_NAN = np.nan


@intrinsic
def select(typingctx: Any, chosen: Any, a: Any, b: Any) -> Any:
    """a if chosen else b, both evaluated: one LLVM `select`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return a(types.boolean, a, a), generate


@intrinsic
def _bits(typingctx: Any, x: Any) -> Any:
    """The 64 bits of a float64 as an unsigned integer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.uint64(types.float64), generate


@intrinsic
def _float(typingctx: Any, bits: Any) -> Any:
    """The float64 that has these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.uint64), generate


@intrinsic
def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


_SIGN = np.uint64(1 << 63)
_MAGNITUDE = np.uint64((1 << 63) - 1)
_MANTISSA = np.uint64((1 << 52) - 1)
_ONE, _TWO = np.uint64(1), np.uint64(2)
_EXPONENT_SHIFT = np.uint64(52)
_SIGN_SHIFT = np.uint64(62)

# Adding it rounds a double to a whole number, whose low bits are then those of the sum.
_ROUND = 6755399441055744.0  # 1.5 * 2^52
_ROUND_BIASED = _ROUND + 1023.0


@native_exact
def _copysign(magnitude, sign):
    return _float((_bits(magnitude) & _MAGNITUDE) | (_bits(sign) & _SIGN))


@native_exact
def _power_of_two(k):
    """2^k for a whole k from -1022 to 1023."""
    return _float(_bits(k + _ROUND_BIASED) << _EXPONENT_SHIFT)


@native_exact
def minimum(a, b):
    """The smaller one; NaN if either is."""
    return select(a != a, a, select(a < b, a, b))


@native_exact
def maximum(a, b):
    """The larger one; NaN if either is."""
    return select(a != a, a, select(a > b, a, b))


# --- sine and cosine -----------------------------------------------------------------------------

_TWO_OVER_PI = 0.63661977236758134308
_HALF_PI_1 = 1.57079632673412561417  # pi/2 in pieces of 33, 33 and 53 bits (fdlibm)
_HALF_PI_2 = 6.07710050630396597660e-11
_HALF_PI_3 = 2.02226624879595063154e-21
_QUARTER_PI_BOUND = 0.7853981633974484


@native_exact
def _quadrant(x):
    """|x| = k pi/2 + r: the bits of k, and r (Cody & Waite 1980)."""
    magnitude = abs(x)
    rounded = magnitude * _TWO_OVER_PI + _ROUND
    k = rounded - _ROUND
    r = ((magnitude - k * _HALF_PI_1) - k * _HALF_PI_2) - k * _HALF_PI_3
    r = select(r > _QUARTER_PI_BOUND, _QUARTER_PI_BOUND, r)
    return _bits(rounded), select(r < -_QUARTER_PI_BOUND, -_QUARTER_PI_BOUND, r)


@native_exact
def _sin_polynomial(r):
    z = r * r
    p = 1.58962301576546568060e-10
    p = p * z - 2.50507477628578072866e-8
    p = p * z + 2.75573136213857245213e-6
    p = p * z - 1.98412698295895385996e-4
    p = p * z + 8.33333333332211858878e-3
    p = p * z - 1.66666666666666307295e-1
    return r + r * z * p


@native_exact
def _cos_polynomial(r):
    z = r * r
    p = -1.13585365213876817300e-11
    p = p * z + 2.08757008419747316778e-9
    p = p * z - 2.75573141792967388112e-7
    p = p * z + 2.48015872888517045348e-5
    p = p * z - 1.38888888888730564116e-3
    p = p * z + 4.16666666666665929218e-2
    return 1.0 - (0.5 * z - z * z * p)


@native_exact
def sin(x):
    """Sine, within 2 ulp for |x| <= 1e6; past it the sine of an angle within 1 ulp of x."""
    k, r = _quadrant(x)
    value = select((k & _ONE) == _ONE, _cos_polynomial(r), _sin_polynomial(r))
    flip = ((k & _TWO) << _SIGN_SHIFT) ^ (_bits(x) & _SIGN)
    return _float(_bits(value) ^ flip)


@native_exact
def cos(x):
    """Cosine, within 2 ulp for |x| <= 1e6; past it the cosine of an angle within 1 ulp of x."""
    k, r = _quadrant(x)
    value = select((k & _ONE) == _ONE, _sin_polynomial(r), _cos_polynomial(r))
    return _float(_bits(value) ^ (((k + _ONE) & _TWO) << _SIGN_SHIFT))


@native_exact
def tan(x):
    """Tangent, within 4 ulp for |x| <= 1e6."""
    k, r = _quadrant(x)
    sine, cosine = _sin_polynomial(r), _cos_polynomial(r)
    odd = (k & _ONE) == _ONE
    value = select(odd, -cosine, sine) / select(odd, sine, cosine)
    return _float(_bits(value) ^ (_bits(x) & _SIGN))


# --- arc tangent and its kin ---------------------------------------------------------------------

_QUARTER_PI, _QUARTER_PI_TAIL = 7.85398163397448278999e-1, 3.06161699786838301793e-17


@native_exact
def _atan_polynomial(t):
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
def atan2(y, x):
    """The angle of the point (x, y), within 2 ulp, with the C library's values at 0 and inf."""
    ax, ay = abs(x), abs(y)
    steep = ay > ax
    small, large = select(steep, ax, ay), select(steep, ay, ax)
    scale = select(large > 1e300, 2.0**-60, 1.0)
    both_infinite = small == _INF
    small = select(both_infinite, 1.0, select(large == _INF, 0.0, small * scale))
    large = select(both_infinite | (large == _INF) | (large == 0.0), 1.0, large * scale)
    # atan(s/l) = pi/4 + atan((s-l)/(s+l)) where s/l is large for the polynomial
    diagonal = small > 0.4142135623730950 * large
    t = select(diagonal, small - large, small) / select(diagonal, small + large, large)
    # The angle is a multiple of pi/4 plus or minus atan(t); one addition, so one rounding.
    multiple = select(diagonal, 1.0, 0.0)
    multiple = select(steep, 2.0 - multiple, multiple)
    behind = _bits(x) >= _SIGN
    multiple = select(behind, 4.0 - multiple, multiple)
    sign = select(steep != behind, -1.0, 1.0)
    tail = sign * _atan_polynomial(t) + multiple * _QUARTER_PI_TAIL
    angle = multiple * _QUARTER_PI + (sign * t + tail)
    angle = select(x != x, x, select(y != y, y, angle))
    return _copysign(angle, y)


@native_exact
def asin(x):
    """Arc sine, within 4 ulp; NaN for |x| > 1."""
    return atan2(x, np.sqrt((1.0 - x) * (1.0 + x)))


@native_exact
def acos(x):
    """Arc cosine, within 4 ulp; NaN for |x| > 1."""
    return atan2(np.sqrt((1.0 - x) * (1.0 + x)), x)


# --- exponential and its kin ---------------------------------------------------------------------

_LOG2_E = 1.44269504088896338700
_LN2_HIGH = 6.93147180369123816490e-1
_LN2_LOW = 1.90821492927058770002e-10


@native_exact
def _exp_tail(r):
    """(exp(r) - 1 - r) / r^2 by its Taylor series, for |r| <= ln(2) / 2."""
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    return p * r + 0.5


@native_exact
def _reduce_by_ln2(x):
    """x = n ln 2 + r: the whole n, and r."""
    n = (x * _LOG2_E + _ROUND) - _ROUND
    return n, (x - n * _LN2_HIGH) - n * _LN2_LOW


@native_exact
def _scaled_exp(x, tail, shift):
    """exp(x + tail) * 2^shift for |tail| << 1, |shift| <= 1; scaled in two steps, to subnormals."""
    x = select(x > 720.0, 720.0, select(x < -760.0, -760.0, x))
    n, r = _reduce_by_ln2(x)
    r = r + tail
    half = (0.5 * n + _ROUND) - _ROUND
    significand = 1.0 + (r + r * r * _exp_tail(r))
    return significand * _power_of_two(half) * _power_of_two((n - half) + shift)


@native_exact
def exp(x):
    """Exponential, within 1 ulp; subnormal results within one of their spacing."""
    return _scaled_exp(x, 0.0, 0.0)


@native_exact
def expm1(x):
    """exp(x) - 1, within 2 ulp."""
    n, r = _reduce_by_ln2(select(x > 710.0, 710.0, select(x < -60.0, -60.0, x)))
    half_scale = _power_of_two(n - 1.0)  # 2^1024 would be infinite
    difference = half_scale * (r + r * r * _exp_tail(r)) + (half_scale - 0.5)
    return select(abs(x) < 1e-17, x, 2.0 * difference)


@native_exact
def sigmoid(x):
    """1 / (1 + exp(-x)), within 2 ulp."""
    return 1.0 / (1.0 + exp(-x))


@native_exact
def sinh(x):
    """Hyperbolic sine, within 3 ulp."""
    magnitude = abs(x)
    bounded = select(magnitude > 1.0, 1.0, magnitude)
    difference = expm1(bounded)
    small = 0.5 * (difference + difference / (difference + 1.0))
    half_power = _scaled_exp(magnitude, 0.0, -1.0)
    large = half_power - 0.25 / half_power
    return _copysign(select(magnitude <= 1.0, small, large), x)


@native_exact
def cosh(x):
    """Hyperbolic cosine, within 2 ulp."""
    half_power = _scaled_exp(abs(x), 0.0, -1.0)
    return half_power + 0.25 / half_power


@native_exact
def tanh(x):
    """Hyperbolic tangent, within 3 ulp."""
    difference = expm1(-2.0 * abs(x))
    return _copysign(difference / (difference + 2.0), x)


# --- logarithm and its kin -----------------------------------------------------------------------

_SMALLEST_NORMAL = 2.2250738585072014e-308
_SQRT_HALF_BITS = np.uint64(0x3FE6A09E667F3BCD)
_TO_SQRT_HALF = np.uint64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
_TWO_52 = 4503599627370496.0
_TWO_52_BITS = np.uint64(0x4330000000000000)


@native_exact
def _split_by_two(x):
    """x = 2^k m with m from sqrt(1/2) to sqrt(2), for positive finite x: k and m."""
    subnormal = x < _SMALLEST_NORMAL
    shifted = _bits(select(subnormal, x * 2.0**54, x)) + _TO_SQRT_HALF
    k = _float((shifted >> _EXPONENT_SHIFT) | _TWO_52_BITS) - (_TWO_52 + 1023.0)
    m = _float((shifted & _MANTISSA) + _SQRT_HALF_BITS)
    return k - select(subnormal, 54.0, 0.0), m


@native_exact
def log(x):
    """Natural logarithm, within 1 ulp; -inf at 0, NaN below."""
    k, m = _split_by_two(x)
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
    value = k * _LN2_HIGH - ((half_square - (s * (half_square + z * p) + k * _LN2_LOW)) - f)
    value = select(x == _INF, _INF, select(x == 0.0, -_INF, value))
    return select(x >= 0.0, value, _NAN)


@native_exact
def log1p(x):
    """log(1 + x), within 3 ulp."""
    u = 1.0 + x
    lost = (x - (u - 1.0)) / u  # what the rounding of 1 + x dropped
    value = log(u) + select((u > 0.0) & (u < _INF), lost, 0.0)
    return select(x == 0.0, x, value)


@native_exact
def asinh(x):
    """Inverse hyperbolic sine, within 4 ulp."""
    magnitude = abs(x)
    large = magnitude > 1e150  # where the square overflows
    bounded = select(large, 1.0, magnitude)
    square = bounded * bounded
    value = log1p(bounded + square / (1.0 + np.sqrt(square + 1.0)))
    value = select(large, log(magnitude) + 0.6931471805599453, value)
    return _copysign(select(x != x, x, value), x)


# --- power ---------------------------------------------------------------------------------------

_TWO_THIRDS, _TWO_THIRDS_TAIL = 0.66666666666666663, 3.700743415417188e-17


@native_exact
def _log_in_two(x):
    """log(x) of a positive finite x as the sum of two doubles: 2 atanh(f / (2 + f)) + k ln 2."""
    k, m = _split_by_two(x)
    f = m - 1.0
    denominator = 2.0 + f
    s = f / denominator
    s_tail = (_fma(-s, denominator, f) - s * (f - (denominator - 2.0))) / denominator
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
    cube_tail = _fma(s, z, -cube) + s * _fma(s, s, -z) + 3.0 * z * s_tail
    third = _TWO_THIRDS * cube
    third_tail = _fma(_TWO_THIRDS, cube, -third) + _TWO_THIRDS * cube_tail
    third_tail = third_tail + _TWO_THIRDS_TAIL * cube + 2.0 * cube * z * p
    high, tail = _sum_in_two(2.0 * s, third)
    tail = tail + (2.0 * s_tail + third_tail)
    total, lost = _sum_in_two(k * _LN2_HIGH, high)
    tail = lost + (tail + k * _LN2_LOW)
    return _sum_in_two(total, tail)


@native_exact
def _sum_in_two(a, b):
    """a + b and its rounding error (Knuth 1969)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@native_exact
def power(x, y):
    """x ** y, within 2 ulp, with the C library's values at zeros, infinities and negative x."""
    magnitude = abs(x)
    ordinary = (magnitude > 0.0) & (magnitude < _INF)
    high, tail = _log_in_two(select(ordinary, magnitude, 1.0))
    exponent = select(abs(y) < 1e300, y, 0.0)
    product = exponent * high
    product_tail = _fma(exponent, high, -product) + exponent * tail
    value = _scaled_exp(product, select(abs(product) < 800.0, product_tail, 0.0), 0.0)
    # limits: x is 0 or infinite, y is huge
    grows = (magnitude > 1.0) == (y > 0.0)
    value = select(ordinary & (abs(y) < 1e300), value, select(grows, _INF, 0.0))
    value = select(magnitude == 1.0, 1.0, value)
    whole = np.floor(y) == y
    half = 0.5 * y
    odd = whole & (np.floor(half) != half)
    negative = _bits(x) >= _SIGN
    value = select(negative & odd, -value, value)
    value = select((x < 0.0) & (magnitude < _INF) & (not whole), _NAN, value)
    value = select(x != x, x, select(y != y, y, value))
    return select((y == 0.0) | (x == 1.0), 1.0, value)


# --- error function ------------------------------------------------------------------------------


@native_exact
def erf(x):
    """Error function, within 3 ulp (Cephes)."""
    a = abs(x)
    inner = select(a < 1.0, a, 1.0)
    z = inner * inner
    t = 9.60497373987051638749
    t = t * z + 9.00260197203842689217e1
    t = t * z + 2.23200534594684319226e3
    t = t * z + 7.00332514112805075473e3
    t = t * z + 5.55923013010394962768e4
    u = z + 3.35617141647503099647e1
    u = u * z + 5.21357949780152679795e2
    u = u * z + 4.59432382970980127987e3
    u = u * z + 2.26290000613890934246e4
    u = u * z + 4.92673942608635921086e4
    outer = select(a < 1.0, 1.0, select(a > 6.5, 6.5, a))
    p = 2.46196981473530512524e-10
    p = p * outer + 5.64189564831068821977e-1
    p = p * outer + 7.46321056442269912687
    p = p * outer + 4.86371970985681366614e1
    p = p * outer + 1.96520832956077098242e2
    p = p * outer + 5.26445194995477358631e2
    p = p * outer + 9.34528527171957607540e2
    p = p * outer + 1.02755188689515710272e3
    p = p * outer + 5.57535335369399327526e2
    q = outer + 1.32281951154744992508e1
    q = q * outer + 8.67072140885989742329e1
    q = q * outer + 3.54937778887819891062e2
    q = q * outer + 9.75708501743205489753e2
    q = q * outer + 1.82390916687909736289e3
    q = q * outer + 2.24633760818710981792e3
    q = q * outer + 1.65666309194161350182e3
    q = q * outer + 5.57535340817727675546e2
    value = select(a < 1.0, inner * t / u, 1.0 - exp(-outer * outer) * p / q)
    return _copysign(select(x != x, x, value), x)
