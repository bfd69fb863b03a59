"""How long a cart-pole integrated by four Runge-Kutta steps takes to compile, and its error."""

import json
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import hessian, jacrev

from benchmarks.problems import CARTPOLE
from mpc_gym.compiled import compile_module

STEPS = 4
DT = 0.05


class RungeKuttaCartPole(nn.Module):
    """The cart-pole with state (x, x_dot, theta, theta_dot), by the classical method."""

    def __init__(self) -> None:
        super().__init__()
        values = list(CARTPOLE.parameters.values())
        self.physical = nn.Parameter(torch.tensor(values, dtype=torch.float64))

    def derivative(self, state: Tensor, control: Tensor) -> Tensor:
        """Of the state by time."""
        gravity, cart_mass, pole_mass, length = self.physical.unbind()
        _, velocity, theta, speed = state.unbind(-1)
        total, moment = cart_mass + pole_mass, pole_mass * length
        sine, cosine = torch.sin(theta), torch.cos(theta)
        push = (control[..., 0] + moment * speed**2 * sine) / total
        angular = (gravity * sine - cosine * push) / (
            length * (4 / 3 - pole_mass * cosine**2 / total)
        )
        return torch.stack((velocity, push - moment * angular * cosine / total, speed, angular), -1)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The state one step of DT later."""
        h = DT / STEPS
        for _ in range(STEPS):
            k1 = self.derivative(state, control)
            k2 = self.derivative(state + h / 2 * k1, control)
            k3 = self.derivative(state + h / 2 * k2, control)
            k4 = self.derivative(state + h * k3, control)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return state


def main() -> None:
    module = RungeKuttaCartPole()
    generator = torch.Generator().manual_seed(0)
    state, control, weights = (
        torch.randn(16, size, generator=generator, dtype=torch.float64) for size in (4, 1, 4)
    )
    start = time.perf_counter()
    compiled = compile_module(module, n_state=4, n_ctrl=1)
    found = (
        compiled.value(state, control),
        compiled.jacobian(state, control),
        compiled.hessian(weights, state, control),
    )
    seconds = time.perf_counter() - start
    error = max(map(relative_error, found, expected(module, state, control, weights)))
    print(json.dumps({"seconds": seconds, "error": error}))


def expected(module: nn.Module, state: Tensor, control: Tensor, weights: Tensor) -> list[Tensor]:
    """Value, Jacobian and weighted Hessian by torch.func."""

    def value(z: Tensor) -> Tensor:
        result: Tensor = module(z[:4], z[4:])
        return result

    rows = torch.cat((state, control), -1)
    second = [
        hessian(lambda z, w=w: value(z) @ w)(row) for row, w in zip(rows, weights, strict=True)
    ]
    return [
        module(state, control).detach(),
        torch.stack([jacrev(value)(row) for row in rows]).detach(),
        torch.stack(second).detach(),
    ]


def relative_error(found: np.ndarray, exact: Tensor) -> float:
    """Largest error, relative to the largest entry."""
    return float(np.abs(found - exact.numpy()).max() / exact.abs().max())


if __name__ == "__main__":
    main()
