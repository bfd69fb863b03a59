"""Differentiable model predictive control as Gymnasium environments and SB3 policies.

Importing it registers the environments with Gymnasium. It does not import Stable-Baselines3: the
policies are in `mpc_gym.policies`.
"""

from mpc_gym.envs import make_sb3_vec_env, register_environments
from mpc_gym.make_mpc import make_mpc
from mpc_gym.models import CartPoleDynamics, PendulumDynamics, QuadraticCost, rollout
from mpc_gym.mpc import MPC, Plan

__version__ = "0.1.0"

__all__ = [
    "MPC",
    "CartPoleDynamics",
    "PendulumDynamics",
    "Plan",
    "QuadraticCost",
    "__version__",
    "make_mpc",
    "make_sb3_vec_env",
    "rollout",
]

register_environments()
