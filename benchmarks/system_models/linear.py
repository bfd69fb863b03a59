"""Linear systems: a large one, and two problems that others have published times of.

- Frey, Baumgärtner, Frison et al., *Differentiable nonlinear model predictive control*, arXiv
  2505.01353 (May 2025), table 1: 8 states, 4 controls, 21 stages, 128 start states.
- Bravo-Palacios, Zhang, Pestrikov et al., *TurboMPC*, arXiv 2606.24039 (June 2026): the nominal
  problem, of the same sizes, 40 stages, 64 start states.

The cost is 1/2 |x|^2 + 1/2 |u|^2 at every stage.
"""

from functools import cache, partial

import numpy as np
import torch

from benchmarks.problems import Array
from benchmarks.system_models.system import GoalCost, System
from mpc_gym.models import LinearDynamics

SEED = 42
Matrices = tuple[Array, Array, Array, Array]  # A, B, offset, start states


@cache
def large() -> Matrices:
    """30 states and 10 controls; the spectral radius of A is 1.02."""
    random = np.random.RandomState(SEED)
    A = random.normal(size=(30, 30))
    A *= 1.02 / np.abs(np.linalg.eigvals(A)).max()
    return A, random.normal(size=(30, 10)) / np.sqrt(30), np.zeros(30), np.zeros((0, 30))


@cache
def acados() -> Matrices:
    """As acados draws them: A = I + 0.2 R, of spectral radius 1.54; all standard normal."""
    random = np.random.RandomState(SEED)
    A = np.eye(8) + 0.2 * random.normal(size=(8, 8))
    return A, random.normal(size=(8, 4)), random.normal(size=8), random.normal(size=(128, 8))


@cache
def turbo() -> Matrices:
    """A = I + 0.1 R, its eigenvalues of modulus above 0.99 scaled to 0.99; the seed is our own."""
    random = np.random.RandomState(SEED)
    values, vectors = np.linalg.eig(np.eye(8) + 0.1 * random.normal(size=(8, 8)))
    values /= np.maximum(np.abs(values) / 0.99, 1.0)
    A = np.real(vectors @ np.diag(values) @ np.linalg.inv(vectors))
    B, offset = random.normal(size=(8, 4)), 0.01 * random.normal(size=8)
    return A, B, offset, 5.0 * random.normal(size=(64, 8))


def published(name: str, problem: Matrices, horizon: int, limit: float) -> System:
    """One of the published problems, which has its own start states whatever the seed."""
    starts = problem[3]
    return System(
        name,
        horizon,
        (limit,) * 4,
        partial(_dynamics, problem),
        partial(_cost, problem),
        lambda _, count: starts[:count],
        (len(starts),),
    )


def _dynamics(problem: Matrices) -> LinearDynamics:
    return LinearDynamics(*(torch.from_numpy(each) for each in problem[:3]))


def _cost(problem: Matrices) -> GoalCost:
    n_state, n_ctrl = problem[1].shape
    return GoalCost((0.0,) * n_state, (1.0,) * n_state, (1.0,) * n_ctrl)


LINEAR = System(
    "linear",
    20,
    (1.0,) * 10,
    partial(_dynamics, large()),
    partial(_cost, large()),
    lambda random, count: random.normal(size=(count, 30)),
)
ACADOS = tuple(published(f"acados, |u| <= {limit:g}", acados(), 21, limit) for limit in (1e4, 1.0))
TURBO = tuple(published(f"TurboMPC, |u| <= {limit:g}", turbo(), 40, limit) for limit in (10.0, 1.0))
