"""Files on disk that are there whole, or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, on the same disk; it takes the place of `path` when all went well.

    The folder of `path` is made where it is missing. The path yielded is in a folder of its own
    and does not exist yet, so that whoever creates it gives it the user's usual permissions; a
    file made by `tempfile` would be readable by nobody else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        unfinished.replace(path)
