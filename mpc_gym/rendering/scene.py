"""What a frame shows of an environment, the memory that this takes, and what is drawn of both."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

TRAIL = 16  # states
POINTS_PER_STEP = 4  # a tip moves on an arc between two states
MAX_GHOSTS = 8
NEAREST, FARTHEST = 0.50, 0.10  # opacity of a ghost


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


def ghosts(
    plan_states: Float[np.ndarray, "time n_state"] | None,
) -> Iterator[tuple[Float[np.ndarray, " n_state"], float]]:
    """Those of a plan's states that are drawn, evenly spaced in time, with their opacities.

    The first state of a plan is the present and left out. The farthest comes first, so that nearer
    ones are drawn over it. States that are not finite are skipped. None for no plan.
    """
    ahead = () if plan_states is None else plan_states[1:]
    if not len(ahead):
        return
    count = min(MAX_GHOSTS, len(ahead))
    chosen = np.linspace(len(ahead) - 1, len(ahead) // (2 * count), count).round().astype(int)
    for index in chosen:
        if np.isfinite(ahead[index]).all():
            progress = (index + 1) / len(ahead)
            yield ahead[index], NEAREST + progress * (FARTHEST - NEAREST)


def interpolated(values: Float[np.ndarray, " past"]) -> Float[np.ndarray, " points"]:
    """Values at each time step and, linear, at times in between."""
    last = len(values) - 1
    times = np.linspace(0, last, last * POINTS_PER_STEP + 1)
    points: Float[np.ndarray, " points"] = np.interp(times, np.arange(last + 1), values)
    return points


def interpolated_angles(
    cosine: Float[np.ndarray, " past"], sine: Float[np.ndarray, " past"]
) -> Float[np.ndarray, " points"]:
    """Angles at each time step and, the short way round, at times in between."""
    return interpolated(np.unwrap(np.arctan2(sine, cosine)))


def camera(
    position: Float[np.ndarray, "2"], middle: tuple[float, float], stay: Float[np.ndarray, "2"]
) -> tuple[float, float]:
    """Where the middle of a picture is: at `middle`, until what it shows is farther than `stay`."""
    offset = position - middle
    x, y = (middle + offset - np.clip(offset, -stay, stay)).tolist()
    return x, y
