"""The second table: implicit against unrolled differentiation, over the number of iterations.

As figure 1 of Amos et al. (2018): the backward pass of the implicit derivative takes the same time
and memory however long the solve took. Time is measured as in `reproduction.runtime`.
"""

from statistics import median

import torch

from benchmarks.fresh import in_child, peak_memory
from benchmarks.options import Options
from benchmarks.report import Table
from reproduction.runtime import (
    BATCH,
    MODES,
    compiled_controller,
    measurements,
    tolerance_for,
)

COLUMNS = (
    "differentiation", "iterations", "forward [ms]", "backward [ms]", "best backward [ms]",
    "peak memory [MB]",
)  # fmt: skip


def compare_derivatives(options: Options) -> list[Table]:
    """Time and peak memory of the forward and the backward pass."""
    table = Table("differentiation", f"Differentiating a batch of {BATCH} cart-poles", COLUMNS)
    for count in (1, 5, 20) if options.quick else (1, 2, 5, 10, 20, 50, 100):
        tolerance = tolerance_for(count)
        for mode in MODES:
            found = in_child(measure, mode, tolerance, 0.5 if options.quick else 5.0)
            table.add(mode.replace("-", ", "), *found)
    return [table]


def measure(mode: str, tolerance: float, seconds: float) -> tuple[int, float, float, float, float]:
    """Iterations, forward time, backward time and its best [ms], peak memory [MB].

    The times are medians.
    """
    torch.set_num_threads(1)
    measured = measurements(compiled_controller(mode, tolerance), seconds)
    times: list[dict[str, float]] = []
    memory = peak_memory(lambda: times.append(next(measured)))
    times += measured
    forward, backward = ([1e3 * each[name] for each in times] for name in ("forward", "backward"))
    iterations = int(times[0]["iterations"])
    return iterations, median(forward), median(backward), min(backward), memory
