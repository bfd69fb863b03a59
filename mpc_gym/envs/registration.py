"""The ids under which Gymnasium finds the environments, and what is made of an id."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from mpc_gym.checks import check_count, check_size, found
from mpc_gym.envs.base import RENDER_MODES, DiffEnv
from mpc_gym.envs.checks import check_render_mode, check_seed

if TYPE_CHECKING:
    from mpc_gym.envs.sb3_vec_env import DiffVecEnv

MAX_EPISODE_STEPS = 200
ENTRY_POINTS = {
    "DiffPendulum-v0": "pendulum:DiffPendulum",
    "DiffPendulumWindy-v0": "pendulum:DiffPendulumWindy",
    "DiffCartPole-v0": "cartpole:DiffCartPole",
    "DiffCartpole-v0": "cartpole:DiffCartPole",
    "DiffAcrobot-v0": "acrobot:DiffAcrobot",
    "DiffPlanarQuadrotor-v0": "planar_quadrotor:DiffPlanarQuadrotor",
    "DiffCar-v0": "car:DiffCar",
}


def register_environments() -> None:
    """Add the environments to Gymnasium's registry; `import mpc_gym` does it."""
    # An entry point is a string: with a class, `env.spec.to_json()` fails.
    for env_id, entry_point in ENTRY_POINTS.items():
        gym.register(
            env_id,
            entry_point=f"mpc_gym.envs.{entry_point}Env",
            vector_entry_point=f"mpc_gym.envs.{entry_point}VectorEnv",
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
    if not isinstance(env_id, str):
        ours = ", ".join(ENTRY_POINTS)
        raise TypeError(f"{name} must be an environment's id ({ours}), got {found(env_id)}")
    with registered(name, env_id):
        return gym.make(env_id, **env_kwargs)


@contextmanager
def registered(name: str, env: object) -> Iterator[None]:
    """Say what Gymnasium's errors mean for an argument of this name.

    Raises:
        ValueError: Gymnasium raised one.
    """
    try:
        yield
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise ValueError(
            f"{name} must be the id of a registered environment ({', '.join(ENTRY_POINTS)}; of "
            "another package or script, with the module that registers it, 'package.module:Env-v0'"
            f"), got {env!r}: {error}"
        ) from error


def make_sb3_vec_env(
    env_id: str, n_envs: int = 1, seed: int | None = None, **env_kwargs: Any
) -> "DiffVecEnv":
    """Many copies of an environment as a Stable-Baselines3 `VecEnv`.

    It takes the place of SB3's `make_vec_env`, is many times faster, reports the returns and
    lengths of episodes to SB3's log as that does, and goes on with `VecNormalize` and the others:

        model = PPO("MlpPolicy", make_sb3_vec_env("DiffPendulum-v0", n_envs=16))

    Args:
        env_id: one of our environments.
        n_envs: how many copies.
        seed: copy i gets seed + i at the first reset; None: from the operating system.
        env_kwargs: further arguments of `gymnasium.make`, such as `length=1.2`, `render_mode` or
            `max_episode_steps`.

    Raises:
        ValueError: the environment is not one of ours, or an argument is impossible.
    """
    from mpc_gym.envs.sb3_vec_env import DiffVecEnv  # which imports SB3

    check_size("n_envs", n_envs)
    seed = check_seed(seed)
    check_render_mode(env_kwargs.get("render_mode"), (*RENDER_MODES, "rgb_array_list"))
    if env_kwargs.get("render_mode") == "human":
        raise ValueError(
            "render_mode must be None or 'rgb_array' for many environments, got 'human', which is "
            "a window for one: use stable_baselines3.common.env_util.make_vec_env"
        )
    if env_kwargs.get("max_episode_steps") is not None:
        check_count("max_episode_steps", env_kwargs["max_episode_steps"])
    env = make_env("env_id", env_id, env_kwargs)
    single = env.unwrapped
    if not isinstance(single, DiffEnv):
        raise ValueError(f"env_id must be one of {', '.join(ENTRY_POINTS)}, got {env_id!r}")
    assert env.spec is not None, "gymnasium.make gives every environment its spec"
    envs = DiffVecEnv(single, n_envs, env.spec.max_episode_steps)
    if seed is not None:
        envs.seed(seed)
    return envs
