import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from mpc_gym.rendering import write_video


def moving_bar(count: int = 12, height: int = 60, width: int = 80) -> list[np.ndarray]:
    pictures = []
    for index in range(count):
        picture = np.full((height, width, 3), 250, np.uint8)
        picture[:, 5 * index : 5 * index + 10] = (0, 114, 178)
        pictures.append(picture)
    return pictures


@pytest.mark.parametrize(("suffix", "error"), [("mp4", 6.0), ("gif", 2.0)])
def test_a_video_read_back_shows_the_frames(tmp_path: Path, suffix: str, error: float) -> None:
    path = write_video(tmp_path / f"clip.{suffix}", moving_bar(), fps=20)
    read = iio.imread(path)[..., :3]
    assert read.shape == (12, 60, 80, 3)
    assert np.abs(read.astype(int) - np.stack(moving_bar())).mean() < error


def test_an_mp4_is_h264_that_browsers_play(tmp_path: Path) -> None:
    meta = iio.immeta(write_video(tmp_path / "clip.mp4", moving_bar(), fps=20))
    assert meta["codec"] == "h264"
    assert meta["pix_fmt"].startswith("yuv420p")
    assert meta["fps"] == pytest.approx(20)


def test_a_gif_repeats_at_the_speed_of_the_rollout(tmp_path: Path) -> None:
    meta = iio.immeta(write_video(tmp_path / "clip.gif", moving_bar(), fps=20))
    assert meta["duration"] == pytest.approx(50)
    assert meta["loop"] == 0


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_odd_sizes_are_extended_to_even_ones(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"clip.{suffix}", moving_bar(height=61, width=79), fps=20)
    assert iio.imread(path).shape[1:3] == (62, 80)


def test_scaling_down_and_skipping_frames_keep_the_speed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.gif", moving_bar(), fps=20, scale=0.5, every=3)
    read = iio.imread(path)
    assert read.shape[:3] == (4, 30, 40)
    assert iio.immeta(path)["duration"] == pytest.approx(150)


def test_frames_may_come_from_a_generator(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", (frame for frame in moving_bar(3)), fps=20)
    assert len(iio.imread(path)) == 3


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    assert write_video(str(tmp_path / "new" / "clip.gif"), moving_bar(2), fps=20).is_file()


def test_a_failed_rollout_leaves_the_old_video_and_no_litter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", moving_bar(), fps=20)
    before = path.read_bytes()

    def failing() -> Iterator[np.ndarray]:
        yield from moving_bar(2)
        raise RuntimeError("the simulation failed")

    with pytest.raises(RuntimeError, match="simulation failed"):
        write_video(path, failing(), fps=20)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize(
    ("suffix", "reason"), [("mp4", "ffmpeg failed"), ("gif", "No space left on device")]
)
def test_a_disk_that_is_full_at_any_byte_is_an_error_and_leaves_nothing(
    tmp_path: Path,
    suffix: str,
    reason: str,
    small_disk: Callable[[int], AbstractContextManager[Path]],
) -> None:
    rng = np.random.default_rng(0)
    frames = list(rng.integers(0, 255, (10, 60, 80, 3), dtype=np.uint8))
    needed = write_video(tmp_path / f"clip.{suffix}", frames, fps=20).stat().st_size
    for share in (0.05, 0.5, 0.9, 0.99):
        with small_disk(int(share * needed)) as folder:
            with pytest.raises(OSError, match=rf"clip\.{suffix}' cannot be written: {reason}"):
                write_video(folder / f"clip.{suffix}", frames, fps=20)
            assert list(folder.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Callable[[int], AbstractContextManager[Path]]:
    """Mounts a disk with room for so many bytes."""

    @contextmanager
    def mounted(size: int) -> Iterator[Path]:
        folder = tmp_path / f"disk-{size}"
        folder.mkdir()
        pages = max(size // 4096, 1)
        command = ["mount", "-t", "tmpfs", "-o", f"size={pages * 4096}", "none", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("takes the right to mount a disk")
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)

    return mounted


@pytest.mark.parametrize("name", ["clip.avi", "clip"])
def test_an_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"path must end in \.mp4 or \.gif"):
        write_video(tmp_path / name, moving_bar(), fps=20)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"clip\.mp4.* cannot be written"):
        write_video(tmp_path / "file" / "clip.mp4", moving_bar(), fps=20)


def test_no_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "clip.mp4", [], fps=20)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong", [np.zeros((60, 80), np.uint8), np.zeros((60, 80, 3)), np.zeros((60, 80, 4), np.uint8)]
)
def test_a_frame_that_is_not_rgb_is_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 of shape \[height, width, 3\].*frame 0"):
        write_video(tmp_path / "clip.mp4", [wrong], fps=20)


def test_frames_of_different_sizes_are_refused(tmp_path: Path) -> None:
    frames = moving_bar(2) + moving_bar(1, width=90)
    with pytest.raises(ValueError, match=r"one size.*frame 2"):
        write_video(tmp_path / "clip.mp4", frames, fps=20)


@pytest.mark.parametrize("options", [{"fps": 0}, {"fps": 20, "scale": 0}, {"fps": 20, "every": 0}])
def test_numbers_out_of_range_are_refused(tmp_path: Path, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        write_video(tmp_path / "clip.mp4", moving_bar(), **options)
