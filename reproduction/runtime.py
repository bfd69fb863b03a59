"""Time of the derivative over the number of the solver's iterations (Amos et al., 2018, 5.1).

The implicit derivative solves one linear-quadratic problem at the optimum, however long the way
there was; unrolled differentiation goes back through every iteration. Gauss-Newton converges
linearly on the cart-pole from the start state used here, so that the tolerance sets the number of
iterations, and both ways differentiate the same solve.
"""

import math
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.experiments.plots import Line, draw_lines, make_figure, save_figure
from mpc_gym.experiments.run import Run
from mpc_gym.experiments.tables import Table, picture, shown
from mpc_gym.imitation.metrics import Metrics
from mpc_gym.make_mpc import make_mpc
from mpc_gym.mpc import MPC
from reproduction.section import Finding, Section

ITERATIONS = (1, 2, 4, 8, 16, 32, 64)
BATCH = 16
HORIZON = 20
# From here, every tenfold reduction of the last step takes Gauss-Newton some 80 iterations.
START = (0.4527381, 0.2703205, -0.8241056, -0.5664362, -0.5681890)
MAX_ITERATIONS = 2000
LOOSE, TIGHT = 1e3, 1e-9  # tolerances: the first takes one iteration
LEAST, MOST = 3, 50  # measurements of each time, as many as fit in `seconds`
CONSTANT, LINEAR = 0.25, 0.75  # bounds of the exponent of the iterations


class Mode(NamedTuple):
    """A way to differentiate."""

    title: str
    options: dict[str, str]


MODES = {
    "implicit-native": Mode("implicit", {"differentiate": "implicit", "backend": "native"}),
    "implicit-reference": Mode(
        "implicit,\nreference", {"differentiate": "implicit", "backend": "torch"}
    ),
    "unrolled-reference": Mode(
        "unrolled,\nreference", {"differentiate": "unrolled", "backend": "torch"}
    ),
}


def runs(quick: bool, seed: int = 0) -> list[Run]:
    """One for each way to differentiate and number of iterations.

    Args:
        quick: two numbers of iterations.
        seed: of nothing, as nothing is drawn.
    """
    return [
        Run(
            name=f"runtime/{mode}/iterations-{iterations}",
            function=f"{__name__}:run",
            settings={
                "seed": seed,
                "mode": mode,
                "iterations": iterations,
                "seconds": 0.2 if quick else 2.0,
            },
        )
        for iterations in ((1, 8) if quick else ITERATIONS)
        for mode in MODES
    ]


def run(folder: Path, seed: int, mode: str, iterations: int, seconds: float) -> dict[str, Any]:
    """Measure one way to differentiate at one number of iterations.

    It takes seconds, so it leaves no checkpoint: a run that was stopped begins anew.

    Args:
        folder: for the log.
        seed: of nothing, as nothing is drawn.
        mode: a key of `MODES`.
        iterations: of the solver.
        seconds: to go on measuring for.

    Returns:
        The settings, "found_iterations", and the times of the passes "forward" and "backward" [s].
    """
    mpc = controller(LOOSE, **MODES[mode].options)
    measure(mpc)  # compiles
    mpc.tolerance = tolerance_for(iterations)
    metrics = Metrics(folder, [], by="measurement")
    spent = 0.0
    while len(metrics.rows) < LEAST or (len(metrics.rows) < MOST and spent < seconds):
        times = measure(mpc)
        spent += times["forward"] + times["backward"]
        metrics.record({"measurement": float(len(metrics.rows)), **times})
    metrics.close()
    return {
        "seed": seed,
        "mode": mode,
        "iterations": iterations,
        "found_iterations": int(metrics.rows[0]["iterations"]),
        **{name: [row[name] for row in metrics.rows] for name in ("forward", "backward")},
    }


def controller(tolerance: float, **options: Any) -> MPC:
    """The paper's controller of the cart-pole, by Gauss-Newton."""
    return make_mpc(
        "DiffCartPole-v0",
        horizon=HORIZON,
        hessian="gauss-newton",
        tolerance=tolerance,
        max_iterations=MAX_ITERATIONS,
        **options,
    )


def start_states(batch: int = BATCH) -> Float[Tensor, "batch 5"]:
    """The start state, again and again."""
    return torch.tensor(START, dtype=torch.float64).expand(batch, -1).contiguous()


def tolerance_for(iterations: int) -> float:
    """A tolerance that takes about so many iterations, by bisection in its logarithm."""
    mpc = controller(LOOSE)
    loose, tight = math.log(LOOSE), math.log(TIGHT)
    for _ in range(30):
        middle = (loose + tight) / 2
        mpc.tolerance = math.exp(middle)
        with torch.no_grad():
            found = int(mpc(start_states(1)).iterations)
        if found == iterations:
            return mpc.tolerance
        loose, tight = (middle, tight) if found < iterations else (loose, middle)
    return math.exp(loose)


