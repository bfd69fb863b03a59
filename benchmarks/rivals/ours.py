"""This project, on either backend."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.problems import Array, PaperProblem
from benchmarks.rivals.base import Prepared
from mpc_gym.mpc import MPC
from mpc_gym.mpc.plan import Plan


@dataclass(frozen=True)
class Ours:
    """A solver of this project."""

    name: str
    backend: Literal["native", "torch"]
    starts: int = 1

    def prepare(self, problem: PaperProblem, x_init: Array) -> Prepared:
        """From a tensor to a Plan, and to the gradients of all parameters."""
        mpc = problem.controller(backend=self.backend, starts=self.starts)
        start = torch.from_numpy(x_init)

        def forward() -> Any:
            with torch.no_grad():
                return mpc(start)

        return Prepared(
            forward, lambda: backward(mpc, start), lambda plan: plan.controls[..., 0].numpy()
        )

    def gradients(self, problem: PaperProblem, x_init: Array) -> tuple[Array, Array]:
        """One state at a time, since the parameters are shared by the batch."""
        mpc = problem.controller(backend=self.backend, starts=self.starts)
        controls, rows = [], []
        for row in torch.from_numpy(x_init):
            start = row[None].clone().requires_grad_()
            controls.append(backward(mpc, start).detach()[0, :, 0])
            physical = [getattr(mpc.dynamics, name).grad for name in problem.parameters]
            found = [start.grad[0], torch.stack(physical), mpc.cost.C.grad, mpc.cost.c.grad]
            rows.append(torch.cat(found))
        return torch.stack(controls).numpy(), np.stack(rows)


def backward(mpc: MPC, start: Tensor) -> Tensor:
    """The controls of a solve, after the gradient of sum over the batch of mean_t u^2."""
    mpc.zero_grad()
    controls: Tensor = mpc(start).controls
    torch.autograd.backward(controls.square().mean((1, 2)).sum())
    return controls


def gradient(mpc: MPC, plan: Plan) -> tuple[Tensor | None, ...]:
    """That of the same loss, of all parameters, of a plan that is kept for another time."""
    loss = plan.controls.square().mean((1, 2)).sum()
    parameters = tuple(mpc.parameters())
    return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
