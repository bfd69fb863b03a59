"""The runs of a comparison over its seeds: numbers, a table and a plot."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rich.table
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from mpc_gym.experiments.environments import find_system, true_physics
from mpc_gym.experiments.methods import METHODS
from mpc_gym.experiments.plots import (
    GREY,
    GRID,
    Line,
    draw_lines,
    make_figure,
    save_figure,
)
from mpc_gym.experiments.tables import Table, shown
from mpc_gym.rendering.palette import LINES

Result = Mapping[str, Any]
LEAST_LOSS = 1e-16  # what is drawn for zero, of which there is no logarithm


@dataclass(frozen=True)
class Summary:
    """What a method made of a number of demonstrations, over the seeds.

    Attributes:
        method: its name.
        demonstrations: their number.
        returns: [seeds, start states].
        imitation_losses: [seeds].
        seconds: of learning, the median; None where all runs were resumed.
        parameters: what was learned, the median over the seeds; of the dynamics, what the motion
            determines (see `environments`).
    """

    method: str
    demonstrations: int
    returns: Any
    imitation_losses: Any
    seconds: float | None
    parameters: dict[str, Any]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean return, from the spread over the start states."""
        return standard_error(self.returns)

    @property
    def by_seed(self) -> Any:
        """The mean return of each seed, [seeds]."""
        return self.returns.mean(1)


def standard_error(returns: Any) -> float:
    """Of the mean of returns [seeds, start states], which all seeds have in common."""
    by_start = np.atleast_2d(returns).mean(0)
    if len(by_start) < 2:
        return float("nan")
    return float(by_start.std(ddof=1) / np.sqrt(len(by_start)))


def summaries(results: Iterable[Result]) -> list[Summary]:
    """One for each method and number of demonstrations, in the order of the results.

    Args:
        results: of `learner.run`, of one environment.
    """
    groups: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        groups.setdefault((result["method"], result["demonstrations"]), []).append(result)
    return [
        Summary(
            method,
            demonstrations,
            returns=np.array([result["returns"] for result in group]),
            imitation_losses=np.array([result["imitation_loss"] for result in group]),
            seconds=_median([result["seconds"] for result in group]),
            parameters=_medians([_quantities(result) for result in group]),
        )
        for (method, demonstrations), group in groups.items()
    ]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _medians(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: np.median([each[name] for each in values], axis=0).tolist() for name in values[0]}


def _quantities(result: Result) -> dict[str, Any]:
    """The parameters; of the dynamics, where it is known, what the motion determines of them."""
    parameters = dict(result["parameters"])
    of_dynamics = {name for name in parameters if name.startswith("dynamics.")}
    learned = {
        name.partition(".")[2]: parameters[name]
        for name in of_dynamics
        if not isinstance(parameters[name], list)
    }
    if not learned:
        return parameters
    system = find_system(result["env"])
    if not learned.keys() <= system.wrong_physics.keys():
        return parameters
    others = {
        name: value
        for name, value in parameters.items()
        if name not in of_dynamics or isinstance(value, list)
    }
    physics = {**true_physics(result["env"]), **learned}
    return {quantity.name: quantity.of(physics) for quantity in system.quantities} | others


def expert_returns(results: Iterable[Result]) -> Any:
    """Of the start states that all runs share, [start states]."""
    return np.array(next(iter(results))["expert_returns"])


def score_table(name: str, title: str, results: Sequence[Result]) -> Table:
    """Returns, imitation losses and seconds, a row for each method and number."""
    expert = expert_returns(results)
    rows: list[list[Any]] = [["expert", "-", _score(expert), "-", "-", "-"]]
    for each in summaries(results):
        losses = each.imitation_losses
        spread = f"{each.by_seed.min():.1f} to {each.by_seed.max():.1f}"
        loss = f"{shown(float(np.median(losses)))} ({shown(losses.min())} to {shown(losses.max())})"
        rows.append(
            [
                each.method,
                str(each.demonstrations),
                _score(each.returns),
                spread,
                loss,
                _seconds(each),
            ]
        )
    columns = (
        "method",
        "demonstrations",
        "return ± standard error",
        "return, lowest to highest seed",
        "imitation loss, median (lowest to highest seed)",
        "seconds",
    )
    return Table(name, title, columns, rows)


