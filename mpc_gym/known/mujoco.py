"""Gymnasium's environments in MuJoCo: InvertedPendulum, InvertedDoublePendulum and Reacher.

The numbers are those of the XML files that come with Gymnasium (gymnasium/envs/mujoco/assets):
lengths, damping, armature and gear stand there. Masses and inertias follow from the shapes, which
are capsules of 1000 kg/m^3, as MuJoCo finds them.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.known.record import KnownEnvironment
from mpc_gym.models import ChainDynamics, DoublePendulumCost, QuadraticCost, ReacherCost

DENSITY = 1000.0  # of every geom [kg/m^3], MuJoCo's default
TILT = math.atan2(0.001, 0.6)  # InvertedPendulum's pole leans by that where its hinge is at zero


def capsule(radius: float, length: float, mass: float | None = None) -> tuple[float, float]:
    """Mass [kg], and inertia across its axis about its centre [kg m^2], of a capsule.

    Args:
        radius: of the cylinder and of the half balls at its ends [m].
        length: of the cylinder [m].
        mass: [kg]; None: that of `DENSITY`.
    """
    cylinder = math.pi * radius**2 * length
    balls = 4 / 3 * math.pi * radius**3
    total = DENSITY * (cylinder + balls) if mass is None else mass
    tube, ends = (total * part / (cylinder + balls) for part in (cylinder, balls))
    # a half ball's centre of mass is 3/8 of its radius from its base (Steiner's theorem)
    inertia = tube * (3 * radius**2 + length**2) / 12
    inertia += ends * (2 / 5 * radius**2 + length**2 / 4 + 3 / 8 * radius * length)
    return total, inertia


def inverted_pendulum_state(observation: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 5"]:
    """The state of a cart with one link, of InvertedPendulum."""
    position, theta, velocity, speed = observation.unbind(-1)
    leaning = theta + TILT
    return torch.stack((position, torch.cos(leaning), torch.sin(leaning), velocity, speed), -1)


def double_pendulum_state(observation: Float[Tensor, "batch 9"]) -> Float[Tensor, "batch 8"]:
    """The state of a cart with two links, of InvertedDoublePendulum, which clips speeds at 10."""
    position, sin1, sin2, cos1, cos2, *velocities = observation[..., :8].unbind(-1)
    return torch.stack((position, cos1, sin1, cos2, sin2, *velocities), -1)


def reacher_state(
    observation: Float[Tensor, "batch 10"],
) -> tuple[Float[Tensor, "batch 6"], Float[Tensor, "batch 2"]]:
    """The state of two links, of Reacher, and the target."""
    cos1, cos2, sin1, sin2, *rest = observation[..., :8].unbind(-1)
    across, along, speed1, speed2 = rest
    state = torch.stack((cos1, sin1, cos2, sin2, speed1, speed2), -1)
    return state, torch.stack((across, along), -1)


def inverted_pendulum_dynamics(substeps: int) -> ChainDynamics:
    """A cart with one link, as in InvertedPendulum-v5."""
    length = math.hypot(0.001, 0.6)
    mass, inertia = capsule(0.049, length)
    return ChainDynamics(
        [mass],
        [length / 2],
        [inertia],
        cart_mass=capsule(0.1, 0.2)[0],
        damping=[1.0, 1.0],
        gear=[100.0],
        motors=[0],
        dt=0.04,
        substeps=substeps,
    )


def double_pendulum_dynamics(substeps: int) -> ChainDynamics:
    """A cart with two links, as in InvertedDoublePendulum-v5."""
    mass, inertia = capsule(0.045, 0.6)
    return ChainDynamics(
        [mass, mass],
        [0.3, 0.3],
        [inertia, inertia],
        link_length=[0.6],
        cart_mass=capsule(0.1, 0.2)[0],
        damping=[0.05, 0.05, 0.05],
        gear=[500.0],
        motors=[0],
        dt=0.05,
        substeps=substeps,
    )


def reacher_dynamics(substeps: int) -> ChainDynamics:
    """Two links that lie flat, as in Reacher-v5; the second carries the ball at its tip."""
    mass, inertia = capsule(0.01, 0.1)
    tip = DENSITY * 4 / 3 * math.pi * 0.01**3
    forearm = mass + tip
    centre = (mass * 0.05 + tip * 0.11) / forearm
    around = inertia + mass * (centre - 0.05) ** 2
    around += tip * (2 / 5 * 0.01**2 + (0.11 - centre) ** 2)
    return ChainDynamics(
        [mass, forearm],
        [0.05, centre],
        [inertia, around],
        link_length=[0.1],
        gravity=0.0,
        damping=[1.0, 1.0],
        armature=1.0,
        gear=[200.0, 200.0],
        motors=[0, 1],
        dt=0.02,
        substeps=substeps,
    )


def inverted_pendulum() -> KnownEnvironment:
    """InvertedPendulum-v5: the reward is 1 until the pole leans by 0.2 rad."""
    cost = QuadraticCost.from_goal(
        torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 10.0, 0.1, 0.1]), 1e-3
    )
    return KnownEnvironment(
        "InvertedPendulum-v5",
        inverted_pendulum_dynamics(substeps=2),
        cost,
        (-3.0,),
        (3.0,),
        horizon=25,
        state=inverted_pendulum_state,
        planned=inverted_pendulum_dynamics(substeps=1),
    )


def inverted_double_pendulum() -> KnownEnvironment:
    """InvertedDoublePendulum-v5: its own cost, with other weights."""
    return KnownEnvironment(
        "InvertedDoublePendulum-v5",
        double_pendulum_dynamics(substeps=5),
        DoublePendulumCost(),
        (-1.0,),
        (1.0,),
        horizon=20,
        state=double_pendulum_state,
        planned=double_pendulum_dynamics(substeps=1),
        # from controls of zero the upright pendulums fall, and plans are far from there
        options={"starts": 4, "max_iterations": 200},
    )


def reacher() -> KnownEnvironment:
    """Reacher-v5: its own cost, but for the kink at the target."""
    return KnownEnvironment(
        "Reacher-v5",
        reacher_dynamics(substeps=2),
        ReacherCost(),
        (-1.0, -1.0),
        (1.0, 1.0),
        horizon=20,
        state=reacher_state,
        planned=reacher_dynamics(substeps=1),
        options={"starts": 4},
    )
