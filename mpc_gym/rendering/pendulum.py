"""A picture of the pendulum."""

import math

import numpy as np
from jaxtyping import Float, UInt8

from mpc_gym.rendering.arrows import torque_arrow
from mpc_gym.rendering.canvas import Canvas, Point
from mpc_gym.rendering.ghosts import ghosts
from mpc_gym.rendering.palette import (
    ACTION,
    BODY,
    CAPTION_OPACITY,
    GUIDE,
    INK,
    PLAN,
    Colour,
    blend,
)
from mpc_gym.rendering.trail import angles_between, draw_trail

# In lengths of the rod.
REACH = 1.35
ROD = 0.10
BOB = 0.12
PIVOT = 0.055
GUIDE_LINE = 0.008
TRAIL = 0.045
TORQUE_RADIUS = 0.42
TORQUE_ARROW = 0.035
LONGEST_TORQUE = math.radians(120)
PIVOT_AT: Point = (0.0, 0.0)


def draw_pendulum(
    state: Float[np.ndarray, "3"],
    control: Float[np.ndarray, "1"] | None = None,
    plan_states: Float[np.ndarray, "time 3"] | None = None,
    trail: Float[np.ndarray, "past 3"] | None = None,
    *,
    caption: str = "",
    max_torque: float = 2.0,
    width: int = 500,
    height: int = 500,
) -> UInt8[np.ndarray, "height width 3"]:
    """A frame of the pendulum; the rod fills the picture whatever its length.

    Args:
        state: (cos theta, sin theta, theta_dot), theta = 0 upright and growing counter-clockwise.
        control: the torque, drawn as an arrow [N m].
        plan_states: predicted states, drawn as ghosts; the first is the present.
        trail: the last states, through which a line follows the tip; the last is the present.
        caption: a line of text.
        max_torque: of the longest arrow [N m].
        width: [pixels].
        height: [pixels].
    """
    canvas = Canvas(width, height, PIVOT_AT, REACH)
    canvas.ring(PIVOT_AT, 1.0, GUIDE_LINE, GUIDE)
    canvas.rod((0.0, 1.0 - 2 * BOB), (0.0, 1.0 + 2 * BOB), GUIDE_LINE, GUIDE)
    if trail is not None:
        theta = angles_between(trail[:, 0], trail[:, 1])
        draw_trail(canvas, np.stack((-np.sin(theta), np.cos(theta)), -1), TRAIL)
    if plan_states is not None:
        for ghost, opacity in ghosts(plan_states):
            colour = blend(PLAN, opacity)
            _draw_body(canvas, ghost, 0.6 * ROD, 0.8 * BOB, colour, colour)
    _draw_body(canvas, state, ROD, BOB, BODY, INK)
    if control is not None:
        torque_arrow(
            canvas,
            PIVOT_AT,
            TORQUE_RADIUS,
            start=math.atan2(state[0], -state[1]),
            fraction=float(control[0]) / max_torque,
            longest=LONGEST_TORQUE,
            thickness=TORQUE_ARROW,
            colour=ACTION,
        )
    canvas.disc(PIVOT_AT, PIVOT, INK)
    canvas.caption(caption, blend(INK, CAPTION_OPACITY))
    return canvas.to_array()


def _draw_body(
    canvas: Canvas,
    state: Float[np.ndarray, "3"],
    rod: float,
    bob: float,
    rod_colour: Colour,
    bob_colour: Colour,
) -> None:
    tip = (-float(state[1]), float(state[0]))
    canvas.rod(PIVOT_AT, tip, rod, rod_colour)
    canvas.disc(tip, bob, bob_colour)