def measure(mpc: MPC) -> dict[str, float]:
    """Durations of a forward and of a backward pass [s], and the iterations in between."""
    mpc.zero_grad()
    x_init = start_states()
    start = time.perf_counter()
    plan = mpc(x_init)
    solved = time.perf_counter()
    plan.controls.square().mean().backward()
    done = time.perf_counter()
    iterations = float(plan.iterations.max())
    return {"forward": solved - start, "backward": done - solved, "iterations": iterations}


def exponent(iterations: list[int], times: list[float]) -> float:
    """Of the iterations that the times grow with: the slope of a line through their logarithms.

    Near 0 where the times are constant, near 1 where they grow in proportion.
    """
    slope: float = np.polyfit(np.log(iterations), np.log(times), 1)[0].item()
    return slope


def section(results: dict[str, dict[str, Any]], images: Path) -> Section:
    """The finding, and the times over the iterations.

    Args:
        results: of the runs, by their names.
        images: folder for the plot.
    """
    by_mode = {
        mode: sorted(
            (result for result in results.values() if result["mode"] == mode),
            key=lambda result: result["found_iterations"],
        )
        for mode in MODES
    }
    path = images / "runtime.png"
    _plot(by_mode, path)
    text = f"""\
Duration of the forward and the backward pass of a batch of {BATCH} cart-poles over {HORIZON}
stages, for tolerances that take Gauss-Newton from one iteration to dozens. "implicit" is this
project's derivative on compiled code; the other two run on its reference in PyTorch and differ in
the derivative alone. Lines are medians of {LEAST} to {MOST} measurements, bands their middle
halves.

{picture(path, "Forward and backward time over the number of iterations")}"""
    return Section("Solver runtime (section 5.1)", text, [_finding(by_mode)], [_table(by_mode)])


def _finding(by_mode: dict[str, list[dict[str, Any]]]) -> Finding:
    exponents, ratios = {}, {}
    for mode, group in by_mode.items():
        iterations = [result["found_iterations"] for result in group]
        times = [median(result["backward"]) for result in group]
        exponents[mode] = exponent(iterations, times)
        ratios[mode] = times[-1] / times[0]
    constant = all(abs(exponents[mode]) <= CONSTANT for mode in MODES if "implicit" in mode)
    linear = exponents["unrolled-reference"] >= LINEAR
    diagnosis = (
        "The exponents are those of a line through the logarithms of the median times; constant "
        f"means at most {CONSTANT}, linear at least {LINEAR}. From the fewest iterations "
        f"({by_mode['implicit-native'][0]['found_iterations']}) to the most "
        f"({by_mode['implicit-native'][-1]['found_iterations']}) the backward pass takes "
        + ", ".join(f"{shown(ratio)} times as long ({mode})" for mode, ratio in ratios.items())
        + "."
    )
    return Finding(
        name="e",
        statement="The time of the backward pass is constant in the iterations, where that of "
        "unrolled differentiation is linear.",
        holds=constant and linear,
        numbers={
            "exponent of the iterations": exponents,
            "backward time, most to fewest iterations": ratios,
        },
        diagnosis=diagnosis,
    )


def _table(by_mode: dict[str, list[dict[str, Any]]]) -> Table:
    rows = [
        [
            mode,
            result["found_iterations"],
            1e3 * median(result["forward"]),
            1e3 * median(result["backward"]),
            len(result["backward"]),
        ]
        for mode, group in by_mode.items()
        for result in group
    ]
    columns = ("derivative", "iterations", "forward [ms]", "backward [ms]", "measurements")
    return Table("runtime", "Median times", columns, rows)


def _plot(by_mode: dict[str, list[dict[str, Any]]], path: Path) -> None:
    figure, panels = make_figure(2)
    for axes, name in zip(panels, ("forward", "backward"), strict=True):
        axes.set(xscale="log", yscale="log", xlabel="iterations", ylabel="time [ms]")
        axes.set_title(f"{name.capitalize()} pass")
        draw_lines(axes, [_line(mode, group, name) for mode, group in by_mode.items()])
        ticks = [result["found_iterations"] for result in by_mode["implicit-native"]]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
    save_figure(figure, path)


def _line(mode: str, group: list[dict[str, Any]], name: str) -> Line:
    y = np.array([np.quantile(result[name], (0.25, 0.5, 0.75)) for result in group]).T
    x = [float(result["found_iterations"]) for result in group]
    return Line(MODES[mode].title, x, 1e3 * y, list(MODES).index(mode), markers=True)
