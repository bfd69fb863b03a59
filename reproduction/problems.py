"""The systems of Amos et al. (2018), sections 5.3 and 5.4: experts, learners and their plans.

Start states, costs and limits are the paper's, and so are the physics that a learner begins with.
Where they differ from the environments of this package, which follow Gymnasium: the pendulum's
speed has no limit, its cost is quadratic, and it starts in the upper half.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from mpc_gym import MPC, CartPoleDynamics, PendulumDynamics, QuadraticCost
from mpc_gym.envs import DiffCartPoleEnv, DiffPendulumEnv
from mpc_gym.models import Dynamics

HORIZON = 20
CONTROL_PENALTY = 0.001
TRAINING, VALIDATION, TEST = 100, 10, 10  # plans of the expert

Hessian = Literal["exact", "gauss-newton"]
Physics = Mapping[str, float]


@dataclass(frozen=True)
class PaperSystem:
    """What is controlled.

    Args:
        title: for a reader.
        dynamics: makes the dynamics with given physical parameters.
        expert: the true physics.
        learner: the physics that a learner begins with, and all that it may change.
        goal, weights: of the cost, a number each for every state.
        limit: of the absolute control.
        start_limit: of the coordinates of a start state, which is uniform within.
        states_from: states, from coordinates.
    """

    title: str
    dynamics: Callable[..., Dynamics]
    expert: Physics
    learner: Physics
    goal: tuple[float, ...]
    weights: tuple[float, ...]
    limit: float
    start_limit: tuple[float, ...]
    states_from: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def cost(self) -> QuadraticCost:
        """The paper's cost: near the goal, with little control."""
        goal, weights = (torch.tensor(v, dtype=torch.float64) for v in (self.goal, self.weights))
        return QuadraticCost.from_goal(goal, weights, CONTROL_PENALTY)

    def controller(
        self, dynamics: nn.Module, cost: nn.Module, hessian: Hessian, starts: int
    ) -> MPC:
        """Plans for this system."""
        return MPC(dynamics, cost, HORIZON, -self.limit, self.limit, hessian=hessian, starts=starts)


PENDULUM = PaperSystem(
    title="pendulum",
    dynamics=partial(PendulumDynamics, max_speed=None),
    expert={"gravity": 10.0, "mass": 1.0, "length": 1.0},
    learner={"gravity": 15.0, "mass": 3.0, "length": 0.5},
    goal=(1.0, 0.0, 0.0),
    weights=(1.0, 1.0, 0.1),
    limit=2.0,
    start_limit=(np.pi / 2, 1.0),
    states_from=DiffPendulumEnv.states_from,
)
CARTPOLE = PaperSystem(
    title="cart-pole",
    dynamics=CartPoleDynamics,
    expert={"gravity": 9.8, "cart_mass": 1.0, "pole_mass": 0.1, "pole_length": 0.5},
    learner={"gravity": 9.8, "cart_mass": 3.0, "pole_mass": 0.1, "pole_length": 1.0},
    goal=(0.0, 0.0, 1.0, 0.0, 0.0),
    weights=(0.1, 0.1, 1.0, 1.0, 0.1),
    limit=100.0,
    start_limit=(0.5, 0.5, np.pi, 1.0),
    states_from=DiffCartPoleEnv.states_from,
)
SYSTEMS = {"pendulum": PENDULUM, "cartpole": CARTPOLE}


def windy_pendulum(seed: int) -> PaperSystem:
    """The pendulum in wind and with friction, imitated by one that knows of neither.

    Args:
        seed: of the physics that the learner begins with: around 5, 1 and 1.
    """
    spread = np.random.default_rng([seed, 1]).uniform(-0.5, 0.5, 3)
    guess = np.array([5.0, 1.0, 1.0]) + np.array([3.0, 1.0, 1.0]) * spread
    return replace(
        PENDULUM,
        title="pendulum in wind",
        expert={**PENDULUM.expert, "damping": 1.0, "wind": 0.1},  # as in `DiffPendulumWindy-v0`
        learner=dict(zip(PENDULUM.expert, guess.tolist(), strict=True)),
    )


@dataclass(frozen=True)
class Plans:
    """What an expert planned; the first plans are for training, then come validation and test.

    Args:
        states: [plans, HORIZON, n_state].
        controls: [plans, HORIZON, n_ctrl].
        further: plans after those of the test, to learn from as well.
    """

    states: Float[Tensor, "plans horizon n_state"]
    controls: Float[Tensor, "plans horizon n_ctrl"]
    further: int = 0

    @property
    def validation(self) -> Int[Tensor, " count"]:
        """The rows of the plans for validation."""
        return torch.arange(TRAINING, TRAINING + VALIDATION)

    @property
    def test(self) -> Int[Tensor, " count"]:
        """The rows of the plans for the test."""
        return torch.arange(TRAINING + VALIDATION, len(self.controls) - self.further)

    @property
    def more(self) -> Int[Tensor, " count"]:
        """The rows of further plans for training."""
        return torch.arange(len(self.controls) - self.further, len(self.controls))

    @staticmethod
    def training(count: int) -> Int[Tensor, " count"]:
        """The rows of the first `count` plans for training.

        Raises:
            ValueError: there are not so many.
        """
        if not 1 <= count <= TRAINING:
            raise ValueError(f"count must be between 1 and {TRAINING}, got {count}")
        return torch.arange(count)


def expert_plans(
    system: PaperSystem, seed: int, starts: int = 1, test: int = TEST, more: int = 0
) -> Plans:
    """Plans of the expert, who knows physics and cost, from random start states.

    Args:
        system: whose.
        seed: of the start states.
        starts: initial guesses of the expert; the best plan counts.
        test: number of plans for the test.
        more: number of further plans for training.
    """
    limit = np.array(system.start_limit)
    count = TRAINING + VALIDATION + test + more
    coordinates = np.random.default_rng(seed).uniform(-limit, limit, (count, len(limit)))
    x_init = torch.from_numpy(system.states_from(coordinates))
    mpc = system.controller(system.dynamics(**system.expert), system.cost(), "exact", starts)
    with torch.no_grad():
        plan = mpc(x_init)
    assert bool(plan.converged.all()), "the expert's plans are the data"
    return Plans(plan.states, plan.controls, more)


class LearnedCost(nn.Module):
    """A quadratic cost of which nothing is known but that its matrix is diagonal.

        1/2 sum_i w_i tau_i^2 + sum_i sqrt(w_i) p_i tau_i,   w = sigmoid(logits),  tau = (x, u)

    as in the authors' program; it begins with weights of 1/2 and no linear term.

    Args:
        size: n_state + n_ctrl.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(size, dtype=torch.float64))
        self.p = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(
        self, state: Float[Tensor, "*batch n_state"], control: Float[Tensor, "*batch n_ctrl"]
    ) -> Float[Tensor, "*batch"]:
        """The stage cost."""
        tau = torch.cat((state, control), -1)
        weights = torch.sigmoid(self.logits.to(tau.dtype))
        linear = weights.sqrt() * self.p.to(tau.dtype)
        return ((0.5 * weights * tau + linear) * tau).sum(-1)
