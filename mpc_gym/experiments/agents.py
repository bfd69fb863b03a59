"""Who acts in an environment: the expert, chance, or a policy from disk."""

import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import PolicyPredictor

from mpc_gym.checks import check_path, found
from mpc_gym.files import MAX_JSON_BYTES, open_regular, parse_json
from mpc_gym.make_mpc import make_mpc
from mpc_gym.mpc import MPC
from mpc_gym.policies import load_pretrained, shipped_folder, shipped_policies

EXPERT, RANDOM = "expert", "random"
EXPERT_HORIZON = 30
EXPERT_STARTS = 8
MAX_BYTES = 2**36  # of a file of Stable-Baselines3, which can hold a replay buffer
# What an algorithm keeps in its file and those further down do not. DDPG is a TD3.
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "clip_range": PPO,
    "gae_lambda": A2C,
    "target_entropy": SAC,
    "policy_delay": TD3,
}


def check_agent(name: str, policy: str) -> None:
    """Refuse an agent that is nowhere to be found.

    Args:
        name: of the argument.
        policy: what was given for it, see `load_agent`.

    Raises:
        ValueError: it is no name known here, and there is no such file or folder.
    """
    names = (EXPERT, RANDOM, *shipped_policies())
    if not isinstance(policy, str) or not (policy in names or _exists(policy)):
        raise ValueError(
            f"{name} must be one of {', '.join(names)}, or the path of a folder that "
            f"save_pretrained wrote or of a file that Stable-Baselines3 saved, got {found(policy)}"
        )


def _exists(policy: str) -> bool:
    try:
        return check_path("policy", policy).exists()
    except (ValueError, OSError):  # a name longer than those of files, for instance
        return False


def load_agent(policy: str, env: gym.Env[Any, Any], seed: int = 0) -> MPC | PolicyPredictor:
    """The agent of a name.

    Args:
        policy: "expert", which plans with the true physics; "random"; one of `shipped_policies`;
            the folder of a policy that `save_pretrained` wrote; or the path of a `.zip` that
            Stable-Baselines3 saved (a pickle, which can run code when it is loaded: only load what
            you trust).
        env: where it acts.
        seed: of chance.

    Raises:
        ValueError: there is no such agent, it cannot be read, or it is of another environment.
    """
    check_agent("policy", policy)
    if policy == EXPERT:
        return make_mpc(env, horizon=EXPERT_HORIZON, learn=(), model="true", starts=EXPERT_STARTS)
    if policy == RANDOM:
        return _Random(env, seed)
    folder = shipped_folder(policy) if policy in shipped_policies() else Path(policy)
    if folder.is_dir():
        try:
            return load_pretrained(folder, env=env, device="cpu")
        except ValueError as error:
            raise ValueError(f"policy {policy!r} cannot be used here: {error}") from error
    model = _algorithm(Path(policy)).load(policy, device="cpu")
    if model.observation_space != env.observation_space or model.action_space != env.action_space:
        raise ValueError(
            f"policy {policy!r} was trained on other spaces than those of "
            f"{env.spec.id if env.spec else env}: {model.observation_space} and "
            f"{model.action_space}"
        )
    return model


def _algorithm(path: Path) -> type[BaseAlgorithm]:
    """Which algorithm saved a file: the file itself does not say."""
    try:
        with open_regular(path, MAX_BYTES) as file, zipfile.ZipFile(file) as archive:
            if archive.getinfo("data").file_size > MAX_JSON_BYTES:
                raise ValueError("its description is too long")
            data = parse_json(archive.read("data"))
        return next(algorithm for key, algorithm in ALGORITHMS.items() if key in data)
    except Exception as error:  # whatever libraries say to bytes that anybody wrote
        raise ValueError(
            f"policy must be a file saved by PPO, A2C, SAC, TD3 or DDPG, got {str(path)!r}"
        ) from error


class _Random:
    """Actions drawn from the whole space, one for each observation of a batch."""

    def __init__(self, env: gym.Env[Any, Any], seed: int) -> None:
        self._space, self._ndim = env.action_space, len(env.observation_space.shape or ())
        self._space.seed(seed)

    def predict(self, observation: Any, *_: Any, **__: Any) -> tuple[NDArray[Any], None]:
        if np.ndim(observation) == self._ndim:
            return self._space.sample(), None
        return np.stack([self._space.sample() for _ in observation]), None
