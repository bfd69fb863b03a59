"""The native backend: packs a problem into arrays and calls the kernels generated for its model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Event
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mpc_gym.compiled.cpu.cache import compiling
from mpc_gym.compiled.cpu.emit import LANES
from mpc_gym.compiled.errors import ProgramTooLarge
from mpc_gym.compiled.parameters import LiveTensors, unflatten
from mpc_gym.functional import LOCK
from mpc_gym.mpc.backend import Gradients, Settings
from mpc_gym.mpc.native.ddp import solve
from mpc_gym.mpc.native.generate import sensitivity_stages, solver_stages, trace_model
from mpc_gym.mpc.native.lanes import NO_ROWS, Rows, new_lanes, new_queue, new_rows
from mpc_gym.mpc.native.multipliers import prepare
from mpc_gym.mpc.native.pool import in_slices, in_threads
from mpc_gym.mpc.native.sensitivity import differentiate, first_step
from mpc_gym.mpc.plan import Plan
from mpc_gym.mpc.problem import RowFunction
from mpc_gym.mpc.record import sensitivity_offsets, solver_offsets
from mpc_gym.mpc.reference.backend import ReferenceProblem

Vector: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Modules: TypeAlias = tuple[nn.Module, nn.Module]
Sizes: TypeAlias = tuple[int, int, int, bool]
Part: TypeAlias = tuple[int, int]
Lanes: TypeAlias = tuple[NDArray[Any], ...]
FallBack: TypeAlias = Callable[[str, Exception], None]

# Numba's functions have no types that mypy could check
_solve: Callable[..., bool] = solve
_prepare: Callable[..., None] = prepare
_new_rows: Callable[[int, int, int], Rows] = new_rows
_new_queue: Callable[[Part], Integers] = new_queue
_new_lanes: Callable[[Integers, int], Lanes] = new_lanes
_differentiate: Callable[..., None] = differentiate
_first_step: Callable[..., None] = first_step

_NO_CONTEXT: Vector = np.empty((1, 0, 0))


def refuse(_: str, reason: Exception) -> None:
    """Raise the reason why the reference would have to do something."""
    raise reason


class NativeModel:
    """Dynamics and cost, traced and compiled. Parameters are read anew for every problem.

    Args:
        modules: dynamics and cost.
        n_state, n_ctrl, n_context: sizes of their arguments.
        second_order: whether second derivatives of the dynamics are ever asked for.
        fall_back: is told what the reference has to do, and why; raises where it must not
            (as it does by default).
        check: called between tracing and compiling them; raises where they are at fault.

    Raises:
        UnsupportedOperation: a module uses what cannot be compiled.
        ProgramTooLarge: the programs would be too long.
    """

    def __init__(
        self,
        modules: tuple[nn.Module, nn.Module],
        n_state: int,
        n_ctrl: int,
        n_context: int,
        second_order: bool = True,
        *,
        fall_back: FallBack | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        self.modules = modules
        self._fall_back = fall_back or refuse
        self._names = " and ".join(type(module).__name__ for module in modules)
        with compiling(self._names):
            self.model = trace_model(
                *modules, n_state, n_ctrl, n_context, second_order=second_order
            )
            check()
            stages, scratch = solver_stages(self.model)
            self.solver = _as_arrays(stages, solver_offsets(self.model, scratch))
        names = (self.model.parameter_shapes(per_stage=each) for each in (False, True))
        self._shared, self._staged = (
            LiveTensors((modules[i], name) for i, name in each) for each in names
        )
        self._latest: tuple[tuple[Tensor, Tensor], Vector] | None = None
        self._problem: NativeProblem | None = None
        self._kept: list[tuple[int, Lanes]] = []  # and the horizon that they are made for

    @cached_property
    def sensitivity(self) -> tuple[Integers, Integers] | None:
        """Stages and layout of the derivative, compiled when they are first needed.

        None where it is too long, which may be where the plan is not.
        """
        with LOCK:  # it is held by whoever compiles them already
            if "sensitivity" in vars(self):
                return self.sensitivity
            try:
                with compiling(f"the derivative of plans with {self._names}"):
                    stages, scratch = sensitivity_stages(self.model)
                return _as_arrays(stages, sensitivity_offsets(self.model, scratch))
            except ProgramTooLarge as error:
                self._fall_back("differentiating", error)
                return None

    def take_lanes(self, horizon: int) -> Lanes:
        """Idle lanes that nobody else has; to make them takes longer than to take those kept."""
        try:
            made_for, lanes = self._kept.pop()
        except IndexError:
            made_for = 0
        return lanes if made_for == horizon else _new_lanes(self.solver[1], horizon)

    def keep_lanes(self, horizon: int, lanes: Lanes) -> None:
        """Keep lanes for the next who asks, once what they were taken for is done."""
        self._kept.append((horizon, lanes))

    def problem(
        self,
        bounds: tuple[Tensor, Tensor],
        context: Tensor | None,
        settings: Settings,
    ) -> "NativeProblem":
        """The problem with the parameters' present values, within bounds [time, n_ctrl]."""
        contexts = None if context is None else _array(context)
        P, S = self._shared.vector(), self._per_stage(bounds)
        latest = self._problem  # read once: another thread may replace it
        if (
            latest is not None
            and contexts is None
            and S is latest.S
            and settings == latest.settings
            and P.tobytes() == latest.numbers
        ):
            return latest
        found = NativeProblem(self, P, S, contexts, settings)
        if contexts is None:
            self._problem = found
        return found

    def _per_stage(self, bounds: tuple[Tensor, Tensor]) -> Vector:
        """Bounds and per-stage parameters, [time, 2 n_ctrl + n]."""
        latest = self._latest
        if latest is not None and bounds is latest[0]:
            return latest[1]
        low, high = (bound.detach().numpy() for bound in bounds)
        staged = self._staged.arrays()
        for array, name in zip(staged, self._staged.names, strict=True):
            if len(array) != len(low):
                raise ValueError(
                    f"{name} has {len(array)} time steps, but the horizon is {len(low)}; "
                    "give one entry for each stage, or one for all"
                )
        parts = [low, high, *(array.reshape(len(low), -1) for array in staged)]
        # rows have to be contiguous, which numpy does not promise for expanded bounds
        S = np.ascontiguousarray(np.concatenate(parts, axis=1, dtype=np.float64))
        if not staged:
            self._latest = bounds, S
        return S


