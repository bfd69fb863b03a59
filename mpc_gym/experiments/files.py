"""Results on disk: a file is there whole, or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, on the same disk; it takes the place of `path` when all went well."""
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        unfinished.replace(path)


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
