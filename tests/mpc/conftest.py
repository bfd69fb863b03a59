"""The paper's two problems, their reference solutions, and a controller on each backend."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mpc_gym.models import CartPoleDynamics, Dynamics, PendulumDynamics, QuadraticCost
from mpc_gym.mpc import MPC

HORIZON = 20


@dataclass(frozen=True)
class PaperProblem:
    """One system of Amos et al. (2018), section 5, with solutions found by other solvers."""

    name: str
    control_limit: float
    reference: dict[str, np.ndarray]

    @property
    def x_init(self) -> Tensor:
        return self("x_init")

    def __call__(self, key: str) -> Tensor:
        """An array of the reference file (see tests/mpc/data/README.md)."""
        return torch.tensor(self.reference[f"{self.name}_{key}"])

    def dynamics(self) -> Dynamics:
        return PendulumDynamics(max_speed=None) if self.name == "pendulum" else CartPoleDynamics()

    def cost(self) -> QuadraticCost:
        goal, weights = {
            "pendulum": ([1.0, 0.0, 0.0], [1.0, 1.0, 0.1]),
            "cartpole": ([0.0, 0.0, 1.0, 0.0, 0.0], [0.1, 0.1, 1.0, 1.0, 0.1]),
        }[self.name]
        float64 = torch.float64
        return QuadraticCost.from_goal(
            torch.tensor(goal, dtype=float64), torch.tensor(weights, dtype=float64), 0.001
        )


@pytest.fixture(params=["torch", "native"])
def backend(request: pytest.FixtureRequest) -> str:
    """What solves; a further backend is tested by adding its name here."""
    return request.param


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    path = Path(__file__).parent / "data" / "paper_problem.npz"
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def pendulum(reference: dict[str, np.ndarray]) -> PaperProblem:
    return PaperProblem("pendulum", 2.0, reference)


@pytest.fixture
def cartpole(reference: dict[str, np.ndarray]) -> PaperProblem:
    return PaperProblem("cartpole", 100.0, reference)


@pytest.fixture(params=["pendulum", "cartpole"])
def paper(request: pytest.FixtureRequest) -> PaperProblem:
    problem: PaperProblem = request.getfixturevalue(request.param)
    return problem


@pytest.fixture
def paper_mpc(backend: str) -> Callable[..., MPC]:
    """Makes the controller of a paper problem, with options."""

    def make(problem: PaperProblem, horizon: int = HORIZON, **options: object) -> MPC:
        limit = problem.control_limit
        settings = {"control_low": -limit, "control_high": limit, "backend": backend, **options}
        return MPC(problem.dynamics(), problem.cost(), horizon, **settings)

    return make
