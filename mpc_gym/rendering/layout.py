"""Several rollouts in one picture."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from mpc_gym.rendering.canvas import font
from mpc_gym.rendering.palette import BACKGROUND, GUIDE, INK

CAPTION = 0.10  # height of the caption's strip, in heights of a frame
TEXT = 0.055
GAP = 2  # [pixels]

Frame = UInt8[np.ndarray, "height width 3"]


def side_by_side(frames_by_caption: Mapping[str, Sequence[Frame]]) -> Iterator[Frame]:
    """Frames that show several rollouts at once, each under its caption, from left to right.

    A rollout that ends before the longest one stays at its last frame.

    Args:
        frames_by_caption: caption -> frames [height, width, 3]; the rollouts have one height.

    Raises:
        ValueError: there is no rollout, one has no frames, or their frames differ in height.
    """
    if not frames_by_caption:
        raise ValueError("frames_by_caption must hold at least one rollout, got none")
    for caption, frames in frames_by_caption.items():
        if len(frames) == 0:
            raise ValueError(f"frames_by_caption[{caption!r}] must hold at least one frame")
    heights = {caption: frames[0].shape[0] for caption, frames in frames_by_caption.items()}
    if len(set(heights.values())) > 1:
        raise ValueError(f"all rollouts must have frames of one height, got {heights}")
    return _joined(frames_by_caption)


def tile(frames: Sequence[Frame], columns: int) -> UInt8[np.ndarray, "all_rows all_columns 3"]:
    """Frames of one size in rows of so many, from left to right and from top to bottom.

    Raises:
        ValueError: there are no frames, or `columns` is less than 1.
    """
    if len(frames) == 0 or columns < 1:
        raise ValueError(
            f"frames must hold at least one and columns be at least 1, "
            f"got {len(frames)} and {columns}"
        )
    height, width = frames[0].shape[:2]
    rows = -(-len(frames) // columns)
    picture = np.empty((rows * height, columns * width, 3), dtype=np.uint8)
    picture[:] = BACKGROUND
    for index, frame in enumerate(frames):
        top, left = index // columns * height, index % columns * width
        picture[top : top + height, left : left + width] = frame
    return picture


def _joined(frames_by_caption: Mapping[str, Sequence[Frame]]) -> Iterator[Frame]:
    titles = [
        _title(caption, *frames[0].shape[:2]) for caption, frames in frames_by_caption.items()
    ]
    for time in range(max(map(len, frames_by_caption.values()))):
        panels = [
            np.concatenate((title, frames[min(time, len(frames) - 1)]))
            for title, frames in zip(titles, frames_by_caption.values(), strict=True)
        ]
        gap = np.full((panels[0].shape[0], GAP, 3), GUIDE, dtype=np.uint8)
        separated = [part for panel in panels for part in (gap, panel)]
        yield np.concatenate(separated[1:], axis=1)


def _title(caption: str, height: int, width: int) -> Frame:
    """A strip with the caption, in letters small enough to fit."""
    strip = Image.new("RGB", (width, round(CAPTION * height)), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    size = round(TEXT * height)
    typeface = font(size)
    room = 0.92 * width
    needed = draw.textlength(caption, font=typeface)
    if needed > room:
        typeface = font(int(size * room / needed))
    middle = (width / 2, strip.height / 2)
    draw.text(middle, caption, fill=INK, font=typeface, anchor="mm")
    return np.array(strip)
