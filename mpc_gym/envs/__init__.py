"""Gymnasium environments whose dynamics and reward can be differentiated."""

from mpc_gym.envs.acrobot import DiffAcrobotEnv
from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.car import DiffCarEnv
from mpc_gym.envs.cartpole import DiffCartPoleEnv
from mpc_gym.envs.pendulum import DiffPendulumEnv, DiffPendulumWindyEnv
from mpc_gym.envs.planar_quadrotor import DiffPlanarQuadrotorEnv
from mpc_gym.envs.registration import make_sb3_vec_env, register_environments
from mpc_gym.envs.spaces import EnvBox
from mpc_gym.envs.vector import DiffVectorEnv

__all__ = [
    "DiffAcrobotEnv",
    "DiffCarEnv",
    "DiffCartPoleEnv",
    "DiffEnv",
    "DiffPendulumEnv",
    "DiffPendulumWindyEnv",
    "DiffPlanarQuadrotorEnv",
    "DiffVectorEnv",
    "EnvBox",
    "make_sb3_vec_env",
    "register_environments",
]
