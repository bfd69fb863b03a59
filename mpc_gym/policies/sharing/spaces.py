"""The spaces of an environment as strict JSON, and whether an environment has them."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv

from mpc_gym.envs.spaces import EnvBox
from mpc_gym.policies.sharing.serial import check_env_id, decode, encode, excerpt

Env = gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | VecEnv | str
BOX_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")


def encode_space(name: str, space: gym.Space[Any]) -> dict[str, Any]:
    """A `Box` or an `EnvBox` as JSON.

    Raises:
        TypeError: it is another kind of space.
    """
    if type(space) not in (gym.spaces.Box, EnvBox):
        raise TypeError(f"{name} must be a Box to be saved, got {space}")
    assert isinstance(space, gym.spaces.Box)
    data = {
        "type": type(space).__name__,
        "shape": list(space.shape),
        "dtype": str(space.dtype),
        "low": encode(name, space.low.ravel().tolist()),
        "high": encode(name, space.high.ravel().tolist()),
    }
    if isinstance(space, EnvBox):
        check_env_id(f"{name}.env_id", space.env_id)
        data["env_id"] = space.env_id
        data["env_kwargs"] = encode(f"{name}.env_kwargs", space.env_kwargs)
    return data


def decode_space(name: str, data: object) -> gym.spaces.Box:
    """What `encode_space` wrote.

    Raises:
        ValueError: the data are damaged, or the environment is not registered.
    """
    try:
        return _read_space(name, data)
    except (KeyError, OverflowError, TypeError) as error:
        raise _no_box(name, data) from error


def check_env(
    where: object,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    env: Env,
) -> None:
    """Refuse an environment whose spaces are not those that a policy was made for.

    Args:
        where: the policy is, for the message.
        env: an environment, single or vectorised, or its id.

    Raises:
        TypeError: `env` is neither.
        ValueError: a space differs.
    """
    if isinstance(env, str):
        env = gym.make(env)
    if isinstance(env, VectorEnv):
        given = (env.single_observation_space, env.single_action_space)
    elif isinstance(env, gym.Env | VecEnv):
        given = (env.observation_space, env.action_space)
    else:
        raise TypeError(f"env must be an environment or its id, got {type(env).__name__}")
    if given != (observation_space, action_space):
        spec = None if isinstance(env, VecEnv) else env.spec
        raise ValueError(
            f"{where} was saved for another environment: "
            f"{_environment(observation_space, action_space)}. "
            f"env is {_environment(*given, spec.id if spec else None)}"
        )


def limits(space: gym.Space[Any]) -> str:
    """The limits of a `Box` for a message, all of them; another space as it prints itself."""
    if not isinstance(space, gym.spaces.Box):
        return str(space)
    # Box's own text leaves out where its limits differ from axis to axis
    low, high = (
        np.array2string(side, max_line_width=1000, threshold=20) for side in (space.low, space.high)
    )
    return f"[{low}, {high}] {space.dtype}"


def _read_space(name: str, data: Any) -> gym.spaces.Box:
    kind, dtype = data["type"], data["dtype"]
    if kind not in {"Box", "EnvBox"} or dtype not in BOX_DTYPES:
        raise _no_box(name, data)
    try:
        low, high = (
            np.asarray(decode(data[side]), dtype=dtype).reshape(data["shape"])
            for side in ("low", "high")
        )
    except ValueError as error:
        raise _no_box(name, data) from error
    if not np.all(low <= high):  # NaN included
        raise _no_box(name, data)
    if kind == "Box":
        return gym.spaces.Box(low, high, dtype=getattr(np, dtype))
    env_id, env_kwargs = data["env_id"], decode(data["env_kwargs"])
    check_env_id(f"{name}.env_id", env_id)
    if not isinstance(env_kwargs, dict):
        raise _no_box(name, data)
    return EnvBox(low, high, env_id, env_kwargs)


def _no_box(name: str, data: object) -> ValueError:
    return ValueError(f"{name} must describe a Box or an EnvBox, got {excerpt(data)}")


def _environment(
    observation_space: gym.Space[Any], action_space: gym.Space[Any], env_id: str | None = None
) -> str:
    if env_id is None and isinstance(observation_space, EnvBox):
        env_id = observation_space.env_id
    return (
        f"{env_id or 'one without a known id'}, with observations {limits(observation_space)} "
        f"and actions {limits(action_space)}"
    )
