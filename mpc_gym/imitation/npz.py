"""NumPy's `.npz` files, from anybody: nothing in them is run, and none grows as it is read.

An `.npz` is a zip of arrays, and a few bytes of it can stand for more than the memory holds. What
its directory and the arrays' headers declare is therefore compared with each other, and with what
is in the file, before anything is unpacked.
"""

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mpc_gym.files import open_regular, write

MAX_BYTES = 2**32 - 1  # of a file: more takes another kind of directory
MAX_DIRECTORY = 2**16  # bytes; that of six arrays takes five hundred
MAX_GROWTH = 100  # times; noise does not shrink, and measurements hardly ever by ten
ALWAYS_FINE = 2**26  # bytes, however little they grew from
KINDS = "biufU"  # booleans, integers, floats and text
END = struct.Struct("<4s4H2LH")  # of a zip: its last record, where that has no comment
LOCATOR = 20  # bytes of the record before it in a zip that is larger


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays, whole or not at all, compressed where `read_npz` then takes them.

    Raises:
        OSError: the file cannot be written; the disk is full, for instance.
        ValueError: the file would be too large.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    size = sum(array.nbytes for array in arrays.values())
    if size > max(ALWAYS_FINE, MAX_GROWTH * len(buffer.getbuffer())) // 2:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
    if len(buffer.getbuffer()) > MAX_BYTES:
        raise ValueError(f"{path} would be larger than {MAX_BYTES} bytes: write several files")
    write(path, buffer.getvalue())


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays in a file, by their names.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no `.npz` file, damaged, or grows too much as it is unpacked.
    """
    with open_regular(path, MAX_BYTES) as file:
        try:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                size = file.seek(0, io.SEEK_END)
                members = {each.filename: each for each in archive.infolist()}
                unpacked = sum(each.file_size for each in members.values())
                if unpacked > max(ALWAYS_FINE, MAX_GROWTH * size):
                    raise ValueError(f"its {size} bytes would grow to {unpacked}")
                return {
                    name.removesuffix(".npy"): _read_array(archive, member)
                    for name, member in members.items()
                }
        except Exception as error:  # whatever libraries say to bytes that anybody wrote
            raise ValueError(
                f"{path} is damaged or no .npz file: {str(error) or type(error).__name__}"
            ) from error


def _check_directory(file: BinaryIO) -> None:
    """Refuse what has no directory at its end, or a long one, which would all be read."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - END.size - LOCATOR, 0))
    last = file.read()
    if len(last) < END.size:
        raise ValueError("it is cut short")
    mark, *_, length, _, comment = END.unpack(last[-END.size :])
    larger = last[: -END.size].startswith(b"PK\x06\x07")
    if mark != b"PK\x05\x06" or comment or larger or length > MAX_DIRECTORY:
        raise ValueError("it has no directory of arrays at its end")


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is compressed in a way that NumPy does not use")
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):  # the others can have headers of any length
            raise ValueError(f"the header of {member.filename} is none that is written here")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:
            raise ValueError(
                f"{member.filename} holds Python objects, which are not loaded (allow_pickle=False)"
            )
        if dtype.kind not in KINDS:
            raise ValueError(f"{member.filename} holds {dtype}, expected numbers or text")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != (
            member.file_size - file.tell()
        ):
            raise ValueError(f"{member.filename} is not as large as its header says")
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array
