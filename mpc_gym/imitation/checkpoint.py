"""A training run's state on disk: written whole or not at all, read without running code."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mpc_gym.files import differences, holding, naming, parse_json, read, write

FORMAT = "mpc_gym.training"
FORMAT_VERSION = 1
MAX_BYTES = 2**32
LOCK = ".training.lock"  # not that of an experiment's run, which may hold the folder itself


@contextmanager
def alone_in(folder: Path | None) -> Iterator[None]:
    """Keep other runs, which would write the same files, out of a folder; None for no folder.

    Raises:
        InUseError: another run is at work there.
        OSError: the folder cannot be made.
    """
    if folder is None:
        yield
        return
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with holding(folder / LOCK, f"folder {str(folder)!r}"):
        yield


def write_checkpoint(path: Path, identity: dict[str, Any], content: dict[str, Any]) -> None:
    """Replace the file at `path` in one step, so that a kill leaves the old one or the new one.

    Args:
        identity: JSON data that says which run this is.
        content: tensors, numbers, text, and dicts and lists of them.

    Raises:
        OSError: the file cannot be written; the disk is full, for instance.
    """
    header = {"format": FORMAT, "version": FORMAT_VERSION, "identity": json.dumps(identity)}
    buffer = io.BytesIO()  # a full disk is an error inside torch that does not say so
    torch.save({**header, "content": content}, buffer)
    write(path, buffer.getvalue())


def read_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """What `write_checkpoint` wrote for the same run.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, of a newer version, or of another run.
    """
    data = read(path, MAX_BYTES)
    try:
        saved = _load(data)
        known, version = saved["format"] == FORMAT, int(saved["version"])
        found = dict(parse_json(saved["identity"]))
        content: dict[str, Any] = dict(saved["content"])
    except Exception as error:  # whatever torch says to bytes that it did not write
        raise ValueError(
            f"{path} is damaged or no checkpoint. Remove it to start the run anew"
        ) from error
    if not known or version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {saved['format']} {version}, expected {FORMAT} up to "
            f"{FORMAT_VERSION}"
        )
    if differing := differences(found, json.loads(json.dumps(identity))):
        raise ValueError(
            f"{path} belongs to another run: {differing}. Choose another folder, or remove the "
            "checkpoint"
        )
    return content


def _load(data: bytes) -> dict[str, Any]:
    """What `torch.save` wrote, if not a bit of it has changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        # torch stores its records as they are: what is packed would grow when it is read
        if any(entry.compress_size != entry.file_size for entry in archive.infolist()):
            raise ValueError("it is compressed")
        if archive.testzip() is not None:  # torch itself does not look at the checksums
            raise ValueError("a checksum is wrong")
    saved: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return saved
