"""The augmented Lagrangian of `constraints.py`: its iteration, and the derivative at the end."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.compiled.autograd import first_derivatives
from mpc_gym.functional import LOCK
from mpc_gym.mpc.constraints import AugmentedCost, Kinds
from mpc_gym.mpc.plan import Plan
from mpc_gym.mpc.problem import RowFunction

if TYPE_CHECKING:
    from mpc_gym.mpc.controller import MPC

FIRST_PENALTY = 10.0  # of a violation as large as a row is along the guess: so often its cost
PENALTY_FACTOR, LARGEST_PENALTY = 10.0, 1e9  # the latter relative to the first
SLOW = 0.25  # a change of the multipliers that is no less than this part of the one before
FIRST_TOLERANCE, TOLERANCE_FACTOR = 1e-2, 0.1  # of the first solves, which need not be exact
VIOLATION = 0.1  # times the tolerance: of a row, relative to its size along the guess
# Such a part of what is within reach counts: of a row that is as good as zero along the guess, the
# penalty would be so large that rounding shows in its multiplier.
REACH = 0.03
LAST_FACTOR = 1e3  # by which the penalty grows for the last digits
MAX_UPDATES = 40
MAX_ADJOINT_UPDATES, ADJOINT_TOLERANCE, ADJOINT_ROUNDING = 50, 1e-12, 1e-7


@dataclass
class Multipliers:
    """Of every instance; zero where a row is not asked.

    Attributes:
        lam: the multipliers.
        rho: the penalties.
        w: what a violation of each inequality costs; None: it is not for sale.
        mu: the smoothing.
    """

    lam: Float[Tensor, "batch time k"]
    rho: Float[Tensor, "batch k"]
    w: Float[Tensor, " inequalities"] | None
    mu: float

    def context(self, kinds: Kinds, own: Tensor | None) -> Float[Tensor, "batch time n_context"]:
        """As the context of an `AugmentedCost`, after the one of the cost itself."""
        rho = self.rho.unsqueeze(1) * kinds.asked
        if self.mu > 0:
            third = torch.full_like(self.lam, self.mu)
        else:
            least = self.lam.square() / (2.0 * self.rho.unsqueeze(1))
            third = torch.where(kinds.asked, least, 0.0)
        parts = [] if own is None else [own]
        parts += [self.lam, rho, third]
        if self.w is not None:
            parts.append(self.w.expand(*self.lam.shape[:2], -1))
        return torch.cat(parts, -1)

    def at(self, rows: Tensor) -> Multipliers:
        """Those of some instances."""
        return Multipliers(self.lam[rows], self.rho[rows], self.w, self.mu)


@torch.no_grad()
def solve(
    inner: MPC,
    kinds: Kinds,
    x_init: Float[Tensor, "batch n_state"],
    guess: Float[Tensor, "batch time n_ctrl"],
    own: Float[Tensor, "batch time n_context"] | None,
    w: Float[Tensor, " inequalities"] | None,
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
        w: the price of each inequality, where they are soft.
        max_iterations: of each solve, and after which an instance is not solved once more.
    """
    tolerance = inner.tolerance
    inner = copy.copy(inner)  # with a tolerance of its own, which other threads do not see
    cost = _cost(inner)
    rows = RowFunction.of(cost.rows)
    every = torch.arange(len(x_init), device=x_init.device)
    stakes, size = _sizes(inner, kinds, x_init, guess, own)
    first = FIRST_PENALTY * stakes.unsqueeze(-1) / size.square()
    zero = torch.zeros_like(kinds.asked, dtype=first.dtype).expand(len(first), -1, -1)
    now = Multipliers(zero.clone(), first.clone(), w, float(inner.smoothing))
    plan = Plan.unsolved(x_init, guess)
    before = torch.full_like(size, torch.inf)
    polished = torch.zeros_like(every, dtype=torch.bool)
    index, loose = every, FIRST_TOLERANCE
    for _ in range(MAX_UPDATES):
        if not len(index):
            break
        inner.tolerance = max(tolerance, loose)
        mine = None if own is None else own[index]
        found: Plan = inner(
            x_init[index],
            plan.controls[index],
            now.at(index).context(kinds, mine),
            max_iterations=max_iterations,
        )
        spent = plan.iterations[index] + found.iterations
        rho = now.rho[index].unsqueeze(1)
        c = torch.where(kinds.asked, rows(found.states, found.controls, mine), 0.0)
        lam = cost.multipliers(now.lam[index] + rho * c, rho, w, now.mu)
        lam = torch.where(kinds.asked, lam, 0.0)
        change = ((lam - now.lam[index]) / rho).abs().amax(1)  # in units of the rows
        settled = (change <= VIOLATION * tolerance * size[index]).all(-1) & found.converged
        settled = settled & (inner.tolerance <= tolerance) & (spent <= max_iterations)
        # the guess may have run away, where no plan goes
        small = (change <= VIOLATION * tolerance * c.abs().amax(1)).all(-1)
        if bool((settled & ~small).any()):
            terms = _terms(rows, kinds, found, mine)
            small = small | (change <= VIOLATION * tolerance * terms).all(-1)
        settled = settled & small
        again = settled & ~polished[index]
        slow = (change > SLOW * before[index]) & ~settled.unsqueeze(-1)
        factor = torch.where(slow, PENALTY_FACTOR, 1.0)
        factor[again] = LAST_FACTOR
        now.lam[index], now.rho[index] = lam, now.rho[index] * factor
        before[index] = change
        polished[index] = polished[index] | settled
        plan = plan.with_rows(index, replace(found, converged=settled, iterations=spent))
        lost = ~found.cost.isfinite() | (now.rho[index] > LARGEST_PENALTY * first[index]).any(-1)
        lost = lost | (spent >= max_iterations)
        index = index[again | ~(settled | lost)]
        loose *= TOLERANCE_FACTOR
    return plan, now


