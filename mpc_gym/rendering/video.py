"""Writing frames to a video file."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mpc_gym.files import replacing

Frame = UInt8[np.ndarray, "height width 3"]

# H.264 in 4:2:0, which every player and browser shows; the index in front, so that it starts at
# once.
MP4 = ["-vcodec", "libx264", "-pix_fmt", "yuv420p", "-crf", "15", "-movflags", "+faststart"]
# One palette, made from all the frames, no dither, and only what changed: flat drawings stay small.
GIF_FILTER = "split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=none:diff_mode=rectangle"
GIF = ["-vcodec", "gif", "-pix_fmt", "pal8", "-filter_complex", GIF_FILTER]
FORMATS = {".mp4": MP4, ".gif": GIF}


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    fps: float,
    *,
    scale: float = 1.0,
    every: int = 1,
) -> Path:
    """Write frames to a `.mp4` (H.264) or an animated `.gif`.

    The file appears only when it is complete; a folder that does not exist is made. Frames of odd
    size are extended by one pixel, which H.264 needs.

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
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"path must end in {' or '.join(FORMATS)}, got {str(path)!r}")
    if not (fps > 0 and scale > 0 and every >= 1):
        raise ValueError(
            "fps and scale must be positive and every at least 1, "
            f"got fps={fps}, scale={scale}, every={every}"
        )
    pictures = _pictures(islice(frames, 0, None, every), scale)
    first = next(pictures, None)
    if first is None:
        raise ValueError("frames must hold at least one frame, got none")
    with replacing(path) as unfinished:
        reason = _encode(unfinished, first, pictures, fps / every, FORMATS[path.suffix.lower()])
        if reason:
            raise OSError(f"{str(path)!r} cannot be written: ffmpeg failed: {reason}")
    return path


def _encode(
    path: Path, first: Frame, rest: Iterator[Frame], fps: float, settings: list[str]
) -> str:
    """Write a video; returns why that failed, and nothing where it did not."""
    height, width = first.shape[:2]
    rate = str(Fraction(fps).limit_denominator())
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-xerror", *raw, "-an"]
    # imageio_ffmpeg's own writer does not tell how ffmpeg ended
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [*command, *settings, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
        ) as process,
    ):
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended before, and said why
                for frame in chain((first,), rest):
                    process.stdin.write(np.ascontiguousarray(frame).data)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        except BaseException:
            process.kill()
            raise
        if not process.wait():
            return ""
        said.seek(0)
        return said.read().decode(errors="replace").strip() or "it does not say why"


def _pictures(frames: Iterable[np.ndarray], scale: float) -> Iterator[Frame]:
    """The frames, checked, scaled and of even size."""
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
        if scale != 1.0:
            height, width = (max(round(scale * size), 1) for size in array.shape[:2])
            smaller = Image.fromarray(array).resize((width, height), Image.Resampling.LANCZOS)
            array = np.array(smaller)
        height, width = array.shape[:2]
        yield np.pad(array, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
