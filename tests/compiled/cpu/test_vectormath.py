"""The elementary functions against the C library's, and that loops over them are vectorised."""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from mpc_gym.compiled.cpu import vectormath
from mpc_gym.compiled.cpu.native import REASSOCIATING
from tests.compiled.assembly import assert_vectorised

SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0]
SPECIAL += [5e-324, -5e-324, 2.2e-308, 1.7e308, -1.7e308]
COUNT = 20_000

# name: reference, documented bound in ulp, and the largest argument for which it holds
UNARY: dict[str, tuple[Callable[[float], float], float, float]] = {
    "acos": (math.acos, 4, math.inf),
    "asin": (math.asin, 4, math.inf),
    "asinh": (math.asinh, 4, math.inf),
    "cos": (math.cos, 2, 1e6),
    "cosh": (math.cosh, 2, math.inf),
    "erf": (math.erf, 3, math.inf),
    "exp": (math.exp, 1, math.inf),
    "expm1": (math.expm1, 2, math.inf),
    "log": (math.log, 1, math.inf),
    "log1p": (math.log1p, 3, math.inf),
    "sin": (math.sin, 2, 1e6),
    "sinh": (math.sinh, 3, math.inf),
    "tan": (math.tan, 4, 1e6),
    "tanh": (math.tanh, 3, math.inf),
}
BINARY = {"atan2": (math.atan2, 2), "hypot": (math.hypot, 2), "power": (math.pow, 2)}


def ieee(function: Callable[..., float], *arguments: float) -> float:
    """The C library's result where Python raises instead."""
    try:
        return function(*arguments)
    except (OverflowError, ValueError):
        numpys = {"acos": "arccos", "asin": "arcsin", "pow": "power"}
        name = numpys.get(function.__name__, function.__name__)
        with np.errstate(all="ignore"):
            return float(getattr(np, name)(*map(np.float64, arguments)))


def looped(name: str, arity: int) -> Any:
    """A loop over arrays that calls the function."""
    function = getattr(vectormath, name)
    jit = numba.njit(error_model="numpy", fastmath=set(REASSOCIATING))
    if arity == 1:

        @jit
        def loop(x: Any, out: Any) -> None:
            for i in range(x.size):
                out[i] = function(x[i])

    else:

        @jit
        def loop(x: Any, y: Any, out: Any) -> None:
            for i in range(x.size):
                out[i] = function(x[i], y[i])

    return loop


def ulps(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Distance in units in the last place; infinite if only one is NaN or infinite."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(all="ignore"):
        distance = np.abs(found - expected) / np.spacing(np.abs(expected))
    distance = np.where(np.isnan(distance), np.inf, distance)
    return np.where(same, 0.0, distance)


def arguments(largest: float) -> np.ndarray:
    generator = np.random.default_rng(1)
    wide = generator.choice([-1, 1], COUNT) * np.exp(generator.uniform(-700, 709, COUNT))
    near_one = 1 + 1e-3 * generator.normal(size=COUNT)
    quarter_turns = np.arange(-500, 500) * (np.pi / 4)
    usual = [generator.normal(size=COUNT), generator.uniform(-750, 750, COUNT)]
    x = np.concatenate([wide, near_one, quarter_turns, *usual, generator.uniform(-1, 1, COUNT)])
    return np.concatenate([x[np.abs(x) <= largest], SPECIAL])


@pytest.mark.parametrize("name", UNARY)
def test_function_of_one_number_is_as_accurate_as_it_says_and_vectorises(name: str) -> None:
    reference, bound, largest = UNARY[name]
    x = arguments(largest)
    out = np.empty_like(x)
    loop = looped(name, 1)
    loop(x, out)
    expected = np.array([ieee(reference, v) for v in x.tolist()])
    error = np.where(np.isfinite(x) & (np.abs(x) > largest), 0.0, ulps(out, expected))
    worst = int(np.argmax(error))
    assert error[worst] <= bound, (x[worst], out[worst], expected[worst])
    zeros = x == 0.0
    np.testing.assert_array_equal(np.signbit(out[zeros]), np.signbit(expected[zeros]))
    assert_vectorised(loop)


@pytest.mark.parametrize("name", BINARY)
def test_function_of_two_numbers_is_as_accurate_as_it_says_and_vectorises(name: str) -> None:
    reference, bound = BINARY[name]
    generator = np.random.default_rng(2)
    x = np.exp(generator.uniform(-5, 5, COUNT))
    y = generator.uniform(-50, 50, COUNT)
    if name in ("atan2", "hypot"):
        x = arguments(math.inf)
        y = generator.permutation(x)
    else:
        x = np.concatenate([x, -x, 1 + 1e-3 * generator.normal(size=COUNT)])
        y = np.concatenate([y, np.rint(y), 1e4 * y])
    pairs = np.array([(a, b) for a in SPECIAL for b in SPECIAL])
    x, y = np.concatenate([x, pairs[:, 0]]), np.concatenate([y, pairs[:, 1]])
    out = np.empty_like(x)
    loop = looped(name, 2)
    loop(x, y, out)
    expected = np.array(
        [ieee(reference, a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    )
    error = ulps(out, expected)
    worst = int(np.argmax(error))
    assert error[worst] <= bound, (x[worst], y[worst], out[worst], expected[worst])
    zeros = expected == 0.0
    np.testing.assert_array_equal(np.signbit(out[zeros]), np.signbit(expected[zeros]))
    assert_vectorised(loop)


def test_sigmoid_keeps_its_relative_accuracy_where_it_is_small() -> None:
    x = np.linspace(-700.0, 50.0, 5001)
    out = np.empty_like(x)
    loop = looped("sigmoid", 1)
    loop(x, out)
    expected = np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x)))
    np.testing.assert_allclose(out, expected, rtol=1e-15)
    assert_vectorised(loop)


def test_sine_of_a_huge_angle_is_that_of_an_angle_within_rounding() -> None:
    x = np.exp(np.random.default_rng(3).uniform(np.log(1e6), np.log(1e15), 2000))
    out = np.empty_like(x)
    looped("sin", 1)(x, out)
    # |sin(x (1 + eps)) - sin(x)| <= |x| eps
    assert np.all(np.abs(out - np.sin(x)) <= np.minimum(2.0, np.spacing(x)) + 1e-15)


@pytest.mark.parametrize("name", ["minimum", "maximum"])
def test_smaller_and_larger_pass_nan_on(name: str) -> None:
    pairs = np.array([(a, b) for a in SPECIAL for b in SPECIAL])
    out = np.empty(len(pairs))
    loop = looped(name, 2)
    loop(pairs[:, 0].copy(), pairs[:, 1].copy(), out)
    np.testing.assert_array_equal(out, getattr(np, name)(pairs[:, 0], pairs[:, 1]))
