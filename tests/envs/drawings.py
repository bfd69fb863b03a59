"""Frames of the systems, from a state and what else is to be seen."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mpc_gym.envs import (
    DiffAcrobotEnv,
    DiffCarEnv,
    DiffCartPoleEnv,
    DiffEnv,
    DiffPendulumEnv,
    DiffPlanarQuadrotorEnv,
)
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
draw_acrobot = drawer(DiffAcrobotEnv, upper_length=1.0, lower_centre=0.5)
draw_quadrotor = drawer(DiffPlanarQuadrotorEnv, arm=0.2)
draw_car = drawer(DiffCarEnv, front=0.16, rear=0.17)
