"""The table of operations on the scalar program, against PyTorch and finite differences."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpc_gym.compiled import Program, UnsupportedOperation, derive, trace
from mpc_gym.compiled.program import elements
from tests.compiled.interpreter import derivatives, run, torch_derivatives
from tests.compiled.operations_table import (
    NOT_COMPILED,
    NOT_DIFFERENTIATED,
    ROWS,
    Row,
    difference,
    random_points,
)


class RowModule(nn.Module):
    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.row(torch.cat((state, control), -1))


@pytest.mark.parametrize("name", sorted(ROWS.keys() - NOT_COMPILED - NOT_DIFFERENTIATED))
def test_operation_has_the_value_and_derivatives_that_pytorch_gives(name: str) -> None:
    state = torch.tensor([0.7, -1.3, 1.9], dtype=torch.float64)
    control = torch.tensor([-0.4], dtype=torch.float64)
    weights = np.random.default_rng(0).normal(size=32).tolist()
    module = RowModule(ROWS[name])
    found = derivatives(module, state, control, weights)
    expected = torch_derivatives(module, state, control, weights)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(ROWS.keys() - NOT_COMPILED))
def test_operation_has_the_derivatives_of_finite_differences(name: str) -> None:
    row = ROWS[name]
    graph = trace(RowModule(row), 3, 1)
    program = Program()
    z = program.inputs("z", 4)
    outputs = elements(graph.evaluate(program, z[:3], z[3:], None, {}))
    weights = np.linspace(1.0, 2.0, len(outputs))
    slope = derive.gradient(program, outputs, weights, list(z))
    curvature = derive.hessian(program, outputs, weights, list(z))

    def at(expressions: object, point: Tensor) -> Tensor:
        inputs: Mapping[str, float] = {f"z{i}": v for i, v in enumerate(point.tolist())}
        return torch.from_numpy(run(program, np.array(expressions, dtype=object), inputs))

    def value(point: Tensor) -> Tensor:
        return row(point.clone()).detach().double().reshape(-1)

    for point in random_points(2):
        np.testing.assert_allclose(at(outputs, point), value(point), rtol=1e-10, atol=1e-12)
        along = random_points(1)[0]
        weighted = difference(lambda p: torch.from_numpy(weights) @ value(p), point, along)
        np.testing.assert_allclose(at(slope, point) @ along, weighted, rtol=1e-6, atol=1e-7)
        change = difference(lambda p: at(slope, p), point, along)
        np.testing.assert_allclose(at(curvature, point) @ along, change, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", sorted(NOT_COMPILED))
def test_what_cannot_be_compiled_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedOperation, match=r"cannot be compiled.*\.py:\d+"):
        trace(RowModule(ROWS[name]), 3, 1).evaluate(
            program := Program(),
            program.inputs("x", 3),
            program.inputs("u", 1),
            None,
            {},
        )


KINKS: dict[str, Row] = {
    "abs": torch.abs,
    "amax": lambda z: torch.amax(z, 0),
    "amin of three": lambda z: torch.amin(torch.stack((z, -z, z * z)), 0),
    "clamp": lambda z: z.clamp(-1.0, 1.0) + z.clamp(max=1.0) + z.clamp(min=0.0),
    "elu": F.elu,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "logsigmoid": F.logsigmoid,
    "max": torch.max,
    "max.dim": lambda z: torch.max(z, 0).values,
    "maximum": lambda z: torch.maximum(z, torch.ones(4)) + torch.maximum(z, z * z),
    "minimum": lambda z: torch.minimum(z, torch.zeros(4)) + torch.minimum(z, z * z),
    "norm": lambda z: torch.linalg.norm(z * torch.tensor([0.0, 0.0, 1.0, 0.0])),
    "norm 1": lambda z: torch.linalg.vector_norm(z, 1),
    "prod": torch.prod,
    "relu": F.relu,
    "relu6": F.relu6,
    "round": torch.round,
    "sign": torch.sign,
    "softplus": lambda z: F.softplus(z, threshold=1.0),
    "square root of a square": lambda z: torch.linalg.norm(z[2:3]),
}


@pytest.mark.parametrize("name", KINKS)
def test_derivative_at_a_kink_is_the_one_that_pytorch_takes(name: str) -> None:
    state = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    control = torch.tensor([1.0], dtype=torch.float64)
    module = RowModule(KINKS[name])
    found = derivatives(module, state, control, [1.0] * 4)
    expected = torch_derivatives(module, state, control, [1.0] * 4)
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-14)


EXTREMES: dict[str, Row] = {
    "clamp": lambda z: z.clamp(-1.0, 1.0),
    "elu": F.elu,
    "logsigmoid": F.logsigmoid,
    "logsumexp": lambda z: torch.logsumexp(z, 0),
    "maximum": lambda z: torch.maximum(z, torch.zeros(4)),
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softmax": lambda z: torch.softmax(z, 0),
    "softplus": F.softplus,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("name", EXTREMES)
def test_large_arguments_overflow_neither_the_value_nor_the_derivative(name: str) -> None:
    state = torch.tensor([800.0, -800.0, 0.5], dtype=torch.float64)
    control = torch.tensor([-1e4], dtype=torch.float64)
    module = RowModule(EXTREMES[name])
    found = derivatives(module, state, control, [1.0] * 4)
    expected = torch_derivatives(module, state, control, [1.0] * 4)
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("name", ["clamp", "hardtanh", "maximum", "max", "relu", "amin of three"])
def test_nan_passes_through_what_compares(name: str) -> None:
    state = torch.tensor([math.nan, 0.2, 0.1], dtype=torch.float64)
    control = torch.tensor([0.3], dtype=torch.float64)
    found, _, _ = derivatives(RowModule(KINKS[name]), state, control, [1.0] * 4)
    expected = KINKS[name](torch.cat((state, control)))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected.reshape(-1).numpy()))
