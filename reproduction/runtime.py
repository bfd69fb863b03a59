"""Time of the derivative over the number of the solver's iterations (Amos et al., 2018, 5.1).

The implicit derivative solves one linear-quadratic problem at the optimum, however long the way
there was; unrolled differentiation goes back through every iteration. Gauss-Newton converges
linearly on the cart-pole from the start state used here, so that the tolerance sets the number of
iterations, and both ways differentiate the same solve.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym import MPC, make_mpc
from mpc_gym.experiments.plots import Line
from mpc_gym.experiments.runs import Run
from mpc_gym.experiments.tables import picture, shown
from mpc_gym.imitation import Metrics
from reproduction.report import OURS, PAPER, Finding, Panel, Result, Section, make_table, plot

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
    """A way to differentiate.

    Args:
        title: in the plot.
        options: of the controller.
    """

    title: str
    options: dict[str, str]


MODES = {
    f"{differentiate}-{solver}": Mode(title, {"differentiate": differentiate, "backend": backend})
    for differentiate, solver, backend, title in (
        ("implicit", "native", "native", "implicit"),
        ("implicit", "reference", "torch", "implicit,\nreference"),
        ("unrolled", "reference", "torch", "unrolled,\nreference"),
    )
}
# The paper differentiates likewise, in PyTorch.
IMPLICIT = {PAPER: "implicit-reference", OURS: "implicit-native"}
Groups = dict[str, list[Result]]  # by mode, in the order of the iterations


def runs(quick: bool, seed: int = 0) -> list[Run]:
    """One for each way to differentiate and number of iterations; quick: two numbers of these.

    The seed has no effect, as nothing is random.
    """
    fixed = {"seed": seed, "seconds": 0.2 if quick else 2.0}
    return [
        Run(
            f"runtime/{mode}/iterations-{iterations}",
            f"{__name__}:run",
            {"mode": mode, "iterations": iterations, **fixed},
        )
        for iterations in ((1, 8) if quick else ITERATIONS)
        for mode in MODES
    ]


def run(folder: Path, seed: int, mode: str, iterations: int, seconds: float) -> Result:
    """Measure one way to differentiate at one number of iterations.

    It takes seconds, so it leaves no checkpoint: a run that was stopped begins anew.

    Args:
        folder: for the log.
        seed: without effect, as nothing is random.
        mode: a key of `MODES`.
        iterations: of the solver.
        seconds: of measuring, see `measurements`.

    Returns:
        The settings, "found_iterations", and the times of the passes "forward" and "backward" [s].
    """
    metrics = Metrics(folder, [], by="measurement")
    mpc = compiled_controller(mode, tolerance_for(iterations))
    for times in measurements(mpc, seconds):
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


def compiled_controller(mode: str, tolerance: float) -> MPC:
    """A controller that differentiates in this way, with all compiled that measuring needs."""
    mpc = controller(LOOSE, **MODES[mode].options)
    measure(mpc)
    mpc.tolerance = tolerance
    return mpc


def measurements(mpc: MPC, seconds: float) -> Iterator[dict[str, float]]:
    """Measure as often as fits in these seconds, at least `LEAST` times and at most `MOST`."""
    spent = 0.0
    for count in range(MOST):
        if count >= LEAST and spent >= seconds:
            return
        times = measure(mpc)
        spent += times["forward"] + times["backward"]
        yield times


def measure(mpc: MPC, batch: int = BATCH) -> dict[str, float]:
    """Durations of a "forward" and of a "backward" pass [s], and the "iterations" in between."""
    mpc.zero_grad()
    x_init = start_states(batch)
    start = time.perf_counter()
    plan = mpc(x_init)
    solved = time.perf_counter()
    plan.controls.square().mean().backward()
    done = time.perf_counter()
    assert bool(plan.converged.all()), "a solve that did not converge has no gradient to time"
    iterations = float(plan.iterations.max())
    return {"forward": solved - start, "backward": done - solved, "iterations": iterations}


def exponent(iterations: list[int], times: list[float]) -> float:
    """Of the iterations that the times grow with: the slope of a line through their logarithms.

    Near 0 where the times are constant, near 1 where they grow in proportion.
    """
    slope: float = np.polyfit(np.log(iterations), np.log(times), 1)[0].item()
    return slope


def section(results: dict[str, Result], images: Path) -> Section:
    """The finding, and the times over the iterations."""
    groups: Groups = {mode: [] for mode in MODES}
    for result in sorted(results.values(), key=lambda result: int(result["found_iterations"])):
        groups[result["mode"]].append(result)
    path = images / "runtime.png"
    plot(path, [_panel(groups, name) for name in ("forward", "backward")])
    text = f"""\
Duration of the forward and the backward pass of a batch of {BATCH} cart-poles over {HORIZON}
stages, for tolerances that take Gauss-Newton from one iteration to dozens. "implicit" is this
project's derivative on compiled code; the other two run on its reference in PyTorch and differ in
the derivative alone. Lines are medians of {LEAST} to {MOST} measurements, bands their middle
halves.

{picture(path, "Forward and backward time over the number of iterations")}"""
    rows = [
        {
            "derivative": mode,
            "iterations": result["found_iterations"],
            "forward [ms]": 1e3 * median(result["forward"]),
            "backward [ms]": 1e3 * median(result["backward"]),
            "measurements": len(result["backward"]),
        }
        for mode, group in groups.items()
        for result in group
    ]
    table = make_table("runtime", "Median times", rows)
    return Section(
        "Solver runtime (section 5.1)",
        text,
        [_finding(groups, learner) for learner in IMPLICIT],
        [table],
    )


def _iterations(group: list[Result]) -> list[int]:
    return [result["found_iterations"] for result in group]


def _finding(groups: Groups, learner: str) -> Finding:
    modes = (IMPLICIT[learner], "unrolled-reference")
    times = {mode: [median(r["backward"]) for r in groups[mode]] for mode in modes}
    exponents = {mode: exponent(_iterations(groups[mode]), times[mode]) for mode in modes}
    ratios = {mode: values[-1] / values[0] for mode, values in times.items()}
    implicit, unrolled = exponents.values()
    fewest, *_, most = _iterations(groups["implicit-native"])
    longer = ", ".join(f"{shown(ratio)} times as long ({mode})" for mode, ratio in ratios.items())
    return Finding(
        name="e",
        statement="The time of the backward pass is constant in the iterations, where that of "
        "unrolled differentiation is linear.",
        learner=learner,
        holds=abs(implicit) <= CONSTANT and unrolled >= LINEAR,
        summary=f"iterations to the power {shown(implicit)}, unrolled {shown(unrolled)}",
        numbers={
            "exponent of the iterations": exponents,
            "backward time, most to fewest iterations": ratios,
        },
        diagnosis="The exponents are those of a line through the logarithms of the median times; "
        f"constant means at most {CONSTANT}, linear at least {LINEAR}. From the fewest iterations "
        f"({fewest}) to the most ({most}) the backward pass takes {longer}.",
    )


def _panel(groups: Groups, name: str) -> Panel:
    lines = []
    for colour, (mode, group) in enumerate(groups.items()):
        y = np.array([np.quantile(result[name], (0.25, 0.5, 0.75)) for result in group]).T
        lines.append(Line(MODES[mode].title, _iterations(group), 1e3 * y, colour, markers=True))
    ticks = _iterations(groups["implicit-native"])
    return Panel(f"{name.capitalize()} pass", "iterations", "time [ms]", lines, ticks)
