"""Files on disk: written whole or not at all, read within bounds, and whose a folder is.

**Writing.** `replacing` writes to a file beside the one that is meant, and renames it when it is
complete, so that whoever reads or kills at any moment finds the old file or the new one. The file
beside it is locked while its writer lives, and the operating system frees the lock when the writer
dies: whoever writes to that folder next deletes what nobody holds.

**Reading.** A name may stand for a pipe that never answers, a device that never ends, or a file
that fills the memory, so `read` takes regular files alone, and none that is larger than it should
be.

**Folders.** `holding` keeps two processes from working in one, `claim` two experiments;
`is_private` says whether others can put anything there, `make_private_folder` makes one where they
cannot.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

if sys.platform != "win32":
    import fcntl

MAX_JSON_BYTES = 2**24

_UNFINISHED = re.compile(r"\.unfinished-[0-9a-f]{16}(\..*)?")
KEPT = ". What was there before is there still"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "a device"),
)


class InUseError(ValueError):
    """Another process, or another part of this one, is at work there."""


# ---- writing


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """An empty file to write to, which takes the place of `path` when all went well.

    It lies beside `path`, has its suffix, and must be written in place, not replaced. The folder is
    made where it is missing.

    Args:
        path: of the file that is meant.
        mode: permissions, less what the user's umask takes away.

    Raises:
        OSError: the file cannot be written; the disk is full, for instance. What was there before
            is there still.
    """
    with naming(path, KEPT):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        unfinished, descriptor = _create(path, mode)
    try:
        try:
            yield unfinished
        except OSError as error:
            if error.errno in _FULL:
                _raise_named(path, error, KEPT)
            raise
        with naming(path, KEPT):
            os.fsync(descriptor)  # some systems say only now that the disk is full
            if sys.platform == "win32":  # where an open file has to keep its name
                os.close(descriptor)
            unfinished.replace(path)
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def write(path: Path, content: bytes | str, mode: int = 0o666) -> None:
    """Write a file whole or not at all; arguments and errors as for `replacing`. Text is UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path, mode) as unfinished:
        unfinished.write_bytes(data)


@contextmanager
def naming(path: Path, more: str = "") -> Iterator[None]:
    """Say in an error of the operating system which file cannot be written."""
    try:
        yield
    except OSError as error:
        _raise_named(path, error, more)


def _raise_named(path: Path, error: OSError, more: str) -> NoReturn:
    # the class follows from the number: PermissionError, FileNotFoundError
    text = f"{str(path)!r} cannot be written: {error.strerror}{more}"
    raise OSError(error.errno, text) from error


