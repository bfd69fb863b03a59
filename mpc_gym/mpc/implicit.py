"""The plan as a differentiable function of everything it depends on.

Its derivative is itself a function of the plan, of what that depends on and of the incoming
gradients. Where that is to be differentiated (`create_graph=True`), it is written in operations of
PyTorch: `sensitivity.gradients` of the reference, at a plan that is a node of the graph again.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mpc_gym.mpc.backend import BackendProblem
from mpc_gym.mpc.checks import check_not_batched
from mpc_gym.mpc.plan import Plan
from mpc_gym.mpc.unclamped import Unclamped


class ImplicitSolution(torch.autograd.Function):
    """Gives a finished plan its derivative by the implicit function theorem."""

    @staticmethod
    def attach(
        problem: BackendProblem,
        plan: Plan,
        unclamped: Unclamped | None,
        inputs: tuple[Tensor | None, ...],
    ) -> tuple[Plan, Tensor | None]:
        """The same plan, and `unclamped.control` where there is one, differentiable.

        Args:
            problem: what was solved.
            plan: of it, in float64.
            unclamped: the first control without its bounds, or None.
            inputs: x_init, low, high, context (or None), the parameters of the dynamics and those
                of the cost, as the caller has them; low and high may be of any shape that expands
                to [time, n_ctrl], and context lack the time axis.
        """
        X, U, cost, free = ImplicitSolution.apply(  # type: ignore[no-untyped-call]
            problem, plan, unclamped, *inputs
        )
        return replace(plan, states=X, controls=U, cost=cost), free

    @staticmethod
    def forward(
        ctx: Any,
        problem: BackendProblem,
        plan: Plan,
        unclamped: Unclamped | None,
        *inputs: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The states, controls and cost, as they are."""
        ctx.problem, ctx.plan, ctx.unclamped = problem, plan, unclamped
        ctx.save_for_backward(*inputs)
        free = None if unclamped is None else unclamped.control.clone()
        return plan.states.clone(), plan.controls.clone(), plan.cost.clone(), free

    @staticmethod
    def backward(
        ctx: Any, g_X: Tensor, g_U: Tensor, g_cost: Tensor, g_free: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of the converged instances; zero for the others."""
        inputs = ctx.saved_tensors  # raises if a parameter was overwritten since the solve
        for gradient in (g_X, g_U, g_cost):
            check_not_batched(gradient)
        problem, plan, unclamped = ctx.problem, ctx.plan, ctx.unclamped
        if not torch.is_grad_enabled():
            found = _gradients(problem, plan, unclamped, (g_X, g_U, g_cost, g_free), inputs)
            return None, None, None, *found
        # create_graph=True: the same by operations that autograd can follow, at a plan that
        # depends on the inputs in its turn
        live = problem.as_function_of(inputs[1:])
        attached, _ = ImplicitSolution.attach(problem, plan, unclamped, inputs)
        found = _gradients(live, attached, unclamped, (g_X, g_U, g_cost, g_free), inputs)
        return None, None, None, *found


def _gradients(
    problem: BackendProblem,
    plan: Plan,
    unclamped: Unclamped | None,
    loss: tuple[Tensor, Tensor, Tensor, Tensor | None],
    inputs: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """Gradients by the inputs, from those by states, controls, cost and `unclamped.control`."""
    g_X, g_U, g_cost, g_free = loss
    parts = []
    if unclamped is not None:
        assert g_free is not None
        later = torch.zeros_like(g_U[:, 1:])
        held = torch.where(unclamped.sign == 0, g_free, 0.0)
        g_U = g_U + torch.cat((held.unsqueeze(1), later), 1)
        g_lifted = torch.cat(((unclamped.sign * g_free).unsqueeze(1), later), 1)
        no_loss = torch.zeros_like(g_X), g_lifted, torch.zeros_like(g_cost)
        rows = _felt(unclamped.sign.any(-1), no_loss)
        if len(rows):
            parts.append(_gradients_of_rows(problem.lifted(), plan, rows, no_loss, inputs))
    rows = _felt(plan.converged, (g_X, g_U, g_cost))
    if len(rows) or not parts:
        parts.append(_gradients_of_rows(problem, plan, rows, (g_X, g_U, g_cost), inputs))
    return [_sum(column) for column in zip(*parts, strict=True)]


def _felt(rows: Tensor, loss: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Indices of those rows that the loss depends on."""
    if not torch.is_grad_enabled():  # a gradient of zero may have a derivative that is not
        g_X, g_U, g_cost = loss
        rows = rows & (g_X.flatten(1).any(1) | g_U.flatten(1).any(1) | (g_cost != 0))
    return rows.nonzero()[:, 0]


def _gradients_of_rows(
    problem: BackendProblem,
    plan: Plan,
    rows: Tensor,
    loss: tuple[Tensor, Tensor, Tensor],
    inputs: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """Gradients by the inputs, from these rows of the gradients by states, controls and cost."""
    g_X, g_U, g_cost = (gradient[rows] for gradient in loss)
    found = problem.rows(rows).gradients(plan.states[rows], plan.controls[rows], g_X, g_U, g_cost)
    batch = plan.states.shape[0]
    gradients = (
        _scattered(found.x_init, rows, batch),
        found.low,
        found.high,
        None if found.context is None else _scattered(found.context, rows, batch),
        *found.dynamics,
        *found.cost,
    )
    return [_fitted(g, of) for g, of in zip(gradients, inputs, strict=True)]


def _sum(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.stack(known).sum(0) if len(known) > 1 else next(iter(known), None)


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
