"""Initial guesses for a problem with several local minima, and for one that runs away."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mpc_gym.mpc.plan import Plan
from mpc_gym.mpc.windows import Bounds, windowed_guess

if TYPE_CHECKING:
    from mpc_gym.mpc.backend import BackendProblem

WORTH = 0.01


def solve_from_guesses(
    problem: BackendProblem,
    x_init: Float[Tensor, "batch n_state"],
    first: Float[Tensor, "batch time n_ctrl"],
    bounds: Bounds,
    starts: int,
    long: int,
) -> tuple[Plan, Float[Tensor, "batch time n_ctrl"]]:
    """The best plan of each instance (see `_best`), and the guess that it was found from.

    In the place of a first guess of zero over a horizon of more than `long` stages there is one
    that knows the problem (see `windows.py`). An instance that no guess leads to a finite cost is
    solved from one that is grown (see `_grown`); where that fails, too, it is returned as unsolved.
    """
    if first.shape[1] <= long:
        return _from_first(problem, x_init, first, bounds, starts)
    zero = torch.zeros_like(bounds[0]).clamp(*bounds)
    cold = (first == zero).flatten(1).all(1).nonzero()[:, 0]
    begun = windowed_guess(problem.rows(cold), x_init[cold], first[cold], bounds)
    begun = first.index_copy(0, cold, begun)
    plan, guess = _from_first(problem, x_init, begun, bounds, starts)
    before = problem.rows(cold).costs(x_init[cold], first[cold])
    dearer = cold[_costs(plan)[cold] > before]
    if len(dearer):
        rows = problem.rows(dearer), x_init[dearer], first[dearer]
        found, begun = _from_first(*rows, bounds, 1)
        plan, guess = plan.with_rows(dearer, found), guess.index_copy(0, dearer, begun)
    return plan, guess


def _from_first(
    problem: BackendProblem, x_init: Tensor, first: Tensor, bounds: Bounds, starts: int
) -> tuple[Plan, Tensor]:
    """The same, with this first guess."""
    plan, guess = _best(problem, x_init, initial_guesses(first, *bounds, starts))
    if all(plan.converged.tolist()):  # of a few, sooner than PyTorch is asked
        return plan, guess
    lost = (~plan.converged & (plan.iterations == 0)).nonzero()[:, 0]
    if not len(lost):
        return plan, guess
    grown = _grown(problem.rows(lost), x_init[lost], first[lost])
    found = problem.rows(lost).solve(x_init[lost], grown)
    better = _costs(found) < _costs(plan.rows(lost))
    plan = plan.with_rows(lost[better], found.rows(better.nonzero()[:, 0]))
    guess = guess.index_copy(0, lost[better], grown[better])
    infinite = (~plan.cost.isfinite()).nonzero()[:, 0]
    unsolved = Plan.unsolved(x_init[infinite], first[infinite])
    return plan.with_rows(infinite, unsolved), guess


def _best(
    problem: BackendProblem, x_init: Tensor, guesses: Float[Tensor, "starts*batch time n_ctrl"]
) -> tuple[Plan, Tensor]:
    """The cheapest of the solutions from all guesses, or one that converged and is hardly dearer.

    A plan that converged has a derivative, which is worth `WORTH` of its cost. No plan is dearer
    than the first guess was itself.
    """
    plan = problem.solve(x_init, guesses)
    batch, tasks = x_init.shape[0], guesses.shape[0]
    if tasks <= batch:
        return plan, guesses
    starts = tasks // max(batch, 1)
    cost = _costs(plan).reshape(starts, batch)
    least, cheapest = cost.min(0)
    eligible = plan.converged.reshape(starts, batch) & (cost <= least + WORTH * least.abs())
    start = torch.where(eligible.any(0), torch.where(eligible, cost, math.inf).argmin(0), cheapest)
    every = torch.arange(batch, device=start.device)
    # a plan costs no more than its guess
    doubtful = (cost[start, every] > cost[0]).nonzero()[:, 0]
    if len(doubtful):
        before = problem.rows(doubtful).costs(x_init[doubtful], guesses[doubtful])
        dearer = doubtful[cost[start[doubtful], doubtful] > before]
        start[dearer] = cheapest[dearer]
    best = start * batch + every
    return plan.rows(best), guesses[best]


def _grown(
    problem: BackendProblem,
    x_init: Float[Tensor, "batch n_state"],
    guess: Float[Tensor, "batch time n_ctrl"],
) -> Float[Tensor, "batch time n_ctrl"]:
    """A guess for a system that runs away from the first one within the horizon.

    The problem of the first h stages is solved for h = 1, 2, 3 ..., each from the plan before
    and one more control of the guess, so that the state is brought back before it has gone far.
    """
    guess = guess.clone()
    for stages in range(1, guess.shape[1]):
        found = problem.stages(0, stages).solve(x_init, guess[:, :stages])
        usable = found.cost.isfinite().nonzero()[:, 0]
        guess[usable, :stages] = found.controls[usable]
        if not len(usable):
            break
    return guess


def _costs(plan: Plan) -> Tensor:
    """Costs, infinite where they are not finite."""
    return torch.where(plan.cost.isfinite(), plan.cost, math.inf)


def initial_guesses(
    first: Float[Tensor, "batch time n_ctrl"],
    low: Float[Tensor, "time n_ctrl"],
    high: Float[Tensor, "time n_ctrl"],
    count: int,
) -> Float[Tensor, "count*batch time n_ctrl"]:
    """`count` guesses for every instance, all instances of a guess together.

    The first is given. The others hold the controls at their bounds: throughout, then switching
    once from one bound to the other, at 1/2, 1/4, 3/4, 1/8 ... of the horizon. Each comes with
    its mirror image; further controls run through the combinations of signs. A control without
    bounds moves between -1 and 1.
    """
    if count == 1:
        return first
    horizon, n_ctrl = low.shape
    low = torch.where(low.isfinite(), low, torch.where(high.isfinite(), high, 0.0) - 1.0)
    high = torch.where(high.isfinite(), high, low + 2.0)
    at_high = _switching_patterns(count - 1, horizon, n_ctrl).to(first.device)
    others = torch.where(at_high, high, low).unsqueeze(1).expand(-1, *first.shape)
    return torch.cat((first.unsqueeze(0), others)).flatten(0, 1)


@cache
def _switching_patterns(count: int, horizon: int, n_ctrl: int) -> Bool[Tensor, "count time n_ctrl"]:
    """Where each guess but the first holds a control at its upper bound."""
    guess = torch.arange(count).reshape(-1, 1, 1)
    switch = [round(horizon * van_der_corput(index // 2)) for index in range(count)]
    late = torch.arange(horizon).reshape(-1, 1) >= torch.tensor(switch).reshape(-1, 1, 1)
    mirrored = (guess >> torch.arange(n_ctrl)) & 1 == 1
    return late ^ mirrored


def van_der_corput(index: int) -> float:
    """The sequence 0, 1/2, 1/4, 3/4, 1/8, 5/8 ... that fills [0, 1) evenly (base 2)."""
    value, digit = 0.0, 0.5
    while index:
        value += digit * (index & 1)
        index >>= 1
        digit /= 2
    return value
