"""The solution as a differentiable function of everything it depends on."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpc_gym.mpc.ddp import Solution
from mpc_gym.mpc.problem import Problem
from mpc_gym.mpc.sensitivity import gradients


class ImplicitSolution(torch.autograd.Function):
    """Gives a finished solution its derivative by the implicit function theorem."""

    @staticmethod
    def attach(problem: Problem, x_init: Tensor, solution: Solution, *, exact: bool) -> Solution:
        """The same solution, differentiable with respect to x_init and the problem's tensors."""
        X, U, cost = ImplicitSolution.apply(  # type: ignore[no-untyped-call]
            problem,
            solution,
            exact,
            x_init,
            problem.low,
            problem.high,
            problem.context,
            *problem.f.parameters(),
            *problem.l.parameters(),
        )
        return replace(solution, X=X, U=U, cost=cost)

    @staticmethod
    def forward(
        ctx: Any, problem: Problem, solution: Solution, exact: bool, *inputs: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The states, controls and cost, as they are."""
        ctx.problem, ctx.solution, ctx.exact = problem, solution, exact
        ctx.save_for_backward(*inputs)
        return solution.X.clone(), solution.U.clone(), solution.cost.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_X: Tensor, g_U: Tensor, g_cost: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the converged instances; zero for the others."""
        _ = ctx.saved_tensors  # raises if a parameter was overwritten since the solve
        problem, solution = ctx.problem, ctx.solution
        rows = solution.converged.nonzero()[:, 0]
        found = gradients(
            problem.rows(rows).detached(),
            solution.X[rows],
            solution.U[rows],
            g_X[rows],
            g_U[rows],
            g_cost[rows],
            exact=ctx.exact,
        )
        x_init = torch.zeros_like(solution.X[:, 0]).index_copy(0, rows, found.x_init)
        context = None
        if found.context is not None:
            context = torch.zeros_like(problem.context).index_copy(0, rows, found.context)
        return (
            None, None, None, x_init, found.low, found.high, context,
            *found.dynamics, *found.cost,
        )  # fmt: skip