def parameter_table(name: str, title: str, results: Sequence[Result]) -> Table:
    """What was learned, a row for each method and number; empty where nothing was."""
    rows: list[list[str]] = [
        [each.method, str(each.demonstrations), _values(each.parameters)]
        for each in summaries(results)
        if each.parameters
    ]
    env_id = results[0]["env"]
    if rows:
        physics = true_physics(env_id)
        true = {q.name: q.of(physics) for q in find_system(env_id).quantities}
        rows.insert(0, ["the truth", "-", _values(true)])
    return Table(name, title, ("method", "demonstrations", "learned, median over seeds"), rows)


def method_table(names: Iterable[str]) -> Table:
    """What the methods know beforehand, and what they learn from."""
    rows = [
        [name, METHODS[name].knows, METHODS[name].sees] if name in METHODS else [name, "-", "-"]
        for name in names
    ]
    columns = ("method", "knows beforehand", "learns from the expert's")
    return Table("methods", "What each method is told", columns, rows)


def terminal_table(title: str, results: Sequence[Result]) -> rich.table.Table:
    """The scores for a terminal."""
    table = rich.table.Table(title=title)
    table.add_column("method")
    for heading in ("demonstrations", "return", "imitation loss", "seconds"):
        table.add_column(heading, justify="right")
    table.add_row("expert", "", _score(expert_returns(results)), "", "")
    for each in summaries(results):
        loss = shown(float(np.median(each.imitation_losses)))
        cells = (str(each.demonstrations), _score(each.returns), loss, _seconds(each))
        table.add_row(each.method, *cells)
    return table


def plot(results: Sequence[Result], path: Path) -> None:
    """Return and imitation loss over the number of demonstrations.

    A grey band shows the standard error of the expert's return.

    Args:
        results: of one environment.
        path: of the picture.
    """
    expert = float(expert_returns(results).mean())
    error = standard_error(expert_returns(results))
    figure, (left, right) = make_figure(2, height=4.6)
    points = summaries(results)
    methods = list(dict.fromkeys(each.method for each in points))
    numbers = sorted({each.demonstrations for each in points})
    lines: dict[str, list[Line]] = {"return": [], "loss": []}
    for method in methods:
        own = sorted((s for s in points if s.method == method), key=lambda s: s.demonstrations)
        x = [float(each.demonstrations) for each in own]
        index = colour(method, methods)
        gaps = np.stack([each.by_seed - expert for each in own], 1)
        losses = np.stack([np.maximum(each.imitation_losses, LEAST_LOSS) for each in own], 1)
        lines["return"].append(Line(method, x, gaps, index, markers=True))
        lines["loss"].append(Line(method, x, losses, index, markers=True))
    # linear as far as differences mean little
    left.set_yscale("symlog", linthresh=10 ** math.ceil(math.log10(error)) if error > 0 else 1.0)
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("demonstrations")
    left.set_title(f"Return less the expert's ({expert:.4g})")
    right.set_title("Imitation loss on unseen demonstrations")
    left.axhline(0, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)))
    if error > 0:
        left.axhspan(-error, error, color=GREY, alpha=0.15, linewidth=0)
    draw_lines(left, lines["return"])
    draw_lines(right, lines["loss"])
    for axes in (left, right):
        _count(axes, numbers)
    save_figure(figure, path)


def colour(method: str, methods: Sequence[str]) -> int:
    """The same for a method in every plot; those of a user take what is left."""
    known = list(METHODS)
    others = [name for name in methods if name not in METHODS]
    index = known.index(method) if method in METHODS else len(known) + others.index(method)
    return index % len(LINES)


def _count(axes: Axes, numbers: Sequence[int]) -> None:
    """Ticks at the numbers of demonstrations, written out."""
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(visible=True, axis="x", color=GRID)


def _seconds(each: Summary) -> str:
    return "-" if each.seconds is None else f"{each.seconds:.1f}"


def _score(returns: Any) -> str:
    return f"{np.mean(returns):.1f} ± {standard_error(returns):.1f}"


def _values(parameters: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} {_value(value)}" for name, value in parameters.items())


def _value(value: Any) -> str:
    return ", ".join(f"{number:.4g}" for number in np.ravel(value))