def _create(path: Path, mode: int) -> tuple[Path, int]:
    """A new file beside `path`, and its descriptor, which locks it."""
    while True:
        name = f".unfinished-{secrets.token_hex(8)}{path.suffix}"
        descriptor = os.open(path.with_name(name), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        # one that cleans up may have come between
        if _lock(descriptor) and os.fstat(descriptor).st_nlink:
            return path.with_name(name), descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a new file; false where somebody else was faster."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a disk without locks, where nobody will clean up either
            return True
    return True


def _remove_leftovers(folder: Path) -> None:
    """Delete what writers left there that were killed."""
    if sys.platform == "win32":  # a file that is in use cannot be deleted there, but is closed
        return
    for name in os.listdir(folder):  # noqa: PTH208  (a Path for each entry takes longer)
        if not _UNFINISHED.fullmatch(name):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(folder / name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where it is held
                (folder / name).unlink()
            finally:
                os.close(descriptor)


# ---- reading


@contextmanager
def open_regular(path: Path, limit: int) -> Iterator[BinaryIO]:
    """Open a file to read it.

    Args:
        path: of the file, or of a link to it.
        limit: bytes that it may have.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is larger, or no regular file.
    """
    _check_regular(path, path.stat())  # first: to open a device can already do something
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        _check_regular(path, status)
        if status.st_size > limit:
            _refuse_size(path, limit, status.st_size)
        yield file


def read(path: Path, limit: int) -> bytes:
    """The content of a file; arguments and errors as for `open_regular`."""
    with open_regular(path, limit) as file:
        content = file.read(limit + 1)  # it may grow, or not say its size
    if len(content) > limit:
        _refuse_size(path, limit, len(content))
    return content


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> Any:
    """JSON from a file that anybody may have made; arguments and errors as for `open_regular`.

    Raises:
        ValueError: it is no JSON; see `parse_json`.
    """
    content = read(path, limit)
    try:
        return parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def parse_json(content: bytes | str, constant: Callable[[str], Any] = float) -> Any:
    """The data in a text of JSON.

    Args:
        content: which anybody may have written.
        constant: is given the names NaN, Infinity and -Infinity, which Python writes and JSON does
            not have, and returns what they stand for, or raises a `ValueError`.

    Raises:
        ValueError: it is no JSON, no UTF-8, nested too deeply, or has a number of thousands of
            digits.
    """
    try:
        return json.loads(content, parse_constant=constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        found = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        raise ValueError(f"{path} must be a file, got {found}")


def _refuse_size(path: Path, limit: int, found: int) -> NoReturn:
    raise ValueError(f"{path} must be at most {limit} bytes, got {found}")


# ---- folders


@contextmanager
def holding(lock: Path, what: str, timeout: float | None = 0.0) -> Iterator[None]:
    """Keep all others out of what a lock stands for.

    Args:
        lock: a file that is there while somebody holds it; of a process that was killed it stays,
            free, until the next holder deletes it.
        what: it stands for, for the message.
        timeout: seconds to wait for another holder; None: as long as it takes.

    Raises:
        InUseError: another process, or another part of this one, holds it.
    """
    from filelock import FileLock, Timeout  # it brings asyncio along, which takes its time

    guard = FileLock(lock, timeout=-1.0 if timeout is None else timeout)
    try:
        guard.acquire()
    except Timeout as error:
        raise InUseError(
            f"{what} is in use by another process, or elsewhere in this one ({lock} is locked). "
            "Wait until it has ended, or choose another"
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # on Windows it goes when it is closed
            lock.unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone
        guard.release()


def claim(folder: Path, mark: str, identity: Mapping[str, Any], what: str, least_free: int) -> None:
    """Mark a folder as that of an experiment; nothing to do where it is marked already.

    Args:
        folder: new, empty or marked.
        mark: name of the file in it that holds the identity.
        identity: JSON data that tells one experiment from another.
        what: the experiment is, for messages.
        least_free: bytes that must be free on its disk before it is marked.

    Raises:
        ValueError: it holds something else, or cannot be written to.
    """
    if _is_claimed(folder, mark, identity, what):
        return
    check_space(folder, least_free)
    make_writable_folder(folder)
    with holding(folder / f".{mark}.lock", f"folder {str(folder)!r}", timeout=None):
        # another process may have been at it in the meantime
        if not _is_claimed(folder, mark, identity, what):
            write(folder / mark, json.dumps(identity, indent=2) + "\n")


def _is_claimed(folder: Path, mark: str, identity: Mapping[str, Any], what: str) -> bool:
    """Whether the folder has its mark; refuses that of something else."""
    try:
        # in this order: what another process puts there comes after its mark
        entries = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        found = read_json(folder / mark) if (folder / mark).exists() else None
    except (OSError, ValueError) as error:
        raise ValueError(f"folder {str(folder)!r} cannot be read: {error}") from error
    if found == identity:
        return True
    if isinstance(found, dict):
        raise ValueError(
            f"folder {str(folder)!r} holds another {what}: {differences(found, identity)}. Choose "
            "another folder"
        )
    visible = [name for name in entries if not name.startswith(".")]
    if found is not None or visible:
        raise ValueError(
            f"folder must be new or empty, or of the same {what}, but {str(folder)!r} holds "
            f"{visible[0]!r} of something else. Choose another folder"
        )
    return False


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What differs between two identities, as text; empty where they are equal."""
    return "; ".join(
        f"{name} was {found.get(name)!r} and is {wanted.get(name)!r}"
        for name in sorted({*found, *wanted})
        if (name in found) != (name in wanted) or found.get(name) != wanted.get(name)
    )


def make_writable_folder(path: Path, name: str = "folder") -> None:
    """Make a folder and try to write there, so that an experiment does not fail at its end.

    Args:
        path: of the folder.
        name: of the argument that it was given as.

    Raises:
        ValueError: it cannot be made, or nothing can be written there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path, prefix="."):  # hidden from `check_folder`
            pass
    except OSError as error:
        raise ValueError(
            f"{name} must be a folder that can be written to, got {str(path)!r}: {error.strerror}"
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


def make_private_folder(path: Path) -> None:
    """Make a folder, and what is missing above it, for the user alone, whatever the umask.

    Raises:
        OSError: it cannot be made; or there is something else of that name.
    """
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            try:
                folder.mkdir(mode=0o700)
                folder.chmod(0o700)  # the umask may have taken too much
            except FileExistsError:  # another process was faster, or it is a link to nowhere
                if not folder.is_dir():
                    raise
    if not path.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(path))


def is_own(status: os.stat_result) -> bool:
    """Whether only this user, or the system's administrator, wrote or can write there."""
    if sys.platform == "win32":  # whose files are the user's own where he keeps them
        return True
    return status.st_uid in {0, os.geteuid()} and not status.st_mode & _OTHERS_WRITE


def is_private(folder: Path) -> bool:
    """Whether nobody else can put anything in a folder's place or into it.

    Above it, a folder where everybody may write has to be "sticky", as the temporary one is: there
    only the owner of an entry can rename it.

    Raises:
        OSError: there is none.
    """
    if sys.platform == "win32":
        return True
    parents = (parent.stat().st_mode for parent in folder.resolve().parents)
    return is_own(folder.stat()) and not any(
        mode & stat.S_IWOTH and not mode & stat.S_ISVTX for mode in parents
    )
