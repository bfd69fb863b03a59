"""The files of a saved policy: replaced together, and read within bounds.

**Saving** over another policy leaves the old one or the new one, whole, at every moment:

1. The new tensors are written beside the old ones, as `policy-<digest>.safetensors`.
2. `config.json`, which holds their digest, is replaced. From this step on, which the system does
   whole or not at all, the folder holds the new policy.
3. The new tensors are renamed to `policy.safetensors`.

Loading takes the tensors of that digest by whichever of the two names they have. What steps that
were cut short have left behind is removed by the next save. One that reads while another saves may
find the config of before and the tensors of after, and then reads again.
"""

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
from torch import Tensor

from mpc_gym.files import holding, naming, parse_json, read, write
from mpc_gym.policies.sharing.model_card import LIBRARY_LINE

FORMAT = "mpc_gym.policy"
FORMAT_VERSION = 2  # since 2 a plan's tensors are named "planner.mpc...", not "mpc..."
CONFIG_FILE = "config.json"
TENSOR_FILE = "policy.safetensors"
CARD_FILE = "README.md"
LOCK = ".policy.lock"
MAX_CONFIG_BYTES = 2**22
MAX_TENSOR_BYTES = 2**30
MAX_HEADER_BYTES = 2**20  # about ten thousand tensors
NEW_TENSORS = re.compile(r"policy-[0-9a-f]{64}\.safetensors")

Config = dict[str, Any]


def check_replaceable(folder: Path) -> None:
    """Refuse to write over what is no saved policy.

    Raises:
        ValueError: it is a file, or a folder with files of another origin.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder must be a folder or not exist yet, got the file {folder}")
    config, card = folder / CONFIG_FILE, folder / CARD_FILE
    for file, mark in ((config, f'"format": "{FORMAT}"'), (card, LIBRARY_LINE)):
        if file.exists() and mark.encode() not in read(file, MAX_CONFIG_BYTES):
            raise ValueError(
                f"{file} was not written by save_pretrained, and would be overwritten. Choose "
                "another folder, or remove it"
            )


def replace_files(folder: Path, digest: str, tensors: bytes, config: bytes, card: bytes) -> None:
    """Put the files in place, in the steps that are explained at the top."""
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with holding(folder / LOCK, f"folder {str(folder)!r}", timeout=None):
        _settle(folder)
        try:
            write(folder / _new_name(digest), tensors)
            write(folder / CONFIG_FILE, config)
            write(folder / CARD_FILE, card)
        finally:
            _settle(folder)


def _settle(folder: Path) -> None:
    """Rename the tensors that the config asks for, and remove those of saves that were cut short.

    Whatever has been done of a save, and of others before it, this is right.
    """
    wanted = None
    with contextlib.suppress(ValueError):  # there is none, where a first save was cut short
        wanted = _new_name(_read_config(folder).get("tensors_sha256"))
    for file in list(folder.iterdir()):
        if NEW_TENSORS.fullmatch(file.name):
            with naming(folder / TENSOR_FILE):
                if file.name == wanted:
                    file.replace(folder / TENSOR_FILE)
                else:
                    file.unlink(missing_ok=True)


def _new_name(digest: object) -> str:
    """What tensors are called until they take the place of the old ones."""
    return f"policy-{digest}.safetensors"


def read_policy(folder: Path) -> tuple[Config, dict[str, Tensor]]:
    """The config and the tensors that belong together."""
    config = _read_config(folder)
    while True:
        content = _read_tensor_file(folder, config.get("tensors_sha256"))
        if content is not None:
            break
        before, config = config, _read_config(folder)
        if config == before:
            raise ValueError(
                f"{folder / TENSOR_FILE} is not the one that {CONFIG_FILE} was written with, or it "
                "is damaged. Save or download the folder again"
            )
    file = folder / TENSOR_FILE
    check_tensor_file(file, content)
    try:
        return config, safetensors.torch.load(content)
    except Exception as error:  # whatever the library says to bytes that anybody wrote
        raise ValueError(f"{file} is damaged or no safetensors file: {error}") from error


def check_tensor_file(where: object, content: bytes) -> None:
    """Refuse a file of safetensors whose list of tensors is as long as no policy's.

    Args:
        where: it is from, for the message.
        content: which begins with the length of the list, 8 bytes, little endian.

    Raises:
        ValueError: the list is too long.
    """
    size = int.from_bytes(content[:8], "little")
    if size > MAX_HEADER_BYTES:
        raise ValueError(
            f"{where} is damaged or no safetensors file: its header must be at most "
            f"{MAX_HEADER_BYTES} bytes, got {size}"
        )


def _read_tensor_file(folder: Path, digest: object) -> bytes | None:
    """The tensors of a digest; None where there are others, or none under either name."""
    if isinstance(digest, str) and NEW_TENSORS.fullmatch(_new_name(digest)):
        # first: while this is read, it may be renamed, and then is there under the other name
        with contextlib.suppress(OSError):
            content = read(folder / _new_name(digest), MAX_TENSOR_BYTES)
            if hashlib.sha256(content).hexdigest() == digest:
                return content
    content = _read_file(folder / TENSOR_FILE, MAX_TENSOR_BYTES)
    return content if hashlib.sha256(content).hexdigest() == digest else None


def _read_config(folder: Path) -> Config:
    if folder.is_file():
        raise ValueError(
            f"folder must be a folder that save_pretrained wrote, got the file {folder}. A zip of "
            "Stable-Baselines3 is a pickle, which can run code: load one that you trust with "
            "the algorithm's own load, such as PPO.load"
        )
    if not folder.is_dir():
        raise ValueError(
            "folder must be a folder on this computer, or user/name of a repository of the Hugging "
            f"Face Hub; {folder} does not exist"
        )
    file = folder / CONFIG_FILE
    content = _read_file(file, MAX_CONFIG_BYTES)
    try:
        config = parse_json(content, _refuse_constant)
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{file} describes no policy: its format is not {FORMAT!r}")
    version = config.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"{file} has format version {version!r}, and this mpc_gym reads up to "
            f"{FORMAT_VERSION}. Update mpc_gym"
        )
    return config


def _read_file(file: Path, limit: int) -> bytes:
    try:
        return read(file, limit)
    except OSError as error:
        raise ValueError(
            f"{file} cannot be read: {error.strerror}. {file.parent} holds no policy that "
            "save_pretrained wrote, or its first saving was cut short"
        ) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
