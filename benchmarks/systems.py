"""Systems of every size, beside CasADi with fatrop: `python -m benchmarks.systems --help`.

A system is measured in processes of its own, with a limit on the time that each measurement may
take; where that is not enough, or the model does not compile, the table says so. All times are
those of the processor, of one thread.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import figures
from benchmarks.fresh import reports, run_script
from benchmarks.options import Options
from benchmarks.report import Table, console, machine
from benchmarks.system_models import NAMED, OTHER, PENDULUM, PUBLISHED, SYSTEMS, System
from benchmarks.system_tasks import compare_controls, measure_system, plan_far

LIMIT, QUICK_LIMIT = 300.0, 100.0  # of one measurement [s]
NAN = float("nan")
# of all start states: the solve, and with the adjoint [ms]
ACADOS = "acados 0.5.1, up to 4 threads of a laptop: arXiv 2505.01353, table 1, May 2025"
TURBO = "no time; the problem is that of TurboMPC: arXiv 2606.24039, June 2026"
SAID: dict[str, tuple[float, float, str]] = {
    "acados, |u| <= 10000": (8.3, 33.1, ACADOS),
    "acados, |u| <= 1": (12.2, 41.4, ACADOS),
    "TurboMPC, |u| <= 10": (NAN, NAN, TURBO),
    "TurboMPC, |u| <= 1": (NAN, NAN, TURBO),
}


def _tables() -> dict[str, Table]:
    found = [
        Table("solves", "Plans from zero controls",
              ("system", "states, controls, horizon", "backend", "start states", "converged",
               "iterations, median", "iterations, max", "remark")),
        Table("times", "Time of a solve, us of CPU; of a batch of 1 the median start state's",
              ("system", "batch", "mpc_gym", "us an iteration", "gradient / solve",
               "fatrop interpreted", "fatrop compiled", "interpreted / mpc_gym",
               "compiled / mpc_gym")),
        Table("first", "First plan and gradient of a process, s of CPU beyond imports",
              ("system", "new model: plan", "its gradient", "compiled before: plan",
               "gradient")),
        Table("costs", "Costs of the plans beside those of fatrop from the same guess",
              ("system", "compared", "same", "lower", "higher", "fatrop failed")),
        Table("published", "Published problems, ms for all start states together",
              ("problem", "start states", "mpc_gym", "with gradient", "iterations, mean",
               "controls at bounds", "fatrop interpreted", "published", "with adjoint",
               "published by")),
        Table("controls", "Planar quadrotor, horizon 30, us of CPU an iteration",
              ("batch", "one control", "two controls", "two / one")),
        Table("horizons", "Long horizons, from zero controls",
              ("system", "horizon", "start states", "converged", "iterations, median",
               "iterations, max", "ms a solve")),
    ]  # fmt: skip
    return {table.name: replace(table, name=f"systems_{table.name}") for table in found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write them and the figure."""
    default = Options()
    parser = argparse.ArgumentParser(description="Measure systems of every size.")
    parser.add_argument("--quick", action="store_true", help="two systems, few start states")
    parser.add_argument("--only", nargs="+", choices=NAMED, default=(), help="some systems alone")
    parser.add_argument("--folder", type=Path, default=default.folder, help="folder of results")
    parser.add_argument("--seed", type=int, default=default.seed, help="of the start states")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console.print(machine())
    for table in measure(Options(given.quick, (), given.folder, given.seed), given.only):
        table.print()


def measure(options: Options, names: Sequence[str] = ()) -> list[Table]:
    """The tables; those of some systems alone, where there are names.

    They are written after every system, so that little is lost when a run is interrupted.
    """
    tables = _tables()
    every = (PENDULUM, PUBLISHED[1]) if options.quick else (*SYSTEMS, *PUBLISHED)
    chosen = [NAMED[name] for name in names] or every
    with _compiled_code(options) as shared:
        if shared is not None:  # what every model needs is compiled once
            _first_row(tables["first"], f"{OTHER.name}, empty cache", OTHER, options, shared)
        for system in chosen:
            start = time.perf_counter()
            with _compiled_code(options, shared) as cache:
                _measure(tables, system, options, cache)
            _write(tables, options)
            console.print(f"{system.name} took {time.perf_counter() - start:.0f} s")
        for table, function in {"controls": compare_controls, "horizons": plan_far}.items():
            if not names:
                _add_rows(tables[table], function, options, shared)
        _write(tables, options)
    return [table for table in tables.values() if table.rows]


