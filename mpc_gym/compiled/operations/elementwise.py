"""The table of elementwise ATen operations: name -> function on object arrays.

Where PyTorch's derivative at a kink is not that of the primitives (clamp, relu), the operation is
written as a `select` on the condition under which PyTorch lets the gradient through.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mpc_gym.compiled import program as s
from mpc_gym.compiled.errors import UnsupportedOperation
from mpc_gym.compiled.operations import rolled
from mpc_gym.compiled.program import Array, Value, as_array


def elementwise(function: Callable[..., Value], arity: int) -> Callable[..., Array]:
    """Broadcast a scalar function over arrays; keyword arguments (memory formats) are ignored."""
    by_entry = np.frompyfunc(function, arity, 1)

    def broadcast(*arrays: Any, **_: Any) -> Array:
        found = rolled.apply(function, arrays[:arity])
        return as_array(by_entry(*arrays[:arity])) if found is None else found

    return broadcast


def _scaled(function: Callable[[Any, Any], Value]) -> Callable[..., Array]:
    """The function of a and alpha * b."""
    apply = elementwise(lambda a, b, alpha: function(a, s.multiply(alpha, b)), 3)

    def broadcast(a: Any, b: Any, alpha: float = 1.0) -> Array:
        return apply(a, b, alpha)

    return broadcast


def trunc(a: Any) -> Value:
    """The whole number next to a, towards zero."""
    return s.select(s.less(a, 0.0), s.negative(s.floor(s.negative(a))), s.floor(a))


def remainder(a: Any, b: Any) -> Value:
    """a - b * floor(a / b), the quotient corrected where the division was rounded up or down."""
    quotient = s.floor(s.divide(a, b))
    rest = s.subtract(a, s.multiply(b, quotient))
    above = s.less_equal(s.absolute(b), s.absolute(rest))
    below = s.less(s.multiply(rest, b), 0.0)
    quotient = s.subtract(s.add(quotient, s.logical_and(above, s.logical_not(below))), below)
    return s.subtract(a, s.multiply(b, quotient))


def fmod(a: Any, b: Any) -> Value:
    """The remainder that has the sign of a."""
    negative = s.less(a, 0.0)
    magnitude = s.select(negative, s.negative(a), a)
    rest = remainder(magnitude, s.select(s.less(b, 0.0), s.negative(b), b))
    return s.select(negative, s.negative(rest), rest)


def _divide(a: Any, b: Any, *, rounding_mode: str | None = None) -> Array:
    rounding = {None: lambda a: a, "floor": s.floor, "trunc": trunc}[rounding_mode]
    return elementwise(lambda a, b: rounding(s.divide(a, b)), 2)(a, b)


def _clamp(a: Array, low: Any = None, high: Any = None) -> Array:
    """PyTorch's clamp: the gradient passes on the bounds too."""
    lower = elementwise(lambda a, b: s.select(s.less(a, b), b, a), 2)
    upper = elementwise(lambda a, b: s.select(s.less(b, a), b, a), 2)
    result = a if low is None else lower(a, low)
    return result if high is None else upper(result, high)


def _hardtanh(a: Array, low: float = -1.0, high: float = 1.0) -> Array:
    """clamp whose gradient is zero on the bounds."""
    lower = elementwise(lambda a: s.select(s.less_equal(a, low), low, a), 1)
    upper = elementwise(lambda a: s.select(s.less_equal(high, a), high, a), 1)
    return upper(lower(a))


def _leaky_relu(a: Array, slope: float = 0.01) -> Array:
    def scalar(a: Any) -> Value:
        return s.select(s.less(0.0, a), a, s.multiply(slope, a))

    return elementwise(scalar, 1)(a)


