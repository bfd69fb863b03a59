"""Elementary functions without branches, so that LLVM vectorises a loop that calls them.

A call to the C library keeps a loop scalar. These are inlined instead, compute every case and
choose with `select`. They follow IEEE 754 on NaN, infinities, signed zeros and subnormal numbers
and are off by at most a few units in the last place (ulp); each says how many. Coefficients are
those of fdlibm (Sun Microsystems 1993) and Cephes (Moshier 1989), where no other source is named.
"""

from mpc_gym.compiled.cpu.vectormath.bits import maximum, minimum, select
from mpc_gym.compiled.cpu.vectormath.exponential import (
    cosh,
    erf,
    exp,
    expm1,
    sigmoid,
    sinh,
    tanh,
)
from mpc_gym.compiled.cpu.vectormath.logarithm import asinh, log, log1p, power
from mpc_gym.compiled.cpu.vectormath.trigonometric import acos, asin, atan2, cos, hypot, sin, tan

__all__ = [
    "acos",
    "asin",
    "asinh",
    "atan2",
    "cos",
    "cosh",
    "erf",
    "exp",
    "expm1",
    "hypot",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "power",
    "select",
    "sigmoid",
    "sin",
    "sinh",
    "tan",
    "tanh",
]
