"""The planar quadrotor in gusts, of which no policy is told."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import ArrayLike, NDArray

from mpc_gym.checks import check_number
from mpc_gym.envs import DiffPlanarQuadrotorEnv

LASTING = 0.5  # after which a gust has fallen to 1/e [s]


class GustyPlanarQuadrotorEnv(DiffPlanarQuadrotorEnv):
    """`DiffPlanarQuadrotor-v0` with a random force on the middle of the body.

    The force F has two independent components, each an Ornstein-Uhlenbeck process with standard
    deviation `gust` that begins at zero; before every step the velocity changes by dt F / mass:

        F <- a F + gust sqrt(1 - a^2) n,   a = exp(-dt / LASTING),   n ~ N(0, 1)

    The n are drawn from `np_random` after the start state: with the same seed of `reset`, start
    state and gusts are the same for every agent, and the start state is that without gusts.

    Args:
        gust: [N], at least 0.
        **options: of `DiffPlanarQuadrotorEnv`.

    Raises:
        ValueError: an argument is not finite, or not within its limits.
    """

    def __init__(self, *, gust: float, **options: Any) -> None:
        super().__init__(**options)
        self.gust = check_number("gust", gust, least=0.0)
        self._force = np.zeros(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode in still air."""
        self._force = np.zeros(2)
        return super().reset(seed=seed, options=options)

    def step(
        self, action: ArrayLike
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Let the gust push, then step."""
        if self._state is not None:
            kept = math.exp(-self.time_step / LASTING)
            drawn = self.gust * math.sqrt(1.0 - kept**2) * self.np_random.standard_normal(2)
            self._force = kept * self._force + drawn
            self._state[:, 4:6] += self.time_step / self.mass * self._force
        return super().step(action)


SPEC = EnvSpec(
    "GustyPlanarQuadrotor-v0",
    f"{__name__}:{GustyPlanarQuadrotorEnv.__name__}",
    max_episode_steps=gym.spec(DiffPlanarQuadrotorEnv.env_id).max_episode_steps,
)
"""What `gymnasium.make` makes it of: `gym.make(SPEC, gust=1.0)`."""