@contextmanager
def _compiled_code(options: Options, like: str | None = None) -> Iterator[str | None]:
    """A folder for compiled code that begins as a copy; None, for this process's own, if quick."""
    if options.quick:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        if like is not None:
            shutil.copytree(like, folder, dirs_exist_ok=True)
        yield folder


def _write(tables: dict[str, Table], options: Options) -> None:
    for table in tables.values():
        if table.rows:
            table.write(options.folder)
    times = tables["times"]
    drawn = [row for row in times.rows if row[0] in {system.name for system in SYSTEMS}]
    if drawn:
        figures.draw(times.name, [replace(times, rows=drawn)], options.folder)


def _limit(options: Options) -> float:
    return QUICK_LIMIT if options.quick else LIMIT


def _add_rows(table: Table, function: Any, options: Options, cache: str | None) -> None:
    try:
        for row in reports(function, options.quick, options.seed, cache, limit=_limit(options)):
            table.add(*row)
    except (TimeoutError, RuntimeError) as error:
        console.print(f"{table.title}: not all of it: {error}")


def _measure(tables: dict[str, Table], system: System, options: Options, cache: str | None) -> None:
    """Add the rows of a system to all tables."""
    backend, remarks = _first_row(tables["first"], system.name, system, options, cache)
    found, batches, failure = _found(system, backend, options, cache)
    if failure and not batches and backend is not None:  # the others have their times all the same
        remarks.append(f"mpc_gym: {failure}")
        theirs, batches, failure = _found(system, None, options, cache)
        found |= theirs
    if failure:
        remarks.append(f"the rest: {failure}")
    remarks += found.get("remarks", [])
    size = f"{system.n_state}, {system.n_ctrl}, {system.horizon}"
    solves = found.get("solves", dict.fromkeys(("count", "converged", "median", "most"), NAN))
    tables["solves"].add(
        system.name, size, backend or "none", solves["count"], solves["converged"],
        solves["median"], solves["most"], "; ".join(remarks),
    )  # fmt: skip
    for row in batches:
        ours, rivals = row["ours"], (row["interpreted"], row["compiled"])
        tables["times"].add(
            system.name, row["batch"], ours, row["iteration"], row["gradient"] / ours,
            *rivals, *(each / ours for each in rivals),
        )  # fmt: skip
    if "costs" in found:
        tables["costs"].add(system.name, *found["costs"])
    if system in PUBLISHED and batches and "solves" in found:
        count, ours, both, fatrop = (
            batches[-1]["batch"],
            batches[-1]["ours"],
            batches[-1]["ours"] + batches[-1]["gradient"],
            batches[-1]["interpreted"],
        )
        tables["published"].add(
            system.name, count, *(each * count / 1e3 for each in (ours, both)), solves["mean"],
            solves["active"], fatrop * count / 1e3, *SAID[system.name],
        )  # fmt: skip


def _found(
    system: System, backend: str | None, options: Options, cache: str | None
) -> tuple[dict[str, Any], list[dict[str, float]], str]:
    """What `measure_system` reports, its batches, and what has ended it."""
    found: dict[str, Any] = {"remarks": []}
    batches: list[dict[str, float]] = []
    given = (system.name, backend, options.quick, options.seed, cache)
    try:
        for what, row in reports(measure_system, *given, limit=_limit(options)):
            if what == "batch":
                batches.append(row)
            elif what == "remark":
                found["remarks"].append(row)
            else:
                found[what] = row
    except (TimeoutError, RuntimeError) as error:
        return found, batches, str(error)
    return found, batches, ""


def _first_row(
    table: Table, label: str, system: System, options: Options, cache: str | None
) -> tuple[str | None, list[str]]:
    """Add the row; the backend that can plan, None where it is not known, and what to remark."""
    folder, limit = None if cache is None else Path(cache), _limit(options)
    script = "benchmarks.scripts.first_system"
    try:
        new, _ = run_script(script, system.name, cache=folder, limit=limit)
        if not new:
            return "torch", ["not native"]
        again, _ = run_script(script, system.name, cache=folder, limit=limit)
    except TimeoutError:
        return None, [f"first plan and gradient: more than {limit:g} s"]
    except RuntimeError as error:
        return None, [f"first plan: {str(error).strip().splitlines()[-1]}"]
    table.add(label, new["plan"], new["gradient"], again["plan"], again["gradient"])
    return "native", []


if __name__ == "__main__":
    main()
