"""Gymnasium environments whose dynamics and reward can be differentiated."""

from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.cartpole import DiffCartPoleEnv
from mpc_gym.envs.make_sb3_vec_env import make_sb3_vec_env
from mpc_gym.envs.pendulum import DiffPendulumEnv
from mpc_gym.envs.pendulum_windy import DiffPendulumWindyEnv
from mpc_gym.envs.registration import register_environments
from mpc_gym.envs.rollout import Rollout, rollout
from mpc_gym.envs.spaces import EnvBox
from mpc_gym.envs.vector import DiffVectorEnv

__all__ = [
    "DiffCartPoleEnv",
    "DiffEnv",
    "DiffPendulumEnv",
    "DiffPendulumWindyEnv",
    "DiffVectorEnv",
    "EnvBox",
    "Rollout",
    "make_sb3_vec_env",
    "register_environments",
    "rollout",
]
