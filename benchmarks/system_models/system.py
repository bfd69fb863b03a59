"""What a system of the benchmark is, and what several of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.problems import Array
from mpc_gym.mpc import MPC

Value = TypeVar("Value")  # a tensor, or an expression of CasADi
Draw = Callable[[np.random.Generator, int], Array]  # start states, [count, n_state]


@dataclass(frozen=True, eq=False)
class System:
    """A problem: minimise the sum of the cost over `horizon` stages, |control| <= limit.

    Args:
        name: in the tables.
        horizon: number of stages.
        limit: of each control's absolute value, [n_ctrl].
        dynamics, cost: make the modules, in float64; each call makes the same ones.
        draw: start states.
        batches: sizes of the batches that are timed.
    """

    name: str
    horizon: int
    limit: tuple[float, ...]
    dynamics: Callable[[], nn.Module]
    cost: Callable[[], nn.Module]
    draw: Draw
    batches: tuple[int, ...] = (1, 128, 1024)

    @property
    def n_ctrl(self) -> int:
        """Number of controls."""
        return len(self.limit)

    @property
    def n_state(self) -> int:
        """Number of states."""
        return int(self.start_states(1, 0).shape[1])

    def start_states(self, count: int, seed: int) -> Tensor:
        """Random ones, [count, n_state]."""
        return torch.from_numpy(self.draw(np.random.default_rng(seed), count))

    def controller(self, **options: Any) -> MPC:
        """A controller, with the options of `MPC`."""
        limit = torch.tensor(self.limit, dtype=torch.float64)
        options = {"horizon": self.horizon, **options}
        return MPC(self.dynamics(), self.cost(), control_low=-limit, control_high=limit, **options)


def within(*limits: float, centre: tuple[float, ...] | None = None) -> Draw:
    """Uniform within +-limit of the centre, or of zero, an entry for each state."""
    width = np.array(limits)
    middle = np.zeros_like(width) if centre is None else np.array(centre)
    return lambda random, count: middle + random.uniform(-width, width, (count, len(width)))


class Parameters(nn.Module):
    """A module with learnable numbers, in float64."""

    def __init__(self, **values: Any) -> None:
        super().__init__()
        for name, value in values.items():
            setattr(self, name, nn.Parameter(torch.tensor(value, dtype=torch.float64)))

    if TYPE_CHECKING:  # they are parameters, and no modules

        def __getattr__(self, name: str) -> Any: ...


class GoalCost(Parameters):
    """1/2 sum_i w_i (x_i - goal_i)^2 + 1/2 sum_j r_j u_j^2."""

    def __init__(
        self,
        goal: tuple[float, ...],
        weights: tuple[float, ...],
        penalties: tuple[float, ...],
        **others: Any,
    ) -> None:
        super().__init__(goal=goal, weights=weights, penalties=penalties, **others)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The stage cost."""
        of_state: Tensor = (self.weights * (state - self.goal).square()).sum(-1)
        of_control: Tensor = (self.penalties * control.square()).sum(-1)
        return 0.5 * of_state + 0.5 * of_control


def runge_kutta(rate: Callable[[Value], Any], state: Value, step: float) -> Value:
    """One step of the classical method of order four, for the rate of change of a state."""
    k1 = rate(state)
    k2 = rate(state + step / 2 * k1)
    k3 = rate(state + step / 2 * k2)
    k4 = rate(state + step * k3)
    reached: Value = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return reached
