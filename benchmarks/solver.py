"""Measures the solver: `python -m benchmarks.solver --help`."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import figures, systems
from benchmarks.comparison import compare
from benchmarks.differentiation import compare_derivatives
from benchmarks.options import Options
from benchmarks.report import Table, console, machine
from benchmarks.scaling import scale
from benchmarks.targets import check_targets
from mpc_gym.files import write

SECTIONS: dict[str, Callable[[Options], list[Table]]] = {
    "targets": check_targets,
    "comparison": compare,
    "differentiation": compare_derivatives,
    "scaling": scale,
    "systems": systems.measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sections that were asked for; print their tables, write them and their figures."""
    options = parse(arguments)
    torch.set_num_threads(1)
    console.print(machine())
    for name in options.only or SECTIONS:
        start = time.perf_counter()
        tables = SECTIONS[name](options)
        for table in tables:
            table.print()
            table.write(options.folder)
        figures.draw(name, tables, options.folder)
        console.print(f"{name} took {time.perf_counter() - start:.0f} s\n")
    write(options.folder / "machine.txt", machine() + "\n")


def parse(arguments: Sequence[str] | None) -> Options:
    """Options from the command line."""
    default = Options()
    parser = argparse.ArgumentParser(description="Measure the solver beside others.")
    parser.add_argument("--quick", action="store_true", help="fewer sizes, about two minutes")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=(), help="sections to run")
    parser.add_argument("--folder", type=Path, default=default.folder, help="folder of results")
    parser.add_argument("--seed", type=int, default=default.seed, help="of fresh start states")
    found = parser.parse_args(arguments)
    return Options(found.quick, tuple(found.only), found.folder, found.seed)


if __name__ == "__main__":
    main()
