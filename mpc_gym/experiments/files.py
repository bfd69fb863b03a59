"""The folder that an experiment writes to."""

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
