"""The numbers that the solver is to reach, each measured; medians, one thread unless said."""

import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.fresh import in_child, peak_memory, run_script
from benchmarks.judge import GradientVerdict, judge_gradients, stationarity, total_cost
from benchmarks.measure import Timing, interleaved
from benchmarks.options import Options
from benchmarks.problems import CARTPOLE, PENDULUM, PROBLEMS, Array, PaperProblem
from benchmarks.report import Table, console
from benchmarks.rivals.available import NATIVE, available
from benchmarks.rivals.ours import Ours
from mpc_gym.mpc import MPC, Plan
from mpc_gym.mpc.backend import Settings
from reproduction.runtime import compiled_controller, measure, tolerance_for

COLUMNS = ("measure", "measured", "unit", "target", "met")
RIVAL_FACTORS = {  # times slower than this project, at least
    ("cartpole", "mpc 0.0.6"): 5000,
    ("pendulum", "mpc 0.0.6"): 300,
    ("cartpole", "CasADi fatrop"): 40,
    ("pendulum", "CasADi fatrop"): 40,
}
SOLVE_TIMES = {  # us a solve at most, by batch
    "pendulum": {128: 8.0, 8192: 6.0},
    "cartpole": {128: 9.0, 8192: 8.0},
}


def check_targets(options: Options) -> list[Table]:
    """Measure each."""
    table = Table("targets", "Targets", COLUMNS)
    for part in (
        _solve_times, _rivals, _latency, _threads, _backward, _convergence, _gradients, _optima,
        _compilation, _bitwise, _memory,
    ):  # fmt: skip
        part(options, table)
    return [table]


def _at_most(table: Table, measure: str, value: float, unit: str, limit: float) -> None:
    table.add(measure, value, unit, f"<= {limit:g}", bool(value <= limit))


def _at_least(table: Table, measure: str, value: float, unit: str, limit: float) -> None:
    table.add(measure, value, unit, f">= {limit:g}", bool(value >= limit))


def _task(mpc: MPC, x_init: Tensor, threads: int = 1) -> Callable[[], Plan]:
    def task() -> Plan:
        torch.set_num_threads(threads)
        with torch.no_grad():
            plan: Plan = mpc(x_init)
        return plan

    return task


def _states(problem: PaperProblem, count: int, options: Options) -> Tensor:
    return torch.from_numpy(problem.start_states(count, options.seed))


def _times(tasks: dict[Any, Callable[[], Any]], options: Options) -> dict[Any, Timing]:
    return interleaved(tasks, 0.3 if options.quick else 1.0)


def _solve_times(options: Options, table: Table) -> None:
    tasks: dict[Any, Any] = {}
    for problem in PROBLEMS:
        mpc = problem.controller(backend="native")
        for batch in SOLVE_TIMES[problem.name]:
            x_init = _states(problem, batch, options)
            _task(mpc, x_init[:1])()  # compiles
            tasks[problem.name, batch] = _task(mpc, x_init)
    for (system, batch), timing in _times(tasks, options).items():
        limit = SOLVE_TIMES[system][batch]
        name = f"{system}, {batch} states"
        _at_most(table, name, timing.median / batch * 1e6, "us a solve", limit)
        _at_most(table, f"{name}, best run", timing.best / batch * 1e6, "us a solve", limit)


def _rivals(options: Options, table: Table) -> None:
    rivals, missing = available()
    for line in missing:
        console.print(line)
    for problem in PROBLEMS:
        x_init = problem.start_states(128, options.seed)
        prepared = {}
        for rival in rivals:
            factor = RIVAL_FACTORS.get((problem.name, rival.name))
            slow = options.quick and rival.name.startswith("mpc 0.0.6")
            if rival.name != NATIVE and (factor is None or slow):
                continue
            rival.prepare(problem, x_init[:1]).forward()
            prepared[rival.name] = rival.prepare(problem, x_init)
        timings = _times({name: ready.forward for name, ready in prepared.items()}, options)
        costs = {}
        for name, ready in prepared.items():
            U = ready.controls(timings[name].result)
            costs[name] = total_cost(problem, x_init, U).mean()
        for name in prepared:
            if name == NATIVE:
                continue
            ratio = timings[name].median / timings[NATIVE].median
            factor = RIVAL_FACTORS[problem.name, name]
            _at_least(table, f"{problem.name}, 128 states, {name}", ratio, "times slower", factor)
            excess = costs[NATIVE] - costs[name]
            label = f"{problem.name}, mean cost above that of {name}"
            _at_most(table, label, float(excess), "", 1e-6)


