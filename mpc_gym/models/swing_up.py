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
RADIUS = 0.2  # of the target of acrobot-swingup [m]
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


class _AcrobotCost(Cost):
    """A cost of an acrobot by its energy, with the letters at the head of `models/acrobot.py`.

    Args:
        dynamics: whose energy it is, by the values that its parameters have now. Links of 1 m.
    """

    def __init__(self, dynamics: AcrobotDynamics) -> None:
        super().__init__()
        model = {name: value.item() for name, value in dynamics.named_parameters()}
        first, second = model["upper_mass"], model["lower_mass"]
        length, centre = model["upper_length"], model["lower_centre"]
        self.a = first * model["upper_centre"] ** 2 + model["upper_inertia"]
        self.a += second * (length**2 + centre**2) + model["lower_inertia"]
        self.b = second * length * centre
        self.d = second * centre**2 + model["lower_inertia"]
        self.e = model["gravity"] * (first * model["upper_centre"] + second * length)
        self.f = model["gravity"] * second * centre

    def missing(self, state: Float[Tensor, "*batch 6"], needed: float) -> Float[Tensor, "*batch"]:
        """What the energy lacks to be `needed` [J], as a part of what it lacks at rest."""
        cos1, sin1, cos2, sin2, speed1, speed2 = state.unbind(-1)
        swing = self.b * cos2
        kinetic = 0.5 * (self.a + 2 * swing) * speed1**2 + 0.5 * self.d * speed2**2
        kinetic = kinetic + (self.d + swing) * speed1 * speed2
        energy = kinetic - self.e * cos1 - self.f * (cos1 * cos2 - sin1 * sin2)
        return (needed - energy) / (needed + self.e + self.f)


class AcrobotSwingUpCost(_AcrobotCost):
    """How far an acrobot's tip is from upright, and its energy from that of standing there.

    The reward of acrobot-swingup is a bell about the target, of radius 0.2 m and margin 1 m, which
    tells nothing where the links hang. This has a slope everywhere:

        distance_weight (sqrt(r^2 + 0.2^2) - 0.2) + energy_weight d^2 + torque_weight u^2

    with r the distance from the tip to where it is upright [m], and d the energy that is missing,
    as a part of what is missing at rest. (Without the energy, plans of two seconds leave some
    acrobots hanging, and turn others in circles.)

    Args:
        dynamics: see `_AcrobotCost`.
        distance_weight: [1/m].
        energy_weight: of the missing part, squared.
        torque_weight: [1/(N m)^2].
    """

    positive_parameters = ("distance_weight", "energy_weight", "torque_weight")

    def __init__(
        self,
        dynamics: AcrobotDynamics,
        distance_weight: float = 1.0,
        energy_weight: float = 10.0,
        torque_weight: float = 0.01,
    ) -> None:
        super().__init__(dynamics)
        self.distance_weight = physical_parameter("distance_weight", distance_weight)
        self.energy_weight = physical_parameter("energy_weight", energy_weight)
        self.torque_weight = physical_parameter("torque_weight", torque_weight)

    def forward(
        self, state: Float[Tensor, "*batch 6"], control: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch"]:
        """The cost of one time step."""
        cos1, sin1, cos2, sin2 = state[..., :4].unbind(-1)
        across = sin1 + sin1 * cos2 + cos1 * sin2
        below = 2 + cos1 + cos1 * cos2 - sin1 * sin2
        distance = torch.sqrt(across**2 + below**2 + RADIUS**2) - RADIUS
        cost = (
            self.distance_weight * distance
            + self.energy_weight * self.missing(state, self.e + self.f) ** 2
            + self.torque_weight * control[..., 0] ** 2
        )
        return cost.to(state.dtype)


class AcrobotRiseCost(_AcrobotCost):
    """The height and the energy that an acrobot's tip lacks to be at a height of `HEIGHT`.

    Acrobot-v1 rewards nothing but haste: -1 a step until the tip is one link's length above the
    shoulder. A plan that ends before that sees no difference. So this is

        height_weight max(0, H - h) / (H + 2) + energy_weight max(0, d) + torque_weight u^2

    with h = -cos t1 - cos(t1 + t2), H = `HEIGHT`, and d the part of the energy that is missing to
    reach it.

    Args:
        dynamics: see `_AcrobotCost`.
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
        super().__init__(dynamics)
        self.height_weight = physical_parameter("height_weight", height_weight)
        self.energy_weight = physical_parameter("energy_weight", energy_weight)
        self.torque_weight = physical_parameter("torque_weight", torque_weight)

    def forward(
        self, state: Float[Tensor, "*batch 6"], control: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch"]:
        """The cost of one time step."""
        cos1, sin1, cos2, sin2 = state[..., :4].unbind(-1)
        low = (HEIGHT + cos1 + cos1 * cos2 - sin1 * sin2).clamp(min=0) / (HEIGHT + 2)
        # the least that reaches it: the lower link stands, the upper one has hardly risen
        needed = self.e * (HEIGHT - 1) + self.f
        cost = (
            self.height_weight * low
            + self.energy_weight * self.missing(state, needed).clamp(min=0)
            + self.torque_weight * control[..., 0] ** 2
        )
        return cost.to(state.dtype)
