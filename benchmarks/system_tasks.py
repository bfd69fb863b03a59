"""What the benchmark of the systems measures, in processes of their own: generators.

Each gets whether it is a quick run, the seed of the start states and the folder of compiled code,
or None for the one where this process keeps it.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.fresh import limit_memory
from benchmarks.measure import Key, Timing, interleaved, timed
from benchmarks.rivals.ours import gradient
from benchmarks.system_models import NAMED, ONE_CONTROL, PENDULUM, PLANAR, TWO_CONTROLS
from benchmarks.system_models.system import System
from mpc_gym.mpc import MPC
from mpc_gym.mpc.plan import Plan

MEMORY = 12e9  # that a process may take [B]
STARTS = 256  # that are to converge
STARTS_OF_REFERENCE = 16  # the same, where the slow reference plans
SINGLES = 16  # start states that are planned from one at a time
SINGLES_OF_SLOW, SLOW = 4, 0.3  # the same, where a solver takes longer than that for one [s]
CALL_LIMIT = 20.0  # a batch that would take longer is left out [s]
SECONDS = 2.0  # about, of every solver and batch
SAME, SATISFIED = 1e-6, 1e-6  # relative difference of costs; violation up to which a plan counts
NAN = float("nan")
Report = tuple[str, Any]
Call = Callable[[Tensor], Callable[[], Any]]  # from start states to what is timed


def _prepare(cache: str | None) -> None:
    torch.set_num_threads(1)
    limit_memory(MEMORY)
    if cache is not None:
        os.environ["MPC_GYM_CACHE_DIR"] = cache


def measure_system(
    name: str, backend: Literal["native", "torch"] | None, quick: bool, seed: int, cache: str | None
) -> Iterator[Report]:
    """How often it converges, then each batch beside CasADi, and how the costs compare."""
    _prepare(cache)
    system = NAMED[name]
    count = min(STARTS if backend == "native" else STARTS_OF_REFERENCE, 8 if quick else STARTS)
    x_init = system.start_states(max(count, *system.batches), seed)
    mpc = None if backend is None else system.controller(backend=backend)
    if mpc is not None:
        yield "solves", _solves(system, mpc, x_init[:count])
    rivals, remark = _rivals(system)
    if remark:
        yield "remark", f"fatrop: {remark}"
    calls: dict[str, Call] = {} if mpc is None else {"ours": partial(partial, _planned, mpc)}
    calls |= {name: partial(_mapped, function) for name, function in rivals.items()}
    pace = {name: _pace(call, x_init[:1]) for name, call in calls.items()}
    singles = 2 if quick else SINGLES if max(pace.values(), default=0.0) < SLOW else SINGLES_OF_SLOW
    costs: tuple[Any, ...] = ()
    batches = [min(4, batch) for batch in system.batches[:2]] if quick else system.batches
    for batch in batches:
        parts = [x_init[:batch]] if batch > 1 else _singles(x_init, singles)
        row, compared = _batch(mpc, calls, parts, pace, 0.1 if quick else SECONDS)
        yield "batch", row
        costs = compared or costs
    if costs:
        yield "costs", costs


def _solves(system: System, mpc: MPC, x_init: Tensor) -> dict[str, Any]:
    with torch.no_grad():
        plan: Plan = mpc(x_init)
    iterations = plan.iterations.double()
    bound = torch.tensor(system.limit, dtype=torch.float64) * (1 - 1e-9)
    return {
        "count": len(x_init),
        "converged": f"{plan.converged.double().mean():.1%}",
        "median": int(iterations.median()),
        "most": int(iterations.max()),
        "mean": float(iterations.mean()),
        "active": f"{(plan.controls.abs() >= bound).double().mean():.0%}",
    }


def _rivals(system: System) -> tuple[Mapping[str, Any], str]:
    if importlib.util.find_spec("casadi") is None:
        return {}, "not installed (pip install casadi)"
    from benchmarks.rivals.systems import solvers

    return solvers(system)


def _pace(call: Call, x_init: Tensor) -> float:
    """Time of a solve, the first one, which compiles and loads, left aside [s]."""
    call(x_init)()
    return timed(call(x_init), Timing(), time.thread_time)


def _batch(
    mpc: MPC | None,
    calls: Mapping[str, Call],
    parts: list[Tensor],
    pace: dict[str, float],
    seconds: float,
) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Times of a solve [us], the median over the parts, and a comparison of the costs.

    `pace` has the time of a solve of each solver [s] in the batch before, and is updated. A solver
    whose pace is too slow for the batch is left out.
    """
    batch = len(parts[0])
    used = [name for name in calls if pace[name] * batch <= CALL_LIMIT]
    tasks = {(name, i): calls[name](x) for name in used for i, x in enumerate(parts)}
    if mpc is not None and "ours" in used:
        for i, x in enumerate(parts):
            tasks["gradient", i] = partial(gradient, mpc, mpc(x))
    found = _timed(tasks, seconds / len(parts))

    def each(name: str) -> list[float]:
        """Of each part [s]."""
        return [found[name, i].median for i in range(len(parts)) if (name, i) in found]

    for name in used:
        pace[name] = median(each(name)) / batch
    names = ("ours", "gradient", "interpreted", "compiled")
    row = {name: 1e6 * median(each(name) or [NAN]) / batch for name in names}
    plans = [found["ours", i].result for i in range(len(parts)) if "ours" in used]
    iterations = [float(plan.iterations.sum()) for plan in plans]
    row["iteration"] = median(
        [1e6 * t / n for t, n in zip(each("ours"), iterations, strict=True)] or [NAN]
    )
    row["batch"] = batch
    theirs = [found["interpreted", i].result for i in range(len(parts)) if "interpreted" in used]
    return row, _compared(plans, theirs) if plans and theirs else ()


