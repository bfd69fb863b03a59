"""An anti-aliased drawing surface in metres, on Pillow.

Shapes are drawn several times too large and averaged down, which smooths every edge alike.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from mpc_gym.rendering.palette import BACKGROUND, Colour

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

SUPERSAMPLING = 3
CAPTION = 0.032  # height of its letters, in heights of the picture
LEGIBLE = 6  # [pixels]

Point = tuple[float, float]


class Canvas:
    """A picture of the world around a point; x to the right, y up.

    Args:
        width: [pixels].
        height: [pixels].
        centre: the point of the world in the middle of the picture [m].
        reach: from the middle to the nearer edges [m].

    Raises:
        ValueError: width, height or reach is not positive.
    """

    def __init__(self, width: int, height: int, centre: Point, reach: float) -> None:
        if not (width > 0 and height > 0 and reach > 0):
            raise ValueError(
                f"width, height and reach must be positive, got {width}, {height} and {reach}"
            )
        self.width = width
        self.height = height
        self._centre = centre
        self._scale = min(width, height) / (2 * reach)  # [pixels / m]
        large = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self._image = Image.new("RGB", large, BACKGROUND)
        self._draw = ImageDraw.Draw(self._image)

    @property
    def half_width(self) -> float:
        """From the middle to the left and right edges [m]."""
        return self.width / (2 * self._scale)

    @property
    def half_height(self) -> float:
        """From the middle to the upper and lower edges [m]."""
        return self.height / (2 * self._scale)

    @property
    def centre(self) -> Point:
        """The point of the world in the middle of the picture [m]."""
        return self._centre

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """A filled circle."""
        x, y = self._pixel(centre)
        r = self._length(radius)
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def ring(self, centre: Point, radius: float, thickness: float, colour: Colour) -> None:
        """A circle's outline."""
        self.arc(centre, radius, 0.0, 2 * np.pi, thickness, colour)

    def arc(
        self,
        centre: Point,
        radius: float,
        start: float,
        end: float,
        thickness: float,
        colour: Colour,
    ) -> None:
        """Part of a circle's outline, between two angles [rad] counter-clockwise from the right."""
        x, y = self._pixel(centre)
        r = self._length(radius + thickness / 2)
        first, last = sorted((-np.rad2deg(start), -np.rad2deg(end)))
        box = (x - r, y - r, x + r, y + r)
        self._draw.arc(box, first, last, fill=colour, width=self._thickness(thickness))

    def rod(self, start: Point, end: Point, thickness: float, colour: Colour) -> None:
        """A straight line with round ends."""
        pixels = self._thickness(thickness)
        self._draw.line((self._pixel(start), self._pixel(end)), fill=colour, width=pixels)
        for point in (start, end):
            self.disc(point, thickness / 2, colour)

    def polygon(self, corners: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon([self._pixel(corner) for corner in corners], fill=colour)

    def box(
        self, centre: Point, width: float, height: float, corner: float, colour: Colour
    ) -> None:
        """A filled rectangle with rounded corners."""
        x, y = self._pixel(centre)
        w, h = self._length(width / 2), self._length(height / 2)
        self._draw.rounded_rectangle(
            (x - w, y - h, x + w, y + h), self._length(corner), fill=colour
        )

    def text(self, centre: Point, content: str, height: float, colour: Colour) -> None:
        """Text around a point, in letters of about this height [m]."""
        typeface = font(round(self._length(height)))
        self._draw.text(self._pixel(centre), content, fill=colour, font=typeface, anchor="mm")

    def caption(self, content: str, colour: Colour) -> None:
        """A line of text in the upper left corner, unless the picture is too small for it."""
        size = CAPTION * min(self.width, self.height)
        if size >= LEGIBLE:
            margin = size * SUPERSAMPLING
            typeface = font(round(size * SUPERSAMPLING))
            self._draw.text((margin, margin), content, fill=colour, font=typeface, anchor="la")

    def to_array(self) -> UInt8[np.ndarray, "height width 3"]:
        """The finished picture."""
        return np.array(self._image.reduce(SUPERSAMPLING))

    def _pixel(self, point: Point) -> Point:
        x = self.width / 2 + (point[0] - self._centre[0]) * self._scale
        y = self.height / 2 - (point[1] - self._centre[1]) * self._scale
        return x * SUPERSAMPLING, y * SUPERSAMPLING

    def _length(self, metres: float) -> float:
        return metres * self._scale * SUPERSAMPLING

    def _thickness(self, metres: float) -> int:
        return max(round(self._length(metres)), 1)


@lru_cache(maxsize=32)
def font(size: int) -> "FreeTypeFont | ImageFont.ImageFont":
    """Pillow's own typeface at this size [pixels]."""
    return ImageFont.load_default(max(size, 1))
