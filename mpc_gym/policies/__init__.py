"""Stable-Baselines3 policies that plan."""

from typing import TYPE_CHECKING, Any

from stable_baselines3 import A2C, PPO, SAC, TD3

from mpc_gym.policies.discrete import DiscreteMPCPolicy
from mpc_gym.policies.lstm import LSTMPlanner, LSTMPolicy
from mpc_gym.policies.mpc_policy import MPCPolicy
from mpc_gym.policies.off_policy import SACMPCPolicy, TD3MPCPolicy
from mpc_gym.policies.planning_policy import CriticFirst, PlanningPolicy
from mpc_gym.policies.receding_horizon import RecedingHorizon
from mpc_gym.policies.sharing.pretrained import (
    load_pretrained,
    load_shipped,
    pretrained_kwargs,
    push_to_hub,
    save_pretrained,
    shipped_folder,
    shipped_policies,
)

if TYPE_CHECKING:
    from mpc_gym.policies.tqc import TQCMPCPolicy

__all__ = [
    "CriticFirst",
    "DiscreteMPCPolicy",
    "LSTMPlanner",
    "LSTMPolicy",
    "MPCPolicy",
    "PlanningPolicy",
    "RecedingHorizon",
    "SACMPCPolicy",
    "TD3MPCPolicy",
    "TQCMPCPolicy",
    "load_pretrained",
    "load_shipped",
    "pretrained_kwargs",
    "push_to_hub",
    "save_pretrained",
    "shipped_folder",
    "shipped_policies",
]

# so that an algorithm takes their names too, as it takes "MlpPolicy"
for _algorithm in (A2C, PPO, SAC, TD3):  # DDPG has TD3's
    for _policy in (MPCPolicy, DiscreteMPCPolicy, SACMPCPolicy, TD3MPCPolicy):
        _algorithm.policy_aliases[_policy.__name__] = _policy


def __getattr__(name: str) -> Any:
    """Import `TQCMPCPolicy` when it is asked for: it needs sb3-contrib."""
    if name != "TQCMPCPolicy":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from mpc_gym.policies.tqc import TQCMPCPolicy
    except ModuleNotFoundError as error:
        raise ImportError("TQCMPCPolicy needs sb3-contrib: pip install sb3-contrib") from error
    return TQCMPCPolicy