def _as_arrays(stages: tuple[int, ...], offsets: tuple[int, ...]) -> tuple[Integers, Integers]:
    return np.array(stages, dtype=np.int64), np.array(offsets, dtype=np.int64)


@dataclass(frozen=True)
class NativeProblem:
    """A batch of control problems on the native backend (see `BackendProblem`)."""

    model: NativeModel
    P: Vector  # shared parameters
    S: Vector  # (time, 2 n_ctrl + n) bounds and per-stage parameters
    context: Vector | None
    settings: Settings

    @cached_property
    def numbers(self) -> bytes:
        """The shared parameters, to be compared."""
        return self.P.tobytes()

    @cached_property
    def finite(self) -> bool:
        """Whether all parameters are."""
        own = self.S[:, 2 * self.model.model.m :]
        return bool(np.isfinite(self.P).all() and (own.size == 0 or np.isfinite(own).all()))

    def rows(self, index: Tensor) -> "NativeProblem":
        """The same problem for some instances of the batch."""
        if self.context is None:
            return self
        return replace(self, context=self.context[index.numpy()])

    def patient(self) -> "NativeProblem":
        """See `BackendProblem`."""
        return replace(self, settings=self.settings._replace(kinked=False))

    def lifted(self) -> "NativeProblem":
        """See `BackendProblem`."""
        m = self.model.model.m
        S = self.S.copy()
        S[0, :m], S[0, m : 2 * m] = -np.inf, np.inf
        return replace(self, S=S)

    def as_function_of(self, inputs: tuple[Tensor | None, ...]) -> ReferenceProblem:
        """See `BackendProblem`."""
        return self.reference().as_function_of(inputs)

    def reference(self) -> ReferenceProblem:
        """The same problem, with the same values, for the reference."""
        m = self.model.model.m
        low, high = torch.from_numpy(self.S[:, :m]), torch.from_numpy(self.S[:, m : 2 * m])
        functions = [RowFunction.of(module).detached() for module in self.model.modules]
        found = self._by_name(self.P, self.S[:, 2 * m :])
        f, l = (
            replace(function, values={**function.values, **values})
            for function, values in zip(functions, found, strict=True)
        )
        context = None if self.context is None else torch.from_numpy(self.context)
        return ReferenceProblem(f, l, low, high, context, self.settings)

    def stages(self, start: int, stop: int) -> "NativeProblem":
        """See `BackendProblem`."""
        context = self.context
        if context is not None:
            context = np.ascontiguousarray(context[:, start:stop])
        return replace(self, S=self.S[start:stop], context=context)

    def costs(self, x_init: Tensor, U: Tensor) -> Tensor:
        """See `BackendProblem`."""
        unsolved = replace(self, settings=self.settings._replace(max_iterations=0))
        return unsolved.solve(x_init, U).cost

    def solve(self, x_init: Tensor, guesses: Tensor) -> Plan:
        """See `BackendProblem`."""
        return self._solved(_array(x_init), _array(guesses), NO_ROWS)

    def solve_constrained(
        self, x_init: Tensor, guesses: Tensor, own: int, extremes: Tensor
    ) -> tuple[Plan, Tensor, Tensor]:
        """Plans that satisfy the constraints in the cost, their multipliers and penalties.

        The algorithm is that of `augmented_lagrangian.solve`. Of the plans whose cost is finite,
        cost and violation are those without multipliers.

        Args:
            x_init: [batch, n_state]; task i begins at x_init[i % batch].
            guesses: [tasks, time, n_ctrl]. The problem's context [tasks, time, n_context], that of
                an `AugmentedCost` with penalties of 1 where a row is asked, is overwritten.
            own: where in the context the multipliers begin.
            extremes: controls along which the rows are measured, too, [2, time, n_ctrl].
        """
        (tasks, horizon), k = guesses.shape[:2], self.model.model.n_rows
        context = self._context
        X, guess, rows = _array(x_init), _array(guesses), _new_rows(own, k, tasks)
        stages, layout = self.model.solver
        given = (stages, layout, X, guess, context, self.P, self.S, tuple(rows))

        def work(part: Part, _: Event) -> None:
            lanes = self.model.take_lanes(horizon)
            _prepare(*given, _new_queue(part), *lanes, _array(extremes))
            self.model.keep_lanes(horizon, lanes)

        in_threads(work, tasks)
        plan = self._solved(X, guess, rows)
        cost, violation, rho, lam = (
            torch.from_numpy(each)
            for each in (rows.cost, rows.violation, rows.rho, context[..., own : own + k])
        )
        cost = torch.where(plan.cost.isfinite(), cost, torch.nan)
        return replace(plan, cost=cost, violation=violation, multipliers=lam), lam, rho

    def _solved(self, x_init: Vector, guess: Vector, rows: Rows) -> Plan:
        tasks, horizon = guess.shape[:2]
        X = np.empty((tasks, horizon, x_init.shape[1]))
        U = np.empty(guess.shape)
        cost = np.empty(tasks)
        converged = np.empty(tasks, dtype=np.bool_)
        iterations = np.empty(tasks, dtype=np.int64)
        size = np.empty(tasks)
        options = self.settings
        settings = (
            float(options.exact),
            float(options.tolerance),
            float(options.max_iterations),
            float(rows is not NO_ROWS),
            float(options.kinked),
        )
        given = (x_init, guess, self._context, self.P, self.S, settings, tuple(rows))
        results = (X, U, cost, converged, iterations)
        stages, layout = self.model.solver

        def work(part: Part, stop: Event) -> None:
            lanes = self.model.take_lanes(horizon)
            state = (_new_queue(part), *lanes)
            if in_slices(lambda n: _solve(stages, layout, *given, *state, n, *results, size), stop):
                self.model.keep_lanes(horizon, lanes)

        in_threads(work, tasks)
        return Plan(*map(torch.from_numpy, results))

    def gradients(
        self, X: Tensor, U: Tensor, g_X: Tensor, g_U: Tensor, g_cost: Tensor
    ) -> Gradients:
        """See `BackendProblem`."""
        stages = self.model.sensitivity
        if stages is None:
            return self.reference().gradients(X, U, g_X, g_U, g_cost)
        (batch, horizon, n), m = X.shape, U.shape[-1]
        blocks = -(-batch // LANES)
        x_init = np.empty((batch, n))
        context = np.empty((batch, horizon, self.model.model.n_context))
        staged = np.empty((blocks, *self.S.shape))
        shared = np.empty((blocks, len(self.P)))
        given = [_array(value) for value in (X, U)]
        given += [self._context, *(_array(value) for value in (g_X, g_U, g_cost))]
        exact = float(self.settings.exact)
        given += [self.P, self.S]
        results = (x_init, context, staged, shared)
        in_threads(lambda part, _: _differentiate(*stages, *given, exact, part, *results), batch)
        by_stage, by_parameter = staged.sum(0), shared.sum(0)
        dynamics, cost = (
            [values[name] for name, _ in module.named_parameters()]
            for values, module in zip(
                self._by_name(by_parameter, by_stage[:, 2 * m :]), self.model.modules, strict=True
            )
        )
        return Gradients(
            x_init=torch.from_numpy(x_init),
            low=torch.from_numpy(by_stage[:, :m]),
            high=torch.from_numpy(by_stage[:, m : 2 * m]),
            context=None if self.context is None else torch.from_numpy(context),
            dynamics=dynamics,
            cost=cost,
        )

    def first_step(self, X: Tensor, U: Tensor) -> Tensor:
        """See `BackendProblem`."""
        stages, exact = self.model.sensitivity, float(self.settings.exact)
        if stages is None:
            return self.reference().first_step(X, U)
        batch, m = U.shape[0], U.shape[-1]
        step = np.empty((batch, m))
        given = (_array(X), _array(U), self._context, self.P, self.S)
        in_threads(lambda part, _: _first_step(*stages, *given, exact, part, step), batch)
        return torch.from_numpy(step)

    @property
    def _context(self) -> Vector:
        return _NO_CONTEXT if self.context is None else self.context

    def _by_name(self, shared: Vector, staged: Vector) -> list[dict[str, Tensor]]:
        """All numbers of the parameters and buffers of dynamics and cost, by name."""
        model = self.model.model
        parts = {
            **unflatten(shared, model.parameter_shapes(per_stage=False)),
            **unflatten(staged, model.parameter_shapes(per_stage=True)),
        }
        found: list[dict[str, Tensor]] = [{}, {}]
        for (which, name), values in parts.items():
            found[which][name] = torch.from_numpy(values.copy())
        return found


def _array(value: Tensor) -> Vector:
    fixed = value.detach() if value.requires_grad else value
    array: Vector = np.ascontiguousarray(fixed.numpy(), dtype=np.float64)
    return array
