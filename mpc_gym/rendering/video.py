"""Writing frames to a video file."""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mpc_gym.files import replacing

Frame = UInt8[np.ndarray, "height width 3"]

# H.264 in 4:2:0, which every player and browser shows; the index in front, so that it starts at
# once.
MP4: dict[str, Any] = {
    "format": "FFMPEG",
    "codec": "libx264",
    "pixelformat": "yuv420p",
    "macro_block_size": 1,
    "ffmpeg_log_level": "quiet",
    "output_params": ["-crf", "15", "-movflags", "+faststart", "-xerror"],
}
SUFFIXES = (".mp4", ".gif")


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    fps: float,
    *,
    scale: float = 1.0,
    every: int = 1,
) -> Path:
    """Write frames to a `.mp4` (H.264) or an animated `.gif`; see `open_video`.

    Args:
        path: of the file; its suffix says what is written.
        frames: uint8 [height, width, 3], of one size.
        fps: frames per second of the rollout; it keeps this speed whatever `every` is.
        scale: by which the pictures are made smaller or larger.
        every: keep the first of each so many frames.

    Returns:
        The path.

    Raises:
        ValueError: the suffix is unknown, a number is out of range, there are no frames, or a
            frame is not an RGB picture of the same size as the first.
        OSError: the file cannot be written.
    """
    if not (fps > 0 and scale > 0 and every >= 1):
        raise ValueError(
            "fps and scale must be positive and every at least 1, "
            f"got fps={fps}, scale={scale}, every={every}"
        )
    with open_video(path, fps / every) as append:
        for frame in _checked(islice(frames, 0, None, every)):
            append(frame if scale == 1.0 else _scaled(frame, scale))
    return Path(path)


@contextmanager
def open_video(path: str | os.PathLike[str], fps: float) -> Iterator[Callable[[Frame], None]]:
    """A `.mp4` or `.gif`, and what to call with each of its frames, all of one size.

    The file appears only when it is complete; a folder that does not exist is made. Frames of odd
    size are extended by one pixel, which H.264 needs.

    Args:
        path: of the file; its suffix says what is written.
        fps: frames per second.

    Raises:
        ValueError: the suffix is unknown, or there were no frames.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    failure = f"{str(path)!r} cannot be written: ffmpeg failed. The disk may be full"
    if suffix not in SUFFIXES:
        raise ValueError(f"path must end in {' or '.join(SUFFIXES)}, got {str(path)!r}")
    count = 0
    memory = io.BytesIO()  # of a .gif, all of whose frames are encoded in the end
    with replacing(path) as unfinished:
        writer: Any = (
            imageio.get_writer(unfinished, mode="I", fps=fps, **MP4)
            if suffix == ".mp4"
            else imageio.get_writer(memory, mode="I", format="GIF", duration=1000 / fps, loop=0)
        )

        def append(frame: Frame) -> None:
            nonlocal count
            height, width = frame.shape[:2]
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            try:
                writer.append_data(even)
            except OSError as error:
                raise OSError(failure) from error
            count += 1

        try:
            yield append
        finally:
            writer.close()
        if count == 0:
            raise ValueError("frames must hold at least one frame, got none")
        if suffix == ".gif":
            unfinished.write_bytes(memory.getbuffer())
        elif _frames_in(unfinished) != count:  # imageio does not tell how ffmpeg ended
            raise OSError(failure)


def _frames_in(path: Path) -> int:
    """How many frames a `.mp4` has; 0 for none that can be read."""
    try:
        return int(imageio_ffmpeg.count_frames_and_secs(path)[0])
    except RuntimeError:
        return 0


def _checked(frames: Iterable[np.ndarray]) -> Iterator[Frame]:
    """The frames, of which each is a picture of the same size."""
    shape: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        array = np.asarray(frame)
        shape = shape or array.shape
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
            raise ValueError(
                f"frames must be uint8 of shape [height, width, 3], got {array.dtype} "
                f"{list(array.shape)} at frame {index}"
            )
        if array.shape != shape:
            raise ValueError(
                f"frames must have one size, got {list(shape)} at first and {list(array.shape)} "
                f"at frame {index}"
            )
        yield array


def _scaled(frame: Frame, scale: float) -> UInt8[np.ndarray, "new_height new_width 3"]:
    height, width = (max(round(scale * size), 1) for size in frame.shape[:2])
    return np.array(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))