def _elu(a: Array, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    def scalar(a: Any) -> Value:
        positive = s.less(0.0, a)
        # expm1 of what is not positive only: where a is large it and its derivatives overflow.
        argument = s.multiply(input_scale, s.select(positive, 0.0, a))
        return s.multiply(scale, s.select(positive, a, s.multiply(alpha, s.expm1(argument))))

    return elementwise(scalar, 1)(a)


def _softplus(a: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    def scalar(a: Any) -> Value:
        scaled = s.multiply(beta, a)
        linear = s.less(threshold, scaled)
        argument = s.select(linear, threshold, scaled)
        return s.select(linear, a, s.divide(s.log1p(s.exp(argument)), beta))

    return elementwise(scalar, 1)(a)


def _log_sigmoid(a: Any) -> Value:
    # The two branches meet with equal derivatives; only non-positive numbers are exponentiated.
    negative = s.less(a, 0.0)
    tail = s.log1p(s.exp(s.select(negative, a, s.negative(a))))
    return s.select(negative, s.subtract(a, tail), s.negative(tail))


def _gelu(a: Array, *, approximate: str = "none") -> Array:
    def exact(a: Any) -> Value:
        return s.multiply(s.multiply(0.5, a), s.add(1.0, s.erf(s.multiply(a, math.sqrt(0.5)))))

    def by_tanh(a: Any) -> Value:
        inner = s.add(a, s.multiply(0.044715, s.power(a, 3)))
        return s.multiply(
            s.multiply(0.5, a), s.add(1.0, s.tanh(s.multiply(math.sqrt(2.0 / math.pi), inner)))
        )

    return elementwise(exact if approximate == "none" else by_tanh, 1)(a)


def _to_copy(a: Array, dtype: Any = None, **_: Any) -> Array:
    """Floating types are all float64 here; integers truncate, booleans ask for non-zero."""
    if dtype is None or dtype.is_floating_point:
        return np.array(a, dtype=object)
    if dtype.is_complex:
        raise UnsupportedOperation("complex numbers")
    return elementwise(s.condition if str(dtype) == "torch.bool" else trunc, 1)(a)


def _not_equal(a: Any, b: Any) -> Value:
    return s.logical_not(s.equal(a, b))


def _exclusive_or(a: Any, b: Any) -> Value:
    return _not_equal(s.condition(a), s.condition(b))


def _angle(a: Any) -> Value:
    return s.select(_not_equal(a, a), a, s.select(s.less(a, 0.0), math.pi, 0.0))


def _fmax(a: Any, b: Any) -> Value:
    """The larger one, or the one that is not NaN; a gets the derivative of a tie."""
    return s.select(s.logical_or(s.less_equal(b, a), _not_equal(b, b)), a, b)


def _fmin(a: Any, b: Any) -> Value:
    return s.select(s.logical_or(s.less_equal(a, b), _not_equal(b, b)), a, b)


UNARY: dict[str, Callable[[Any], Value]] = {
    "abs": s.absolute,
    "acos": s.acos,
    "acosh": lambda a: s.log1p((a - 1.0) + s.sqrt((a - 1.0) * (a + 1.0))),
    "angle": _angle,
    "asin": s.asin,
    "asinh": s.asinh,
    "atan": lambda a: s.atan2(a, 1.0),
    "atanh": lambda a: s.multiply(0.5, s.log1p(s.divide(s.multiply(2.0, a), s.subtract(1.0, a)))),
    "bitwise_not": s.logical_not,
    "ceil": lambda a: s.negative(s.floor(s.negative(a))),
    "cos": s.cos,
    "cosh": s.cosh,
    "detach": s.detach,
    "erf": s.erf,
    "erfc": lambda a: s.subtract(1.0, s.erf(a)),
    "exp": s.exp,
    "exp2": lambda a: s.exp(s.multiply(a, math.log(2.0))),
    "expm1": s.expm1,
    "floor": s.floor,
    "isinf": lambda a: s.equal(s.absolute(a), math.inf),
    "isnan": lambda a: _not_equal(a, a),
    "log": s.log,
    "log10": lambda a: s.multiply(s.log(a), 1.0 / math.log(10.0)),
    "log1p": s.log1p,
    "log2": lambda a: s.multiply(s.log(a), 1.0 / math.log(2.0)),
    "logical_not": s.logical_not,
    "neg": s.negative,
    "reciprocal": lambda a: s.divide(1.0, a),
    "relu": lambda a: s.select(s.less_equal(a, 0.0), 0.0, a),
    "round": s.rint,
    "rsqrt": lambda a: s.divide(1.0, s.sqrt(a)),
    "sgn": s.sign,
    "sigmoid": s.sigmoid,
    "sign": s.sign,
    "signbit": lambda a: s.less(a, 0.0),
    "silu": lambda a: s.multiply(a, s.sigmoid(a)),
    "sin": s.sin,
    "sinh": s.sinh,
    "sqrt": s.sqrt,
    "tan": s.tan,
    "tanh": s.tanh,
    "trunc": trunc,
}

# Each has the overloads .Tensor and .Scalar, as far as PyTorch has them.
BINARY: dict[str, Callable[[Any, Any], Value]] = {
    "bitwise_and": s.logical_and,
    "bitwise_or": s.logical_or,
    "bitwise_xor": _exclusive_or,
    "eq": s.equal,
    "fmod": fmod,
    "ge": lambda a, b: s.less_equal(b, a),
    "gt": lambda a, b: s.less(b, a),
    "le": s.less_equal,
    "lt": s.less,
    "mul": s.multiply,
    "ne": _not_equal,
    "remainder": remainder,
}

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    **{f"aten.{name}.default": elementwise(f, 1) for name, f in UNARY.items()},
    **{
        f"aten.{name}.{kind}": elementwise(f, 2)
        for name, f in BINARY.items()
        for kind in ("Tensor", "Scalar")
    },
    "aten._to_copy.default": _to_copy,
    "aten.add.Tensor": _scaled(s.add),
    "aten.add.Scalar": _scaled(s.add),
    "aten.atan2.default": elementwise(s.atan2, 2),
    "aten.clamp.Tensor": _clamp,
    "aten.clamp.default": _clamp,
    "aten.clamp_max.Tensor": lambda a, high: _clamp(a, None, high),
    "aten.clamp_max.default": lambda a, high: _clamp(a, None, high),
    "aten.clamp_min.Tensor": _clamp,
    "aten.clamp_min.default": _clamp,
    "aten.copysign.Tensor": elementwise(
        lambda a, b: s.multiply(s.absolute(a), s.select(s.less(b, 0.0), -1.0, 1.0)), 2
    ),
    "aten.div.Scalar": _divide,
    "aten.div.Scalar_mode": _divide,
    "aten.div.Tensor": _divide,
    "aten.div.Tensor_mode": _divide,
    "aten.elu.default": _elu,
    "aten.fmax.default": elementwise(_fmax, 2),
    "aten.fmin.default": elementwise(_fmin, 2),
    "aten.gelu.default": _gelu,
    "aten.hardtanh.default": _hardtanh,
    "aten.hypot.default": elementwise(s.hypot, 2),
    "aten.ldexp.Tensor": elementwise(lambda a, b: s.multiply(a, s.power(2.0, b)), 2),
    "aten.leaky_relu.default": _leaky_relu,
    "aten.log_sigmoid_forward.default": lambda a: (elementwise(_log_sigmoid, 1)(a), as_array([])),
    "aten.logical_and.default": elementwise(s.logical_and, 2),
    "aten.logical_or.default": elementwise(s.logical_or, 2),
    "aten.logical_xor.default": elementwise(_exclusive_or, 2),
    "aten.maximum.default": elementwise(s.maximum, 2),
    "aten.minimum.default": elementwise(s.minimum, 2),
    "aten.pow.Scalar": elementwise(s.power, 2),
    "aten.pow.Tensor_Scalar": elementwise(s.power, 2),
    "aten.pow.Tensor_Tensor": elementwise(s.power, 2),
    "aten.softplus.default": _softplus,
    "aten.sub.Scalar": _scaled(s.subtract),
    "aten.sub.Tensor": _scaled(s.subtract),
    "aten.where.self": elementwise(s.select, 3),
}
