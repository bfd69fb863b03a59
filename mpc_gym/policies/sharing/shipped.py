"""The trained policies that come with the package."""

from pathlib import Path

import torch
from stable_baselines3.common.policies import BasePolicy

from mpc_gym.checks import check_option
from mpc_gym.policies.sharing.policy_folder import CONFIG_FILE
from mpc_gym.policies.sharing.pretrained import load_pretrained

FOLDER = Path(__file__).parents[1] / "trained"


def shipped_policies() -> list[str]:
    """Their names, an environment's id and a kind of policy: "DiffPendulum-v0/mpc"."""
    configs = FOLDER.glob(f"*/*/{CONFIG_FILE}")
    return sorted(config.parent.relative_to(FOLDER).as_posix() for config in configs)


def shipped_folder(name: str) -> Path:
    """Where a policy of `shipped_policies` is, as `save_pretrained` wrote it.

    Raises:
        ValueError: there is none of that name.
    """
    check_option("name", name, shipped_policies())
    return FOLDER / name


def load_shipped(name: str, device: torch.device | str = "auto") -> BasePolicy:
    """A policy that comes with the package, in evaluation mode.

    Args:
        name: one of `shipped_policies`. Its model card is `README.md` in `shipped_folder(name)`.
        device: as in SB3.

    Raises:
        ValueError: there is none of that name.
    """
    return load_pretrained(shipped_folder(name), device=device)
