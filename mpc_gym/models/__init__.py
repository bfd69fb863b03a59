"""Dynamics and stage costs: plain PyTorch modules, independent of the rest of the project."""

from mpc_gym.models.acrobot import AcrobotCost, AcrobotDynamics
from mpc_gym.models.base import Cost, Dynamics
from mpc_gym.models.car import CarDynamics, ParkingCost, RoadWalls
from mpc_gym.models.cartpole import CartPoleDynamics, CartPoleTrack
from mpc_gym.models.chain import ChainDynamics
from mpc_gym.models.contextual import ContextualCost
from mpc_gym.models.double_pendulum import DoublePendulumCost
from mpc_gym.models.learned import LearnedDynamics
from mpc_gym.models.linear import LinearDynamics
from mpc_gym.models.mountain_car import MountainCarCost, MountainCarDynamics
from mpc_gym.models.neural import NeuralDynamics
from mpc_gym.models.pendulum import PendulumCost, PendulumDynamics
from mpc_gym.models.planar_quadrotor import DiscObstacle, PlanarQuadrotorDynamics
from mpc_gym.models.positive import current_values, keep_positive
from mpc_gym.models.quadratic import QuadraticCost
from mpc_gym.models.reacher import ReacherCost
from mpc_gym.models.rollout import Rollout, rollout
from mpc_gym.models.swing_up import AcrobotRiseCost, AcrobotSwingUpCost, CartPoleSwingUpCost
from mpc_gym.models.wrapped import LinearCost, TerminalCost

__all__ = [
    "AcrobotCost",
    "AcrobotDynamics",
    "AcrobotRiseCost",
    "AcrobotSwingUpCost",
    "CarDynamics",
    "CartPoleDynamics",
    "CartPoleSwingUpCost",
    "CartPoleTrack",
    "ChainDynamics",
    "ContextualCost",
    "Cost",
    "DiscObstacle",
    "DoublePendulumCost",
    "Dynamics",
    "LearnedDynamics",
    "LinearCost",
    "LinearDynamics",
    "MountainCarCost",
    "MountainCarDynamics",
    "NeuralDynamics",
    "ParkingCost",
    "PendulumCost",
    "PendulumDynamics",
    "PlanarQuadrotorDynamics",
    "QuadraticCost",
    "ReacherCost",
    "RoadWalls",
    "Rollout",
    "TerminalCost",
    "current_values",
    "keep_positive",
    "rollout",
]
