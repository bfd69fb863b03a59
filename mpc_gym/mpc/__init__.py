"""The differentiable controller: solver, derivative of the optimum, and the MPC module."""

from mpc_gym.mpc.controller import MPC
from mpc_gym.mpc.plan import Plan

__all__ = ["MPC", "Plan"]
