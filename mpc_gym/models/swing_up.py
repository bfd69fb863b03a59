"""Costs of the swing-ups of the DeepMind Control Suite (Tassa et al. 2018).

There the reward of a step is made of numbers from 0 to 1, most of them bells, with the value 0.1 at
a margin: exp(ln(0.1) (distance / margin)^2).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.models.acrobot import AcrobotDynamics
from mpc_gym.models.base import Cost, physical_parameter

LOG_AT_MARGIN = math.log(0.1)
HEIGHT = 1.1  # of an acrobot's tip above the shoulder, 0.1 more than Acrobot-v1 asks for [m]


def bell(distance: Tensor, margin: float) -> Tensor:
    """1 at a distance of zero, 0.1 at `margin`."""
    return torch.exp(LOG_AT_MARGIN * (distance / margin) ** 2)


class CartPoleSwingUpCost(Cost):
    """1 minus the reward of cartpole-swingup, for `ChainDynamics` with a cart and one link.

    The reward is upright * centred * small_control * small_velocity, with

        upright = (cos theta + 1) / 2                centred = (1 + bell of x, margin 2 m) / 2
        small_control = (4 + 1 - u^2) / 5            small_velocity = (1 + bell of theta', 5/s) / 2

    Args:
        scale: what the whole is multiplied by.
    """

    positive_parameters = ("scale",)

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = physical_parameter("scale", scale, positive=True)

    def forward(
        self, state: Float[Tensor, "*batch 5"], control: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch"]:
        """The cost of one time step."""
        position, cosine, _, _, speed = state.unbind(-1)
        upright = (cosine + 1) / 2
        centred = (1 + bell(position, 2.0)) / 2
        small_control = (5 - control[..., 0] ** 2) / 5
        small_velocity = (1 + bell(speed, 5.0)) / 2
        reward = upright * centred * small_control * small_velocity
        return (self.scale * (1 - reward)).to(state.dtype)


class TipCost(Cost):
    """How far the tip of two equal links is from upright, for `AcrobotDynamics`.

    The reward of acrobot-swingup is a bell about the target, of radius 0.2 m and margin 1 m, which
    tells nothing where the links hang. This has a slope everywhere:

        distance_weight r + speed_weight (theta_1'^2 + theta_2'^2) + torque_weight u^2,
        r = sqrt(d^2 + 0.2^2) - 0.2 with d the distance from the tip to where it is upright [m]

    Args:
        distance_weight: [1/m].
        speed_weight: [s^2/rad^2].
        torque_weight: of the squared command.
    """

    positive_parameters = ("distance_weight", "speed_weight", "torque_weight")

    def __init__(
        self, distance_weight: float = 1.0, speed_weight: float = 0.001, torque_weight: float = 0.01
    ) -> None:
        super().__init__()
        self.distance_weight = physical_parameter("distance_weight", distance_weight)
        self.speed_weight = physical_parameter("speed_weight", speed_weight)
        self.torque_weight = physical_parameter("torque_weight", torque_weight)

    def forward(
        self, state: Float[Tensor, "*batch 6"], control: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch"]:
        """The cost of one time step."""
        cos1, sin1, cos2, sin2, first_speed, second_speed = state.unbind(-1)
        across = sin1 + sin1 * cos2 + cos1 * sin2
        below = 2 + cos1 + cos1 * cos2 - sin1 * sin2
        distance = torch.sqrt(across**2 + below**2 + 0.04) - 0.2
        cost = (
            self.distance_weight * distance
            + self.speed_weight * (first_speed**2 + second_speed**2)
            + self.torque_weight * control[..., 0] ** 2
        )
        return cost.to(state.dtype)


class AcrobotRiseCost(Cost):
    """The height and the energy that an acrobot's tip lacks to be at a height of `HEIGHT`.

    Acrobot-v1 rewards nothing but haste: -1 a step until the tip is one link's length above the
    shoulder. A plan that ends before that sees no difference. So this is, for `AcrobotDynamics`
    with links of 1 m and the energy E as at the head of `models/acrobot.py`,

        height_weight max(0, H - h) / (H + 2) + energy_weight max(0, E_H - E) / (E_H - E_down)
            + torque_weight u^2

    with h = -cos t1 - cos(t1 + t2) and E_H the least energy that reaches H = `HEIGHT`.

    Args:
        dynamics: whose energy it is, by the values that its parameters have now.
        height_weight, energy_weight: of what is missing, as a part of what is missing at rest.
        torque_weight: [1/(N m)^2].
    """

    positive_parameters = ("height_weight", "energy_weight", "torque_weight")

    def __init__(
        self,
        dynamics: AcrobotDynamics,
        height_weight: float = 1.0,
        energy_weight: float = 1.0,
        torque_weight: float = 1e-4,
    ) -> None:
        super().__init__()
        self.height_weight = physical_parameter("height_weight", height_weight)
        self.energy_weight = physical_parameter("energy_weight", energy_weight)
        self.torque_weight = physical_parameter("torque_weight", torque_weight)
        model = {name: value.item() for name, value in dynamics.named_parameters()}
        first, second = model["upper_mass"], model["lower_mass"]
        length, centre = model["upper_length"], model["lower_centre"]
        self.a = first * model["upper_centre"] ** 2 + model["upper_inertia"]
        self.a += second * (length**2 + centre**2) + model["lower_inertia"]
        self.b = second * length * centre
        self.d = second * centre**2 + model["lower_inertia"]
        self.e = model["gravity"] * (first * model["upper_centre"] + second * length)
        self.f = model["gravity"] * second * centre

    def forward(
        self, state: Float[Tensor, "*batch 6"], control: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch"]:
        """The cost of one time step."""
        cos1, sin1, cos2, sin2, speed1, speed2 = state.unbind(-1)
        lower = cos1 * cos2 - sin1 * sin2  # the cosine of the lower link's angle in the plane
        swing = self.b * cos2
        kinetic = 0.5 * (self.a + 2 * swing) * speed1**2 + 0.5 * self.d * speed2**2
        kinetic = kinetic + (self.d + swing) * speed1 * speed2
        energy = kinetic - self.e * cos1 - self.f * lower
        needed = self.e * (HEIGHT - 1) + self.f  # the lower link stands, the upper one hardly rises
        low = (HEIGHT + cos1 + lower).clamp(min=0) / (HEIGHT + 2)
        missing = ((needed - energy) / (needed + self.e + self.f)).clamp(min=0)
        cost = (
            self.height_weight * low
            + self.energy_weight * missing
            + self.torque_weight * control[..., 0] ** 2
        )
        return cost.to(state.dtype)
