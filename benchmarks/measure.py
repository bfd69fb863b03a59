"""Measuring times side by side."""

import gc
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

MAX_RUNS = 40
LONG = 10.0  # a task that takes more is run once: what it loads or compiles is little beside it [s]
SHORT = 0.1  # a task that takes less is run once untimed before every timed run [s]
Key = TypeVar("Key", bound=Hashable)


@dataclass
class Timing:
    """Durations of the runs of one task [s]."""

    samples: list[float] = field(default_factory=list)
    result: Any = None  # of the last run

    @property
    def median(self) -> float:
        """The middle one [s]."""
        return median(self.samples)

    @property
    def best(self) -> float:
        """The shortest [s]."""
        return min(self.samples)


def interleaved(
    tasks: Mapping[Key, Callable[[], Any]],
    seconds: float,
    *,
    least: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, Timing]:
    """Time every task, in turns, so that what else the machine does hits all of them alike.

    Each is run once to warm up (models are loaded then) and then about as often as fits in
    `seconds`, but at least `least` and at most 40 times, its runs spread over the whole time. As a
    task finds the caches full of another's data, a short one is run once more before each of its
    runs. A task whose first run took very long, or whose second took longer than `seconds`, is not
    run again. The clock `time.thread_time` leaves out what others do on a busy machine, and is for
    tasks of this thread alone.
    """
    timings = {name: Timing() for name in tasks}
    turns, short = [], set()
    for name, task in tasks.items():
        first = timed(task, timings[name], clock)
        if first > LONG:
            continue
        timings[name].samples.clear()
        warm = timed(task, timings[name], clock)
        if warm > seconds:
            continue
        timings[name].samples.clear()
        if warm < SHORT:
            short.add(name)
        runs = max(least, min(MAX_RUNS, int(seconds / warm)))
        turns += [((i + 0.5) / runs, name) for i in range(runs)]
    for _, name in sorted(turns, key=lambda turn: turn[0]):
        if name in short:
            tasks[name]()
        timed(tasks[name], timings[name], clock)
    return timings


def timed(
    task: Callable[[], Any], into: Timing, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Run a task once, with the garbage collector held back; the duration [s]."""
    gc.collect(0)
    gc.disable()
    try:
        start = clock()
        into.result = task()
        duration = clock() - start
    finally:
        gc.enable()
    into.samples.append(duration)
    return duration
