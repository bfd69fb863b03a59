"""The result of the demo as a table, a plot and numbers."""

import json
import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from rich import box
from rich.table import Table

from mpc_gym.experiments.problems import Quantity
from mpc_gym.experiments.result import Demo, Score
from mpc_gym.files import replacing, write

COLUMNS = {
    "expert": "Expert",
    "mpc_before": "MPC\nbefore",
    "mpc": "MPC\ncloned",
    "mlp": "MLP\ncloned",
}
NOTHING = "-"
# Okabe & Ito (2008): told apart by every kind of colour vision.
MPC_COLOUR, MLP_COLOUR, OTHER_COLOURS = "#0072B2", "#D55E00", ("#009E73", "#CC79A7", "#E69F00")


def table(demo: Demo) -> Table:
    """One column for each agent."""
    options = demo.options
    episodes = len(demo.scores["expert"].evaluation.returns)
    result = Table(
        title=f"{options.env}: {options.demonstrations} demonstrations, seed {options.seed}",
        caption=f"return: mean ± standard error over {episodes} unseen start states\n"
        "imitation loss: mean squared error of actions on unseen demonstrations,\n"
        "in units of half the action range",
        box=box.SIMPLE_HEAD,
    )
    result.add_column(no_wrap=True)
    for title in COLUMNS.values():
        result.add_column(title, justify="right", no_wrap=True)
    scores = [demo.scores[agent] for agent in COLUMNS]
    result.add_row("return", *map(_return, scores))
    result.add_row("imitation loss", *map(_imitation_loss, scores))
    result.add_row("seconds per decision", *map(_seconds, scores), end_section=True)
    for quantity in options.problem.quantities:
        values = quantity_values(demo, quantity)
        cells = (f"{values[agent]:.4g}" for agent in ("true", "mpc_before", "mpc"))
        result.add_row(quantity.name, *cells, NOTHING)
    return result


def _return(score: Score) -> str:
    mean, error = score.evaluation.mean, score.evaluation.standard_error
    # two digits of the error, and as many of the mean as it makes sense of
    decimals = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 1
    return f"{mean:.{decimals}f} ± {error:.{decimals}f}"


def _imitation_loss(score: Score) -> str:
    return NOTHING if score.imitation_loss is None else f"{score.imitation_loss:.1e}"


def _seconds(score: Score) -> str:
    return f"{score.evaluation.seconds_per_decision:.1e}"


def quantity_values(demo: Demo, quantity: Quantity) -> dict[str, float]:
    """What `quantity` is by the true, the wrong and the learned physics."""
    return {name: quantity.of(physics) for name, physics in demo.physics.items()}


def metrics(demo: Demo) -> dict[str, Any]:
    """All results, as JSON can hold them."""
    options = demo.options
    return {
        "environment": options.env,
        "demonstrations": options.demonstrations,
        "seed": options.seed,
        "fast": options.fast,
        "agents": {agent: _score_metrics(score) for agent, score in demo.scores.items()},
        "parameters": demo.physics,
        "quantities": {
            quantity.name: _quantity_metrics(quantity_values(demo, quantity))
            for quantity in options.problem.quantities
        },
        "learning": {agent: _history(rows) for agent, rows in demo.histories.items()},
    }


def _history(rows: list[dict[str, float]]) -> list[dict[str, float | None]]:
    """The rows with None for a mean of nothing, for which JSON has no number."""
    return [{key: x if math.isfinite(x) else None for key, x in row.items()} for row in rows]


def _score_metrics(score: Score) -> dict[str, Any]:
    evaluation = score.evaluation
    return {
        "return_mean": evaluation.mean,
        "return_standard_error": evaluation.standard_error,
        "returns": evaluation.returns.tolist(),
        "imitation_loss": score.imitation_loss,
        "seconds_per_decision": evaluation.seconds_per_decision,
    }


def _quantity_metrics(values: dict[str, float]) -> dict[str, float]:
    return {**values, "relative_error": abs(values["mpc"] / values["true"] - 1)}


def write_metrics(demo: Demo, path: Path) -> None:
    """Write `metrics` as JSON, whole or not at all."""
    write(path, json.dumps(metrics(demo), indent=2, allow_nan=False) + "\n")


def learning_curve(demo: Demo) -> Figure:
    """Left, how the policies come to act as the expert; right, how the MPC comes to its physics."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, physics = figure.subplots(1, 2)
    _plot_losses(loss, demo)
    _plot_physics(physics, demo)
    for axes in (loss, physics):
        axes.set_yscale("log", nonpositive="mask")  # a guess may be exactly right
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _plot_losses(axes: Axes, demo: Demo) -> None:
    for agent, label, colour in (("mpc", "MPC", MPC_COLOUR), ("mlp", "MLP", MLP_COLOUR)):
        history = demo.histories[agent]
        epochs = [row["epoch"] for row in history]
        axes.plot(epochs, [row["validation/action_loss"] for row in history], colour, label=label)
    axes.set_xscale("symlog", linthresh=1)  # of hundreds of epochs, the first few matter most
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(title="Actions on held-out demonstrations", xlabel="epoch", ylabel="imitation loss")
    axes.legend(frameon=False)


def _plot_physics(axes: Axes, demo: Demo) -> None:
    true = demo.physics["true"]
    history = demo.histories["mpc"]
    for quantity, colour in zip(
        demo.options.problem.quantities, (MPC_COLOUR, *OTHER_COLOURS), strict=False
    ):
        errors = []
        for row in history:
            guess = {name: row[f"parameters/mpc.dynamics.{name}"] for name in true}
            errors.append(abs(quantity.of(guess) / quantity.of(true) - 1))
        axes.plot([row["epoch"] for row in history], errors, color=colour, label=quantity.name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title="Physics of the MPC policy", xlabel="epoch", ylabel="relative error")
    axes.legend(frameon=False)


def write_learning_curve(demo: Demo, path: Path) -> None:
    """Write `learning_curve` as a picture, whole or not at all."""
    with replacing(path) as unfinished:
        learning_curve(demo).savefig(unfinished, dpi=150)
