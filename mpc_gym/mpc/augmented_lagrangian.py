"""The augmented Lagrangian of `constraints.py`: its iteration, and the derivative at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.models.base import takes_context
from mpc_gym.mpc.constraints import AugmentedCost, Kinds
from mpc_gym.mpc.plan import Plan

if TYPE_CHECKING:
    from mpc_gym.mpc.controller import MPC

FIRST_PENALTY = 10.0  # of a violation as large as a row is along the guess: so often its cost
PENALTY_FACTOR, LARGEST_PENALTY = 10.0, 1e9  # the latter relative to the first
SLOW = 0.25  # a change of the multipliers that is no less than this part of the one before
FIRST_TOLERANCE, TOLERANCE_FACTOR = 1e-2, 0.1  # of the first solves, which need not be exact
VIOLATION = 0.1  # times the tolerance: of a row, relative to its size along the guess
LAST_FACTOR = 1e3  # by which the penalty grows for the last digits
MAX_UPDATES = 40
MAX_ADJOINT_UPDATES, ADJOINT_TOLERANCE, ADJOINT_ROUNDING = 50, 1e-12, 1e-7


@dataclass
class Multipliers:
    """Of every instance; zero where a row is not asked.

    Attributes:
        lam: the multipliers.
        rho: the penalties.
    """

    lam: Float[Tensor, "batch time k"]
    rho: Float[Tensor, "batch k"]

    def context(self, kinds: Kinds, own: Tensor | None) -> Float[Tensor, "batch time n_context"]:
        """As the context of an `AugmentedCost`, after the one of the cost itself."""
        rho = self.rho.unsqueeze(1) * kinds.asked
        least = torch.where(kinds.asked, self.lam.square() / (2.0 * self.rho.unsqueeze(1)), 0.0)
        parts = (self.lam, rho, least)
        return torch.cat(parts if own is None else (own, *parts), -1)

    def at(self, rows: Tensor) -> Multipliers:
        """Those of some instances."""
        return Multipliers(self.lam[rows], self.rho[rows])


@torch.no_grad()
def solve(
    inner: MPC,
    kinds: Kinds,
    x_init: Float[Tensor, "batch n_state"],
    guess: Float[Tensor, "batch time n_ctrl"],
    own: Float[Tensor, "batch time n_context"] | None,
    tolerance: float,
    max_iterations: int,
) -> tuple[Plan, Multipliers]:
    """Plans that satisfy the constraints, and their multipliers.

    An instance has converged when its last solve has, and no multiplier changes by more than a
    violation of `VIOLATION` times the tolerance makes it. One whose penalty has grown to
    `LARGEST_PENALTY` in vain, or whose iterations are used up, is returned as not converged.

    Args:
        inner: on the `AugmentedCost`.
        kinds: of its rows.
        x_init, guess: from where.
        own: the context of the cost itself.
        tolerance: as of `MPC`.
        max_iterations: of all solves of an instance together.
    """
    cost = _cost(inner)
    every = torch.arange(len(x_init), device=x_init.device)
    start = _rolled_out(inner, x_init, guess, own)
    c = _values(cost, kinds, start, guess, own).nan_to_num(0.0, 0.0, 0.0)
    size = c.abs().amax(1)
    size = torch.where(size > 0, size, 1.0)
    first = FIRST_PENALTY * _stakes(inner, start, guess, own).unsqueeze(-1) / size.square()
    now = Multipliers(torch.zeros_like(c), first.clone())
    plan = Plan.unsolved(x_init, guess)
    before = torch.full_like(size, torch.inf)
    polished = torch.zeros_like(every, dtype=torch.bool)
    index, loose = every, FIRST_TOLERANCE
    for _ in range(MAX_UPDATES):
        left = int((max_iterations - plan.iterations[index]).max()) if len(index) else 0
        if left < 1:
            break
        inner.tolerance = max(tolerance, loose)
        mine = None if own is None else own[index]
        found: Plan = inner(
            x_init[index],
            plan.controls[index],
            now.at(index).context(kinds, mine),
            max_iterations=left,
        )
        spent = plan.iterations[index] + found.iterations
        rho = now.rho[index].unsqueeze(1)
        c = _values(cost, kinds, found.states, found.controls, mine)
        lam = torch.where(kinds.asked, cost.multipliers(now.lam[index] + rho * c), 0.0)
        change = ((lam - now.lam[index]) / rho).abs().amax(1)  # in units of the rows
        settled = (change <= VIOLATION * tolerance * size[index]).all(-1) & found.converged
        settled = settled & (inner.tolerance <= tolerance) & (spent <= max_iterations)
        again = settled & ~polished[index]
        slow = (change > SLOW * before[index]) & ~settled.unsqueeze(-1)
        factor = torch.where(slow, PENALTY_FACTOR, 1.0)
        factor[again] = LAST_FACTOR
        now.lam[index], now.rho[index] = lam, now.rho[index] * factor
        before[index] = change
        polished[index] = polished[index] | settled
        plan = plan.with_rows(index, replace(found, converged=settled, iterations=spent))
        lost = ~found.cost.isfinite() | (now.rho[index] > LARGEST_PENALTY * first[index]).any(-1)
        index = index[again | ~(settled | lost)]
        loose *= TOLERANCE_FACTOR
    inner.tolerance = tolerance
    return plan, now


def _cost(inner: MPC) -> AugmentedCost:
    cost = inner.cost
    assert isinstance(cost, AugmentedCost)
    return cost


def _values(
    cost: AugmentedCost, kinds: Kinds, states: Tensor, controls: Tensor, own: Tensor | None
) -> Float[Tensor, "batch time k"]:
    """Of the rows, zero where they are not asked."""
    return torch.where(kinds.asked, cost.rows(states, controls, own), 0.0)


def _rolled_out(
    inner: MPC, x_init: Tensor, guess: Tensor, own: Tensor | None
) -> Float[Tensor, "batch time n_state"]:
    """The states under the guess."""
    states = [x_init]
    with_context = takes_context(inner.dynamics)
    for t in range(guess.shape[1] - 1):
        given = (states[-1], guess[:, t])
        states.append(
            inner.dynamics(*given, None if own is None else own[:, t])
            if with_context
            else inner.dynamics(*given)
        )
    return torch.stack(states, 1)


def _stakes(
    inner: MPC, states: Tensor, controls: Tensor, own: Tensor | None
) -> Float[Tensor, " batch"]:
    """How much cost is at stake: that of the guess, or of controls at their bounds."""
    cost = _cost(inner)
    low, high = inner.control_low.double(), inner.control_high.double()
    found = states.new_zeros(len(states))
    for at in (
        controls,
        torch.where(low.isfinite(), low, -1.0).expand_as(controls),
        torch.where(high.isfinite(), high, 1.0).expand_as(controls),
    ):
        costs = cost.own(states, at, own).abs().sum(-1).nan_to_num(0.0, 0.0, 0.0)
        found = torch.where(found > 0, found, costs)
    return torch.where(found > 0, found, 1.0)


def attach(
    inner: MPC,
    kinds: Kinds,
    plan: Plan,
    multipliers: Multipliers,
    x_init: Float[Tensor, "batch n_state"],
    own: Float[Tensor, "batch time n_context"] | None,
    *,
    unclamped: bool,
) -> Plan:
    """The plan as a differentiable function of all parameters, x_init and the context.

    See the top of `constraints.py`. Instances that have not converged get no gradient.
    """
    cost = _cost(inner)
    rows = plan.converged.nonzero()[:, 0]
    if not len(rows):
        return plan
    fixed = multipliers.at(rows)
    fixed.lam = fixed.lam.requires_grad_()
    mine = None if own is None else own[rows]
    found: Plan = inner(
        x_init[rows], plan.controls[rows], fixed.context(kinds, mine), unclamped=unclamped
    )
    Z = [found.states, found.controls]
    if found.unclamped is not None:
        Z.append(found.unclamped)
    c = _values(cost, kinds, found.states.detach(), found.controls.detach(), mine)
    states, controls, *more = _Multiplied.apply(  # type: ignore[no-untyped-call]
        _Adjoint(cost, kinds, fixed, Z, mine), c, *Z
    )
    value = cost.own(states, controls, mine).sum(-1)
    live = replace(
        plan.rows(rows),
        states=states,
        controls=controls,
        cost=value,
        unclamped=more[0] if more else None,
    )
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
            self._c = _values(cost, kinds, self._held[0], self._held[1], context)
        self._rho = multipliers.rho.unsqueeze(1) * kinds.asked
        self._active = cost.active(self._lam + self._rho * self._c) & kinds.asked

    def __call__(self, g: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The gradient by the rows' values, and that by the plan at fixed multipliers."""
        v, total = torch.zeros_like(self._lam), g
        first = before = torch.zeros_like(v[:, 0, 0])
        for update in range(MAX_ADJOINT_UPDATES):
            (step,) = torch.autograd.grad(self._plan, self._lam, total, retain_graph=True)
            step = torch.where(self._active, step, 0.0)
            size = step.abs().amax((1, 2))
            first = size if update == 0 else first
            # the rest is rounding where it is small and does not fall any more
            done = size <= ADJOINT_TOLERANCE * first
            if update:
                done |= (size <= ADJOINT_ROUNDING * first) & (size > SLOW * before)
            if bool(done.all()):
                break
            before = size
            v = v + step
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
