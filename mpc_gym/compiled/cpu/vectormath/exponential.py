"""Exponential, hyperbolic functions, sigmoid and error function."""

from __future__ import annotations

from math import isnan

from mpc_gym.compiled.cpu.native import native_exact
from mpc_gym.compiled.cpu.vectormath.bits import ROUND, copysign, power_of_two, select

_LOG2_E = 1.44269504088896338700
LN2_HIGH = 6.93147180369123816490e-1
LN2_LOW = 1.90821492927058770002e-10


@native_exact
def _exp_tail(r: float) -> float:
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
def _reduce_by_ln2(x: float) -> tuple[float, float]:
    """x = n ln 2 + r: the whole n, and r."""
    n = (x * _LOG2_E + ROUND) - ROUND
    return n, (x - n * LN2_HIGH) - n * LN2_LOW


@native_exact
def scaled_exp(x: float, tail: float, shift: float) -> float:
    """exp(x + tail) * 2^shift for |tail| << 1, |shift| <= 1; scaled in two steps, to subnormals."""
    x = select(x > 720.0, 720.0, select(x < -760.0, -760.0, x))
    n, r = _reduce_by_ln2(x)
    r = r + tail
    half = (0.5 * n + ROUND) - ROUND
    significand = 1.0 + (r + r * r * _exp_tail(r))
    return significand * power_of_two(half) * power_of_two((n - half) + shift)


@native_exact
def exp(x: float) -> float:
    """Exponential, within 1 ulp; subnormal results within one of their spacing."""
    return scaled_exp(x, 0.0, 0.0)


@native_exact
def expm1(x: float) -> float:
    """exp(x) - 1, within 2 ulp."""
    n, r = _reduce_by_ln2(select(x > 710.0, 710.0, select(x < -60.0, -60.0, x)))
    half_scale = power_of_two(n - 1.0)  # 2^1024 would be infinite
    difference = half_scale * (r + r * r * _exp_tail(r)) + (half_scale - 0.5)
    return select(abs(x) < 1e-17, x, 2.0 * difference)


@native_exact
def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), within 2 ulp."""
    return 1.0 / (1.0 + exp(-x))


@native_exact
def sinh(x: float) -> float:
    """Hyperbolic sine, within 3 ulp."""
    magnitude = abs(x)
    bounded = select(magnitude > 1.0, 1.0, magnitude)
    difference = expm1(bounded)
    small = 0.5 * (difference + difference / (difference + 1.0))
    half_power = scaled_exp(magnitude, 0.0, -1.0)
    large = half_power - 0.25 / half_power
    return copysign(select(magnitude <= 1.0, small, large), x)


@native_exact
def cosh(x: float) -> float:
    """Hyperbolic cosine, within 2 ulp."""
    half_power = scaled_exp(abs(x), 0.0, -1.0)
    return half_power + 0.25 / half_power


@native_exact
def tanh(x: float) -> float:
    """Hyperbolic tangent, within 3 ulp."""
    difference = expm1(-2.0 * abs(x))
    return copysign(difference / (difference + 2.0), x)


@native_exact
def erf(x: float) -> float:
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
    return copysign(select(isnan(x), x, value), x)
