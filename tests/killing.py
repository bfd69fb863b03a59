"""Processes that are killed: at each of their calls of the file system, or at a random moment."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CALLS = {
    "fcntl.flock",
    "open",
    "os.chmod",
    "os.listdir",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.scandir",
}
KILLED = 9

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are made by forking")


def at_every_call(action: Callable[[], object]) -> Iterator[int]:
    """Do it in a new process that ends before its first call of the file system, its second, ...

    Yields:
        The number of calls that were made, after each process but the last, which came to its end.
    """
    made = 0
    while _exit_code(_child(lambda made=made: (_end_after(made), action()))):
        yield made
        made += 1
    assert made, "it calls the file system"


def at_random(action: Callable[[], object], longest: float, rng: random.Random) -> None:
    """Begin it in a new process, and kill that within so many seconds."""
    child = _child(action)
    time.sleep(rng.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _child(action: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        action()
        code = 0
    except BaseException as error:  # there is nobody here to raise it to
        sys.stderr.write(f"{error!r}\n")
    finally:
        os._exit(code)


def _exit_code(child: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, KILLED}, "it failed by itself"
    return code


def _end_after(calls: int) -> None:
    made = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal made
        if event in CALLS:
            if made == calls:
                os._exit(KILLED)  # no clean-up runs, as when it is killed
            made += 1

    sys.addaudithook(count)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process, or of those it starts, can have more bytes: as if the disk ended."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    """What is in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())