def _latency(options: Options, table: Table) -> None:
    """Batch 1: the whole call; the solver alone (NativeProblem.solve: arrays in, arrays out)."""
    tasks: dict[Any, Any] = {}
    for problem in PROBLEMS:
        mpc, many = (problem.controller(backend="native", starts=starts) for starts in (1, 16))
        x_init = _states(problem, 1, options)
        tasks[problem.name, "one"] = _task(mpc, x_init)
        tasks[problem.name, "many"] = _task(many, x_init)
        tasks[problem.name, "kernel"] = _kernel(mpc, x_init)
    for task in tasks.values():
        task()
    timings = _times(tasks, options)
    for problem in PROBLEMS:
        median = {each: timings[problem.name, each].median for each in ("one", "many", "kernel")}
        name = f"{problem.name}, batch 1"
        _at_most(table, f"{name}, tensor in to Plan out", median["one"] * 1e6, "us", 150)
        _at_most(table, f"{name}, solver alone", median["kernel"] * 1e6, "us", 60)
        _at_most(table, f"{name}, starts=16 : 1", median["many"] / median["one"], "", 1.5)


def _kernel(mpc: MPC, x_init: Tensor) -> Callable[[], Any]:
    bounds = mpc._bounds()
    first = mpc._first_guess(None, x_init, bounds)
    settings = Settings(mpc.hessian == "exact", mpc.tolerance, mpc.max_iterations)
    problem = mpc._problem(x_init, first, bounds, None, settings)
    return lambda: problem.solve(x_init, first)


def _threads(options: Options, table: Table) -> None:
    tasks = {}
    for problem in PROBLEMS:
        mpc, x_init = problem.controller(backend="native"), _states(problem, 1024, options)
        for threads in (1, 2):
            tasks[problem.name, threads] = _task(mpc, x_init, threads)
    timings = _times(tasks, options)
    torch.set_num_threads(1)
    for problem in PROBLEMS:
        gain = timings[problem.name, 1].median / timings[problem.name, 2].median
        _at_least(table, f"{problem.name}, 1,024 states, two threads", gain, "times faster", 1.7)


def _backward(options: Options, table: Table) -> None:
    """`.backward()` at batch 128 of the mean square of the controls, by all parameters."""
    controllers = [
        compiled_controller("implicit-native", tolerance_for(iterations)) for iterations in (5, 500)
    ]
    counts = [int(measure(mpc, 128)["iterations"]) for mpc in controllers]
    runs = [
        [1e3 * measure(mpc, 128)["backward"] for mpc in controllers]
        for _ in range(10 if options.quick else 40)
    ]
    few, many = np.median(runs, 0)
    for count, duration in zip(counts, (few, many), strict=True):
        label = f"cartpole, 128 states, backward after {count} iterations"
        _at_most(table, label, float(duration), "ms", 2.0)
    _at_most(table, "the second : the first", float(many / few), "", 1.2)


def _convergence(options: Options, table: Table) -> None:
    for problem in PROBLEMS:
        x_init = problem.fresh(1024, options.seed)
        plan = _task(problem.controller(backend="native"), torch.from_numpy(x_init))()
        residual = stationarity(problem, x_init, plan.controls[..., 0].numpy()).max()
        share = plan.converged.double().mean().item()
        _at_least(table, f"{problem.name}, 1,024 fresh states, converged", share, "share", 1.0)
        label = f"{problem.name}, the same, worst stationarity residual"
        _at_most(table, label, float(residual), "", 1e-6)


