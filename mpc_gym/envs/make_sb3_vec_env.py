"""Environments for Stable-Baselines3, stepped in one native call."""

from typing import TYPE_CHECKING, Any

from mpc_gym.checks import check_count, check_size
from mpc_gym.envs.base import RENDER_MODES, DiffEnv
from mpc_gym.envs.checks import check_render_mode, check_seed
from mpc_gym.envs.registration import ENTRY_POINTS, make_env

if TYPE_CHECKING:
    from mpc_gym.envs.sb3_vec_env import DiffVecEnv


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
    from mpc_gym.envs.sb3_vec_env import DiffVecEnv  # `import mpc_gym` must not import SB3

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
