"""A training run's state on disk: written whole or not at all, read without running code."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from mpc_gym.imitation.files import replacing

FORMAT = "mpc_gym.training"
FORMAT_VERSION = 1


def write_checkpoint(path: Path, identity: dict[str, Any], content: dict[str, Any]) -> None:
    """Replace the file at `path` in one step, so that a kill leaves the old one or the new one.

    Args:
        identity: JSON data that says which run this is.
        content: tensors, numbers, text, and dicts and lists of them.
    """
    header = {"format": FORMAT, "version": FORMAT_VERSION, "identity": json.dumps(identity)}
    with replacing(path) as unfinished:
        torch.save({**header, "content": content}, unfinished)


def read_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """What `write_checkpoint` wrote for the same run.

    Raises:
        ValueError: the file is damaged, of a newer version, or of another run.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        known = saved["format"] == FORMAT
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged or no checkpoint. Remove it to start the run anew"
        ) from error
    if not known or saved["version"] > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {saved['format']} {saved['version']}, expected {FORMAT} up to "
            f"{FORMAT_VERSION}"
        )
    found = json.loads(saved["identity"])
    here = json.loads(json.dumps(identity))
    differing = [
        f"{name} was {found.get(name)!r} and is {here.get(name)!r}"
        for name in sorted({*found, *here})
        if found.get(name) != here.get(name)
    ]
    if differing:
        raise ValueError(
            f"{path} belongs to another run: {'; '.join(differing)}. Choose another folder, or "
            "remove the checkpoint"
        )
    content: dict[str, Any] = saved["content"]
    return content
