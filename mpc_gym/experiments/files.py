"""The folder that an experiment writes to."""

import shutil
import tempfile
from pathlib import Path


def make_writable_folder(path: Path) -> None:
    """Make a folder and try to write there, so that an experiment does not fail at its end.

    Raises:
        ValueError: it cannot be made, or nothing can be written there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(
            f"output must be a folder that can be written to, got {str(path)!r}: {error.strerror}"
        ) from error


def check_space(path: Path, least: int) -> None:
    """Refuse a disk that is nearly full, before anything is written.

    Args:
        path: of a folder, which need not be there yet.
        least: bytes that must be free.

    Raises:
        ValueError: fewer are.
    """
    there = next(
        parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists()
    )
    free = shutil.disk_usage(there).free
    if free < least:
        raise ValueError(
            f"the disk of folder {str(path)!r} is full: {free / 2**20:.0f} MiB are free, and "
            f"{least / 2**20:.0f} MiB are the least to begin with"
        )
