"""Stable-Baselines3 policies that plan."""

from mpc_gym.policies.mpc_policy import MPCPolicy
from mpc_gym.policies.receding_horizon import RecedingHorizon

__all__ = ["MPCPolicy", "RecedingHorizon"]
