"""The table and the figure of `benchmarks.learning`.

    python -m benchmarks.learning_report

puts both into the documentation, from the results that are there.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mpc_gym.files import replacing, write
from mpc_gym.rendering.palette import LINES

WITHIN = 0.1  # of the true model's return
DOCS = Path("docs")
PAGE, DATA, FIGURE = (
    DOCS / "rewards.md",
    DOCS / "images/learning.json",
    DOCS / "images/learning.png",
)
COLUMNS = ("step", "return", "wall", "cpu")
ALGORITHMS = ("PPO", "A2C", "SAC", "TD3")
STYLES = {"transitions + rewards": "-", "rewards alone": ":", "MLP": "--"}


def bar(true: float) -> float:
    """The return below which a training has failed, of that of the true model."""
    return true - WITHIN * abs(true)


def summarised(
    true: Mapping[str, tuple[float, float]], curves: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """What is published: of every score of every run the step, the return and the seconds.

    Args:
        true: mean return of the true model and its standard error, by system.
        curves: the runs, by "algorithm, kind, system".
    """
    rows: list[dict[str, Any]] = []
    for name, runs in curves.items():
        algorithm, kind, system = name.split(", ")
        found = [{key: [row[key] for row in run["rows"]] for key in COLUMNS} for run in runs]
        ends = np.array([run["return"][-1] for run in found])
        rows.append(
            {
                "algorithm": algorithm,
                "kind": kind,
                "system": system,
                "failed": int((ends < bar(true[system][0])).sum()),
                "runs": found,
            }
        )
    rounded = {system: [round(each, 2) for each in value] for system, value in true.items()}
    return {"true": rounded, "rows": rows}


def table(results: Mapping[str, Any]) -> str:
    """In Markdown: a line for each algorithm and kind, the columns of the systems beside it."""
    systems = list(results["true"])
    lines = [
        ["", "", *(f"{each}, failed" for each in systems), *systems, "CPU s a run (wall)"],
        ["---", "---", *2 * len(systems) * ["---:"], "---:"],
        ["true physics", "", *len(systems) * [""]]
        + [f"{mean:,.1f}" for mean, _ in results["true"].values()]
        + [""],
    ]
    names = dict.fromkeys((row["kind"], row["algorithm"]) for row in results["rows"])
    for kind, algorithm in sorted(names, key=lambda each: list(STYLES).index(each[0])):
        rows = {
            row["system"]: row
            for row in results["rows"]
            if (row["kind"], row["algorithm"]) == (kind, algorithm)
        }
        failed = [
            f"{rows[each]['failed']} of {len(rows[each]['runs'])}" if each in rows else ""
            for each in systems
        ]
        ends = [_ends(rows[each]["runs"]) if each in rows else "" for each in systems]
        cpu, wall = (
            " / ".join(
                f"{np.mean([run[column][-1] for run in rows[each]['runs']]):.0f}"
                for each in systems
                if each in rows
            )
            for column in ("cpu", "wall")
        )
        lines.append([algorithm, kind, *failed, *ends, f"{cpu} ({wall})"])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _ends(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean return at the end, and its standard error over the runs if there are several."""
    ends = np.array([run["return"][-1] for run in runs])
    if len(ends) == 1:
        return _short(ends[0], 0.0)
    error = ends.std(ddof=1) / np.sqrt(len(ends))
    return f"{_short(ends.mean(), error)} ± {_short(error, error, ends.mean())}"


def _short(value: float, error: float, beside: float = 0.0) -> str:
    """A number with as many digits as its error leaves; millions where it, or `beside`, is one."""
    if max(abs(value), abs(beside)) >= 1e6:
        return f"{value / 1e6:.2f}e6"
    return f"{value:,.1f}" if error < 10 else f"{value:,.0f}"


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Median over the runs, and a band from the lowest to the highest.

    Distance from the true model's return, as what is learned spans orders of magnitude.
    """
    systems = list(results["true"])
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    grid: Any = figure.subplots(2, len(systems), squeeze=False)
    for column, system in enumerate(systems):
        true, _ = results["true"][system]
        for row, (key, label) in enumerate(
            (("step", "environment steps"), ("cpu", "CPU seconds of training"))
        ):
            axes: Axes = grid[row][column]
            for each in results["rows"]:
                if each["system"] == system:
                    _band(axes, each, key)
            axes.axhline(true, color="black", linewidth=1)
            axes.axhline(bar(true), color="black", linewidth=0.7, linestyle=":")
            scale = _about(true)
            axes.set_yscale("function", functions=scale)
            axes.set_ylim(top=true + 0.5 * WITHIN * abs(true))
            marks = _ticks(true, axes.get_ylim()[0], scale[0])
            axes.set_yticks(marks, [f"{mark:,.0f}" for mark in marks])
            axes.minorticks_off()
            axes.set(xlabel=label)
            if key == "cpu":
                axes.set_xscale("symlog", linthresh=1.0)
                axes.set_xlim(left=0)
            else:
                axes.set_xticks(
                    [0, 5_000, 10_000, 15_000, 20_000], ["0", "5k", "10k", "15k", "20k"]
                )
            if not row:
                axes.set_title(system)
        grid[0][0].set_ylabel("return")
        grid[1][0].set_ylabel("return")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=110)


def _band(axes: Axes, row: Mapping[str, Any], key: str) -> None:
    runs = row["runs"]
    count = min(len(run["return"]) for run in runs)
    returns = np.array([run["return"][:count] for run in runs])
    at = np.median([run[key][:count] for run in runs], 0)
    colour = LINES[ALGORITHMS.index(row["algorithm"])]
    label = f"{row['algorithm']}, {row['kind']}"
    axes.plot(at, np.median(returns, 0), STYLES[row["kind"]], color=colour, label=label)
    axes.fill_between(at, returns.min(0), returns.max(0), color=colour, alpha=0.12, linewidth=0)


def _about(true: float) -> tuple[Any, Any]:
    """A scale that is linear within 10 % of the true return and logarithmic beyond; its inverse."""
    width = WITHIN * abs(true)

    def there(value: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.arcsinh((np.asarray(value) - true) / width))

    def back(value: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(true + width * np.sinh(value))

    return there, back


def _ticks(true: float, lowest: float, scale: Any) -> list[float]:
    """The true return, and round ones below it that leave each other room."""
    ticks = [true]
    room = (scale(true) - scale(lowest)) / 9
    for mark in (0.0, *(-n * 10.0**power for power in range(2, 8) for n in (1, 3))):
        if lowest < mark and scale(ticks[-1]) - scale(mark) > room:
            ticks.append(mark)
    return ticks


def with_table(page: str, results: Mapping[str, Any]) -> str:
    """The page with the table of these results in the place of the one that it has.

    Raises:
        ValueError: the page has none.
    """
    made = table(results)
    first = made.splitlines()[0]
    begin = page.find(first)
    if begin < 0:
        raise ValueError(f"page must have a table that begins {first!r}, found none: put one there")
    return page[:begin] + made + page[page.index("\n\n", begin) + 1 :]


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(description=str(__doc__).splitlines()[0]).parse_args(arguments)
    results = json.loads(DATA.read_text())
    plot(results, FIGURE)
    write(PAGE, with_table(PAGE.read_text(encoding="utf-8"), results))


if __name__ == "__main__":
    main()
