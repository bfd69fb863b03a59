"""Gymnasium's classic control: Pendulum, MountainCarContinuous, CartPole and Acrobot."""

import math

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor

from mpc_gym.known.record import KnownEnvironment
from mpc_gym.models import (
    AcrobotDynamics,
    AcrobotRiseCost,
    CartPoleDynamics,
    MountainCarCost,
    MountainCarDynamics,
    PendulumCost,
    PendulumDynamics,
    QuadraticCost,
)


def cart_pole_state(observation: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 5"]:
    """The state of `CartPoleDynamics`, of CartPole-v1."""
    position, velocity, theta, speed = observation.unbind(-1)
    return torch.stack((position, velocity, torch.cos(theta), torch.sin(theta), speed), -1)


def pendulum() -> KnownEnvironment:
    """Pendulum-v1: dynamics and reward to the last digit."""
    limits = np.array([1, 1, 8], np.float32)
    return KnownEnvironment(
        "Pendulum-v1",
        PendulumDynamics(),
        PendulumCost(),
        (-2.0,),
        (2.0,),
        horizon=40,
        observations=spaces.Box(-limits, limits),
        options={"starts": 8},
    )


def mountain_car() -> KnownEnvironment:
    """MountainCarContinuous-v0: dynamics to the last digit, and another cost."""
    return KnownEnvironment(
        "MountainCarContinuous-v0",
        MountainCarDynamics(),
        MountainCarCost(),
        (-1.0,),
        (1.0,),
        horizon=100,
        observations=spaces.Box(
            np.array([-1.2, -0.07], np.float32), np.array([0.6, 0.07], np.float32)
        ),
        options={"starts": 4},
    )


def cart_pole() -> KnownEnvironment:
    """CartPole-v1: dynamics to the last digit; the reward is 1 until the end."""
    cost = QuadraticCost.from_goal(
        torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, 0.3, 1.0, 3.0, 0.3]), 1e-4
    )
    return KnownEnvironment(
        "CartPole-v1",
        CartPoleDynamics(dt=0.02),
        cost,
        (-10.0,),
        (10.0,),
        horizon=50,
        state=cart_pole_state,
        controls=(-10.0, 10.0),
    )


def acrobot() -> KnownEnvironment:
    """Acrobot-v1: dynamics to the last digit; the reward is -1 until the tip is high enough."""
    dynamics = AcrobotDynamics(dt=0.2, max_shoulder_speed=4 * math.pi, max_elbow_speed=9 * math.pi)
    limits = np.array([1, 1, 1, 1, 4 * math.pi, 9 * math.pi], np.float32)
    return KnownEnvironment(
        "Acrobot-v1",
        dynamics,
        AcrobotRiseCost(dynamics),
        (-1.0,),
        (1.0,),
        horizon=20,
        observations=spaces.Box(-limits, limits),
        controls=(-1.0, 0.0, 1.0),
        options={"starts": 4},
    )
