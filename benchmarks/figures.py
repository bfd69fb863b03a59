"""The figures of the sections, as PNG."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.report import Table
from mpc_gym.files import replacing
from mpc_gym.rendering.palette import LINES

mpl.use("Agg")

# Never by colour alone: every line carries its name and a marker.
COLOURS = (LINES[1], LINES[0], *LINES[2:6])
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, MUTED = "#222222", "#777777"
Series = dict[str, tuple[list[float], list[float]]]


def draw(section: str, tables: list[Table], folder: Path) -> None:
    """Draw the figure of a section that has one."""
    figure = {
        "comparison": comparison,
        "differentiation": differentiation,
        "scaling": scaling,
        "systems_times": systems,
    }.get(section)
    if figure:
        with plt.style.context("default"):  # mpc 0.0.6 sets a style of its own when imported
            figure(tables[0], folder / f"{section}.png")


def comparison(table: Table, path: Path) -> None:
    """Time over batch size, a panel a system."""
    systems = _distinct(table, "system")
    figure, axes = plt.subplots(1, len(systems), figsize=(5.6 * len(systems), 4.4), sharey=True)
    panels = []
    for axis, system in zip(axes, systems, strict=True):
        series = _series(table, "solver", "batch", "forward [ms]", system=system)
        _lines(axis, series, "batch size", f"{system}: time of a forward pass [ms]")
        panels.append((axis, series))
    _save(figure, panels, path)


def differentiation(table: Table, path: Path) -> None:
    """Time and memory of the backward pass over the number of iterations."""
    figure, axes = plt.subplots(1, 2, figsize=(11.2, 4.4))
    # the native solver's memory is too little to be seen: zero, which has no logarithm
    columns = {"backward [ms]": "log", "peak memory [MB]": "linear"}
    panels = []
    for axis, (column, y_scale) in zip(axes, columns.items(), strict=True):
        series = _series(table, "differentiation", "iterations", column)
        _lines(axis, series, "iterations of the solver", column, y_scale)
        panels.append((axis, series))
    _save(figure, panels, path)


def scaling(table: Table, path: Path) -> None:
    """Time a solve over each quantity."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2))
    labels = {
        "batch": "batch size",
        "horizon": "horizon (batch 128)",
        "states": "number of states (batch 128)",
    }
    panels = []
    for axis, (over, label) in zip(axes, labels.items(), strict=True):
        series = _series(table, "system", "value", "us a solve", over=over)
        _lines(axis, series, label, "time of a solve [us]")
        panels.append((axis, series))
    _save(figure, panels, path)


def systems(table: Table, path: Path) -> None:
    """Time of a solve of every system, a panel a batch size, the solvers beside each other."""
    batches, names = _distinct(table, "batch"), _distinct(table, "system")[::-1]
    solvers = {
        "mpc_gym": "mpc_gym",
        "fatrop interpreted": "CasADi with fatrop, interpreted",
        "fatrop compiled": "CasADi with fatrop, compiled by gcc",
    }
    size = (4.2 * len(batches) + 1, 0.32 * len(names) + 1.8)
    figure, axes = plt.subplots(1, len(batches), figsize=size, sharey=True, squeeze=False)
    for axis, batch in zip(axes[0], batches, strict=True):
        for i, (column, label) in enumerate(solvers.items()):
            records = [
                record for record in table.records(batch=batch) if math.isfinite(record[column])
            ]
            axis.plot(
                [record[column] / 1e3 for record in records],
                [names.index(record["system"]) for record in records],
                MARKERS[i],
                color=COLOURS[i],
                label=label,
            )
        _plain_axis(axis, f"batch {batch}: time of a solve [ms]")
        axis.set(xscale="log", ylim=(-0.6, len(names) - 0.4))
        axis.xaxis.set_major_formatter(FuncFormatter(_plain))
        axis.xaxis.set_minor_locator(NullLocator())
    axes[0, 0].set_yticks(range(len(names)), names)
    figure.tight_layout(rect=(0, 0.6 / size[1], 1, 1))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower left", ncols=3, frameon=False)
    _write(figure, path)


def _distinct(table: Table, column: str) -> list[Any]:
    return list(dict.fromkeys(record[column] for record in table.records()))


def _series(table: Table, name: str, x: str, y: str, **where: str) -> Series:
    series: Series = {}
    for record in table.records(**where):
        if math.isfinite(record[y]):
            xs, ys = series.setdefault(record[name], ([], []))
            xs.append(float(record[x]))
            ys.append(float(record[y]))
    return series


def _lines(axis: Axes, series: Series, x_label: str, title: str, y_scale: str = "log") -> None:
    """Lines over a logarithmic axis, each with its name at its end."""
    axis.set(xscale="log", yscale=y_scale, xlabel=x_label)
    for i, (xs, ys) in enumerate(series.values()):
        axis.plot(xs, ys, color=COLOURS[i], marker=MARKERS[i], markersize=5, linewidth=2)
    _plain_axis(axis, title)
    axis.xaxis.set_major_formatter(FuncFormatter(_plain))
    axis.yaxis.set_major_formatter(FuncFormatter(_plain))
    axis.xaxis.set_minor_locator(NullLocator())
    if y_scale == "log":
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_locator(NullLocator())
        heights = [y for _, ys in series.values() for y in ys]
        axis.set_ylim(min(heights) / 1.5, max(heights) * 1.5)
    ticks = sorted({x for xs, _ in series.values() for x in xs})
    axis.set_xticks(ticks)
    axis.tick_params(axis="x", labelrotation=0 if len(ticks) <= 5 else 45)


def _plain_axis(axis: Axes, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=11, color=INK)
    axis.grid(visible=True, which="major", color="#E5E5E5", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(colors=MUTED, which="both")


def _name_lines(axis: Axes, series: Series) -> None:
    """Write each name at the right margin, at the height of its line but clear of the others.

    Comes last, when no axis that shares its scale changes any more.
    """
    ends = {name: (xs[-1], ys[-1]) for name, (xs, ys) in series.items()}
    axis.figure.canvas.draw()

    def to_axes(end: tuple[float, float]) -> tuple[float, float]:
        x, y = axis.transAxes.inverted().transform(axis.transData.transform(end))
        return float(x), float(y)

    heights = {name: to_axes(end)[1] for name, end in ends.items()}
    order = sorted(heights, key=lambda name: heights[name])
    placed = _spread([heights[name] for name in order], 0.065)
    colours = dict(zip(ends, COLOURS, strict=False))
    for name, height in zip(order, placed, strict=True):
        axis.annotate(
            name,
            xy=(to_axes(ends[name])[0] + 0.015, heights[name]),
            xytext=(1.05, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=INK,
            va="center",
            fontsize=9,
            arrowprops={
                "arrowstyle": "-",
                "color": colours[name],
                "linewidth": 1,
                "relpos": (0, 0.5),
            },
        )


def _spread(heights: Iterable[float], gap: float) -> list[float]:
    """Heights in rising order, moved apart to at least `gap`."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    overshoot = max(0.0, placed[-1] - 1.0) if placed else 0.0
    return [height - overshoot for height in placed]


def _plain(value: float, _: int) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _save(figure: Figure, panels: list[tuple[Axes, Series]], path: Path) -> None:
    for axis, series in panels:
        _name_lines(axis, series)
    figure.tight_layout()
    _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=160, bbox_inches="tight")
    plt.close(figure)
