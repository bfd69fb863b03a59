"""The differentiable model predictive controller."""

import math
import warnings
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from mpc_gym.mpc import ddp
from mpc_gym.mpc.checks import (
    bound_values,
    check_bounds,
    check_context,
    check_count,
    check_finite_parameters,
    check_model_output,
    check_option,
    check_stages,
    check_tolerance,
    check_warm_start,
    check_x_init,
    infer_sizes,
)
from mpc_gym.mpc.implicit import ImplicitSolution
from mpc_gym.mpc.plan import Plan
from mpc_gym.mpc.problem import Problem, RowFunction, takes_context
from mpc_gym.mpc.starts import initial_guesses

Bound = float | Tensor | None


class MPC(nn.Module):
    """Model predictive control whose optimum is differentiable (Amos et al., 2018).

    Minimises `sum_{t<T} cost(x_t, u_t)` subject to `x_0 = x_init`,
    `x_{t+1} = dynamics(x_t, u_t)` and `control_low <= u_t <= control_high`, for every start state
    of a batch on its own. The result is differentiable with respect to the parameters of dynamics
    and cost, `x_init`, `context` and the bounds. Computed in float64, whatever the inputs' dtype.

    Args:
        dynamics: maps state [..., n_state] and control [..., n_ctrl] to the next state. Its
            `n_state` and `n_ctrl` are read where it has them (see `models.Dynamics`).
        cost: maps state and control to the stage cost [...].
        horizon: number of stages T. There are T states and T controls.
        control_low: lower bound: a number, a tensor [n_ctrl] or [horizon, n_ctrl], or None for no
            bound. A tensor that requires gradient is differentiated.
        control_high: upper bound, likewise.
        hessian: "exact", or "gauss-newton" to drop the second derivatives of the dynamics from
            solution and derivative, as the paper does (its gradient is approximate).
        differentiate: "implicit" (the derivative of the optimum) or "unrolled" (autograd through
            the solver's iterations, for comparison: slower, and memory grows with iterations).
        backend: "torch", or "auto" for the fastest that can run the model.
        tolerance: largest change of a control in the last iteration.
        max_iterations: after which an instance is returned as not converged.
        starts: number of initial guesses; the best solution is kept. The first is the warm start
            or zero, then come constant and switching controls at the bounds.

    Raises:
        ValueError: an argument is out of its range; the message says which.
    """

    control_low: Tensor
    control_high: Tensor

    def __init__(
        self,
        dynamics: nn.Module,
        cost: nn.Module,
        horizon: int,
        control_low: Bound = -2.0,
        control_high: Bound = 2.0,
        hessian: Literal["exact", "gauss-newton"] = "exact",
        differentiate: Literal["implicit", "unrolled"] = "implicit",
        backend: Literal["auto", "torch"] = "auto",
        tolerance: float = 1e-6,
        max_iterations: int = 200,
        starts: int = 1,
    ) -> None:
        super().__init__()
        for name, module in (("dynamics", dynamics), ("cost", cost)):
            if not isinstance(module, nn.Module):
                raise TypeError(f"{name} must be a torch.nn.Module, got {type(module).__name__}")
        for name, count in (
            ("horizon", horizon),
            ("max_iterations", max_iterations),
            ("starts", starts),
        ):
            check_count(name, count)
        check_tolerance(tolerance)
        check_option("hessian", hessian, ("exact", "gauss-newton"))
        check_option("differentiate", differentiate, ("implicit", "unrolled"))
        check_option("backend", backend, ("auto", "torch"))
        self.dynamics = dynamics
        self.cost = cost
        self.horizon = horizon
        self.hessian = hessian
        self.differentiate = differentiate
        self.backend = backend
        self.tolerance = float(tolerance)
        self.max_iterations = max_iterations
        self.starts = starts
        self.n_state, self.n_ctrl = infer_sizes(dynamics, cost, control_low, control_high)
        self._set_bound("control_low", control_low, -math.inf)
        self._set_bound("control_high", control_high, math.inf)
        check_bounds(self.control_low, self.control_high)
        check_stages(cost, horizon)
        self._warned = False

    def forward(
        self, x_init: Tensor, warm_start: Tensor | None = None, context: Tensor | None = None
    ) -> Plan:
        """Plan from each start state.

        A start state, warm start or context that is not finite spoils its own instance only: it
        is returned as not converged, with a cost of NaN and controls as near zero as the bounds
        allow.

        Args:
            x_init: [batch, n_state].
            warm_start: initial guess of the controls [batch, horizon, n_ctrl], for instance
                `plan.shift()`; not differentiated. Default: zero.
            context: third argument of dynamics and cost, [batch, n_context] or
                [batch, horizon, n_context].

        Returns:
            The plan, in the dtype of `x_init`.

        Raises:
            ValueError: a shape is wrong, a parameter is not finite, or dynamics or cost return
                something of the wrong shape.
            TypeError: an argument is not a floating-point tensor.
        """
        check_x_init(x_init, self.n_state)
        check_finite_parameters(self)
        batch = x_init.shape[0]
        context = check_context(context, batch, self.horizon, self._takes_context())
        low, high = self._bounds()
        first = self._first_guess(warm_start, x_init, low, high)

        usable = x_init.isfinite().all(-1) & first.isfinite().all(-1).all(-1)
        if context is not None:
            usable = usable & context.isfinite().all(-1).all(-1)
        rows = usable.nonzero()[:, 0]
        problem = Problem(
            RowFunction.of(self.dynamics),
            RowFunction.of(self.cost),
            low,
            high,
            None if context is None else context[rows],
        )
        check_model_output(problem, x_init[rows].double(), first[rows])
        self.n_state = x_init.shape[1]
        solution = self._solve(problem, x_init[rows].double(), first[rows])
        self._warn_if_no_gradient(solution, batch)
        return self._plan(solution, rows, x_init, low, high)

    def extra_repr(self) -> str:
        """The settings, as given."""
        return (
            f"horizon={self.horizon}, hessian={self.hessian!r}, "
            f"differentiate={self.differentiate!r}, backend={self.backend!r}, "
            f"tolerance={self.tolerance}, starts={self.starts}"
        )

    def _set_bound(self, name: str, bound: Bound, unbounded: float) -> None:
        if isinstance(bound, nn.Parameter):
            self.register_parameter(name, bound)
        elif isinstance(bound, Tensor) and bound.requires_grad:
            self.register_buffer(name, bound)
        else:
            self.register_buffer(name, bound_values(name, unbounded if bound is None else bound))
        shape = tuple(getattr(self, name).shape)
        if shape not in ((), (1,), (self.n_ctrl,), (self.horizon, self.n_ctrl)):
            raise ValueError(
                f"{name} must be a number, [n_ctrl={self.n_ctrl}] or "
                f"[horizon={self.horizon}, n_ctrl={self.n_ctrl}], got shape {list(shape)}"
            )

    def _bounds(self) -> tuple[Tensor, Tensor]:
        check_bounds(self.control_low, self.control_high)
        shape = (self.horizon, self.n_ctrl)
        return self.control_low.double().expand(shape), self.control_high.double().expand(shape)

    def _takes_context(self) -> bool:
        return takes_context(self.dynamics) or takes_context(self.cost)

    def _first_guess(
        self, warm_start: Tensor | None, x_init: Tensor, low: Tensor, high: Tensor
    ) -> Tensor:
        shape = (x_init.shape[0], self.horizon, self.n_ctrl)
        if warm_start is None:
            guess = torch.zeros(shape, dtype=torch.float64, device=x_init.device)
        else:
            check_warm_start(warm_start, shape)
            guess = warm_start.detach().double()
        # the solver starts within the bounds; clamp would hide NaN from the check that follows
        return torch.minimum(torch.maximum(guess, low.detach()), high.detach())

    def _solve(self, problem: Problem, x_init: Tensor, first: Tensor) -> ddp.Solution:
        with torch.no_grad():
            solution, guess = self._best_of_starts(problem, x_init, first)
        if not torch.is_grad_enabled():
            return solution
        # with nothing to unroll, the implicit derivative is the zero that is promised
        if self.differentiate == "unrolled" and bool(solution.converged.any()):
            return self._unrolled(problem, x_init, guess, solution)
        return ImplicitSolution.attach(problem, x_init, solution, exact=self.hessian == "exact")

    def _iterate(self, problem: Problem, x_init: Tensor, guess: Tensor) -> ddp.Solution:
        return ddp.solve(
            problem,
            x_init,
            guess,
            exact=self.hessian == "exact",
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )

    def _unrolled(
        self, problem: Problem, x_init: Tensor, guess: Tensor, solution: ddp.Solution
    ) -> ddp.Solution:
        """The solution, with the iterations of the converged instances done again for autograd."""
        rows = solution.converged.nonzero()[:, 0]
        again = self._iterate(problem.rows(rows), x_init[rows], guess[rows])
        return replace(
            solution,
            X=solution.X.index_copy(0, rows, again.X),
            U=solution.U.index_copy(0, rows, again.U),
            cost=solution.cost.index_copy(0, rows, again.cost),
        )

    def _best_of_starts(
        self, problem: Problem, x_init: Tensor, first: Tensor
    ) -> tuple[ddp.Solution, Tensor]:
        """The best solution of each instance, and the guess it came from."""
        batch, copies = x_init.shape[0], self.starts
        index = torch.arange(batch, device=x_init.device).repeat(copies)
        guesses = initial_guesses(first, problem.low, problem.high, copies)
        solution = self._iterate(problem.rows(index), x_init[index], guesses)
        if copies == 1:
            return solution, guesses
        # a converged solution beats any that is not; the guess of lowest cost wins, then order
        rank = torch.where(
            solution.converged.reshape(copies, batch).any(0).repeat(copies),
            torch.where(solution.converged, solution.cost, math.inf),
            solution.cost.nan_to_num(nan=math.inf),
        )
        best = rank.reshape(copies, batch).argmin(0) * batch + index[:batch]
        return solution.rows(best), guesses[best]

    def _plan(
        self, solution: ddp.Solution, rows: Tensor, x_init: Tensor, low: Tensor, high: Tensor
    ) -> Plan:
        batch = x_init.shape[0]
        if len(rows) < batch:
            idle = torch.zeros_like(low).clamp(low.detach(), high.detach())
            states = x_init.new_full((batch, self.horizon, x_init.shape[1]), math.nan).double()
            solution = ddp.Solution(
                X=states.index_copy(0, rows, solution.X),
                U=idle.expand(batch, -1, -1).index_copy(0, rows, solution.U),
                cost=states[:, 0, 0].index_copy(0, rows, solution.cost),
                converged=solution.converged.new_zeros(batch).index_copy(
                    0, rows, solution.converged
                ),
                iterations=solution.iterations.new_zeros(batch).index_copy(
                    0, rows, solution.iterations
                ),
            )
        return Plan(
            states=solution.X.to(x_init.dtype),
            controls=solution.U.to(x_init.dtype),
            cost=solution.cost.to(x_init.dtype),
            converged=solution.converged,
            iterations=solution.iterations,
        )

    def _warn_if_no_gradient(self, solution: ddp.Solution, batch: int) -> None:
        if self._warned or not solution.U.requires_grad:
            return
        missing = batch - int(solution.converged.sum())
        if missing:
            self._warned = True
            warnings.warn(
                f"{missing} of {batch} control problems did not converge and give no gradient; "
                "see Plan.converged. Raise max_iterations, or check the start states and the "
                "model's parameters. (This is said once.)",
                stacklevel=5,  # the caller of the module, behind two functions of nn.Module
            )
