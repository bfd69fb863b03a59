"""The observation space of an environment that comes with its model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float

from mpc_gym.checks import check_instance, real_tensor

UNLIMITED = float(np.finfo(np.float32).max)  # a limit that is none


class EnvBox(Box):
    """A `Box` that names the environment it belongs to.

    Stable-Baselines3 gives a policy nothing but the spaces of its environment; the name lets a
    planning policy make that environment's model (see `make_mpc`). Two boxes are equal where
    their limits are, whatever their names, as Gymnasium's vector environments and wrappers expect.

    Args:
        low: lower limits [n], float32.
        high: upper limits [n], float32.
        env_id: the id under which the environment is registered.
        env_kwargs: the arguments of `gymnasium.make` that determine its model; plain JSON data.
        seed: of the samples drawn from the space.
    """

    env_id: str
    env_kwargs: dict[str, Any]

    def __init__(
        self,
        low: Float[np.ndarray, " n"],
        high: Float[np.ndarray, " n"],
        env_id: str,
        env_kwargs: Mapping[str, Any],
        seed: int | np.random.Generator | None = None,
    ) -> None:
        check_instance("env_id", env_id, str, "an environment's id")
        check_instance("env_kwargs", env_kwargs, Mapping, "a mapping from name to value")
        limits = {"low": real_tensor("low", low), "high": real_tensor("high", high)}
        for name, limit in limits.items():
            if limit.ndim != 1 or limit.numel() == 0 or limit.shape != limits["low"].shape:
                raise ValueError(f"{name} must be [n], one for each entry, got {list(limit.shape)}")
        super().__init__(limits["low"].numpy(), limits["high"].numpy(), dtype=np.float32, seed=seed)
        self.env_id = env_id
        self.env_kwargs = dict(env_kwargs)
