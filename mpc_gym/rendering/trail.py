"""The way that a tip has come, fading with age."""

import numpy as np
from jaxtyping import Float

from mpc_gym.rendering.canvas import Canvas
from mpc_gym.rendering.palette import BODY, blend

POINTS_PER_STEP = 4  # a tip moves on an arc between two states
OLDEST, NEWEST = 0.20, 0.45  # opacity; the oldest is no fainter than the circle beneath it


def draw_trail(canvas: Canvas, tips: Float[np.ndarray, "points 2"], thickness: float) -> None:
    """A line through these points; the last is the present one."""
    opacities = np.linspace(OLDEST, NEWEST, len(tips) - 1).tolist()
    points = tips.tolist()
    for start, end, opacity in zip(points[:-1], points[1:], opacities, strict=True):
        canvas.rod((start[0], start[1]), (end[0], end[1]), thickness, blend(BODY, opacity))


def between(values: Float[np.ndarray, " past"]) -> Float[np.ndarray, " points"]:
    """Values with others between them, linearly."""
    last = len(values) - 1
    times = np.linspace(0, last, last * POINTS_PER_STEP + 1)
    points: Float[np.ndarray, " points"] = np.interp(times, np.arange(last + 1), values)
    return points


def angles_between(
    cosine: Float[np.ndarray, " past"], sine: Float[np.ndarray, " past"]
) -> Float[np.ndarray, " points"]:
    """Angles with others between them, the short way round."""
    return between(np.unwrap(np.arctan2(sine, cosine)))
