"""What a frame shows of an environment, and the memory that this takes."""

from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

TRAIL = 16  # states


@dataclass(frozen=True)
class Scene:
    """What is drawn.

    Args:
        state: the present one.
        control: the one that led to it; None at the start of an episode.
        plan_states: predicted states, the first of which is the present; None for no plan.
        trail: the last states, the newest of which is the present.
        caption: a line of text.
    """

    state: Float[NDArray[np.float64], " n_state"]
    control: Float[NDArray[np.float64], " n_ctrl"] | None
    plan_states: Float[NDArray[np.float64], "time n_state"] | None
    trail: Float[NDArray[np.float64], "past n_state"]
    caption: str


class Memory:
    """What a picture needs to know of the past of one environment.

    Args:
        state: at the start of the episode.
    """

    def __init__(self, state: Float[NDArray[np.float64], " n_state"]) -> None:
        self.control: NDArray[np.float64] | None = None
        self.plan_states: NDArray[np.float64] | None = None
        self._trail = deque([state], maxlen=TRAIL)
        self._steps = 0
        self._return = 0.0

    def add(
        self,
        control: Float[NDArray[np.float64], " n_ctrl"],
        reward: float,
        state: Float[NDArray[np.float64], " n_state"],
    ) -> None:
        """Remember one time step."""
        self.control = control
        self._trail.append(state)
        self._steps += 1
        self._return += reward

    def scene(self, dt: float) -> Scene:
        """The present, for time steps of this length [s]."""
        return Scene(
            state=self._trail[-1],
            control=self.control,
            plan_states=self.plan_states,
            trail=np.stack(self._trail),
            caption=f"{self._steps * dt:.2f} s     return {self._return:.1f}",
        )
