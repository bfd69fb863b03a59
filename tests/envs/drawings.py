"""Frames of the systems, from a state and what else is to be seen."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mpc_gym.envs import DiffCartPoleEnv, DiffEnv, DiffPendulumEnv
from mpc_gym.rendering import Scene


def drawer(env_class: type[DiffEnv], **defaults: float) -> Callable[..., np.ndarray]:
    """A function that draws a state; its other arguments may be left out."""

    def draw(
        state: np.ndarray,
        control: np.ndarray | None = None,
        plan_states: np.ndarray | None = None,
        trail: np.ndarray | None = None,
        *,
        caption: str = "",
        width: int = 500,
        height: int = 500,
        **physics: Any,
    ) -> np.ndarray:
        trail = state[None] if trail is None else trail
        scene = Scene(state, control, plan_states, trail, caption)
        return env_class.draw(scene, {**defaults, **physics}, width, height)

    return draw


draw_pendulum = drawer(DiffPendulumEnv)
draw_cartpole = drawer(DiffCartPoleEnv, pole_length=0.5)
