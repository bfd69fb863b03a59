"""The augmented Lagrangian of `constraints.py`: its iteration around any solver.

`native/multipliers.py` is the same in the lanes of the native solver.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.compiled.autograd import first_derivatives
from mpc_gym.functional import LOCK
from mpc_gym.mpc.augmented_cost import AugmentedCost
from mpc_gym.mpc.constraints import Kinds
from mpc_gym.mpc.plan import Plan
from mpc_gym.mpc.problem import RowFunction

if TYPE_CHECKING:
    from mpc_gym.mpc.controller import MPC

FIRST_PENALTY = 10.0  # of a violation as large as a row is along the guess: so often its cost
# Of a soft row, at most such a part of its price: otherwise psi has a kink, as good as.
FIRST_SOFT_PENALTY = 0.3
PENALTY_FACTOR, LARGEST_PENALTY = 10.0, 1e9  # the latter relative to the first
SLOW = 0.25  # a change of the multipliers that is no less than this part of the one before
FIRST_TOLERANCE, TOLERANCE_FACTOR = 1e-2, 0.1  # of the first solves, which need not be exact
VIOLATION = 0.1  # times the tolerance: of a row, relative to its size along the guess
# Such a part of what is within reach counts: of a row that is as good as zero along the guess, the
# penalty would be so large that rounding shows in its multiplier.
REACH = 0.03
# The penalty grows by the first factor once no multiplier moves by more than such a part of its
# row's size, which shows that the active rows are found; and by the second for the last digits.
NEAR_ENOUGH, NEAR_FACTOR, LAST_FACTOR = 1e-3, 30.0, 30.0
# But by no more than keeps every active row active where the next solve begins: what its multiplier
# has moved by grows with the penalty to such a part of what is left of it. Without the row, a step
# would be so long that of no length which is tried the cost is less.
KEPT = 0.9
FAR, NEAR, LAST = range(3)  # the phases that these begin
# A solve that takes so many iterations has penalties so large beside the cost that every step stops
# where a row becomes active. They change by the factor, and the multipliers count as far.
STIFF_ITERATIONS, STIFF_FACTOR = 50, 1e-2
MAX_UPDATES = 40


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

    @classmethod
    def first(
        cls,
        kinds: Kinds,
        lam: Tensor | None,
        guesses: Float[Tensor, "starts*batch time n_ctrl"],
        batch: int,
        w: Float[Tensor, " inequalities"] | None,
        mu: Tensor,
    ) -> Multipliers:
        """What every guess begins with: the first of each instance with lam, the others with zero.

        Raises:
            ValueError: lam has another shape than [batch, time, k].
        """
        (horizon, k), tasks = kinds.asked.shape, len(guesses)
        found = guesses.new_zeros(tasks, horizon, k)
        if lam is not None:
            if lam.shape != (batch, horizon, k):
                raise ValueError(
                    f"warm_start carries multipliers {list(lam.shape)} of other constraints or "
                    f"instances: expected {[batch, horizon, k]}; give its controls alone"
                )
            usable = kinds.asked & lam.isfinite()
            usable[..., : kinds.inequalities] &= lam[..., : kinds.inequalities] > 0
            found[:batch] = torch.where(usable, lam, 0.0)
        return cls(found, found.new_ones(tasks, k), w, float(mu))

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
        return replace(self, lam=self.lam[rows], rho=self.rho[rows])

    def with_rows(self, index: Tensor, other: Multipliers) -> Multipliers:
        """The same with some instances replaced."""
        lam = self.lam.index_copy(0, index, other.lam)
        return replace(self, lam=lam, rho=self.rho.index_copy(0, index, other.rho))


@torch.no_grad()
def solve(
    inner: MPC,
    kinds: Kinds,
    x_init: Float[Tensor, "batch n_state"],
    guess: Float[Tensor, "batch time n_ctrl"],
    own: Float[Tensor, "batch time n_context"] | None,
    first: Multipliers,
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
        first: multipliers to begin with; their penalties do not matter.
        max_iterations: of all solves of an instance together.
    """
    run = _Run(inner, kinds, x_init, guess, own, first, max_iterations)
    index = torch.arange(len(x_init), device=x_init.device)
    for update in range(MAX_UPDATES):
        if not len(index):
            break
        # those near the end are solved as exactly as all are in the end
        loose = FIRST_TOLERANCE * TOLERANCE_FACTOR**update
        far = run.phase[index] == FAR
        left = max_iterations - run.plan.iterations[index]
        most = left.clamp(max=STIFF_ITERATIONS)
        groups = {(bool(f), int(m)) for f, m in zip(far, most, strict=True)}
        index = torch.cat(
            [
                run.update(index[(far == f) & (most == m)], loose if f else 0.0, m)
                for f, m in sorted(groups)
            ]
        )
    return run.judged(), run.multipliers


