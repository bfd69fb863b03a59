"""One time step of many environments at once, natively where the model can be compiled.

    x' = f(x, v),   cost = l(x, u)

u is the action clipped to its limits, v what of it reaches the dynamics: the same up to rounding.
Dynamics and cost are traced together as one program, which runs on 16 environments at a time; a
single environment takes one of the 16 places, so it moves bit by bit as it does in a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from mpc_gym.functional import LOCK, call_with
from mpc_gym.messages import warn

if TYPE_CHECKING:
    from mpc_gym.compiled import Graph
    from mpc_gym.compiled.watch import Watch

Floats: TypeAlias = NDArray[np.float64]
Step: TypeAlias = Callable[[Floats, Floats, Floats, Floats], tuple[Floats, Floats]]
"""States, controls, applied controls, parameters -> next states, costs; see `Transition`."""


class Transition:
    """The step of environments whose model these modules are.

    Parameters count with the values that they have at the time of a step, however they were
    changed. All else that the modules depend on (`max_speed`; see `compiled.watch`) is that of the
    time when this was made; `is_current` tells whether it is so still.
    Modules that cannot be compiled run in PyTorch, with one warning.

    Args:
        dynamics: [..., n_state], [..., n_ctrl] -> [..., n_state].
        cost: [..., n_state], [..., n_ctrl] -> [...].
        n_state: size of the state.
        control_low: [n_ctrl].
        control_high: [n_ctrl].
        float32_gain: if not zero, the dynamics feel controls that float32 holds as if their product
            with it had been rounded to float32.

    Raises:
        ValueError: the cost changes with time.
    """

    def __init__(
        self,
        dynamics: nn.Module,
        cost: nn.Module,
        n_state: int,
        control_low: Float[Floats, " n_ctrl"],
        control_high: Float[Floats, " n_ctrl"],
        float32_gain: float = 0.0,
    ) -> None:
        # Numba takes long to import
        from mpc_gym.compiled.parameters import LiveTensors, numeric_parameters
        from mpc_gym.envs.step_kernel import actuate

        self.dynamics = dynamics
        self.cost = cost
        self._limits = (control_low, control_high, float32_gain)
        self._actuate: Callable[..., bool] = actuate
        self._stage = stage = Stage(dynamics, cost)
        self._parameters = LiveTensors((stage, name) for name in numeric_parameters(stage))
        self._watch, step = _native_step_of(stage, n_state, len(control_low))
        self._step = _torch_step(stage) if step is None else step

    def __call__(
        self,
        states: Float[Floats, "batch n_state"],
        actions: Float[Floats, "batch n_ctrl"],
        parameters: Float[Floats, "batch n_parameters"] | None = None,
    ) -> tuple[
        Float[Floats, "batch n_state"], Float[Floats, " batch"], Float[Floats, "batch n_ctrl"]
    ]:
        """Next states, costs, and the actions as they were clipped.

        Args:
            states: before the step.
            actions: within their limits or not.
            parameters: one row for each environment, ordered as `parameter_names`; None: the
                present ones of the modules, for all.

        Raises:
            ValueError: an action is NaN.
        """
        if parameters is None:
            parameters = self._parameters.vector()[np.newaxis]
        controls, applied = np.empty_like(actions), np.empty_like(actions)
        if not self._actuate(actions, *self._limits, controls, applied):
            raise ValueError(f"action must be a number, got NaN in {_excerpt(actions)}")
        following, costs = self._step(states, controls, applied, parameters)
        return following, costs, controls

    def is_current(self) -> bool:
        """Whether nothing about the modules has changed but parameters, as far as can be told."""
        return self._watch is None or self._watch.holds()

    def parameters(self) -> Float[Floats, " n_parameters"]:
        """The present parameters of the modules."""
        return self._parameters.vector()

    @property
    def parameter_names(self) -> list[str]:
        """The name of each entry of `parameters`; "dynamics.mass", or "cost.C" for each of C's."""
        named = zip(self._parameters.names, self._parameters.tensors(), strict=True)
        return [name for name, tensor in named for _ in range(tensor.numel())]


def _excerpt(actions: Floats) -> str:
    rows = np.flatnonzero(np.isnan(actions).any(-1))
    return f"{actions[rows[0]].tolist()} (of environment {', '.join(map(str, rows[:5]))})"