def _timed(tasks: Mapping[Key, Callable[[], Any]], seconds: float) -> dict[Key, Timing]:
    """The time of the processor that each takes, in turns.

    It is that of this thread: while the limit of `reports` is set, Linux tells the time of the
    whole process by its ticks alone.
    """
    started = time.process_time() - time.thread_time()
    found = interleaved(tasks, seconds, clock=time.thread_time)
    others = time.process_time() - time.thread_time() - started
    if others > 0.05 + 0.1 * seconds:
        raise RuntimeError(f"other threads have worked, too, for {others:.2f} s")
    return found


def _singles(x_init: Tensor, count: int) -> list[Tensor]:
    return [x_init[i : i + 1] for i in range(min(count, len(x_init)))]


def _planned(mpc: MPC, x_init: Tensor) -> Plan:
    with torch.no_grad():
        plan: Plan = mpc(x_init)
    return plan


def _mapped(function: Any, x_init: Tensor) -> Callable[[], Any]:
    mapped, given = function.map(len(x_init)), x_init.numpy().T.copy()
    return lambda: mapped(given)


def _compared(plans: list[Plan], theirs: list[Any]) -> tuple[Any, ...]:
    """How many were compared; shares of the same, lower and higher costs; of how many it failed."""
    from benchmarks.rivals.systems import solution

    solutions = [solution(each) for each in theirs]
    cost = np.concatenate([each.cost for each in solutions])
    violation = np.concatenate([each.violation for each in solutions])
    ours = torch.cat([plan.cost for plan in plans]).numpy()
    converged = torch.cat([plan.converged for plan in plans]).numpy()
    satisfied = violation <= SATISFIED
    counted = satisfied & converged
    apart = (ours - cost)[counted] / np.maximum(1.0, np.abs(cost[counted]))
    shares = (np.abs(apart) <= SAME, apart < -SAME, apart > SAME)
    return int(counted.sum()), *(f"{share.mean():.1%}" for share in shares), int((~satisfied).sum())


def compare_controls(quick: bool, seed: int, cache: str | None) -> Iterator[tuple[Any, ...]]:
    """Rows: the batch, time of an iteration with one and with two controls [us], their ratio."""
    _prepare(cache)
    systems = (ONE_CONTROL, TWO_CONTROLS)
    controllers = {system.name: system.controller() for system in systems}
    for mpc in controllers.values():
        _planned(mpc, PLANAR.start_states(1, seed))
    for batch in (1, 4) if quick else (1, 128, 1024):
        x_init = PLANAR.start_states(max(batch, SINGLES), seed)
        parts = [x_init[:batch]] if batch > 1 else _singles(x_init, SINGLES)
        tasks = {
            (name, i): partial(_planned, mpc, x)
            for name, mpc in controllers.items()
            for i, x in enumerate(parts)
        }
        found = _timed(tasks, (0.1 if quick else SECONDS) / len(parts))
        one, two = (
            1e6
            * sum(found[system.name, i].median for i in range(len(parts)))
            / sum(int(found[system.name, i].result.iterations.sum()) for i in range(len(parts)))
            for system in systems
        )
        yield batch, one, two, two / one


def plan_far(quick: bool, seed: int, cache: str | None) -> Iterator[tuple[Any, ...]]:
    """Rows: system, horizon, start states, converged, iterations, time of a solve."""
    _prepare(cache)
    for system in (PENDULUM,) if quick else (PENDULUM, PLANAR):
        for horizon in (40,) if quick else (100, 200, 500):
            x_init = system.start_states(4 if quick else STARTS, seed)
            mpc, timing = system.controller(horizon=horizon), Timing()
            _planned(mpc, x_init[:1])
            seconds = timed(partial(_planned, mpc, x_init), timing, time.thread_time)
            plan = timing.result
            yield (
                system.name, horizon, len(x_init), f"{plan.converged.double().mean():.1%}",
                int(plan.iterations.median()), int(plan.iterations.max()),
                1e3 * seconds / len(x_init),
            )  # fmt: skip