def _cost(inner: MPC) -> AugmentedCost:
    cost = inner.cost
    assert isinstance(cost, AugmentedCost)
    return cost


def _rolled_out(
    f: RowFunction, x_init: Tensor, U: Tensor, own: Tensor | None
) -> Float[Tensor, "batch time n_state"]:
    """The states under controls."""
    states = [x_init]
    for t in range(U.shape[1] - 1):
        states.append(f(states[-1], U[:, t], None if own is None else own[:, t]))
    return torch.stack(states, 1)


def _at_bounds(inner: MPC, guess: Tensor) -> tuple[Tensor, Tensor]:
    """Controls at their bounds, or at one where there is none."""
    low, high = inner.control_low.double(), inner.control_high.double()
    return (
        torch.where(low.isfinite(), low, -1.0).expand_as(guess),
        torch.where(high.isfinite(), high, 1.0).expand_as(guess),
    )


def _sizes(
    inner: MPC, kinds: Kinds, x_init: Tensor, guess: Tensor, own: Tensor | None
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch k"]]:
    """The cost of the guess, and how large the rows are along it.

    Both are at least `REACH` times what they are along controls at their bounds: along a guess
    that is a plan already, a row may be as good as zero.
    """
    cost = _cost(inner)
    f, l, c = map(RowFunction.of, (inner.dynamics, cost.cost, cost.rows))
    U = torch.cat((guess, *_at_bounds(inner, guess)))
    context = None if own is None else own.repeat(3, 1, 1)
    X = _rolled_out(f, x_init.repeat(3, 1), U, context)
    rows = torch.where(kinds.asked, c(X, U, context), 0.0).abs().amax(1)
    found = torch.cat((l(X, U, context).abs().sum(-1, keepdim=True), rows), -1)
    found = torch.where(found.isfinite(), found, 0.0).reshape(3, len(guess), rows.shape[-1] + 1)
    largest = torch.maximum(found[0], REACH * found[1:].amax(0))
    largest = torch.where(largest > 0, largest, 1.0)
    return largest[:, 0], largest[:, 1:]


def _terms(
    rows: RowFunction, kinds: Kinds, plan: Plan, own: Tensor | None
) -> Float[Tensor, "batch k"]:
    """How large the rows' terms are along a plan: |c_z| max_t |z|; infinite where there is none."""
    n = plan.states.shape[-1]
    z = torch.cat((plan.states, plan.controls), -1)

    def c(z: Tensor, context: Tensor | None) -> Tensor:
        value: Tensor = rows(z[..., :n], z[..., n:], context)
        return value

    with LOCK:
        slopes = first_derivatives(c, z, own, outputs=kinds.asked.shape[1])
    terms = (slopes.abs() * z.abs().amax(1)[:, None, None]).sum(-1)
    terms = torch.where(kinds.asked, terms, 0.0).amax(1)
    return torch.where(terms > 0, terms, torch.inf)


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
    cost = _cost(inner)
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
