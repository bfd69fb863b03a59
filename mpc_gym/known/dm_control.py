"""Swing-ups of the DeepMind Control Suite, through shimmy: pendulum, cart-pole and acrobot.

The numbers are those of the XML files that come with dm_control (dm_control/suite).
"""

import torch
from torch import Tensor

from mpc_gym.known.mujoco import capsule
from mpc_gym.known.record import KnownEnvironment
from mpc_gym.models import (
    AcrobotDynamics,
    AcrobotSwingUpCost,
    CartPoleSwingUpCost,
    ChainDynamics,
    PendulumCost,
    PendulumDynamics,
)

Observation = dict[str, Tensor]


def pendulum_state(observation: Observation) -> Tensor:
    """The state of `PendulumDynamics`, of pendulum-swingup."""
    return torch.cat((observation["orientation"], observation["velocity"]), -1)


def cart_pole_state(observation: Observation) -> Tensor:
    """The state of a cart with one link, of cartpole-swingup."""
    return torch.cat((observation["position"], observation["velocity"]), -1)


def acrobot_state(observation: Observation) -> Tensor:
    """The state of `AcrobotDynamics`, of acrobot-swingup.

    There an angle is zero where a link stands, here where it hangs, and both are of a link in the
    plane; the second is relative to the first here.
    """
    sin1, sin2, cos1, cos2 = observation["orientations"].unbind(-1)
    together, across = cos1 * cos2 + sin1 * sin2, cos1 * sin2 - sin1 * cos2
    angles = torch.stack((-cos1, -sin1, together, across), -1)
    return torch.cat((angles, observation["velocity"]), -1)


def pendulum() -> KnownEnvironment:
    """pendulum-swingup: a ball of 1 kg and 5 cm at 0.5 m, damping 0.1 N m s, torque within 1 N m.

    MuJoCo integrates it as `PendulumDynamics` does, but with damping at the end of the step, which
    is as if the inertia were larger by damping times dt. That of a rod is m l^2 / 3, and its weight
    pulls at l / 2: mass and length below are those of the rod that moves alike.
    """
    gravity, ball, arm, radius, damping, dt = 9.81, 1.0, 0.5, 0.05, 0.1, 0.02
    inertia = ball * (arm**2 + 2 / 5 * radius**2) + damping * dt
    length = 1.5 * inertia / (ball * arm)
    dynamics = PendulumDynamics(
        gravity,
        mass=3 * inertia / length**2,
        length=length,
        damping=damping / inertia,
        max_speed=None,
        dt=dt,
    )
    return KnownEnvironment(
        "dm_control/pendulum-swingup-v0",
        dynamics,
        PendulumCost(speed_weight=0.01),
        (-1.0,),
        (1.0,),
        horizon=150,
        state=pendulum_state,
        options={"starts": 8},
    )


def cart_pole() -> KnownEnvironment:
    """cartpole-swingup: its own cost."""
    mass, inertia = capsule(0.045, 1.0, mass=0.1)
    dynamics = ChainDynamics(
        [mass],
        [0.5],
        [inertia],
        cart_mass=1.0,
        damping=[5e-4, 2e-6],
        gear=[10.0],
        motors=[0],
        dt=0.01,
    )
    return KnownEnvironment(
        "dm_control/cartpole-swingup-v0",
        dynamics,
        CartPoleSwingUpCost(),
        (-1.0,),
        (1.0,),
        horizon=150,
        state=cart_pole_state,
        options={"starts": 4},
    )


def acrobot() -> KnownEnvironment:
    """acrobot-swingup: another cost."""
    upper, lower = capsule(0.05, 1.0, mass=1.0)[1], capsule(0.049, 1.0, mass=1.0)[1]
    dynamics = AcrobotDynamics(
        gravity=9.81,
        upper_inertia=upper,
        lower_inertia=lower,
        shoulder_damping=0.05,
        elbow_damping=0.05,
        dt=0.01,
    )
    return KnownEnvironment(
        "dm_control/acrobot-swingup-v0",
        dynamics,
        AcrobotSwingUpCost(dynamics),
        (-2.0,),
        (2.0,),
        horizon=200,
        state=acrobot_state,
        control_scale=(-2.0, 2.0),
        options={"starts": 4},
    )
