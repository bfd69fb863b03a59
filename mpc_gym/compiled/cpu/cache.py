"""Where compiled code is kept on disk, so that a new process does not compile it again.

The directory is `MPC_GYM_CACHE_DIR`, or the user's cache directory, or, where that cannot be used,
a directory of the user's own under the temporary one. Below it is a folder for each set of
versions: of this sub-package's source, Numba, llvmlite and Python.

What is kept are pickles, so whoever can put one there runs code as the user. A directory is
therefore refused in which another user may write, or put another in its place; and a file in it is
read only where it is the user's own, or the administrator's, and nobody else can change it. What is
made here is for the user alone. A directory that cannot be written is read, where code is in it.

Numba's own cache is not used: its index is damaged by two processes that compile at once, and a
damaged file makes it raise. Here each compiled function is a file by itself, written whole or not
at all, with a checksum of its content and of its key. What does not fit is compiled again.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import pickle
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import platformdirs
from numba.core import caching, compiler, serialize
from numba.core.runtime.nrt import rtsys

from mpc_gym.files import is_own, is_private, make_private_folder, open_regular, write
from mpc_gym.messages import waiting_for

VARIABLE = "MPC_GYM_CACHE_DIR"
PRIVATE = 0o600  # of files: for the user alone
MAX_BYTES = 2**28  # of one compiled function
_PACKAGE = Path(__file__).parents[2]
_DIGEST_SIZE = hashlib.sha256().digest_size


def cache_directory() -> Path:
    """The folder for this set of versions, which only the user or the administrator can fill.

    Raises:
        ValueError: `MPC_GYM_CACHE_DIR` names a directory that cannot be used.
    """
    return _directory(os.environ.get(VARIABLE, ""))


def compiling(what: str) -> AbstractContextManager[None]:
    """Tell a user who comes to wait what is compiled, that it is kept, and where."""
    folder = cache_directory().parent
    return waiting_for(f"compiling {what} to native code, which is kept for later in {folder}")


@cache
def versions_key() -> str:
    """Names what all compiled code depends on beside its own source and the processor."""
    versions = (
        numba.__version__,
        llvmlite.__version__,
        sys.version,
        _sources_key(_PACKAGE / "compiled"),
    )
    return hashlib.sha256(repr(versions).encode()).hexdigest()[:16]


@cache
def _sources_key(directory: Path) -> str:
    """A hash of the source files in a directory: a function may call any other in them."""
    digest = hashlib.sha256()
    for source in sorted(directory.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _room(source: Path) -> Path:
    """The sub-package of a source file: it may take functions and numbers from others there."""
    if source.is_relative_to(_PACKAGE):
        return _PACKAGE / source.relative_to(_PACKAGE).parts[0]
    return source.parent


@cache
def _directory(requested: str) -> Path:
    if requested:
        try:
            # absolute, since what was checked is used after a change of the working directory too
            directory = Path(requested).expanduser().absolute() / versions_key()
            problem = _problem(directory)
        except (OSError, RuntimeError) as error:  # a name too long, the home of nobody
            raise ValueError(f"{VARIABLE} is {requested!r}, no directory: {error}") from error
        if problem:
            raise ValueError(
                f"{VARIABLE} is {requested!r}, a directory {problem}; set it to another, or unset "
                "it"
            )
        return directory
    directory = Path(platformdirs.user_cache_dir("mpc_gym", appauthor=False)) / versions_key()
    _take_back(directory.parent)
    _take_back(directory)
    return _temporary_directory() if _problem(directory) else directory


def _problem(directory: Path) -> str:
    """Why code cannot be kept in a folder, which is made where it is missing; "" where it can."""
    try:
        make_private_folder(directory)
        for folder in (directory.parent, directory):
            if not is_private(folder):
                return (
                    "in which other users may write, and whose code would be run (`chmod go-w` "
                    f"{folder} and what is above it, if all of it is yours)"
                )
        with tempfile.TemporaryFile(dir=directory):
            return ""
    except OSError as error:
        if any(directory.glob("*.bin")):  # filled before, and now read only
            return ""
        return f"that cannot be written ({error.strerror}), and in which no code is kept"


def _take_back(folder: Path) -> None:
    """Shut the others out of a folder that the user's umask let them into."""
    with contextlib.suppress(OSError):
        status = folder.stat()
        if sys.platform != "win32" and status.st_uid == os.geteuid() and not is_own(status):
            folder.chmod(0o700)


def _temporary_directory() -> Path:
    try:
        place = Path(tempfile.gettempdir())
    except OSError:  # nothing can be written anywhere: each process compiles for itself
        return Path(os.devnull) / "mpc_gym"
    if sys.platform == "win32":
        return place / "mpc_gym"
    directory = place / f"mpc_gym-{os.getuid()}"
    with contextlib.suppress(OSError):
        directory.mkdir(mode=0o700, exist_ok=True)
        # its name is known to others, who may have made it: a file, a link, a folder of theirs
        status = directory.lstat()
        private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        own = directory / versions_key()
        if private and status.st_uid == os.getuid() and not _problem(own):
            return own
    directory = Path(tempfile.mkdtemp(prefix="mpc_gym-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


_rebuild: Any = compiler.CompileResult._rebuild
_serialize: Any = serialize.dumps


def _checksum(key: tuple[str, ...], data: bytes) -> bytes:
    """Of the content and its key, so that a file under another's name does not fit."""
    return hashlib.sha256(repr(key).encode() + data).digest()


def _read_own(path: Path) -> bytes:
    """A file that nobody else can have written; nothing where there is none."""
    try:
        with open_regular(path, MAX_BYTES) as file:
            return file.read() if is_own(os.fstat(file.fileno())) else b""
    except (OSError, ValueError):
        return b""


def read_kept(path: Path, key: tuple[str, ...]) -> bytes | None:
    """What `write_kept` wrote under that name and key; None where there is no sound file of it."""
    content = _read_own(path)
    digest, data = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
    return data if _checksum(key, data) == digest else None


def write_kept(path: Path, key: tuple[str, ...], data: bytes) -> None:
    """Write a file whole or not at all; a full disk only costs the next process time."""
    with contextlib.suppress(OSError):
        write(path, _checksum(key, data) + data, PRIVATE)


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
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The function compiled for a signature, or None where there is no sound file of it."""
        key = self._key(sig, target_context.codegen())
        data = read_kept(self._path(key), key) if self._enabled else None
        if data is not None:
            # All that compiled code refers to by name. `target_context.refresh()`, as Numba has it
            # here, also reads what is needed to compile, which takes a third of a second.
            rtsys.initialize(target_context)
            # whatever is in there, it can be compiled again
            with contextlib.suppress(Exception):
                return _rebuild(target_context, *pickle.loads(data))
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write what was compiled for a signature."""
        if not self._enabled or data.lifted or data.library.has_dynamic_globals:
            return
        key = self._key(sig, data.codegen)
        write_kept(self._path(key), key, _serialize(data._reduce()))

    def _key(self, signature: Any, codegen: Any) -> tuple[str, ...]:
        code = self._function.__code__
        source = Path(code.co_filename)
        # A generated function's module is named by a hash of its whole source.
        sources = "" if source.parent == cache_directory() else _sources_key(_room(source))
        line = str(code.co_firstlineno)
        return (str(signature), repr(codegen.magic_tuple()), self._stem(), line, sources)

    def _stem(self) -> str:
        return f"{self._function.__module__}.{self._function.__qualname__}".replace("<", "_")

    def _path(self, key: tuple[str, ...]) -> Path:
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        return cache_directory() / f"{self._stem()}.{name}.bin"
