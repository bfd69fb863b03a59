"""Planning with constraints: what `MPC` does where it has some."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.models.base import takes_context
from mpc_gym.mpc import augmented_lagrangian, constrained_derivative
from mpc_gym.mpc.augmented_cost import AugmentedCost, OwnContext, SmoothedAugmentedCost
from mpc_gym.mpc.augmented_lagrangian import Multipliers, extremes
from mpc_gym.mpc.backend import Settings
from mpc_gym.mpc.constraints import Kinds, Rows
from mpc_gym.mpc.native.backend import NativeProblem
from mpc_gym.mpc.plan import Plan, Request
from mpc_gym.mpc.problem import RowFunction
from mpc_gym.mpc.starts import initial_guesses

if TYPE_CHECKING:
    from mpc_gym.mpc.controller import MPC

_MODULES = ("dynamics", "cost", *Rows.NAMES)
_SHARED = (*_MODULES, "control_low", "control_high")
_SETTINGS = ("hessian", "backend", "tolerance")


class Constrained:
    """The controller of one `MPC` on its cost with the constraints in it, made when it is needed.

    It shares all modules and tensors with that, and is made anew when one is exchanged.
    """

    def __init__(self) -> None:
        self._made: dict[bool, tuple[tuple[Any, ...], MPC, Kinds]] = {}  # by whether it is smoothed

    def __reduce__(self) -> tuple[type[Constrained], tuple[()]]:
        return Constrained, ()

    def plan(self, mpc: MPC, request: Request) -> Plan:
        """The plans of `MPC.forward`, in float64, with violation and multipliers."""
        x_init, context, starts = request.x_init.double(), request.context, request.starts
        inner, kinds = self._inner(mpc, x_init.detach(), request.controls, context)
        w = _prices(mpc.soft, kinds)
        with torch.no_grad():
            low, high = (bound.detach() for bound in request.bounds)
            guesses = initial_guesses(request.controls, low, high, starts)
            own = None if context is None else context.detach().repeat(starts, 1, 1)
            price = None if w is None else w.detach()
            first = Multipliers.first(
                kinds, request.multipliers, guesses, len(x_init), price, inner.smoothing
            )
            plan, multipliers = _solve(
                inner, kinds, x_init.detach(), guesses, own, first, request.max_iterations
            )
            if starts > 1:
                best = _best(plan, _total_cost(inner, kinds, plan, own, price), starts)
                plan, multipliers = plan.rows(best), multipliers.at(best)
        if torch.is_grad_enabled() or request.unclamped:
            plan = constrained_derivative.attach(
                inner,
                kinds,
                plan,
                multipliers,
                x_init,
                context,
                w,
                unclamped=request.unclamped,
            )
        return plan

    def _inner(
        self, mpc: MPC, x_init: Tensor, first: Tensor, context: Tensor | None
    ) -> tuple[MPC, Kinds]:
        n_context = 0 if context is None else context.shape[-1]
        own = tuple(getattr(mpc, name) for name in _SHARED)
        shared = (*own, mpc.soft is None, mpc.horizon, n_context, first.device)
        smoothing = float(mpc.smoothing)
        made = self._made.get(smoothing > 0)
        if made is None or not all(map(_is_same, made[0], shared)):
            made = (shared, *_make(mpc, x_init, first, context, n_context))
            self._made[smoothing > 0] = made
        _, shared_inner, kinds = made
        wanted = {name: getattr(mpc, name) for name in _SETTINGS}
        changed = {k: v for k, v in wanted.items() if getattr(shared_inner, k) != v}
        if not changed and shared_inner.smoothing == smoothing:
            return shared_inner, kinds
        inner = copy.copy(shared_inner)  # with settings of its own, which others do not see
        inner._buffers = dict(inner._buffers)
        inner.smoothing = mpc.smoothing
        for name, value in changed.items():
            setattr(inner, name, value)
        return inner, kinds


def _is_same(a: object, b: object) -> bool:
    return a is b or (isinstance(a, int | torch.device) and a == b)


def _prices(soft: Tensor | None, kinds: Kinds) -> Float[Tensor, " inequalities"] | None:
    if soft is None:
        return None
    if soft.ndim and soft.shape != (kinds.inequalities,):
        raise ValueError(
            f"soft must be a number, or one for each of the {kinds.inequalities} rows of "
            f"constraints and terminal_constraints, got shape {list(soft.shape)}"
        )
    if not bool((soft > 0).all()):  # it may have been learned, or overwritten
        raise ValueError(f"soft must be positive, got {soft.tolist()}")
    return soft.double().expand(kinds.inequalities)


def _make(
    mpc: MPC, x_init: Tensor, first: Tensor, context: Tensor | None, n_context: int
) -> tuple[MPC, Kinds]:
    rows = Rows(*(getattr(mpc, name) for name in Rows.NAMES))
    kinds = Kinds.of(rows, x_init, first, context)
    if mpc.soft is not None and mpc.smoothing > 0:
        raise ValueError(
            "soft constraints cannot be smoothed, and smoothing is positive: set soft=None or "
            "smoothing=0, or write a smooth price of the violation into the cost"
        )
    kind = SmoothedAugmentedCost if mpc.smoothing > 0 else AugmentedCost
    cost = kind(mpc.cost, rows, kinds, mpc.soft is not None, n_context)
    dynamics = mpc.dynamics
    if takes_context(dynamics):
        dynamics = OwnContext(dynamics, n_context)
    inner = type(mpc)(
        dynamics, cost, mpc.horizon, mpc.control_low, mpc.control_high, backend=mpc.backend
    )
    for name in ("control_low", "control_high"):  # the same tensor, where that is no parameter
        if name in inner._buffers:
            inner._buffers[name] = getattr(mpc, name)
    inner.expected_unconverged = 1.0
    inner._rounded = None  # kinks are rounded around it
    inner._long = mpc.horizon  # it begins from the controls that it is given
    return inner, kinds


def _solve(
    inner: MPC,
    kinds: Kinds,
    x_init: Float[Tensor, "batch n_state"],
    guesses: Float[Tensor, "starts*batch time n_ctrl"],
    own: Float[Tensor, "starts*batch time n_context"] | None,
    first: Multipliers,
    max_iterations: int,
) -> tuple[Plan, Multipliers]:
    """The plans from all guesses, and their multipliers.

    The native solver knows no smoothing, and does not grow a guess that leads to no finite cost.
    """
    tasks = torch.arange(len(guesses), device=guesses.device)

    def solve_around(rows: Tensor) -> tuple[Plan, Multipliers]:
        return augmented_lagrangian.solve(
            inner,
            kinds,
            x_init[rows % max(len(x_init), 1)],
            guesses[rows],
            None if own is None else own[rows],
            first.at(rows),
            max_iterations,
        )

    if first.mu > 0:
        return solve_around(tasks)
    bounds, context = inner._bounds(), first.context(kinds, own)
    settings = Settings(inner.hessian == "exact", inner.tolerance, max_iterations)
    some = slice(len(x_init))
    problem = inner._problem(x_init, guesses[some], bounds, context[some], settings)
    if not isinstance(problem, NativeProblem):
        return solve_around(tasks)
    n_own = 0 if own is None else own.shape[-1]
    plan, lam, rho = replace(problem, context=context.numpy()).solve_constrained(
        x_init, guesses, n_own, torch.stack(extremes(*bounds))
    )
    multipliers = replace(first, lam=lam, rho=rho)
    usable = x_init.isfinite().all(1)[tasks % max(len(x_init), 1)] & plan.cost.isfinite()
    if own is not None:
        usable = usable & own.isfinite().flatten(1).all(1)
    lost = tasks[~usable]
    if not len(lost):
        return plan, multipliers
    found, theirs = solve_around(lost)
    return plan.with_rows(lost, found), multipliers.with_rows(lost, theirs)


def _best(plan: Plan, total: Float[Tensor, " plans"], starts: int) -> Tensor:
    """Of each instance the cheapest that converged, or else that of the least violation."""
    assert plan.violation is not None
    cost = total.nan_to_num(torch.inf, torch.inf)
    least = plan.violation.nan_to_num(torch.inf, torch.inf)
    cost, least, converged = (each.reshape(starts, -1) for each in (cost, least, plan.converged))
    eligible = torch.where(converged, cost, torch.inf)
    chosen = torch.where(converged.any(0), eligible.argmin(0), least.argmin(0))
    batch = cost.shape[1]
    return chosen * batch + torch.arange(batch, device=chosen.device)


def _total_cost(
    inner: MPC, kinds: Kinds, plan: Plan, own: Tensor | None, w: Tensor | None
) -> Float[Tensor, " plans"]:
    """With the price of what is violated."""
    if w is None:
        return plan.cost
    assert isinstance(inner.cost, AugmentedCost)
    wrong = kinds.violation(RowFunction.of(inner.cost.rows)(plan.states, plan.controls, own))
    return plan.cost + (w * wrong[..., : kinds.inequalities]).sum((1, 2))
