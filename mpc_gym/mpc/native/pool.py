"""Runs the kernels: in threads, and in slices so that Ctrl-C ends them."""

import itertools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Event

import torch

from mpc_gym.compiled.cpu.emit import LANES

_FIRST_PASSES = 64  # most batches need fewer
_SLICE_SECONDS = 0.02
_NEVER = Event()  # for the caller's own thread, which an exception stops


def in_slices(kernel: Callable[[int], bool], stop: Event) -> bool:
    """Run a kernel, for so many passes at a time, until it is done or is to stop.

    Between the slices, of some hundredths of a second, Python answers signals such as Ctrl-C.

    Returns whether it is done.
    """
    passes = _FIRST_PASSES
    while not stop.is_set():
        begun = time.perf_counter()
        if kernel(passes):
            return True
        if time.perf_counter() - begun < _SLICE_SECONDS:
            passes *= 2
    return False


def in_threads(kernel: Callable[[tuple[int, int], Event], None], tasks: int) -> None:
    """Run the kernel on tasks 0 .. tasks - 1, in parts of whole blocks, one to a torch thread.

    Its second argument tells it when it is to stop, because the caller was interrupted.
    """
    blocks = -(-tasks // LANES)
    parts = min(torch.get_num_threads(), blocks)
    if parts <= 1:
        kernel((0, tasks), _NEVER)
        return
    stop = Event()
    edges = [min(tasks, LANES * (blocks * i // parts)) for i in range(parts + 1)]
    try:
        futures = [_pool().submit(kernel, part, stop) for part in itertools.pairwise(edges)]
        for future in futures:
            future.result()
    except BaseException:
        stop.set()
        raise


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads for all kernels, started as they are needed."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="mpc_gym")


if hasattr(os, "register_at_fork"):
    # a child process inherits the pool, but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
