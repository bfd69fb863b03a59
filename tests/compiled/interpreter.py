"""Runs a scalar program in Python, one operation after the other, as a reference for tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mpc_gym.compiled import Program, derive, trace
from mpc_gym.compiled.evaluate import evaluate
from mpc_gym.compiled.program import elements


def run(program: Program, outputs: Any, inputs: Mapping[str, float]) -> np.ndarray:
    """The values of an array of expressions, for given values of the program's inputs."""
    found = evaluate(program, elements(outputs), inputs, 1)
    return found[:, 0].reshape(np.shape(outputs))


def derivatives(
    module: nn.Module, state: Tensor, control: Tensor, weights: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, Jacobian and weighted Hessian of a module by way of its scalar program."""
    graph = trace(module, len(state), len(control))
    program = Program()
    x, u = program.inputs("x", len(state)), program.inputs("u", len(control))
    constants = {
        name: value.detach().double().numpy().astype(object)
        for name, value in module.named_parameters()
    }
    outputs = elements(graph.evaluate(program, x, u, None, constants))
    z = [*x, *u]
    inputs = {f"x{i}": v for i, v in enumerate(state.tolist())}
    inputs |= {f"u{i}": v for i, v in enumerate(control.tolist())}
    jacobian = derive.jacobian(program, outputs, z)
    hessian = derive.hessian(program, outputs, weights[: len(outputs)], z)
    return (
        run(program, np.array(outputs, dtype=object), inputs),
        run(program, jacobian, inputs),
        run(program, hessian, inputs),
    )


def torch_derivatives(
    module: nn.Module, state: Tensor, control: Tensor, weights: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same by PyTorch's own differentiation."""
    n = len(state)

    def flat(z: Tensor) -> Tensor:
        return module(z[:n], z[n:]).reshape(-1)

    def weighted(z: Tensor) -> Tensor:
        y = flat(z)
        return (torch.tensor(weights[: len(y)], dtype=y.dtype) * y).sum()

    z = torch.cat((state, control))
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        jacobian = torch.autograd.functional.jacobian(flat, z)
        hessian = torch.autograd.functional.hessian(weighted, z)
    return flat(z).detach().numpy(), jacobian.numpy(), hessian.numpy()
