"""Shapes that pictures share: arrows, straight for a force and bent for a torque, trails, grids."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mpc_gym.rendering.canvas import Canvas, Point
from mpc_gym.rendering.palette import BODY, GUIDE, Colour, blend

HEAD = 3.2  # width and length of the head, in thicknesses of the shaft
SHORTEST = 0.02  # of the longest arrow; a shorter one is a speck
OLDEST, NEWEST = 0.20, 0.45  # opacity; the oldest is no fainter than the circle beneath it


def force_arrow(
    canvas: Canvas,
    tail: Point,
    fraction: float,
    longest: float,
    thickness: float,
    colour: Colour,
    direction: float = 0.0,
) -> None:
    """A straight arrow from `tail`, `fraction` in [-1, 1] of the longest.

    It points along `direction`, counter-clockwise from the right [rad], if > 0.
    """
    if abs(fraction) < SHORTEST:
        return
    length = fraction * longest
    head = math.copysign(min(HEAD * thickness, abs(length)), length)
    neck, half, flare = length - head, thickness / 2, abs(head) / 2
    shaft = ((0.0, -half), (0.0, half), (neck, half), (neck, -half))
    canvas.polygon(placed(shaft, tail, direction), colour)
    canvas.polygon(placed(((neck, -flare), (neck, flare), (length, 0.0)), tail, direction), colour)


def torque_arrow(
    canvas: Canvas,
    centre: Point,
    radius: float,
    start: float,
    fraction: float,
    longest: float,
    thickness: float,
    colour: Colour,
) -> None:
    """An arrow bent round `centre`, from the angle `start` [rad] on.

    It spans `fraction` in [-1, 1] of the angle `longest` [rad]; counter-clockwise if > 0.
    """
    if abs(fraction) < SHORTEST:
        return
    sweep = fraction * longest
    head = math.copysign(min(HEAD * thickness / radius, abs(sweep)), sweep)
    neck = start + sweep - head
    canvas.arc(centre, radius, start, neck, thickness, colour)
    flare = abs(head) * radius / 2
    # The head is straight: the middle of its base and its point lie on the arc.
    corners = (
        _polar(centre, radius - flare, neck),
        _polar(centre, radius + flare, neck),
        _polar(centre, radius, start + sweep),
    )
    canvas.polygon(corners, colour)


def draw_trail(canvas: Canvas, tips: Float[np.ndarray, "points 2"], thickness: float) -> None:
    """A line through these points; the last is the present one."""
    opacities = np.linspace(OLDEST, NEWEST, len(tips) - 1).tolist()
    points = tips.tolist()
    for start, end, opacity in zip(points[:-1], points[1:], opacities, strict=True):
        canvas.rod((start[0], start[1]), (end[0], end[1]), thickness, blend(BODY, opacity))


def draw_grid(canvas: Canvas, spacing: float, thickness: float) -> None:
    """Lines through all multiples of `spacing`, by which a motion can be seen."""
    (x, y), width, height = canvas.centre, canvas.half_width, canvas.half_height
    for column in range(math.ceil((x - width) / spacing), math.floor((x + width) / spacing) + 1):
        at = column * spacing
        canvas.rod((at, y - height), (at, y + height), thickness, GUIDE)
    for row in range(math.ceil((y - height) / spacing), math.floor((y + height) / spacing) + 1):
        at = row * spacing
        canvas.rod((x - width, at), (x + width, at), thickness, GUIDE)


def placed(points: Sequence[Point], position: Point, angle: float) -> list[Point]:
    """Points of a body that is turned by an angle [rad] and then put at `position`."""
    (x, y), cosine, sine = position, math.cos(angle), math.sin(angle)
    return [(x + cosine * a - sine * b, y + sine * a + cosine * b) for a, b in points]


def _polar(centre: Point, radius: float, angle: float) -> Point:
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)
