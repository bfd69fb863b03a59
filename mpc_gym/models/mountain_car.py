"""The car in a valley of Gymnasium's MountainCarContinuous-v0 (Moore 1990).

    v_next = clip(v + power u - gravity cos(3 x)),   x_next = clip(x + v_next)

The ground is sin(3 x), so that gravity / 3 sin(3 x) + v^2 / 2 is what the car keeps without power.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.checks import check_number
from mpc_gym.models.base import Cost, Dynamics, physical_parameter

MIN_POSITION, MAX_POSITION, MAX_SPEED = -1.2, 0.6, 0.07
GOAL, MARGIN = 0.45, 0.01


class MountainCarDynamics(Dynamics):
    """A car that has to swing out of a valley, since its engine is too weak to climb it at once.

    State `(position, velocity)`, per step of the environment, whose unit of time the step is;
    control `(throttle,)`, in [-1, 1]. It stops at the left end, at -1.2.

    Args:
        power: acceleration at full throttle.
        gravity: acceleration on a slope of 45 degrees, about.

    Raises:
        ValueError: a parameter is not finite, or not positive.
    """

    n_state = 2
    n_ctrl = 1
    positive_parameters = ("power", "gravity")

    def __init__(self, power: float = 0.0015, gravity: float = 0.0025) -> None:
        super().__init__()
        self.power = physical_parameter("power", power, positive=True)
        self.gravity = physical_parameter("gravity", gravity, positive=True)

    def forward(
        self, state: Float[Tensor, "*batch 2"], control: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch 2"]:
        """The state one step later."""
        position, velocity = state.unbind(-1)
        velocity = velocity + self.power * control[..., 0] - self.gravity * torch.cos(3 * position)
        velocity = velocity.clamp(-MAX_SPEED, MAX_SPEED)
        position = position + velocity
        velocity = torch.where((position <= MIN_POSITION) & (velocity < 0), 0.0, velocity)
        position = position.clamp(MIN_POSITION, MAX_POSITION)
        return torch.stack((position, velocity), -1).to(state.dtype)


class MountainCarCost(Cost):
    """The throttle, as the environment counts it, and the energy that is missing to arrive.

    The environment rewards the arrival alone, with 100, of which a plan that ends before it sees
    nothing. So this asks for the energy with which the car rolls to the goal by itself:

        throttle_weight u^2 + energy_weight max(0, d),   d = (E_goal - E) / (E_goal - E_bottom),
        E = v^2 / 2 + gravity / 3 sin(3 x)

    (to within the few percent that the length of a step makes).

    Args:
        throttle_weight: of u^2, as in the reward.
        energy_weight: of the missing energy: what a step costs, which is what makes haste pay.
        gravity: of the dynamics, a fact of the environment and no parameter.

    Raises:
        ValueError: a weight is not finite, or gravity is not positive.
    """

    positive_parameters = ("throttle_weight", "energy_weight")

    def __init__(
        self, throttle_weight: float = 0.1, energy_weight: float = 0.05, gravity: float = 0.0025
    ) -> None:
        super().__init__()
        self.throttle_weight = physical_parameter("throttle_weight", throttle_weight)
        self.energy_weight = physical_parameter("energy_weight", energy_weight)
        self.gravity = check_number("gravity", gravity, above=0.0)

    def forward(
        self, state: Float[Tensor, "*batch 2"], control: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch"]:
        """The cost of one step."""
        position, velocity = state.unbind(-1)
        height = self.gravity / 3
        energy = velocity**2 / 2 + height * torch.sin(3 * position)
        goal = height * math.sin(3 * (GOAL + MARGIN))
        missing = ((goal - energy) / (goal + height)).clamp(min=0)
        cost = self.throttle_weight * control[..., 0] ** 2 + self.energy_weight * missing
        return cost.to(state.dtype)
