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
from numpy.typing import NDArray

from mpc_gym.models import Dynamics
from mpc_gym.mpc import MPC
from reproduction import problems
from reproduction.problems import CONTROL_PENALTY, HORIZON, PaperSystem

Array = NDArray[np.float64]

TIME_STEP = 0.05
REFERENCE = Path(__file__).parents[1] / "tests" / "mpc" / "data" / "paper_problem.npz"


@dataclass(frozen=True, eq=False)
class PaperProblem:
    """One of the two systems, with the expert's physics, and its reference file."""

    name: str
    system: PaperSystem

    @property
    def parameters(self) -> dict[str, float]:
        """Physical ones, in the order of the reference file."""
        return dict(self.system.expert)

    @property
    def limit(self) -> float:
        """Of the control's absolute value."""
        return self.system.limit

    @property
    def n_state(self) -> int:
        """Number of states."""
        return len(self.system.goal)

    @property
    def q(self) -> Array:
        """Diagonal of the cost's quadratic term, [n_state + 1]."""
        return np.array([*self.system.weights, CONTROL_PENALTY])

    @property
    def p(self) -> Array:
        """The cost's linear term, [n_state + 1]."""
        linear: Array = -np.array([*self.system.weights, 0.0]) * np.array([*self.system.goal, 0.0])
        return linear

    def reference(self, key: str) -> Array:
        """An array of the reference file, one row a start state (see its README)."""
        return _reference()[f"{self.name}_{key}"]

    def fresh(self, count: int, seed: int) -> Array:
        """Start states drawn as in the paper, [count, n_state]."""
        random = np.random.default_rng(seed)
        coordinates = [random.uniform(-limit, limit, count) for limit in self.system.start_limit]
        return self.system.states_from(np.stack(coordinates, -1))

    def start_states(self, count: int, seed: int) -> Array:
        """Those of the reference file first, then fresh ones, [count, n_state]."""
        known = self.reference("x_init")
        return np.concatenate((known, self.fresh(max(0, count - len(known)), seed)))[:count]

    def dynamics(self) -> Dynamics:
        """The system as a module of this project."""
        return self.system.dynamics(**self.parameters)

    def controller(self, horizon: int = HORIZON, **options: Any) -> MPC:
        """A controller of this project, with the options of `MPC`."""
        cost = self.system.cost()
        return MPC(self.dynamics(), cost, horizon, -self.limit, self.limit, **options)


PENDULUM = PaperProblem("pendulum", problems.PENDULUM)
CARTPOLE = PaperProblem("cartpole", problems.CARTPOLE)
PROBLEMS = (PENDULUM, CARTPOLE)


@cache
def _reference() -> dict[str, Array]:
    with np.load(REFERENCE, allow_pickle=False) as file:
        return dict(file)
