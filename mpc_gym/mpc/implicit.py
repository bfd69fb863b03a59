"""The solution as a differentiable function of everything it depends on."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpc_gym.mpc.backend import BackendProblem
from mpc_gym.mpc.ddp import Solution


class ImplicitSolution(torch.autograd.Function):
    """Gives a finished solution its derivative by the implicit function theorem."""

    @staticmethod
    def attach(
        problem: BackendProblem, solution: Solution, inputs: tuple[Tensor | None, ...]
    ) -> Solution:
        """The same solution, differentiable.

        Args:
            problem: what was solved.
            solution: of it, in float64.
            inputs: x_init, low, high, context (or None), the parameters of the dynamics and those
                of the cost, as the caller has them; low and high may be of any shape that expands
                to [time, n_ctrl], and context lack the time axis.
        """
        X, U, cost = ImplicitSolution.apply(  # type: ignore[no-untyped-call]
            problem, solution, *inputs
        )
        return replace(solution, X=X, U=U, cost=cost)

    @staticmethod
    def forward(
        ctx: Any, problem: BackendProblem, solution: Solution, *inputs: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The states, controls and cost, as they are."""
        ctx.problem, ctx.solution = problem, solution
        ctx.save_for_backward(*inputs)
        return solution.X.clone(), solution.U.clone(), solution.cost.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_X: Tensor, g_U: Tensor, g_cost: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the converged instances; zero for the others."""
        inputs = ctx.saved_tensors  # raises if a parameter was overwritten since the solve
        solution = ctx.solution
        rows = solution.converged.nonzero()[:, 0]
        found = ctx.problem.rows(rows).gradients(
            solution.X[rows], solution.U[rows], g_X[rows], g_U[rows], g_cost[rows]
        )
        batch = solution.X.shape[0]
        gradients = (
            _scattered(found.x_init, rows, batch),
            found.low,
            found.high,
            None if found.context is None else _scattered(found.context, rows, batch),
            *found.dynamics,
            *found.cost,
        )
        fitted = (_fitted(g, of) for g, of in zip(gradients, inputs, strict=True))
        return (None, None, *fitted)


def _scattered(gradient: Tensor, rows: Tensor, batch: int) -> Tensor:
    if len(rows) == batch:
        return gradient
    return gradient.new_zeros(batch, *gradient.shape[1:]).index_copy(0, rows, gradient)


def _fitted(gradient: Tensor | None, of: Tensor | None) -> Tensor | None:
    """A gradient in the shape and dtype of what it belongs to, summed where that was expanded."""
    if gradient is None or of is None:
        return None
    if gradient.ndim == 3 and of.ndim == 2:  # a context without the time axis
        gradient = gradient.sum(1)
    return gradient.sum_to_size(of.shape).to(of.dtype)
