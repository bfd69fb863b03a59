"""What the plots share: bands over seeds, names at the ends of lines, colours for everyone."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from mpc_gym.files import replacing
from mpc_gym.rendering.palette import LINES

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, GRID, GREY = "#222222", "#E0E0E0", "#666666"
MAX_POINTS = 200
LABEL_HEIGHT = 0.075  # of a name's line, as a part of the panel's height


@dataclass(frozen=True)
class Line:
    """A quantity over another, for several seeds.

    Args:
        name: written at the line's end; empty for no name.
        x: where it was measured.
        y: one row a seed.
        colour: an index of `LINES`.
        markers: whether each point of `x` has a marker, as few points should.
    """

    name: str
    x: Real[NDArray[Any], " points"] | Sequence[float]
    y: Float[NDArray[Any], "seeds points"]
    colour: int
    markers: bool = False


def make_figure(panels: int, height: float = 3.8) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, to be read at half its size."""
    # enough room beside each panel for the names of its lines
    figure = Figure(figsize=(5.6 * panels, height), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)
    return figure, list(axes[0])


def draw_lines(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw the median over the seeds of each line, and the band from the lowest to the highest.

    Call it once the scales of the axes are set: the names stand at their lines' ends.
    """
    for line in lines:
        y = np.asarray(line.y, dtype=float)
        colour = LINES[line.colour]
        axes.fill_between(line.x, y.min(0), y.max(0), color=colour, alpha=0.2, linewidth=0)
        marker = MARKERS[line.colour] if line.markers else None
        axes.plot(line.x, np.median(y, 0), color=colour, linewidth=2, marker=marker, markersize=6)
    _finish(axes, lines)


def draw_each(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw every seed of each line by itself, where a band would hide that they part.

    Call it once the scales of the axes are set: each name stands at the median of its lines' ends.
    """
    for line in lines:
        axes.plot(line.x, np.transpose(line.y), color=LINES[line.colour], linewidth=1.2)
    _finish(axes, lines)


def label_ends(axes: Axes, ends: dict[str, tuple[float, float, int]]) -> None:
    """Write names right of the panel, at the heights of the lines' ends but clear of each other.

    Args:
        axes: whose scales and limits do not change any more.
        ends: x, y and colour of each name.
    """
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    to_axes = axes.transData + axes.transAxes.inverted()
    points = {}
    for name, (x, y, _) in ends.items():
        if np.isfinite(y) and (y > 0 or axes.get_yscale() != "log"):
            points[name] = to_axes.transform((x, y))
    order = sorted(points, key=lambda name: float(points[name][1]))
    heights = _spread(
        [float(np.clip(points[name][1], 0, 1)) for name in order],
        [LABEL_HEIGHT * len(name.splitlines()) for name in order],
    )
    for name, height in zip(order, heights, strict=True):
        colour = LINES[ends[name][2]]
        axes.annotate(
            name,
            xy=tuple(points[name]),
            xytext=(1.04, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour,
            fontweight="bold",
            fontsize=11,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 1, "relpos": (0, 0.5)},
        )


def style_axes(axes: Axes) -> None:
    """A quiet frame, and text that can be read at half its size."""
    axes.grid(visible=True, which="major", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11)
    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        axis.label.set_fontsize(12)
        if scale == "log":
            axis.set_minor_locator(NullLocator())
    axes.set_title(axes.get_title(), fontsize=13, color=INK)


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as a picture, whole or not at all."""
    with replacing(path) as unfinished:
        # without the version of the library, which would change the file and not the picture
        figure.savefig(unfinished, dpi=120, metadata={"Software": None})


def thinned(count: int) -> NDArray[np.int64]:
    """Indices of at most `MAX_POINTS` of so many points, evenly spaced, with both ends."""
    indices = np.linspace(0, count - 1, min(count, MAX_POINTS))
    return np.unique(np.round(indices)).astype(np.int64)


def _finish(axes: Axes, lines: Sequence[Line]) -> None:
    style_axes(axes)
    ends = {
        line.name: (float(np.asarray(line.x)[-1]), float(np.median(line.y[:, -1])), line.colour)
        for line in lines
        if line.name
    }
    label_ends(axes, ends)


def _spread(middles: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Middles in rising order, moved apart so that things of these sizes do not overlap.

    They stay below 1, the top.
    """
    gaps = [0.5 * (below + above) for below, above in pairwise(sizes)]
    placed = list(middles[:1])
    for middle, gap in zip(middles[1:], gaps, strict=True):
        placed.append(max(middle, placed[-1] + gap))
    if placed:
        placed[-1] = min(placed[-1], 1.0)
    for i, gap in reversed(list(enumerate(gaps))):
        placed[i] = min(placed[i], placed[i + 1] - gap)
    return placed
