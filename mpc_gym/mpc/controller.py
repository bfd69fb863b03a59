"""The differentiable model predictive controller."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mpc_gym.checks import check_count, check_flag, check_size
from mpc_gym.functional import eager
from mpc_gym.models.base import takes_context
from mpc_gym.mpc.backend import BackendProblem, Settings
from mpc_gym.mpc.bounds import PresentBounds
from mpc_gym.mpc.checks import (
    check_context,
    check_finite_parameters,
    check_model_output,
    check_no_transform,
    check_stages,
    check_warm_start,
    check_x_init,
    infer_sizes,
    is_finite,
)
from mpc_gym.mpc.constrained import Constrained
from mpc_gym.mpc.implicit import ImplicitSolution
from mpc_gym.mpc.model_checks import ModelChecks, check_compiled_derivatives, check_rows
from mpc_gym.mpc.native.compiled_models import CompiledModels
from mpc_gym.mpc.plan import Plan, Request, WarmStart, cast_to
from mpc_gym.mpc.reference.backend import ReferenceProblem
from mpc_gym.mpc.rounded import BEFORE_ROUNDING, Rounded
from mpc_gym.mpc.settings import Bound, CheckedSettings
from mpc_gym.mpc.smoothing import Smoothed
from mpc_gym.mpc.starts import solve_from_guesses
from mpc_gym.mpc.unclamped import Unclamped, unclamp
from mpc_gym.mpc.unconverged import Unconverged
from mpc_gym.mpc.windows import LONG

_AS_IT_IS = nullcontext()


class MPC(CheckedSettings):
    """Model predictive control whose optimum is differentiable (Amos et al., 2018).

    Minimises `sum_{t<T} cost(x_t, u_t)` subject to `x_0 = x_init`,
    `x_{t+1} = dynamics(x_t, u_t)`, `control_low <= u_t <= control_high` and the constraints, for
    every start state of a batch on its own. The result is differentiable with respect to the
    parameters of dynamics, cost and constraints, `x_init`, `context` and the bounds, as often as
    wanted (with `create_graph=True` by the PyTorch reference), with constraints once. Computed in
    float64, whatever the inputs' dtype.

    Dynamics and cost must map each row of a batch on its own, and their derivatives by autograd
    must be those of their values. Both are checked when a model is first used.

    Args:
        dynamics: maps state [..., n_state] and control [..., n_ctrl] to the next state. Its
            `n_state` and `n_ctrl` are read where it has them (see `models.Dynamics`).
        cost: maps state and control to the stage cost [...].
        horizon: number of stages T. There are T states and T controls.
        control_low: lower bound: a number, a tensor [n_ctrl] or [horizon, n_ctrl], or None for no
            bound. A tensor that requires gradient is differentiated.
        control_high: upper bound, likewise.
        constraints: maps state and control, and the context where it takes one, to [..., k], which
            must not be positive at any stage. Rows that do not depend on the control are not asked
            of the first, whose state is given (see `mpc/constraints.py`).
        terminal_constraints: maps the last state to [..., k], which must not be positive.
        terminal_equalities: maps the last state to [..., k], which must be zero.
        soft: price of each unit by which a row that must not be positive is: a number, or a tensor
            with one for each row of constraints and terminal_constraints. None: they are hard.
        smoothing: mu, in units of the cost. Where it is positive, the multiplier of each bound and
            constraint times its slack is mu (see `mpc/smoothing.py`): the plan is strictly inside
            them, and has a gradient where the plain plan would hold one. A tensor that may be
            overwritten; another value compiles nothing.
        hessian: "exact", or "gauss-newton" to drop the second derivatives of the dynamics from
            plan and derivative, as the paper does (its gradient is approximate).
        differentiate: "implicit" (the derivative of the optimum) or "unrolled" (autograd through
            the solver's iterations, for comparison: slower, and memory grows with iterations).
        backend: "native" compiles dynamics and cost together with the solver, when they are first
            used (seconds, once a machine; see `compiled`); "torch" is the reference, some hundred
            times slower; "auto" is native where the model can be compiled and lies on the CPU, and
            says once why it is not. Parameters and floating-point buffers are read at each
            call, so learning them compiles nothing; when anything else changes that the forward
            of a module reaches (see `compiled.watch`), it is compiled again.
        tolerance: largest change of a control in the last iteration, relative to the size of that
            control in the plan and to the range of its bounds (see `mpc/reference/ddp.py`).
        max_iterations: after which an instance is returned as not converged; with constraints or
            smoothing, of all its solves together.
        starts: number of initial guesses. The cheapest plan is kept, or one that converged
            and costs at most 1 % more; it is never dearer than the first guess. (With constraints:
            the cheapest that converged, or the least violated.) That guess is the warm start or
            zero; then come constant and switching controls at the bounds. Over more than 60 stages
            the solver begins in the place of zero from the plans of shorter problems (see
            `mpc/windows.py`), but not with constraints.

    Every argument is an attribute that may be changed later, and is checked as here.

    Attributes:
        expected_unconverged: share of all problems so far, of 16 at least, that may lack a gradient
            without a warning; 0 at first.

    Raises:
        ValueError: an argument is out of its range; the message says which.
    """

    def __init__(
        self,
        dynamics: nn.Module,
        cost: nn.Module,
        horizon: int,
        control_low: Bound = -2.0,
        control_high: Bound = 2.0,
        constraints: nn.Module | None = None,
        terminal_constraints: nn.Module | None = None,
        terminal_equalities: nn.Module | None = None,
        soft: float | Tensor | None = None,
        smoothing: float = 0.0,
        hessian: Literal["exact", "gauss-newton"] = "exact",
        differentiate: Literal["implicit", "unrolled"] = "implicit",
        backend: Literal["auto", "native", "torch"] = "auto",
        tolerance: float = 1e-6,
        max_iterations: int = 200,
        starts: int = 1,
    ) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.cost = cost
        self.horizon = horizon
        self.hessian = hessian
        self.differentiate = differentiate
        self.backend = backend
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.starts = starts
        self.n_state, self.n_ctrl = infer_sizes(dynamics, cost, control_low, control_high)
        self._set_bound("control_low", control_low)
        self._set_bound("control_high", control_high)
        self.constraints = constraints
        self.terminal_constraints = terminal_constraints
        self.terminal_equalities = terminal_equalities
        self._set_soft(soft)
        self._set_smoothing(smoothing)
        check_stages(cost, self.horizon)
        self._present_bounds = PresentBounds()
        self._compiled = CompiledModels()
        self._model_checks = ModelChecks()
        self._constrained = Constrained()
        self._smoothed = Smoothed()
        self._rounded: Rounded | None = Rounded()
        self._long = LONG
        self.expected_unconverged = 0.0
        self._unconverged = Unconverged()

    @eager
    def forward(
        self,
        x_init: Tensor,
        warm_start: Tensor | None = None,
        context: Tensor | None = None,
        *,
        starts: int | None = None,
        max_iterations: int | None = None,
        unclamped: bool = False,
    ) -> Plan:
        """Plan from each start state.

        A start state, warm start or context that is not finite spoils its own instance only: it
        is returned as not converged, with a cost and states of NaN and its guess as its controls,
        in which entries that are not finite are as near zero as the bounds allow. So is an
        instance for which no guess leads to a finite cost. Without constraints and smoothing a
        plan costs no more than its guess (at kinks: but for a thousandth).

        Args:
            x_init: [batch, n_state].
            warm_start: initial guess of the controls [batch, horizon, n_ctrl], for instance
                `plan.shift()`, which has multipliers of the constraints, too; not differentiated.
                Default: zero.
            context: third argument of dynamics and cost, [batch, n_context] or
                [batch, horizon, n_context].
            starts, max_iterations: for this call, in the place of the controller's own.
            unclamped: whether to find `Plan.unclamped` too, at the price of a backward pass.

        Returns:
            The plan, in the dtype of `x_init`.

        Raises:
            ValueError: a shape is wrong, a parameter is not finite, or dynamics or cost return
                something of the wrong shape.
            TypeError: an argument is not a floating-point tensor.
        """
        check_x_init(x_init, self.n_state)
        check_no_transform((x_init, context), self)
        starts = self.starts if starts is None else check_size("starts", starts)
        if max_iterations is None:
            max_iterations = self.max_iterations
        else:
            max_iterations = check_count("max_iterations", max_iterations)
        if check_flag("unclamped", unclamped) and self.differentiate == "unrolled":
            raise ValueError("unclamped=True needs differentiate='implicit'")
        batch = x_init.shape[0]
        contexts = check_context(context, batch, self.horizon, self._takes_context())
        bounds = self._bounds()
        first = self._first_guess(warm_start, x_init, bounds)
        multipliers = warm_start.multipliers if isinstance(warm_start, WarmStart) else None
        request = Request(
            x_init, first, multipliers, bounds, contexts, starts, max_iterations, unclamped
        )
        plan = self._plan(request, warm_start, context)
        if torch.is_grad_enabled():
            self._unconverged.note(plan, max_iterations, self.expected_unconverged)
        return plan

    def _plan(self, request: Request, warm_start: Tensor | None, context: Tensor | None) -> Plan:
        """What was asked for; warm start and context are as the caller has them."""
        if self._is_smoothed() or self.has_constraints:
            return self._changed_plan(request)
        return self._own_plan(request, warm_start, context)

    def _own_plan(
        self, request: Request, warm_start: Tensor | None, context: Tensor | None
    ) -> Plan:
        """That of the problem as it is; warm start and context are as the caller has them."""
        x_init, first, _, bounds, contexts, starts, max_iterations, unclamped = request
        rounded = self._rounded if self.differentiate == "implicit" else None
        kinked = rounded is not None and rounded.has_kinks(self, request)
        if kinked and starts > 1:  # the cheapest is wanted, so none is given up where it stalls
            max_iterations = min(BEFORE_ROUNDING, max_iterations)
        settings = Settings(
            self.hessian == "exact", self.tolerance, max_iterations, kinked and starts == 1
        )
        problem = self._problem(x_init, first, bounds, contexts, settings)
        if self.n_state is None:  # setting an attribute of a module takes microseconds
            self.n_state = x_init.shape[1]

        # entering no_grad takes microseconds
        with torch.no_grad() if torch.is_grad_enabled() else _AS_IT_IS:
            x, fixed = x_init.double(), bounds
            if bounds[0].requires_grad or bounds[1].requires_grad:
                fixed = bounds[0].detach(), bounds[1].detach()
            rows = _finite_rows((x, warm_start, contexts))
            plan, guess = self._solve(problem, x, first, fixed, starts, rows)
            if isinstance(problem, ReferenceProblem):
                self._model_checks.check_plan(problem, plan)
            at_kinks = None
            if rounded is not None and kinked:
                plan, at_kinks = rounded.solve(self, request, plan, problem)
            lifted = unclamp(problem, plan, fixed[0][0], fixed[1][0]) if unclamped else None
        free = None if lifted is None else lifted.control
        if torch.is_grad_enabled():
            # with nothing to unroll, the implicit derivative is the zero that is promised
            if self.differentiate == "unrolled" and bool(plan.converged.any()):
                plan = self._unrolled(plan, x_init, guess, bounds, contexts, settings)
            else:
                plan, free = self._implicit(problem, plan, lifted, x_init, context)
        cast = cast_to(x_init.dtype)
        plan = Plan(
            cast(plan.states),
            cast(plan.controls),
            cast(plan.cost),
            plan.converged,
            plan.iterations,
            None if free is None else cast(free),
            x_init.new_zeros(len(x_init)),
            at_kink=torch.zeros_like(plan.converged) if kinked else None,
        )
        if at_kinks is not None:
            plan = at_kinks.put_into(self, request, plan)
        return plan

    @property
    def has_constraints(self) -> bool:
        """Whether there are any but the bounds of the controls."""
        return not (
            self.constraints is self.terminal_constraints is self.terminal_equalities is None
        )

    def _changed_plan(self, request: Request) -> Plan:
        """That of a problem whose cost has the constraints, or a barrier, in it."""
        changed = self._constrained if self.has_constraints else self._smoothed
        if self.differentiate == "unrolled":
            what = "constraints" if self.has_constraints else "smoothing"
            raise ValueError(f"differentiate='unrolled' knows no {what}: use 'implicit'")
        rounded, asked = self._rounded, request
        kinked = rounded is not None and rounded.has_kinks(self, request)
        if kinked:
            asked = request._replace(max_iterations=min(BEFORE_ROUNDING, request.max_iterations))
        try:
            plan = changed.plan(self, asked)
        except ValueError:
            check_finite_parameters(self)  # by the names that the caller knows
            raise
        if rounded is not None and kinked:
            plan = replace(plan, at_kink=torch.zeros_like(plan.converged))
            plan, at_kinks = rounded.solve(self, request, plan, None)
            plan = plan if at_kinks is None else at_kinks.put_into(self, request, plan)
        if self.n_state is None:
            self.n_state = request.x_init.shape[1]
        return plan.to(request.x_init.dtype)

    def extra_repr(self) -> str:
        """The settings, as given."""
        return (
            f"horizon={self.horizon}, hessian={self.hessian!r}, "
            f"differentiate={self.differentiate!r}, backend={self.backend!r}, "
            f"tolerance={self.tolerance}, starts={self.starts}"
        )

    def _bounds(self) -> tuple[Tensor, Tensor]:
        buffers = self._buffers  # past nn.Module's search: this is asked at each plan
        low, high = buffers.get("control_low"), buffers.get("control_high")
        if low is None or high is None:
            low, high = self.control_low, self.control_high
        return self._present_bounds.of(low, high, (self.horizon, self.n_ctrl))

    def _takes_context(self) -> bool:
        modules = self._modules  # past nn.Module's search: this is asked at each plan
        for name in ("dynamics", "cost", "constraints"):
            part = modules.get(name)
            if part is not None and takes_context(part):
                return True
        return False

    def _first_guess(
        self, warm_start: Tensor | None, x_init: Tensor, bounds: tuple[Tensor, Tensor]
    ) -> Tensor:
        shape = (x_init.shape[0], self.horizon, self.n_ctrl)
        if warm_start is None:
            nearest = self._present_bounds.nearest_to_zero(bounds)
            return nearest if nearest.shape == shape else nearest.expand(shape)
        check_warm_start(warm_start, shape)
        guess = warm_start.detach().double()
        guess = torch.where(guess.isfinite(), guess, 0.0)
        return guess.clamp(bounds[0].detach(), bounds[1].detach())

    def _problem(
        self,
        x_init: Tensor,
        first: Tensor,
        bounds: tuple[Tensor, Tensor],
        context: Tensor | None,
        settings: Settings,
    ) -> BackendProblem:
        """What is to be solved, on the backend that solves it."""
        if self.backend != "torch" and self.differentiate == "implicit":

            def check() -> "Callable[[], None]":  # to evaluate it takes a microsecond
                given = self._reference_problem(x_init, first, bounds, context, settings)
                check_rows(given, x_init.detach().double(), first)
                return partial(check_compiled_derivatives, given, x_init.detach().double(), first)

            n_context = 0 if context is None else context.shape[-1]
            parts: Any = self._modules  # past nn.Module's search
            native = self._compiled.model(
                (parts["dynamics"], parts["cost"]),
                (x_init.shape[1], self.n_ctrl, n_context, self.hessian == "exact"),
                x_init.device,
                required=self.backend == "native",
                check=check,
            )
            if native is not None:
                found = native.problem(bounds, context, settings)
                if not found.finite:
                    check_finite_parameters(self)
                return found
        check_finite_parameters(self)
        problem = self._reference_problem(x_init, first, bounds, context, settings)
        self._model_checks.check(problem, x_init.detach().double(), first)
        return problem

    def _reference_problem(
        self,
        x_init: Tensor,
        first: Tensor,
        bounds: tuple[Tensor, Tensor],
        context: Tensor | None,
        settings: Settings,
    ) -> ReferenceProblem:
        check_stages(self.cost, self.horizon)
        problem = self._live_problem(bounds, context, settings).detached()
        check_model_output(problem, x_init.double(), first)
        return problem

    def _live_problem(
        self, bounds: tuple[Tensor, Tensor], context: Tensor | None, settings: Settings
    ) -> ReferenceProblem:
        return ReferenceProblem.of((self.dynamics, self.cost), bounds, context, settings)

    def _solve(
        self,
        problem: BackendProblem,
        x_init: Tensor,
        first: Tensor,
        bounds: tuple[Tensor, Tensor],
        starts: int,
        rows: Tensor | None,
    ) -> tuple[Plan, Tensor]:
        """The best plan of each instance, and the guess that it was found from.

        `rows` are those that can be solved; None: all.
        """
        if rows is None:
            return solve_from_guesses(problem, x_init, first, bounds, starts, self._long)
        found, guess = solve_from_guesses(
            problem.rows(rows), x_init[rows], first[rows], bounds, starts, self._long
        )
        unsolved = Plan.unsolved(x_init, first)
        return unsolved.with_rows(rows, found), first.index_copy(0, rows, guess)

    def _unrolled(
        self,
        plan: Plan,
        x_init: Tensor,
        guess: Tensor,
        bounds: tuple[Tensor, Tensor],
        context: Tensor | None,
        settings: Settings,
    ) -> Plan:
        """The plan, with the iterations of the converged instances done again for autograd."""
        rows = plan.converged.nonzero()[:, 0]
        live = self._live_problem(bounds, context, settings).rows(rows)
        return plan.with_rows(rows, live.iterate(x_init[rows].double(), guess[rows]))

    def _implicit(
        self,
        problem: BackendProblem,
        plan: Plan,
        lifted: Unclamped | None,
        x_init: Tensor,
        context: Tensor | None,
    ) -> tuple[Plan, Tensor | None]:
        """The plan and `lifted.control`, differentiable by the implicit function theorem."""
        bounds = (self.control_low, self.control_high)
        parameters = (*self.dynamics.parameters(), *self.cost.parameters())
        inputs = (x_init, *bounds, context, *parameters)
        if not any(each is not None and each.requires_grad for each in inputs):
            return plan, None if lifted is None else lifted.control
        return ImplicitSolution.attach(problem, plan, lifted, inputs)


def _finite_rows(values: tuple[Tensor | None, ...]) -> Tensor | None:
    """Indices of the rows that are finite in all of the values; None if all rows are."""
    if all(map(is_finite, values)):
        return None
    finite = [each.isfinite().flatten(1).all(1) for each in values if each is not None]
    return torch.stack(finite).all(0).nonzero()[:, 0]
