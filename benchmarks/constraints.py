"""Planning with constraints, beside CasADi: `python -m benchmarks.constraints --help`.

Every solver starts from zero controls. CasADi's ipopt and fatrop get their usual tolerance of 1e-8,
a model compiled by gcc, and one mapped call for the batch.
"""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.constrained_systems import SYSTEMS, ConstrainedSystem
from benchmarks.measure import interleaved
from benchmarks.options import Options
from benchmarks.report import Table, console, machine
from mpc_gym.mpc.plan import Plan

STARTS, BATCH = 256, 128
SAME = 1e-6  # relative difference of two costs up to which they are the same
SATISFIED = 1e-6  # the violation up to which a rival's plan counts
SOLVERS = ("ipopt", "fatrop")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables and write them."""
    default = Options()
    parser = argparse.ArgumentParser(description="Measure planning with constraints.")
    parser.add_argument("--quick", action="store_true", help="few start states, one system")
    parser.add_argument("--folder", type=Path, default=default.folder, help="folder of results")
    parser.add_argument("--seed", type=int, default=default.seed, help="of the start states")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console.print(machine())
    for table in measure(Options(given.quick, (), given.folder, given.seed)):
        table.print()
        table.write(given.folder)


def measure(options: Options) -> list[Table]:
    """How often it converges and where; how its costs compare; how long a solve takes."""
    plans = Table(
        "constraints",
        "Plans with constraints",
        ("system", "start states", "converged", "worst violation", "iterations", "most"),
    )
    costs = Table(
        "constraints_costs",
        "Their costs, beside CasADi ipopt from the same guess",
        ("system", "compared", "same", "lower", "higher", "ipopt failed"),
    )
    times = Table(
        "constraints_times",
        "Time of a solve in a batch, one thread [us]",
        ("system", "batch", "mpc_gym", *SOLVERS, *(f"{name} / mpc_gym" for name in SOLVERS)),
    )
    count, batch = (4, 2) if options.quick else (STARTS, BATCH)
    rivals = importlib.util.find_spec("casadi") is not None
    if rivals:
        from benchmarks.rivals.casadi import has_compiler

        rivals = has_compiler()
    if not rivals:
        console.print("CasADi is left out: pip install casadi, and gcc")
    for system in SYSTEMS[-1:] if options.quick else SYSTEMS:
        x_init = system.start_states(count, options.seed)
        with torch.no_grad():
            plan: Plan = system.controller()(x_init)
        assert plan.violation is not None
        found = plan.violation[plan.converged]
        plans.add(
            system.name,
            count,
            f"{plan.converged.double().mean():.1%}",
            f"{found.max():.0e}",
            f"{plan.iterations.double().mean():.1f}",
            int(plan.iterations.max()),
        )
        if rivals:
            _compare(system, x_init, plan, costs)
            _time(system, x_init[:batch], times, 1.0 if options.quick else 10.0)
    return [plans, costs, times] if rivals else [plans]


def _compare(system: ConstrainedSystem, x_init: torch.Tensor, plan: Plan, table: Table) -> None:
    from benchmarks.rivals.constrained import solution, solver

    found = solution(system, solver(system, "ipopt", len(x_init))(x_init.numpy().T))
    counted = (found.violation <= SATISFIED) & plan.converged.numpy()
    ours, theirs = plan.cost.numpy()[counted], found.cost[counted]
    difference = (ours - theirs) / np.abs(theirs)
    shares = (np.abs(difference) <= SAME, difference < -SAME, difference > SAME)
    table.add(
        system.name,
        int(counted.sum()),
        *(f"{share.mean():.1%}" for share in shares),
        int((found.violation > SATISFIED).sum()),
    )


def _time(system: ConstrainedSystem, x_init: torch.Tensor, table: Table, seconds: float) -> None:
    from benchmarks.rivals.constrained import solver

    mpc, given = system.controller(), x_init.numpy().T.copy()

    def ours() -> Plan:
        with torch.no_grad():
            plan: Plan = mpc(x_init)
        return plan

    calls = {name: solver(system, name, len(x_init)) for name in SOLVERS}
    tasks = {name: (lambda call=call: call(given)) for name, call in calls.items()}
    timings = interleaved({"ours": ours, **tasks}, seconds)
    each = {name: 1e6 * timing.median / len(x_init) for name, timing in timings.items()}
    table.add(
        system.name,
        len(x_init),
        *(f"{value:.0f}" for value in each.values()),
        *(f"{each[name] / each['ours']:.1f}" for name in SOLVERS),
    )


if __name__ == "__main__":
    main()
