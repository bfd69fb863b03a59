"""Where compiled code is kept on disk, so that a new process does not compile it again.

The directory is `MPC_GYM_CACHE_DIR`, or the user's cache directory, or, where that cannot be
written, a directory of the user's own under the temporary one. Below it is a folder for each set
of versions: of this sub-package's source, Numba, llvmlite and Python.

Numba's own cache is not used: its index is damaged by two processes that compile at once, and a
damaged file makes it raise. Here each compiled function is a file by itself, written under another
name and then renamed; its checksum and its key stand in it. What does not fit is compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import stat
import sys
import tempfile
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import platformdirs
from numba.core import caching, compiler, serialize

VARIABLE = "MPC_GYM_CACHE_DIR"
_HERE = Path(__file__).parent
_DIGEST_SIZE = hashlib.sha256().digest_size


def cache_directory() -> Path:
    """The folder for this set of versions, which exists and can be written.

    Raises:
        ValueError: `MPC_GYM_CACHE_DIR` names a directory that cannot be written.
    """
    return _directory(os.environ.get(VARIABLE, "")) / versions_key()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that no other process ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def versions_key() -> str:
    """Names what all compiled code depends on beside its own source and the processor."""
    versions = (numba.__version__, llvmlite.__version__, sys.version, _sources_key(_HERE))
    return hashlib.sha256(repr(versions).encode()).hexdigest()[:16]


@cache
def _sources_key(directory: Path) -> str:
    """A hash of the source files in a directory: a function may call any other in them."""
    digest = hashlib.sha256()
    for source in sorted(directory.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


@cache
def _directory(requested: str) -> Path:
    if requested:
        directory = Path(requested).expanduser()
        if not _is_writable(directory):
            raise ValueError(
                f"{VARIABLE} is {requested!r}, a directory that cannot be written; "
                "set it to one that can, or unset it"
            )
        return directory
    directory = Path(platformdirs.user_cache_dir("mpc_gym", appauthor=False))
    return directory if _is_writable(directory) else _temporary_directory()


def _is_writable(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _temporary_directory() -> Path:
    # Code is loaded from it: where its name is known to others, it must be nobody else's.
    if not hasattr(os, "getuid"):
        return Path(tempfile.gettempdir()) / "mpc_gym"
    directory = Path(tempfile.gettempdir()) / f"mpc_gym-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    if private and status.st_uid == os.getuid():
        return directory
    return Path(tempfile.mkdtemp(prefix="mpc_gym-"))


_rebuild: Any = compiler.CompileResult._rebuild
_serialize: Any = serialize.dumps


class CheckedCache(caching._Cache):
    """The compiled forms of one function on disk, for Numba's dispatcher."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._enabled = True

    @property
    def cache_path(self) -> str:
        """The folder, as Numba reports it."""
        return str(cache_directory())

    def enable(self) -> None:
        """Read and write files from now on."""
        self._enabled = True

    def disable(self) -> None:
        """Neither read nor write files from now on."""
        self._enabled = False

    def flush(self) -> None:
        """Delete this function's files."""
        for path in cache_directory().glob(f"{self._stem()}.*.bin"):
            path.unlink(missing_ok=True)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The function compiled for a signature, or None where there is no sound file of it."""
        target_context.refresh()
        key = self._key(sig, target_context.codegen())
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        digest, data = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        if not self._enabled or hashlib.sha256(data).digest() != digest:
            return None
        stored_key, reduced = pickle.loads(data)
        return _rebuild(target_context, *reduced) if stored_key == key else None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write what was compiled for a signature; a full disk only costs the next process time."""
        if not self._enabled or data.lifted or data.library.has_dynamic_globals:
            return
        key = self._key(sig, data.codegen)
        content = _serialize((key, data._reduce()))
        with contextlib.suppress(OSError):
            write_atomically(self._path(key), hashlib.sha256(content).digest() + content)

    def _key(self, signature: Any, codegen: Any) -> tuple[str, ...]:
        code = self._function.__code__
        source = Path(code.co_filename)
        # A generated function's module is named by a hash of its whole source.
        sources = "" if source.parent == cache_directory() else _sources_key(source.parent)
        line = str(code.co_firstlineno)
        return (str(signature), repr(codegen.magic_tuple()), self._stem(), line, sources)

    def _stem(self) -> str:
        return f"{self._function.__module__}.{self._function.__qualname__}".replace("<", "_")

    def _path(self, key: tuple[str, ...]) -> Path:
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        return cache_directory() / f"{self._stem()}.{name}.bin"
