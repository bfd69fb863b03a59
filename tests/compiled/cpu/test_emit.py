"""Generated functions: what they compute, and that a loop over lanes is vectorised."""

import math

import numpy as np
import pytest

from mpc_gym.compiled import Program, derive, trace
from mpc_gym.compiled import program as s
from mpc_gym.compiled.cpu.emit import LANES, build, kernel_source, sources
from mpc_gym.compiled.kernel import Kernel, Place, Record
from mpc_gym.compiled.program import elements
from mpc_gym.models import CartPoleDynamics
from tests.compiled.assembly import assert_vectorised, packed_share
from tests.compiled.interpreter import run


def test_a_lane_function_of_a_model_and_its_derivatives_is_vectorised_whole() -> None:
    model = CartPoleDynamics()
    program = Program()
    x, u, w = program.inputs("x", 5), program.inputs("u", 1), program.inputs("w", 5)
    graph = trace(model, 5, 1)
    parameters = {k: program.inputs(f"{k}_", *v) for k, v in graph.parameter_shapes.items()}
    y = elements(graph.evaluate(program, x, u, None, parameters))
    z = [*x, *u]
    outputs = [*y, *elements(derive.jacobian(program, y, z))]
    outputs += elements(derive.hessian(program, y, list(w), z))
    per_lane = [*x, *u, *w]
    names = [program.operations[e.index].name for e in per_lane]
    loads = {name: Place("D", i * LANES) for i, name in enumerate(names)}
    loads |= {f"{k}_0": Place("P", i, shared=True) for i, k in enumerate(parameters)}
    first = len(names)
    stores = [(Place("D", (first + i) * LANES), y) for i, y in enumerate(outputs)]
    kernel = Kernel("stage", program, ("D", "P"), loads, stores, LANES)
    stage = build(sources([kernel_source(kernel)]), "test_lanes").stage
    data = np.random.default_rng(0).normal(size=(first + len(outputs), LANES))
    values = [v.item() for v in graph.module.parameters()]
    constants = {f"{k}_0": v for k, v in zip(parameters, values, strict=True)}
    before = data.copy()
    stage(data.ravel(), np.array(values))
    for lane in (0, 7, LANES - 1):
        inputs = dict(zip(names, before[:first, lane].tolist(), strict=True)) | constants
        expected = run(program, outputs, inputs)
        np.testing.assert_allclose(data[first:, lane], expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(data[:first], before[:first])
    assert_vectorised(stage)


EVERY = {
    "acos": lambda a, b: s.acos(0.1 * a),
    "asin": lambda a, b: s.asin(0.1 * a),
    "asinh": lambda a, b: s.asinh(a),
    "atan2": s.atan2,
    "cosh": lambda a, b: s.cosh(a),
    "erf": lambda a, b: s.erf(a),
    "exp": lambda a, b: s.exp(a),
    "expm1": lambda a, b: s.expm1(a),
    "floor": lambda a, b: s.floor(a) + s.rint(b),
    "log": lambda a, b: s.log(a * a) + s.log1p(a * a),
    "logical": lambda a, b: s.select(
        s.logical_or(s.logical_and(a < b, s.logical_not(s.equal(a, 0.0))), b < 0.1), a, b
    ),
    "condition as a number": lambda a, b: (a < b) * b + s.less_equal(0.0, a) - (b < 0.0),
    "maximum": lambda a, b: s.maximum(a, b) * s.minimum(a, 0.3) + abs(a) + s.detach(b),
    "power": lambda a, b: s.power(s.sqrt(a * a), b),
    "sigmoid": lambda a, b: s.sigmoid(a) * s.tanh(b),
    "sin": lambda a, b: s.sin(a) * s.cos(b) + s.tan(a),
    "sinh": lambda a, b: s.sinh(a),
    "hypot": s.hypot,
    "infinite constants": lambda a, b: s.minimum(s.maximum(a, -math.inf), math.inf),
    "nothing but constants": lambda a, b: -2.5,
    "not finite": lambda a, b: math.nan,
    "negative": lambda a, b: -a / (-b) - -1.5,
}


def test_every_primitive_compiles_to_what_it_folds_to_and_vectorises() -> None:
    program = Program()
    a, b = program.input("a"), program.input("b")
    outputs = [function(a, b) for function in EVERY.values()]
    loads = {"a": Place("A", 0), "b": Place("B", 0)}
    stores = [(Place("out", i * LANES), y) for i, y in enumerate(outputs)]
    kernel = Kernel("primitives", program, ("A", "B", "out"), loads, stores, LANES)
    primitives = build(sources([kernel_source(kernel)]), "test_primitives").primitives
    inputs = np.random.default_rng(1).normal(size=(2, LANES)) * 2.0
    inputs[0, 0], inputs[1, 1] = 0.0, math.nan
    out = np.empty((len(outputs), LANES))
    primitives(inputs[0], inputs[1], out.ravel())
    for lane in range(LANES):
        expected = run(program, outputs, {"a": inputs[0, lane], "b": inputs[1, lane]})
        np.testing.assert_allclose(out[:, lane], expected, rtol=1e-13, err_msg=str(list(EVERY)))
    assert_vectorised(primitives)
    assert packed_share(primitives) > 0.4  # the rest is a scalar loop for arrays that overlap


def test_a_row_function_reads_and_writes_where_it_is_told() -> None:
    program = Program()
    x = program.inputs("x", 2)
    stores = [(Place("y", 1), x[0]), (Place("y", 2), x[1]), (Place("y", 3), 0.25)]
    kernel = Kernel("swap", program, ("x", "y"), Record({"x": 2}).places("x"), stores)
    y = np.zeros((2, 2))
    build(sources([kernel_source(kernel)]), "test_swap").swap(np.array([3.0, 4.0]), y)
    np.testing.assert_array_equal(y, [[0.0, 3.0], [4.0, 0.25]])


def test_an_input_that_is_read_nowhere_is_our_own_mistake() -> None:
    program = Program()
    y = program.input("x") + program.input("missing")
    kernel = Kernel("f", program, ("x", "y"), {"x": Place("x", 0)}, [(Place("y", 0), y)])
    with pytest.raises(AssertionError, match="missing"):
        kernel.listing()