def _gradients(_: Options, table: Table) -> None:
    for problem in PROBLEMS:
        solver = Ours("native", "native", starts=8)
        U, gradients = solver.gradients(problem, problem.reference("x_init"))
        for group, label in (("params", "physical parameters"), ("x0", "start state")):
            verdict: GradientVerdict = judge_gradients(problem, U, gradients, group)
            name = f"{problem.name}, worst gradient error by {label}, {verdict.compared} states"
            _at_most(table, name, verdict.worst, "", 1e-6)


def _optima(_: Options, table: Table) -> None:
    """The best known optimum, of both systems' reference states."""
    for problem in PROBLEMS:
        x_init = problem.reference("x_init")
        mpc = problem.controller(backend="native", starts=8)
        plan = _task(mpc, torch.from_numpy(x_init))()
        cost = total_cost(problem, x_init, plan.controls[..., 0].numpy())
        best: Array = problem.reference("cost")
        rounding = 1e-6 * (1 + np.abs(best))
        share = (cost <= best + rounding).mean()
        label = f"{problem.name}, starts=8, best known optimum"
        _at_least(table, label, float(share), "share", 0.98)
        better = float((cost < best - rounding).mean())
        table.add(f"{problem.name}, starts=8, better than that", better, "share", "", "")


def _compilation(options: Options, table: Table) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found, _ = run_script("benchmarks.scripts.compile_rk4", cache=Path(folder))
    label = "cart-pole with four RK4 steps, empty cache"
    _at_most(table, f"{label}, compiled in", found["seconds"], "s", 10)
    _at_most(table, f"{label}, worst relative error", found["error"], "", 1e-12)
    if not options.quick:
        with tempfile.TemporaryDirectory() as folder:
            cold, _ = run_script("benchmarks.scripts.first_plan", cache=Path(folder))
        table.add("new process, empty cache, first plan", cold["seconds"], "s", "", "")
    # this process has compiled what is needed
    warm, duration = run_script("benchmarks.scripts.first_plan")
    _at_most(table, "new process, import to first plan", warm["seconds"], "s", 5)
    _at_most(table, "the same with the interpreter's start and end", duration, "s", 5)


def _bitwise(options: Options, table: Table) -> None:
    for problem in PROBLEMS:
        mpc, x_init = problem.controller(backend="native"), _states(problem, 1024, options)
        one = _task(mpc, x_init, 1)().controls
        two = _task(mpc, x_init, 2)().controls
        torch.set_num_threads(1)
        rows = range(0, 1024, 37)
        alone = torch.cat([_task(mpc, x_init[i : i + 1])().controls for i in rows])
        for label, same in (
            ("1 and 2 threads", torch.equal(one, two)),
            ("alone and in a batch", torch.equal(alone, one[list(rows)])),
        ):
            table.add(f"{problem.name}, bitwise the same, {label}", same, "", "yes", same)


def _memory(options: Options, table: Table) -> None:
    sizes = (1024, 2048) if options.quick else (8192, 16384)
    needed = {}
    for problem in (PENDULUM, CARTPOLE):
        for size in sizes:
            needed[size] = in_child(partial(_peak, problem.name, size, options.seed))
        half, whole = (needed[size] for size in sizes)
        label = f"{problem.name}, {sizes[1]:,} states, horizon 50, peak memory"
        table.add(label, whole, "MB", "", "")
        _at_most(table, f"{label} : that of half the batch", whole / half, "", 2.2)


def _peak(system: str, batch: int, seed: int) -> float:
    problem = {each.name: each for each in PROBLEMS}[system]
    mpc = problem.controller(50, backend="native")
    x_init = torch.from_numpy(problem.start_states(batch, seed))
    _task(mpc, x_init[:16])()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so long a swing-up need not converge
        return peak_memory(lambda: mpc(x_init).controls.square().mean().backward())
