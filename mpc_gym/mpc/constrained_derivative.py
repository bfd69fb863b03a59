"""The derivative of a plan with constraints, by the fixed point at the top of `constraints.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.mpc.augmented_cost import AugmentedCost
from mpc_gym.mpc.augmented_lagrangian import SLOW, Multipliers, augmented_cost
from mpc_gym.mpc.constraints import Kinds
from mpc_gym.mpc.plan import Plan
from mpc_gym.mpc.problem import RowFunction

if TYPE_CHECKING:
    from mpc_gym.mpc.controller import MPC

MAX_ADJOINT_UPDATES, ADJOINT_TOLERANCE, ADJOINT_ROUNDING = 50, 1e-12, 1e-7


def attach(
    inner: MPC,
    kinds: Kinds,
    plan: Plan,
    multipliers: Multipliers,
    x_init: Float[Tensor, "batch n_state"],
    own: Float[Tensor, "batch time n_context"] | None,
    w: Float[Tensor, " inequalities"] | None,
    *,
    unclamped: bool,
) -> Plan:
    """The plan as a differentiable function of all parameters, x_init, the context and w.

    See the top of `constraints.py`. Instances that have not converged get no gradient.
    """
    if unclamped:
        plan = replace(plan, unclamped=plan.controls[:, 0])
    cost = augmented_cost(inner)
    rows = plan.converged.nonzero()[:, 0]
    if not len(rows):
        return plan
    fixed = replace(multipliers.at(rows), w=w)
    fixed.lam = fixed.lam.requires_grad_()
    mine = None if own is None else own[rows]
    found: Plan = inner(
        x_init[rows], plan.controls[rows], fixed.context(kinds, mine), unclamped=unclamped
    )
    if not bool(found.converged.all()):
        converged = plan.converged.index_copy(0, rows, found.converged)
        plan = replace(plan, converged=converged)
        return attach(inner, kinds, plan, multipliers, x_init, own, w, unclamped=unclamped)
    Z = [found.states, found.controls]
    if found.unclamped is not None:
        Z.append(found.unclamped)
    rows_of = RowFunction.of(cost.rows)
    c = rows_of(found.states.detach(), found.controls.detach(), mine)
    c = torch.where(kinds.asked, c, 0.0)
    states, controls, *more = _Multiplied.apply(  # type: ignore[no-untyped-call]
        _Adjoint(cost, kinds, fixed, Z, mine), c, *Z
    )
    value = RowFunction.of(cost.cost)(states, controls, mine).sum(-1)
    live = replace(
        plan.rows(rows),
        states=states,
        controls=controls,
        cost=value,
        unclamped=more[0] if more else None,
    )
    if live.unclamped is not None:
        plan = replace(plan, unclamped=plan.controls[:, 0])
    return plan.with_rows(rows, live)


class _Adjoint:
    """The iteration for v, given the gradient of a loss by the plan."""

    def __init__(
        self,
        cost: AugmentedCost,
        kinds: Kinds,
        multipliers: Multipliers,
        plan: list[Tensor],
        own: Tensor | None,
    ) -> None:
        self._lam, self._plan = multipliers.lam, plan
        with torch.enable_grad():
            self._held = [value.detach().requires_grad_() for value in plan[:2]]
            context = None if own is None else own.detach()
            c = RowFunction.of(cost.rows).detached()(self._held[0], self._held[1], context)
            self._c = torch.where(kinds.asked, c, 0.0)
        self._rho = multipliers.rho.unsqueeze(1) * kinds.asked
        a = self._lam + self._rho * self._c
        active = cost.active(a, self._rho, multipliers.w, multipliers.mu)
        self._active = torch.where(kinds.asked, active, 0.0)

    def __call__(self, g: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The gradient by the rows' values, and that by the plan at fixed multipliers."""
        v, total = torch.zeros_like(self._lam), g
        first = before = torch.zeros_like(v[:, 0, 0])
        ended = torch.zeros_like(first, dtype=torch.bool)
        for update in range(MAX_ADJOINT_UPDATES):
            (step,) = torch.autograd.grad(self._plan, self._lam, total, retain_graph=True)
            step = self._active * step - (1.0 - self._active) * v
            size = step.abs().amax((1, 2))
            first = size if update == 0 else first
            # the rest is rounding where it is small and does not fall any more
            done = size <= ADJOINT_TOLERANCE * first
            if update:
                done |= (size <= ADJOINT_ROUNDING * first) & (size > SLOW * before)
            ended = ended | done
            if bool(ended.all()):
                break
            before = size
            v = v + torch.where(ended[:, None, None], 0.0, step)
            pull = torch.autograd.grad(
                self._c, self._held, self._rho * v, retain_graph=True, materialize_grads=True
            )
            total = (g[0] + pull[0], g[1] + pull[1], *g[2:])
        return self._rho * v, *total


class _Multiplied(torch.autograd.Function):
    """States, controls (and unclamped controls) as they are; their multipliers follow them."""

    @staticmethod
    def forward(ctx: Any, adjoint: _Adjoint, _c: Tensor, *plan: Tensor) -> tuple[Tensor, ...]:
        """The plan; `_c` are the values of the rows there, as functions of their parameters."""
        ctx.adjoint = adjoint
        return tuple(value.clone() for value in plan)

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor | None, ...]:
        """Its gradient.

        Raises:
            NotImplementedError: that itself is to be differentiated.
        """
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "a plan with constraints can be differentiated once: leave create_graph out"
            )
        with torch.enable_grad():
            return None, *ctx.adjoint(g)
