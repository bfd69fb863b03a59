"""Arrows: a straight one for a force, a bent one for a torque."""

import math

from mpc_gym.rendering.canvas import Canvas, Point
from mpc_gym.rendering.palette import Colour

HEAD = 3.2  # width and length of the head, in thicknesses of the shaft
SHORTEST = 0.02  # of the longest arrow; a shorter one is a speck


def force_arrow(
    canvas: Canvas,
    tail: Point,
    fraction: float,
    longest: float,
    thickness: float,
    colour: Colour,
) -> None:
    """A horizontal arrow from `tail`, `fraction` in [-1, 1] of the longest; to the right if > 0."""
    if abs(fraction) < SHORTEST:
        return
    length = fraction * longest
    head = math.copysign(min(HEAD * thickness, abs(length)), length)
    x, y = tail
    neck = x + length - head
    half = thickness / 2
    canvas.polygon(((x, y - half), (x, y + half), (neck, y + half), (neck, y - half)), colour)
    flare = abs(head) / 2
    canvas.polygon(((neck, y - flare), (neck, y + flare), (x + length, y)), colour)


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


def _polar(centre: Point, radius: float, angle: float) -> Point:
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)
