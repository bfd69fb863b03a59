"""Four systems with constraints on their states: data, start states, controllers.

| system | state | constraint | control limit | horizon |
|---|---|---|---|---|
| cart-pole on a track | position, velocity, cos, sin, angular velocity | +-0.6 m | 30 N | 25 |
| slow pendulum | cos, sin, angular velocity | +-0.5 rad/s | 2 N m | 20 |
| round an obstacle | position (2), velocity (2) | outside a disc of radius 0.6 m | 2 N | 30 |
| to the origin | position (2), velocity (2) | the last state is zero | 5 N | 30 |

The angle is 0 upright. Stage cost: 1/2 sum_i w_i (x_i - goal_i)^2 + 1/2 r |u|^2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.problems import Array
from mpc_gym.models import CartPoleDynamics, PendulumDynamics
from mpc_gym.mpc import MPC

TIME_STEP = 0.1  # of the point mass [s]
MASS, DRAG = 1.0, 0.1
CENTRE, RADIUS = (0.0, 0.1), 0.6


class PointMass(nn.Module):
    """A mass in the plane with linear drag; semi-implicit Euler."""

    n_state, n_ctrl = 4, 2

    def __init__(self) -> None:
        super().__init__()
        self.mass = nn.Parameter(torch.tensor(MASS, dtype=torch.float64))
        self.drag = nn.Parameter(torch.tensor(DRAG, dtype=torch.float64))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The next state."""
        position, velocity = state[..., :2], state[..., 2:]
        velocity = velocity + TIME_STEP * (control / self.mass - self.drag * velocity)
        return torch.cat((position + TIME_STEP * velocity, velocity), -1)


class GoalCost(nn.Module):
    """Weighted squares of the distance to a goal and of the controls."""

    def __init__(self, goal: tuple[float, ...], weights: tuple[float, ...], penalty: float) -> None:
        super().__init__()
        self.goal = nn.Parameter(torch.tensor(goal, dtype=torch.float64))
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
        self.penalty = nn.Parameter(torch.tensor(penalty, dtype=torch.float64))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The stage cost."""
        of_state = (self.weights * (state - self.goal).square()).sum(-1)
        return 0.5 * of_state + 0.5 * self.penalty * control.square().sum(-1)


class Within(nn.Module):
    """An entry of the state lies within +-limit."""

    def __init__(self, entry: int, limit: float) -> None:
        super().__init__()
        self.entry = entry
        self.limit = nn.Parameter(torch.tensor(limit, dtype=torch.float64))

    def forward(self, state: Tensor, _control: Tensor) -> Tensor:
        """Two rows."""
        value = state[..., self.entry]
        return torch.stack((value - self.limit, -value - self.limit), -1)


class Outside(nn.Module):
    """The position lies outside a disc."""

    def __init__(self) -> None:
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(RADIUS, dtype=torch.float64))
        self.centre = nn.Parameter(torch.tensor(CENTRE, dtype=torch.float64))

    def forward(self, state: Tensor, _control: Tensor) -> Tensor:
        """One row."""
        distance = (state[..., :2] - self.centre).square().sum(-1, keepdim=True)
        return self.radius.square() - distance


class Reaches(nn.Module):
    """The state is at a place."""

    def __init__(self, n_state: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(n_state, dtype=torch.float64))

    def forward(self, state: Tensor) -> Tensor:
        """A row for each entry of the state."""
        return state - self.place


@dataclass(frozen=True, eq=False)
class ConstrainedSystem:
    """A system, its constraints, and where it starts."""

    name: str
    dynamics: Callable[[], nn.Module]
    goal: tuple[float, ...]
    weights: tuple[float, ...]
    penalty: float
    horizon: int
    limit: float  # of each control's absolute value
    constraints: Callable[[], nn.Module] | None
    equalities: Callable[[], nn.Module] | None
    draw: Callable[[Callable[[float], Array]], tuple[Array, ...]]
    feasible: Callable[[Tensor], Tensor] = lambda x_init: torch.ones(len(x_init), dtype=torch.bool)

    @property
    def n_ctrl(self) -> int:
        """Number of controls."""
        return 2 if self.dynamics is PointMass else 1

    def start_states(self, count: int, seed: int) -> Tensor:
        """Feasible start states, [count, n_state]."""
        random = np.random.default_rng(seed)
        columns = self.draw(lambda width: random.uniform(-width, width, 2 * count))
        found = torch.tensor(np.stack(columns, -1))
        return found[self.feasible(found)][:count]

    def controller(self, **options: Any) -> MPC:
        """A controller, with the options of `MPC`."""
        given = {
            "constraints": None if self.constraints is None else self.constraints(),
            "terminal_equalities": None if self.equalities is None else self.equalities(),
            **options,
        }
        cost = GoalCost(self.goal, self.weights, self.penalty)
        return MPC(self.dynamics(), cost, self.horizon, -self.limit, self.limit, **given)


def _cart_pole(uniform: Callable[[float], Array]) -> tuple[Array, ...]:
    theta = uniform(np.pi)
    return uniform(0.5), uniform(0.5), np.cos(theta), np.sin(theta), uniform(1.0)


def _pendulum(uniform: Callable[[float], Array]) -> tuple[Array, ...]:
    theta = uniform(0.35)
    return np.cos(theta), np.sin(theta), uniform(0.4)


def _can_slow_down(x_init: Tensor) -> Tensor:
    """Whether the torque that brakes most, up to standstill, keeps the speed limit."""
    dynamics, x = SLOW.dynamics(), x_init
    kept = torch.ones(len(x), dtype=torch.bool)
    with torch.no_grad():
        for _ in range(SLOW.horizon - 1):
            low, high = (dynamics(x, torch.full((len(x), 1), u))[:, 2] for u in (-2.0, 2.0))
            torque = (4.0 * low / (low - high) - 2.0).clamp(-2.0, 2.0)  # speed is linear in it
            x = dynamics(x, torque.unsqueeze(1))
            kept &= x[:, 2].abs() < 0.499
    return kept


def _left_of_the_disc(uniform: Callable[[float], Array]) -> tuple[Array, ...]:
    return uniform(0.3) - 1.9, uniform(0.5), uniform(0.35) + 0.15, uniform(0.3)


TRACK = ConstrainedSystem(
    "cart-pole on a track",
    CartPoleDynamics,
    (0.0, 0.0, 1.0, 0.0, 0.0),
    (0.1, 0.1, 1.0, 1.0, 0.1),
    0.001,
    25,
    30.0,
    lambda: Within(0, 0.6),
    None,
    _cart_pole,
)
SLOW = ConstrainedSystem(
    "slow pendulum",
    lambda: PendulumDynamics(max_speed=None),
    (1.0, 0.0, 0.0),
    (1.0, 1.0, 0.1),
    0.001,
    20,
    2.0,
    lambda: Within(2, 0.5),
    None,
    _pendulum,
    _can_slow_down,
)
OBSTACLE = ConstrainedSystem(
    "round an obstacle",
    PointMass,
    (1.5, 0.0, 0.0, 0.0),
    (1.0, 1.0, 0.1, 0.1),
    0.05,
    30,
    2.0,
    Outside,
    None,
    _left_of_the_disc,
)
ORIGIN = ConstrainedSystem(
    "to the origin",
    PointMass,
    (0.0, 0.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 0.0),
    1.0,
    30,
    5.0,
    None,
    lambda: Reaches(4),
    _left_of_the_disc,
)
SYSTEMS = (TRACK, SLOW, OBSTACLE, ORIGIN)
