"""Derivatives of programs against closed forms and finite differences."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_gym.compiled import Program, derive
from mpc_gym.compiled import program as s
from mpc_gym.compiled.program import elements
from tests.compiled.interpreter import run

finite = st.floats(-2.0, 2.0)


def rosenbrock(x: np.ndarray) -> list:
    return [(1.0 - x[0]) ** 2 + 100.0 * (x[1] - x[0] * x[0]) ** 2, s.sin(x[0]) * s.exp(x[1])]


@given(a=finite, b=finite)
def test_derivatives_equal_the_closed_form(a: float, b: float) -> None:
    program = Program()
    x = program.inputs("x", 2)
    y, values = rosenbrock(x), {"x0": a, "x1": b}
    jacobian = run(program, derive.jacobian(program, y, list(x)), values)
    expected = [
        [-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)],
        [math.cos(a) * math.exp(b), math.sin(a) * math.exp(b)],
    ]
    np.testing.assert_allclose(jacobian, expected, rtol=1e-12, atol=1e-12)
    weights = [2.0, -0.5]
    gradient = run(program, derive.gradient(program, y, weights, list(x)), values)
    np.testing.assert_allclose(gradient, weights @ np.array(expected), rtol=1e-12, atol=1e-10)
    e = math.exp(b)
    hessian = 2.0 * np.array([[2 - 400 * b + 1200 * a * a, -400 * a], [-400 * a, 200]])
    mixed = np.array([[-math.sin(a) * e, math.cos(a) * e], [math.cos(a) * e, math.sin(a) * e]])
    found = run(program, derive.hessian(program, y, weights, list(x)), values)
    np.testing.assert_allclose(found, hessian - 0.5 * mixed, rtol=1e-12, atol=1e-10)


def test_directional_derivative_is_the_jacobian_times_the_direction() -> None:
    program = Program()
    x, d = program.inputs("x", 2), program.inputs("d", 2)
    y = rosenbrock(x)
    values = {"x0": 0.3, "x1": -0.7, "d0": 1.5, "d1": -2.0}
    jacobian = run(program, derive.jacobian(program, y, list(x)), values)
    found = run(program, derive.directional(program, y, list(x), list(d)), values)
    np.testing.assert_allclose(found, jacobian @ [1.5, -2.0], rtol=1e-14)


def test_hessian_shares_its_triangles() -> None:
    program = Program()
    x = program.inputs("x", 3)
    hessian = derive.hessian(program, [s.sin(x[0] * x[1]) * x[2]], [1.0], list(x))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert hessian[i, j].index == hessian[j, i].index


@pytest.mark.parametrize("wide", [False, True])
def test_share_of_the_hessian_keeps_what_a_distance_curves_upwards(wide: bool) -> None:
    count = 20 if wide else 1
    random = np.random.default_rng(0)
    A, B = random.normal(size=(2, count, 2))
    weights = random.normal(size=count)
    values = {"x0": 0.3, "x1": -0.7}
    found = []
    for share in (1.0, 0.0, 0.25):
        program = Program()
        x = program.inputs("x", 2)
        share_of = program.input("share")
        a, b = A @ x, B @ x + 0.1
        y = sum(w * s.hypot(p, q) for w, p, q in zip(weights, a, b, strict=True))
        y = y + s.sin(x[0]) * x[1]
        hessian = derive.hessian(program, [y], [1.0], list(x), share_of)
        found.append(run(program, hessian, {**values, "share": share}))
    point = np.array(list(values.values()))
    up, down = np.zeros((2, 2)), np.zeros((2, 2))
    for w, p, q in zip(weights, A, B, strict=True):
        a, b = p @ point, q @ point + 0.1
        across = b * p - a * q
        curved = w * np.outer(across, across) / np.hypot(a, b) ** 3
        up, down = (up + curved, down) if w > 0 else (up, down + curved)
    sine, cosine = math.sin(0.3), math.cos(0.3)
    other = down + np.array([[-sine * -0.7, cosine], [cosine, 0.0]])
    for share, hessian in zip((1.0, 0.0, 0.25), found, strict=True):
        np.testing.assert_allclose(hessian, up + share * other, rtol=1e-12, atol=1e-13)


def test_entries_that_are_zero_whatever_x_is_cost_nothing() -> None:
    program = Program()
    x = program.inputs("x", 3)
    jacobian = derive.jacobian(program, [s.sin(x[0]), x[1] * 2.0, 7.0], list(x))
    zeros = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert all(jacobian[index] == 0.0 for index in zeros)
    assert jacobian[1, 1] == 2.0


def test_derivatives_by_an_intermediate_expression_stop_at_it() -> None:
    program = Program()
    x = program.input("x")
    middle = s.exp(x)
    y = middle * middle + x
    jacobian = derive.jacobian(program, [y], [middle, x])
    # with `middle` held, x enters only by itself
    np.testing.assert_allclose(run(program, jacobian, {"x": 0.5}), [[2 * math.exp(0.5), 1.0]])


def test_detached_expressions_have_no_derivative() -> None:
    program = Program()
    x = program.input("x")
    y = s.detach(x * x) * x
    np.testing.assert_allclose(
        run(program, derive.jacobian(program, [y], [x]), {"x": 3.0}), [[9.0]]
    )
    gradient = derive.gradient(program, [y], [1.0], [x])
    np.testing.assert_allclose(run(program, gradient, {"x": 3.0}), [9.0])


@pytest.mark.parametrize("function", [s.minimum, s.maximum])
def test_a_tie_shares_the_derivative_forward_and_in_reverse(function) -> None:
    program = Program()
    x = program.inputs("x", 2)
    y, values = function(x[0], x[1]), {"x0": 1.0, "x1": 1.0}
    forward = run(program, derive.jacobian(program, [y], list(x)), values)
    reverse = run(program, derive.gradient(program, [y], [1.0], list(x)), values)
    np.testing.assert_array_equal(forward, [[0.5, 0.5]])
    np.testing.assert_array_equal(reverse, [0.5, 0.5])


def test_a_derivative_grows_linearly_with_the_program() -> None:
    def operations(length: int) -> int:
        program = Program()
        x = program.inputs("x", 4)
        y = list(x)
        for _ in range(length):
            y = [s.sin(y[i] * y[i - 1]) for i in range(4)]
        hessian = derive.hessian(program, y, [1.0, 2.0, 3.0, 4.0], list(x))
        return len(program.live(elements(hessian)))

    first, second, third = (operations(n) for n in (8, 16, 24))
    assert third - second == second - first
