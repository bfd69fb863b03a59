"""The ids under which Gymnasium finds the environments."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym

from mpc_gym.checks import found

MAX_EPISODE_STEPS = 200
ENTRY_POINTS = {
    "DiffPendulum-v0": "pendulum:DiffPendulum",
    "DiffPendulumWindy-v0": "pendulum_windy:DiffPendulumWindy",
    "DiffCartPole-v0": "cartpole:DiffCartPole",
    "DiffCartpole-v0": "cartpole:DiffCartPole",
}


def register_environments() -> None:
    """Add the environments to Gymnasium's registry; `import mpc_gym` does it."""
    # An entry point is a string: with a class, `env.spec.to_json()` fails.
    for env_id, entry_point in ENTRY_POINTS.items():
        name = entry_point.partition(":")[2]
        gym.register(
            env_id,
            entry_point=f"mpc_gym.envs.{entry_point}Env",
            vector_entry_point=f"mpc_gym.envs.vector:{name}VectorEnv",
            max_episode_steps=MAX_EPISODE_STEPS,
        )


def make_env(name: str, env_id: object, env_kwargs: Mapping[str, Any]) -> gym.Env[Any, Any]:
    """The environment of an id.

    Args:
        name: of the argument that the id was given for.
        env_id: under which the environment is registered.
        env_kwargs: of `gymnasium.make`.

    Raises:
        TypeError: the id is no text.
        ValueError: there is no environment of that id, or it cannot be made.
    """
    ours = ", ".join(ENTRY_POINTS)
    if not isinstance(env_id, str):
        raise TypeError(f"{name} must be an environment's id ({ours}), got {found(env_id)}")
    try:
        return gym.make(env_id, **env_kwargs)
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise ValueError(
            f"{name} must be the id of a registered environment ({ours}), got {env_id!r}: {error}"
        ) from error