class _Run:
    """The state of the iteration, of all instances; see `solve` for the arguments."""

    def __init__(
        self,
        inner: MPC,
        kinds: Kinds,
        x_init: Tensor,
        guess: Tensor,
        own: Tensor | None,
        first: Multipliers,
        max_iterations: int,
    ) -> None:
        self.tolerance = inner.tolerance
        self.inner = copy.copy(inner)  # with a tolerance of its own, which other threads do not see
        self.kinds, self.x_init, self.own = kinds, x_init, own
        self.max_iterations = max_iterations
        self.cost = augmented_cost(inner)
        self.rows = RowFunction.of(self.cost.rows)
        stakes, self.size = _sizes(inner, kinds, x_init, guess, own)
        self.first = FIRST_PENALTY * stakes.unsqueeze(-1) / self.size.square()
        if first.w is not None:
            priced = slice(0, kinds.inequalities)
            most = FIRST_SOFT_PENALTY * first.w / self.size[:, priced]
            self.first[:, priced] = torch.minimum(self.first[:, priced], most)
        self.multipliers = replace(first, lam=first.lam.clone(), rho=self.first.clone())
        self.plan = Plan.unsolved(x_init, guess)
        self.moved = torch.full_like(self.size, torch.inf)  # by the last update, in units of rows
        self.phase = torch.full_like(self.plan.iterations, FAR)

    def update(self, index: Tensor, loose: float, most: int) -> Tensor:
        """Solve these instances once more, and update their multipliers; those not done yet.

        The tolerance of the solve is at least `loose`, its iterations are `most` at most.
        """
        now = self.multipliers.at(index)
        own = None if self.own is None else self.own[index]
        self.inner.tolerance = max(self.tolerance, loose)
        found: Plan = self.inner(
            self.x_init[index],
            self.plan.controls[index],
            now.context(self.kinds, own),
            max_iterations=most,
        )
        spent = self.plan.iterations[index] + found.iterations
        rho, asked = now.rho.unsqueeze(1), self.kinds.asked
        c = torch.where(asked, self.rows(found.states, found.controls, own), 0.0)
        lam = self.cost.multipliers(now.lam + rho * c, rho, now.w, now.mu)
        lam = torch.where(asked, lam, 0.0)
        moved = ((lam - now.lam) / rho).abs().amax(1)
        settled = found.converged & (self.inner.tolerance <= self.tolerance)
        settled = settled & self._settled(index, found, own, c, moved)
        used_up = (spent >= self.max_iterations) | c.isnan().flatten(1).any(1)
        factor, again = self._factor(index, found.converged, settled, moved, used_up)
        kept = torch.minimum(factor, self._room(now, lam))
        factor = torch.where(again.unsqueeze(-1), kept, factor)
        self.multipliers.lam[index] = lam
        self.multipliers.rho[index] = now.rho * factor
        self.moved[index] = moved
        self.plan = self.plan.with_rows(index, replace(found, converged=settled, iterations=spent))
        too_large = now.rho * factor > LARGEST_PENALTY * self.first[index]
        lost = ~found.cost.isfinite() | too_large.any(-1) | used_up
        return index[again | ~(settled | lost)]

    def _settled(
        self, index: Tensor, found: Plan, own: Tensor | None, c: Tensor, moved: Tensor
    ) -> Tensor:
        """Whether no multiplier moved by more than a part of its row's size."""
        limit = VIOLATION * self.tolerance
        settled = (moved <= limit * self.size[index]).all(-1)
        # the guess may have run away, where no plan goes
        size = c.abs().amax(1)
        if bool((settled & ~(moved <= limit * size).all(-1)).any()):
            size = torch.maximum(size, _terms(self.rows, self.kinds, found, own))
        return settled & (moved <= limit * size).all(-1)

    def _factor(
        self, index: Tensor, converged: Tensor, settled: Tensor, moved: Tensor, used_up: Tensor
    ) -> tuple[Float[Tensor, "index k"], Tensor]:
        """By which the penalties grow, and which instances are in another phase now."""
        phase, moved_at_all = self.phase[index], (moved > 0).any(-1)
        near = converged & ~settled & (phase == FAR)
        near = near & ~used_up & (moved <= NEAR_ENOUGH * self.size[index]).all(-1)
        last = settled & (phase != LAST) & moved_at_all & ~used_up
        slow = (moved > SLOW * self.moved[index]) & ~settled.unsqueeze(-1)
        factor = torch.where(slow, PENALTY_FACTOR, 1.0)
        factor[~converged] = STIFF_FACTOR
        factor[near & moved_at_all] = NEAR_FACTOR
        factor[near & ~moved_at_all] = 1.0
        factor[last] = LAST_FACTOR
        factor[last & (phase == FAR)] = LAST_FACTOR * NEAR_FACTOR
        phase = torch.where(converged, phase, FAR)
        self.phase[index] = torch.where(last, LAST, torch.where(near, NEAR, phase))
        return factor, near | last

    def _room(
        self, now: Multipliers, lam: Float[Tensor, "index time k"]
    ) -> Float[Tensor, "index k"]:
        """By which the penalties may grow, at least 1, so that active rows stay so; see `KEPT`."""
        room = torch.full_like(now.rho, torch.inf)
        if now.mu > 0:  # each row is active in part
            return room
        bent = slice(0, self.kinds.inequalities)
        left = lam[..., bent]
        way = now.lam[..., bent] - left
        if now.w is not None:
            left, way = torch.where(way < 0, now.w - left, left), way.abs()
        leaving = torch.where(left > 0, way / left, 0.0).amax(1).clamp(min=0.0)
        room[:, bent] = (KEPT / leaving).clamp(min=1.0)
        return room

    def judged(self) -> Plan:
        """The plan, with cost and violation as they are without multipliers."""
        plan = self.plan
        cost = RowFunction.of(self.cost.cost)(plan.states, plan.controls, self.own).sum(-1)
        c = self.rows(plan.states, plan.controls, self.own)
        violation = self.kinds.violation(c).amax((1, 2))
        return replace(plan, cost=cost, violation=violation, multipliers=self.multipliers.lam)


def augmented_cost(inner: MPC) -> AugmentedCost:
    """That of the controller on it."""
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


def extremes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Controls at their bounds, or at one where there is none."""
    return torch.where(low.isfinite(), low, -1.0), torch.where(high.isfinite(), high, 1.0)


def _sizes(
    inner: MPC, kinds: Kinds, x_init: Tensor, guess: Tensor, own: Tensor | None
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch k"]]:
    """The cost of the guess, and how large the rows are along it.

    Both are at least `REACH` times what they are along controls at their bounds: along a guess
    that is a plan already, a row may be as good as zero.
    """
    cost = augmented_cost(inner)
    f, l, c = map(RowFunction.of, (inner.dynamics, cost.cost, cost.rows))
    U = torch.cat((guess, *(each.expand_as(guess) for each in extremes(*inner._bounds()))))
    context = None if own is None else own.repeat(3, 1, 1)
    X = _rolled_out(f, x_init.repeat(3, 1), U, context)
    rows = c(X, U, context)
    rows = torch.where(kinds.asked & rows.isfinite(), rows, 0.0).abs().amax(1)
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
