"""Measures in a process of its own: peak memory, and what a new process costs."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_RUSAGE_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module-level function in a new process that has already imported this package.

    It is forked from a server that does nothing else, so that neither the memory nor the threads
    of this process are in it.
    """
    process, receiver = _started(_send, function, arguments)
    try:
        return receiver.recv()
    except EOFError as error:
        raise RuntimeError(f"{function} failed in its process; see above") from error
    finally:
        process.join()


def reports(function: Callable[..., Any], *arguments: Any, limit: float) -> Iterator[Any]:
    """What a module-level generator yields in such a process, as it comes.

    Raises:
        TimeoutError: it took more than `limit` [s of the processor] for one, and was ended.
        RuntimeError: it failed; what it says of that is above.
    """
    process, receiver = _started(_send_all, function, (limit, *arguments))
    try:
        while True:
            yield receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGPROF:
            raise TimeoutError(f"more than {limit:g} s of the processor") from None
        if process.exitcode:
            raise RuntimeError(f"exit status {process.exitcode}") from None
    finally:
        process.kill()
        process.join()


def _started(
    target: Callable[..., None], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "benchmarks.rivals.ours"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(sender, function, arguments))
    process.start()
    sender.close()  # so that a child that dies is the end of the file
    return process, receiver


def _send(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    sender.send(function(*arguments))


def _send_all(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    limit, *given = arguments
    limit_processor(limit)
    for each in function(*given):
        sender.send(each)
        limit_processor(limit)


def limit_processor(seconds: float) -> None:
    """Let this process be ended, by SIGPROF, after so much of its time [s]."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def limit_memory(size: float) -> None:
    """Let this process fail, and no other one be ended, where it wants more bytes than that."""
    resource.setrlimit(resource.RLIMIT_AS, (int(size), resource.RLIM_INFINITY))


def peak_memory(task: Callable[[], Any]) -> float:
    """Memory that a task needs beyond what the process held before it [MB].

    It is the resident set of the whole process: tracemalloc does not see what torch allocates.
    """
    with suppress(OSError):  # on Linux: forget the peak so far
        Path("/proc/self/clear_refs").write_text("5")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = task()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del kept
    return (after - before) * _RUSAGE_UNIT / 1e6


def run_script(
    module: str, *arguments: str, cache: Path | None = None, limit: float | None = None
) -> tuple[dict[str, float], float]:
    """Run `python -m module`; what it printed (JSON), and the duration [s].

    Compiled code is read from and written to `cache`, or where this process keeps it.

    Raises:
        TimeoutError: it took more than `limit` [s of the processor], and was ended.
        RuntimeError: it failed.
    """
    directory = {} if cache is None else {"MPC_GYM_CACHE_DIR": str(cache)}
    environment = {**os.environ, **directory}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        # a timer outlives the change of the program
        preexec_fn=None if limit is None else partial(limit_processor, limit),
    )
    duration = time.perf_counter() - start
    if done.returncode == -signal.SIGPROF:
        raise TimeoutError(f"{module} took more than {limit:g} s of the processor")
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured, duration