class Stage(nn.Module):
    """Dynamics and cost as one module: (next state, cost), [..., n_state + 1]."""

    def __init__(self, dynamics: nn.Module, cost: nn.Module) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.cost = cost

    def forward(self, state: Tensor, control: Tensor, applied: Tensor) -> Tensor:
        """Both at one state; `applied` drives the dynamics, the cost is of `control`."""
        following = self.dynamics(state, applied)
        return torch.cat((following, self.cost(state, control).unsqueeze(-1)), -1)


class _Keyed:
    """A module that equals others in all that a trace depends on: one is compiled for all."""

    def __init__(self, stage: Stage, watch: Watch, sizes: tuple[int, int]) -> None:
        self.stage = stage
        self.watch = watch
        self.sizes = sizes

    def __hash__(self) -> int:
        return hash((self.watch.key, self.sizes))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Keyed):
            return NotImplemented
        return self.watch.key == other.watch.key and self.sizes == other.sizes


def _native_step_of(stage: Stage, n_state: int, n_ctrl: int) -> tuple[Watch | None, Step | None]:
    """What a step depends on, None if that cannot be told, and the step if it can be compiled."""
    from mpc_gym.compiled import UnsupportedOperation
    from mpc_gym.compiled.watch import Watch, watched

    sizes = (n_state, n_ctrl)
    try:
        return watched(lambda: _shared_step(_Keyed(stage, Watch(stage), sizes)), [stage])
    except UnsupportedOperation as error:
        _warn_of_pytorch(error)
        return None, None


@cache
def _shared_step(keyed: _Keyed) -> Step | None:
    from mpc_gym.compiled import ProgramTooLarge, UnsupportedOperation, trace

    n_state, n_ctrl = keyed.sizes
    try:
        graph = trace(keyed.stage, n_state, n_ctrl, n_ctrl)
        if graph.per_stage:
            raise ValueError(
                "cost must be the same at all times, but these parameters have one value for each "
                f"time step: {', '.join(sorted(graph.per_stage))}"
            )
        return _native_step(graph)
    except (UnsupportedOperation, ProgramTooLarge) as error:
        _warn_of_pytorch(error)
        return None


def _warn_of_pytorch(error: Exception) -> None:
    warn(f"the environment is stepped in PyTorch: {error}")


def _native_step(graph: Graph) -> Step:
    from mpc_gym.envs.step_kernel import step_kernel

    module, workspace = step_kernel(graph)

    def step(
        states: Floats, controls: Floats, applied: Floats, parameters: Floats
    ) -> tuple[Floats, Floats]:
        following, costs = np.empty_like(states), np.empty(len(states))
        block = np.empty(workspace)
        module.step_batch(states, controls, applied, parameters, following, costs, block)
        return following, costs

    return step


def _torch_step(stage: Stage) -> Step:
    """The same in PyTorch: all rows in one call where PyTorch can tell that each moves alone.

    It cannot where control flow depends on a state, or parameters differ from row to row: these
    rows are stepped one by one.
    """
    from mpc_gym.compiled.parameters import numeric_parameters, unflatten

    shapes = {name: tuple(value.shape) for name, value in numeric_parameters(stage).items()}
    in_one_call = True

    def call(parameters: Floats, *arguments: Floats, rows: bool = False) -> Floats:
        named = {k: torch.from_numpy(v) for k, v in unflatten(parameters, shapes).items()}
        # copies: a module may write into its arguments
        tensors = tuple(torch.from_numpy(each.copy()) for each in arguments)

        def evaluate(*row: Tensor) -> Tensor:
            result: Tensor = call_with(stage, named, row)
            return result

        with torch.no_grad():
            if not rows:
                return evaluate(*tensors).numpy()
            with LOCK:
                result: Tensor = torch.vmap(evaluate)(*tensors)
            return result.numpy()

    def step(
        states: Floats, controls: Floats, applied: Floats, parameters: Floats
    ) -> tuple[Floats, Floats]:
        nonlocal in_one_call
        arguments, out = (states, controls, applied), None
        together = in_one_call and len(states) > 1 and len(parameters) == 1
        if together:
            # an error of the model's own comes again below
            with suppress(RuntimeError):
                out = call(parameters[0], *arguments, rows=True)
        if out is None:
            each = parameters if len(parameters) > 1 else np.repeat(parameters, len(states), 0)
            out = np.stack([call(*row) for row in zip(each, *arguments, strict=True)])
            in_one_call = in_one_call and not together
        return np.ascontiguousarray(out[:, :-1]), out[:, -1].copy()

    return step
