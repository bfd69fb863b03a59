"""The second table: implicit against unrolled differentiation, over the number of iterations.

As figure 1 of Amos et al. (2018): the backward pass of the implicit derivative takes the same time
and memory however long the solve took. Gauss-Newton converges linearly from the start state used
here, so that the tolerance sets the number of iterations.
"""

import time
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from benchmarks.fresh import in_child, peak_memory
from benchmarks.options import Options
from benchmarks.problems import CARTPOLE
from benchmarks.report import Table
from mpc_gym.mpc import MPC

COLUMNS = (
    "differentiation", "iterations", "forward [ms]", "backward [ms]", "best backward [ms]",
    "peak memory [MB]",
)  # fmt: skip
SLOW_STATE = 26  # of the reference file: every decade of the tolerance takes 80 iterations
COPIES = 16  # of it make the batch
MAX_ITERATIONS = 2000
LOOSE, TIGHT = 1e3, 1e-9


class Mode(NamedTuple):
    """A way to differentiate."""

    label: str
    differentiate: Literal["implicit", "unrolled"]
    backend: Literal["native", "torch"]


MODES = (
    Mode("implicit, native", "implicit", "native"),
    Mode("implicit, reference", "implicit", "torch"),
    Mode("unrolled, reference", "unrolled", "torch"),
)


def compare_derivatives(options: Options) -> list[Table]:
    """Time and peak memory of the forward and the backward pass."""
    table = Table("differentiation", f"Differentiating a batch of {COPIES} cart-poles", COLUMNS)
    for count in (1, 5, 20) if options.quick else (1, 2, 5, 10, 20, 50, 100):
        tolerance = tolerance_for(count)
        for mode in MODES:
            found = in_child(measure, mode, tolerance, 0.5 if options.quick else 5.0)
            table.add(mode.label, *found)
    return [table]


def controller(**options: Any) -> MPC:
    """The cart-pole with Gauss-Newton."""
    return CARTPOLE.controller(hessian="gauss-newton", max_iterations=MAX_ITERATIONS, **options)


def start_states(copies: int = COPIES) -> torch.Tensor:
    """The slow start state, again and again."""
    row = CARTPOLE.reference("x_init")[SLOW_STATE]
    return torch.from_numpy(np.tile(row, (copies, 1)))


def tolerance_for(iterations: int) -> float:
    """A tolerance that takes about so many iterations, by bisection in its logarithm."""
    mpc = controller(backend="native")
    loose, tight = np.log(LOOSE), np.log(TIGHT)
    for _ in range(30):
        middle = (loose + tight) / 2
        mpc.tolerance = float(np.exp(middle))
        with torch.no_grad():
            found = int(mpc(start_states(1)).iterations)
        if found == iterations:
            return mpc.tolerance
        loose, tight = (middle, tight) if found < iterations else (loose, middle)
    return float(np.exp(loose))


def measure(mode: Mode, tolerance: float, seconds: float) -> tuple[int, float, float, float, float]:
    """Iterations, forward time, backward time and its best [ms], peak memory [MB].

    The times are medians of 1 to 20 runs, as many as fit in `seconds`.
    """
    torch.set_num_threads(1)
    mpc = controller(backend=mode.backend, differentiate=mode.differentiate, tolerance=LOOSE)
    one_run(mpc)  # compiles
    mpc.tolerance = tolerance
    with torch.no_grad():
        iterations = int(mpc(start_states(1)).iterations)
    runs: list[tuple[float, float]] = []
    memory = peak_memory(lambda: runs.append(one_run(mpc)))
    while len(runs) < 20 and sum(map(sum, runs)) < 1e3 * seconds:
        runs.append(one_run(mpc))
    forward, backward = zip(*runs, strict=True)
    return iterations, median(forward), median(backward), min(backward), memory


def one_run(mpc: MPC, copies: int = COPIES) -> tuple[float, float]:
    """Duration of a forward and of a backward pass [ms]."""
    mpc.zero_grad()
    x_init = start_states(copies)
    start = time.perf_counter()
    plan = mpc(x_init)
    solved = time.perf_counter()
    plan.controls.square().mean().backward()
    done = time.perf_counter()
    assert plan.converged.all()
    return (solved - start) * 1e3, (done - solved) * 1e3
