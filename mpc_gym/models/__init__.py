"""Dynamics and stage costs: plain PyTorch modules, independent of the rest of the project."""

from mpc_gym.models.acrobot import AcrobotDynamics
from mpc_gym.models.base import Cost, Dynamics
from mpc_gym.models.cartpole import CartPoleDynamics, CartPoleTrack
from mpc_gym.models.contextual import ContextualCost
from mpc_gym.models.linear import LinearDynamics
from mpc_gym.models.neural import NeuralDynamics
from mpc_gym.models.pendulum import PendulumCost, PendulumDynamics
from mpc_gym.models.positive import current_values, keep_positive
from mpc_gym.models.quadratic import QuadraticCost
from mpc_gym.models.rollout import Rollout, rollout
from mpc_gym.models.wrapped import LinearCost, TerminalCost

__all__ = [
    "AcrobotDynamics",
    "CartPoleDynamics",
    "CartPoleTrack",
    "ContextualCost",
    "Cost",
    "Dynamics",
    "LinearCost",
    "LinearDynamics",
    "NeuralDynamics",
    "PendulumCost",
    "PendulumDynamics",
    "QuadraticCost",
    "Rollout",
    "TerminalCost",
    "current_values",
    "keep_positive",
    "rollout",
]
