"""Recording a scalar program: what is folded, what is reused, what is left alone."""

import math

import numpy as np
import pytest

from mpc_gym.compiled import Program, ProgramTooLarge
from mpc_gym.compiled import program as s
from mpc_gym.compiled.program import Expression
from tests.compiled.interpreter import run


def test_structural_zeros_and_ones_vanish() -> None:
    program = Program()
    x = program.input("x")
    assert 0.0 * x == 0.0
    assert x * 0 == 0.0
    assert s.divide(0.0, x) == 0.0
    for same in (x * 1.0, x + 0.0, x - 0.0, x / 1.0, x**1, s.negative(-x), s.multiply(-1.0, -x)):
        assert isinstance(same, Expression)
        assert same.index == x.index
    assert x**0 == 1.0


def test_what_is_nan_for_infinite_x_is_not_folded() -> None:
    program = Program()
    x = program.input("x")
    difference, ratio = run(program, [x - x, x / x], {"x": math.inf})
    assert math.isnan(difference)
    assert math.isnan(ratio)


def test_an_operation_is_recorded_once() -> None:
    program = Program()
    x, y = program.input("x"), program.input("y")
    assert (x * y + 2.0).index == (2.0 + y * x).index
    assert program.input("x").index == x.index
    assert s.sin(x).index == s.sin(x).index
    assert (x - y).index != (y - x).index


def test_an_index_is_not_taken_for_the_constant_of_the_same_value() -> None:
    program = Program()
    x, y = program.input("x"), program.input("y")
    assert y.index == 1
    assert (x * y).index != (x + 1.0).index
    np.testing.assert_array_equal(run(program, [x + y, x + 1.0], {"x": 5.0, "y": 7.0}), [12, 6])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (s.divide(1.0, 0.0), math.inf),
        (s.divide(-1.0, 0.0), -math.inf),
        (s.log(0.0), -math.inf),
        (s.exp(1e4), math.inf),
        (s.sqrt(-1.0), math.nan),
        (s.divide(0.0, 0.0), math.nan),
        (s.maximum(math.nan, 1.0), math.nan),
        (s.power(2.0, 10), 1024.0),
        (s.select(s.less(1.0, 2.0), 3.0, 4.0), 3.0),
    ],
)
def test_constants_fold_to_what_ieee_754_says(found: float, expected: float) -> None:
    np.testing.assert_equal(found, expected)


def test_only_what_the_outputs_need_is_live() -> None:
    program = Program()
    x, y = program.input("x"), program.input("y")
    wanted = s.sin(x) + 1.0
    s.cos(y)
    assert program.inputs_of([wanted, 3.0]) == ["x"]
    assert [program.operations[i].kind for i in program.live([wanted])] == ["input", "sin", "add"]


def test_expressions_mix_with_numpy_arrays_and_numbers() -> None:
    program = Program()
    x = program.inputs("x", 2, 2)
    y = (np.float64(2.0) * x @ np.array([1.0, 0.5]) - 1) / x[0, 0]
    values = {"x0": 2.0, "x1": 4.0, "x2": 1.0, "x3": -2.0}
    np.testing.assert_allclose(run(program, y, values), [3.5, -0.5])


def test_whole_powers_are_multiplied_out_and_halves_are_roots() -> None:
    program = Program()
    x = program.input("x")
    kinds = {program.operations[i].kind for i in program.live([x**7, x**-2, x**0.5])}
    assert kinds == {"input", "multiply", "divide", "sqrt"}


def test_conditions_combine_without_branches() -> None:
    program = Program()
    x = program.input("x")
    inside = s.logical_and(x > -1.0, s.logical_not(s.less(2.0, x)))
    outside = s.logical_or(x < -1, x > 2)
    for value, expected in ((0.0, [1, 0, 0]), (3.0, [0, 1, 1]), (-4.0, [0, 1, -1])):
        found = run(program, [inside, outside, s.select(inside, 0.0, s.sign(x))], {"x": value})
        np.testing.assert_array_equal(found, expected)


def test_a_branch_on_an_expression_is_refused() -> None:
    x = Program().input("x")
    with pytest.raises(TypeError, match="has no value"):
        bool(x > 0.0)


def test_a_program_above_its_limit_is_refused_with_the_limit() -> None:
    program = Program(limit=10)
    x = program.input("x")

    def extend() -> None:
        y = x
        for i in range(20):
            y = y * (y + float(i))

    with pytest.raises(ProgramTooLarge, match="more than 10 operations"):
        extend()
