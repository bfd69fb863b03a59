"""A picture of the cart-pole."""

import math

import numpy as np
from jaxtyping import Float, UInt8

from mpc_gym.rendering.arrows import force_arrow
from mpc_gym.rendering.canvas import Canvas
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
from mpc_gym.rendering.trail import angles_between, between, draw_trail

# In lengths of the pole.
REACH = 1.7
CART_WIDTH = 0.46
CART_HEIGHT = 0.24
WHEEL = 0.07
POLE = 0.075
TIP = 0.055
RAIL = 0.012
TRAIL = 0.035
TICK = 0.05
TEXT = 0.11
FORCE_ARROW = 0.045
LONGEST_FORCE = 1.0
CAMERA_MARGIN = 1.1  # the pole stays in view where it lies to the side


def draw_cartpole(
    state: Float[np.ndarray, "5"],
    control: Float[np.ndarray, "1"] | None = None,
    plan_states: Float[np.ndarray, "time 5"] | None = None,
    trail: Float[np.ndarray, "past 5"] | None = None,
    *,
    caption: str = "",
    max_force: float = 100.0,
    pole_length: float = 0.5,
    width: int = 500,
    height: int = 500,
) -> UInt8[np.ndarray, "height width 3"]:
    """A frame of the cart-pole; the camera stays until the cart comes near an edge, then follows.

    Args:
        state: (x, x_dot, cos theta, sin theta, theta_dot), theta = 0 upright.
        control: the force [N], drawn as an arrow whose length grows with its square root: the
            small forces that hold the pole stay visible beside those that swing it up.
        plan_states: predicted states, drawn as ghosts; the first is the present.
        trail: the last states, through which a line follows the tip; the last is the present.
        caption: a line of text.
        max_force: of the longest arrow [N].
        pole_length: half the length of the pole [m].
        width: [pixels].
        height: [pixels].
    """
    unit = 2 * pole_length  # [m]
    position = float(state[0]) / unit
    half_width = REACH * width / min(width, height)
    stay = max(half_width - CAMERA_MARGIN, 0.0)
    camera = position - min(max(position, -stay), stay)
    canvas = Canvas(width, height, (camera, 0.0), REACH)
    _draw_track(canvas, camera, unit)
    if trail is not None:
        theta, x = angles_between(trail[:, 2], trail[:, 3]), between(trail[:, 0]) / unit
        draw_trail(canvas, np.stack((x + np.sin(theta), np.cos(theta)), -1), TRAIL)
    if plan_states is not None:
        for ghost, opacity in ghosts(plan_states):
            colour = blend(PLAN, opacity)
            _draw_cart(canvas, float(ghost[0]) / unit, blend(PLAN, 0.5 * opacity))
            _draw_pole(canvas, ghost, unit, 0.7 * POLE, colour, colour)
    _draw_cart(canvas, position, INK)
    _draw_pole(canvas, state, unit, POLE, BODY, INK)
    if control is not None:
        force = float(control[0])
        fraction = math.copysign(math.sqrt(abs(force) / max_force), force)
        side = position + math.copysign(CART_WIDTH / 2, fraction)
        force_arrow(canvas, (side, 0.0), fraction, LONGEST_FORCE, FORCE_ARROW, ACTION)
    canvas.caption(caption, blend(INK, CAPTION_OPACITY))
    return canvas.to_array()


def _draw_track(canvas: Canvas, camera: float, unit: float) -> None:
    """The rail, with a tick and its position in metres at every multiple of a step."""
    rail = -CART_HEIGHT / 2 - WHEEL
    left, right = camera - canvas.half_width, camera + canvas.half_width
    canvas.rod((left, rail), (right, rail), RAIL, GUIDE)
    step = _round_step(unit)
    for count in range(math.floor(left * unit / step), math.ceil(right * unit / step) + 1):
        x = count * step / unit
        canvas.rod((x, rail - TICK), (x, rail), RAIL, GUIDE)
        canvas.text((x, rail - TICK - TEXT), f"{count * step:g}", TEXT, blend(INK, 0.5))


def _round_step(length: float) -> float:
    """The largest of ..., 0.5, 1, 2, 5, 10, ... that is not above `length`."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(factor * power for factor in (1.0, 2.0, 5.0) if factor * power <= length)


def _draw_cart(canvas: Canvas, position: float, colour: Colour) -> None:
    for side in (-1, 1):
        wheel = (position + side * CART_WIDTH * 0.3, -CART_HEIGHT / 2)
        canvas.disc(wheel, WHEEL, colour)
    canvas.box((position, 0.0), CART_WIDTH, CART_HEIGHT, 0.04, colour)


def _draw_pole(
    canvas: Canvas,
    state: Float[np.ndarray, "5"],
    unit: float,
    thickness: float,
    pole_colour: Colour,
    tip_colour: Colour,
) -> None:
    pivot = (float(state[0]) / unit, 0.0)
    tip = (pivot[0] + float(state[3]), float(state[2]))
    canvas.rod(pivot, tip, thickness, pole_colour)
    canvas.disc(tip, TIP * thickness / POLE, tip_colour)
    canvas.disc(pivot, 0.4 * thickness, tip_colour)
