"""The two control problems of Amos et al. (2018), section 5: data, start states, controllers.

Horizon 20, time step 0.05 s, stage cost 1/2 sum_i q_i tau_i^2 + p' tau with tau = (x, u). The
angle theta is 0 upright. Pendulum: state (cos theta, sin theta, theta_dot); cart-pole: state
(x, x_dot, cos theta, sin theta, theta_dot).
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpc_gym.models import CartPoleDynamics, Dynamics, PendulumDynamics, QuadraticCost
from mpc_gym.mpc import MPC

Array = NDArray[np.float64]

HORIZON = 20
TIME_STEP = 0.05
CONTROL_PENALTY = 0.001
REFERENCE = Path(__file__).parents[1] / "tests" / "mpc" / "data" / "paper_problem.npz"


@dataclass(frozen=True, eq=False)
class PaperProblem:
    """One of the two systems."""

    name: str
    parameters: dict[str, float]  # physical, in the order of the reference file
    goal: tuple[float, ...]
    weights: tuple[float, ...]
    limit: float  # of the control's absolute value

    @property
    def n_state(self) -> int:
        """Number of states."""
        return len(self.goal)

    @property
    def q(self) -> Array:
        """Diagonal of the cost's quadratic term, [n_state + 1]."""
        return np.array([*self.weights, CONTROL_PENALTY])

    @property
    def p(self) -> Array:
        """The cost's linear term, [n_state + 1]."""
        linear: Array = -np.array([*self.weights, 0.0]) * np.array([*self.goal, 0.0])
        return linear

    def reference(self, key: str) -> Array:
        """An array of the reference file, one row a start state (see its README)."""
        return _reference()[f"{self.name}_{key}"]

    def fresh(self, count: int, seed: int) -> Array:
        """Start states drawn as in the paper, [count, n_state]."""
        random = np.random.default_rng(seed)
        if self.name == "pendulum":
            theta, speed = (
                random.uniform(-np.pi / 2, np.pi / 2, count),
                random.uniform(-1, 1, count),
            )
            return _columns(np.cos(theta), np.sin(theta), speed)
        position, velocity = random.uniform(-0.5, 0.5, (2, count))
        theta = random.uniform(-np.pi, np.pi, count)
        speed = random.uniform(-1, 1, count)
        return _columns(position, velocity, np.cos(theta), np.sin(theta), speed)

    def start_states(self, count: int, seed: int) -> Array:
        """Those of the reference file first, then fresh ones, [count, n_state]."""
        known = self.reference("x_init")
        return np.concatenate((known, self.fresh(max(0, count - len(known)), seed)))[:count]

    def dynamics(self) -> Dynamics:
        """The system as a module of this project."""
        if self.name == "pendulum":
            return PendulumDynamics(**self.parameters, max_speed=None, dt=TIME_STEP)
        return CartPoleDynamics(**self.parameters, dt=TIME_STEP)

    def controller(self, horizon: int = HORIZON, **options: Any) -> MPC:
        """A controller of this project, with the options of `MPC`."""
        goal, weights = (torch.tensor(v, dtype=torch.float64) for v in (self.goal, self.weights))
        cost = QuadraticCost.from_goal(goal, weights, CONTROL_PENALTY)
        return MPC(self.dynamics(), cost, horizon, -self.limit, self.limit, **options)


PENDULUM = PaperProblem(
    name="pendulum",
    parameters={"gravity": 10.0, "mass": 1.0, "length": 1.0},
    goal=(1.0, 0.0, 0.0),
    weights=(1.0, 1.0, 0.1),
    limit=2.0,
)
CARTPOLE = PaperProblem(
    name="cartpole",
    parameters={"gravity": 9.8, "cart_mass": 1.0, "pole_mass": 0.1, "pole_length": 0.5},
    goal=(0.0, 0.0, 1.0, 0.0, 0.0),
    weights=(0.1, 0.1, 1.0, 1.0, 0.1),
    limit=100.0,
)
PROBLEMS = (PENDULUM, CARTPOLE)


def _columns(*values: Array) -> Array:
    table: Array = np.stack(values, -1)
    return table


@cache
def _reference() -> dict[str, Array]:
    with np.load(REFERENCE, allow_pickle=False) as file:
        return dict(file)
