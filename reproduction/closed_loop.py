"""Closed loop and data efficiency, which the paper leaves out.

Each method learns from 1 to 100 episodes of an expert that plans anew at every step, and is then
run in the environment itself: what it earns there beside the expert, from start states that none
of them has seen. Every method has the same settings at all numbers of demonstrations and seeds.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mpc_gym.experiments.compare import grid
from mpc_gym.experiments.learner import run
from mpc_gym.experiments.methods import METHODS, MethodOptions
from mpc_gym.experiments.runs import Run
from mpc_gym.experiments.summary import (
    Summary,
    expert_returns,
    method_table,
    parameter_table,
    plot,
    score_table,
    standard_error,
    summaries,
)
from mpc_gym.experiments.tables import picture
from reproduction.report import Finding, Result, Section

__all__ = ["run", "runs", "section"]

PREFIX = "closed_loop"
SYSTEMS = {"DiffPendulum-v0": "pendulum", "DiffCartPole-v0": "cart-pole"}
NUMBERS = {
    "DiffPendulum-v0": (1, 2, 5, 10, 20, 50, 100),
    "DiffCartPole-v0": (1, 10),  # whose plans take longer
}
# Of the methods that take the longest.
FEW_NUMBERS = {"nn": (1, 10, 100), "mpc.dx.actions": (1, 10, 100)}
QUICK_NUMBERS = {"DiffPendulum-v0": (1, 3)}
QUICK_METHODS = ("mpc.dx", "sysid", "mlp")
SEEDS = 3
LEVEL = 0.02  # of the expert's return
OPTIONS = MethodOptions(starts=4)
MODEL_FREE = ("mlp", "nn")
WITH_PHYSICS = ("mpc.dx", "sysid")  # that see the next observations and know the cost


def runs(quick: bool, seed: int = 0) -> list[Run]:
    """Every method for every number of demonstrations and seed.

    Quick: few methods, demonstrations and steps.
    """
    numbers = QUICK_NUMBERS if quick else NUMBERS
    settings: dict[str, Any] = {"episodes": 16, "unseen": 5, "max_steps": None}
    if quick:
        settings = {"episodes": 4, "unseen": 2, "max_steps": 40, "effort": 0.05}
    seeds = range(seed, seed + (2 if quick else SEEDS))
    methods = QUICK_METHODS if quick else tuple(METHODS)
    return [
        run
        for env, counts in numbers.items()
        for name in methods
        for run in grid(
            f"{PREFIX}/{env}",
            env,
            [name],
            [n for n in counts if n in FEW_NUMBERS.get(name, counts)],
            seeds,
            OPTIONS,
            **settings,
        )
    ]


def section(results: dict[str, Result], images: Path) -> Section:
    """The findings, and a plot for each system."""
    by_env: dict[str, list[Result]] = {}
    for result in results.values():
        by_env.setdefault(result["env"], []).append(result)
    methods = dict.fromkeys(result["method"] for result in results.values())
    findings: list[Finding] = []
    tables, pictures = [method_table(methods)], []
    for env, group in by_env.items():
        system = SYSTEMS[env]
        path = images / f"closed-loop-{system}.png"
        plot(group, path)
        pictures.append(picture(path, f"Return and imitation loss in {env}"))
        found, expert = summaries(group), expert_returns(group)
        findings += [_level(system, found, expert), _efficiency(system, found, expert)]
        name = f"closed-loop-{system}"
        tables.append(score_table(name, f"Scores, {system}", group))
        tables.append(parameter_table(f"{name}-parameters", f"Learned, {system}", _ends(group)))
    starts = len(next(iter(results.values()))["returns"])
    text = f"""\
The expert plans with the true model, by the observation alone; the learners that plan look as far
ahead. All methods learn from the same episodes. Then each is run in the environment from
{starts} start states that it has not seen, the same for all. The left panel shows
its return less the expert's (grey: within a standard error of it), the right panel its imitation
loss on demonstrations that it has not seen.

What a method is told decides much here, so it is in a table below. In the closed loop most of the
expert's controls sit at a limit or hold the balance, and say little of the physics. `mpc.dx`
therefore also sees the next observations, as `sysid` does; `mpc.dx.actions` is the same learner
without them. On the pendulum that one can end in a false minimum: a motor so strong that hardly any
control is right, where nearly every gradient is zero. `mpc.cost` knows the dynamics, and the MLP
and the LSTM know nothing. One demonstration serves for learning and for validation; of more, a
fifth of the episodes (at least one) is held out. The LSTM has {OPTIONS.hidden} units instead of the
paper's 256.

{chr(10).join(pictures)}"""
    return Section("Closed loop and data efficiency (not in the paper)", text, findings, tables)


def _ends(group: list[Result]) -> list[Result]:
    """The results of the fewest and of the most demonstrations."""
    numbers = [result["demonstrations"] for result in group]
    return [r for r in group if r["demonstrations"] in (min(numbers), max(numbers))]


def _level(system: str, found: list[Summary], expert: Any) -> Finding:
    tolerance = LEVEL * abs(float(expert.mean()))
    gaps = {
        _point(each): float((each.by_seed - expert.mean()).min())
        for each in found
        if each.method in WITH_PHYSICS
    }
    short = [name for name, gap in gaps.items() if gap < -tolerance]
    return Finding(
        name=f"closed loop, {system}",
        statement=f"In the {system}'s closed loop, {' and '.join(WITH_PHYSICS)} are level with the "
        f"expert (within {LEVEL:.0%} of its return, from the same start states) in every seed from "
        "one demonstration on.",
        holds=not short,
        numbers={
            "expert's return": float(expert.mean()),
            "its standard error": standard_error(expert),
            "lowest return of a seed less the expert's": gaps,
        },
        diagnosis=f"Not level: {', '.join(short)}." if short else "",
    )


def _efficiency(system: str, found: list[Summary], expert: Any) -> Finding:
    fewest = min(each.demonstrations for each in found)
    most = max(each.demonstrations for each in found)
    planner = next(s for s in found if (s.method, s.demonstrations) == ("mpc.dx", fewest))
    networks = [s for s in found if s.method in MODEL_FREE and s.demonstrations == most]
    gaps = {_point(each): float(np.median(each.by_seed) - expert.mean()) for each in networks}
    gap = float(np.median(planner.by_seed) - expert.mean())
    return Finding(
        name=f"data efficiency, {system}",
        statement=f"On the {system}, mpc.dx earns more after {fewest} demonstration than the MLP "
        f"and the LSTM after {most}.",
        holds=all(gap > other for other in gaps.values()),
        numbers={"median return less the expert's": {_point(planner): gap, **gaps}},
    )


def _point(each: Summary) -> str:
    return f"{each.method} from {each.demonstrations}"
