"""The observation space of an environment that comes with its model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float


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
        super().__init__(low, high, dtype=np.float32, seed=seed)
        self.env_id = env_id
        self.env_kwargs = dict(env_kwargs)
