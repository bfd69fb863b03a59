"""Smoothed plans: a logarithmic barrier on the controls, of which this file has the mathematics.

    minimise  sum_t l(x_t, u_t) + b(u_t - low_t) + b(high_t - u_t),   b(s) = -mu log s

over the finite bounds. At its optimum the multiplier of a bound, p = -b'(s) = mu / s, times the
slack s is mu: a perturbed complementarity. The plan is strictly inside its bounds and a smooth
function of everything, bounds included; what it costs more than the plain plan is at most mu for
each bound (Fiacco & McCormick 1968; for derivatives of MPC: Frey et al. 2025, arXiv 2505.01353).
Bounds that are equal, or as good as, still fix a control; infinite ones contribute nothing.

How it is solved. Newton's method on b is slow where a step went too far: s only doubles with each
step back. So for s < delta, b goes on as the parabola that has its value and derivatives at delta:

    b(s) = -mu (log delta + e - e^2 / 2),    e = (s - delta) / delta,

along which one step is enough. Where the optimum has s < delta, delta is what shrinks, and the
instance is solved again from there, until s >= delta everywhere: then the optimum is that of the
barrier itself, and so is its derivative. Since p of the parabola is known, so is the s = mu / p to
expect; delta is half of it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.models.base import Cost, cost_size, per_stage_parameters, takes_context
from mpc_gym.mpc.augmented_cost import OwnContext
from mpc_gym.mpc.plan import Plan, Request

if TYPE_CHECKING:
    from mpc_gym.mpc.controller import MPC

FIRST_DELTA, LEAST_DELTA = 0.03, 1e-8  # of a guess, in units of the range
HAIR = 1e-12  # of the range: no control comes closer to its bound
ROUNDINGS = 4 * 2.0**-52  # of the bound: nor closer than what can be told apart from it
FALLEN = 1e-2  # delta shrinks to so much of it where the control has fallen to the bound
SHARPER = 1e-3  # times the tolerance: a small slack needs more digits than its control
MAX_SOLVES = 20

_SHARED = ("dynamics", "cost", "horizon", "n_ctrl")
_SETTINGS = ("hessian", "backend")


class BarrierCost(Cost):
    """A stage cost with b of both bounds of each control.

    Args:
        cost: the stage cost.
        n_context: entries of its context, which come first in that of this cost. Then come the
            bounds, mu and delta, each of low and high, [n_ctrl]; mu is zero where there is none.
        n_ctrl: number of controls.
    """

    takes_context = True

    def __init__(self, cost: nn.Module, n_context: int, n_ctrl: int) -> None:
        super().__init__()
        self.cost, self.n_context, self.n_bounds = cost, n_context, 2 * n_ctrl
        self.size = cost_size(cost)
        self.per_stage_parameters = tuple(f"cost.{name}" for name in per_stage_parameters(cost))

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        """The cost, and b of all bounds."""
        k = self.n_bounds
        own, bound, mu, delta = torch.split_with_sizes(context, (self.n_context, k, k, k), -1)
        given = (state, control, own) if takes_context(self.cost) else (state, control)
        cost: Tensor = self.cost(*given)
        slack = _slack(control, bound)
        total: Tensor = cost + barrier(slack, mu, delta).sum(-1)
        return total


def barrier(
    slack: Float[Tensor, "*batch k"], mu: Float[Tensor, "..."], delta: Float[Tensor, "..."]
) -> Float[Tensor, "*batch k"]:
    """B of the slacks."""
    inside = slack > delta
    e = torch.where(inside, 0.0, (slack - delta) / delta)
    return -mu * (torch.log(torch.where(inside, slack, delta)) + e - 0.5 * e * e)


def _slack(control: Tensor, bound: Tensor) -> Tensor:
    low, high = bound.chunk(2, -1)
    return torch.cat((control - low, high - control), -1)


@dataclass(frozen=True)
class Bounds:
    """The bounds of a controller, of low and high side by side, as a barrier needs them.

    Attributes:
        bound: as they are, and zero where there is none.
        mu: the smoothing, and zero where there is none.
        size: the range, or 1 (or the bound's own size) where the other one is infinite.
        hair: the least slack.
    """

    bound: Float[Tensor, "time k"]
    mu: Float[Tensor, "time k"]
    size: Float[Tensor, "time k"]
    hair: Float[Tensor, "time k"]

    @classmethod
    def of(cls, low: Tensor, high: Tensor, mu: float) -> Bounds:
        """Those of low and high [horizon, n_ctrl], as differentiable as they are."""
        found = torch.cat((low, high), -1)
        with torch.no_grad():
            ranges = (high - low).repeat(1, 2)
            size = torch.where(ranges.isfinite(), ranges, found.abs().clamp(min=1.0))
            largest = torch.maximum(low.abs(), high.abs()).repeat(1, 2)
            largest = torch.where(largest.isfinite(), largest, found.abs())
            hair = torch.maximum(HAIR * size, ROUNDINGS * largest)
            there = found.isfinite() & (size > 16 * hair)
        return cls(
            bound=torch.where(there, found, 0.0),
            mu=torch.where(there, mu, 0.0),
            size=torch.where(there, size, 1.0),
            hair=torch.where(there, hair, 0.0),
        )

    def inside(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Low and high a hair closer together; infinite and equal ones as they are."""
        above, below = self.hair.chunk(2, -1)
        return low + above, high - below

    def first_delta(
        self, guess: Float[Tensor, "batch time n_ctrl"]
    ) -> Float[Tensor, "batch time k"]:
        """Half the slack of the guess, within limits."""
        slack = 0.5 * _slack(guess, self.bound)
        least, most = LEAST_DELTA * self.size, FIRST_DELTA * self.size
        slack = torch.where(slack > 2.0 * self.hair, slack, most)
        return torch.minimum(torch.maximum(slack, least), most)

    def next_delta(
        self, controls: Float[Tensor, "batch time n_ctrl"], delta: Float[Tensor, "batch time k"]
    ) -> Float[Tensor, "batch time k"]:
        """Smaller where a slack is smaller; the same where the parabola plays no part."""
        slack = _slack(controls, self.bound)
        expected = delta.square() / (2.0 * delta - slack)
        smaller = torch.where(slack <= 2.0 * self.hair, FALLEN * delta, 0.5 * expected)
        on_parabola = (slack < delta) & (self.mu > 0)
        return torch.where(on_parabola, torch.maximum(smaller, self.hair), delta)

    def context(
        self, own: Tensor | None, delta: Float[Tensor, "batch time k"]
    ) -> Float[Tensor, "batch time n_context"]:
        """That of a `BarrierCost`."""
        shared = (each.expand_as(delta) for each in (self.bound, self.mu))
        parts = (*shared, delta)
        return torch.cat(parts if own is None else (own, *parts), -1)


class Smoothed:
    """The controller of one `MPC` on its cost with the barrier, made when it is needed.

    It shares all modules with that, and is made anew when one is exchanged.
    """

    def __init__(self) -> None:
        self._made: tuple[tuple[Any, ...], MPC] | None = None

    def __reduce__(self) -> tuple[type[Smoothed], tuple[()]]:
        return Smoothed, ()

    def plan(self, mpc: MPC, request: Request) -> Plan:
        """The plans of `MPC.forward`, in float64."""
        first, bounds, context = request.controls, request.bounds, request.context
        max_iterations = request.max_iterations
        barriers = Bounds.of(*bounds, float(mpc.smoothing))
        inner = self._inner(mpc, context, barriers.inside(*bounds))
        x_init = request.x_init.double()
        delta = barriers.first_delta(first)
        plan: Plan = inner(
            x_init,
            first,
            barriers.context(context, delta),
            starts=request.starts,
            max_iterations=max_iterations,
        )
        rows = torch.arange(len(first), device=first.device)
        for _ in range(MAX_SOLVES):
            now = plan.rows(rows)
            smaller = barriers.next_delta(now.controls.detach(), delta[rows])
            again = (smaller < delta[rows]).flatten(1).any(1) & now.cost.isfinite()
            again = again & (now.iterations < max_iterations)
            rows, smaller = rows[again], smaller[again]
            if not len(rows):
                break
            delta[rows] = smaller
            before = plan.rows(rows)
            found: Plan = inner(
                x_init[rows],
                before.controls,
                barriers.context(None if context is None else context[rows], smaller),
                starts=1,
                max_iterations=max_iterations,
            )
            spent = before.iterations + found.iterations
            found = replace(
                found, iterations=spent, converged=found.converged & (spent <= max_iterations)
            )
            plan = plan.with_rows(rows, found)
        on_parabola = barriers.next_delta(plan.controls.detach(), delta) < delta
        plan = replace(plan, converged=plan.converged & ~on_parabola.flatten(1).any(1))
        beyond = barrier(_slack(plan.controls, barriers.bound), barriers.mu, delta).sum((1, 2))
        plan = replace(plan, cost=plan.cost - beyond)
        lost = (~plan.converged).nonzero()[:, 0]
        if len(lost):  # these have no gradient
            plan = plan.with_rows(lost, plan.rows(lost).detached())
        return replace(
            plan,
            unclamped=plan.controls[:, 0] if request.unclamped else None,  # nothing is held
        )

    def _inner(self, mpc: MPC, context: Tensor | None, inside: tuple[Tensor, Tensor]) -> MPC:
        n_context = 0 if context is None else context.shape[-1]
        shared = (*(getattr(mpc, name) for name in _SHARED), n_context)
        made = self._made
        if made is None or not all(
            a is b or (isinstance(a, int) and a == b) for a, b in zip(made[0], shared, strict=True)
        ):
            made = self._made = (shared, _make(mpc, n_context))
        inner = copy.copy(made[1])  # with bounds of its own, which other threads do not see
        inner._buffers = dict(inner._buffers)
        for name, bound in zip(("control_low", "control_high"), inside, strict=True):
            inner._buffers[name] = bound
        for name in _SETTINGS:
            value = getattr(mpc, name)
            if getattr(inner, name) != value:
                setattr(inner, name, value)
        inner.tolerance = SHARPER * mpc.tolerance
        return inner


def _make(mpc: MPC, n_context: int) -> MPC:
    dynamics = mpc.dynamics
    if takes_context(dynamics):
        dynamics = OwnContext(dynamics, n_context)
    cost = BarrierCost(mpc.cost, n_context, mpc.n_ctrl)
    shape = (mpc.horizon, mpc.n_ctrl)
    bounds = torch.zeros(shape), torch.ones(shape)  # exchanged at each call
    inner = type(mpc)(dynamics, cost, mpc.horizon, *bounds, backend=mpc.backend)
    inner.expected_unconverged = 1.0
    inner._rounded = None  # kinks are rounded around it
    return inner
