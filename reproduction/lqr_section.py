"""What the imitation of the LQR shows."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mpc_gym.experiments.plots import Line, draw_each, make_figure, save_figure
from mpc_gym.experiments.tables import Table, picture, shown
from reproduction.section import Finding, Section

IMITATED = 1e-6  # imitation loss
RECOVERED = 1e-6  # model loss

TITLES = {"imitation_loss": "Imitation loss of each seed", "model_loss": "Model loss of each seed"}

Result = dict[str, Any]


def section(results: dict[str, Result], images: Path) -> Section:
    """The findings, and a plot for one and for several initial models.

    Args:
        results: of the runs, by their names.
        images: folder for the plots.
    """
    by_guesses: dict[int, list[Result]] = {}
    for result in results.values():
        by_guesses.setdefault(result["guesses"], []).append(result)
    steps = {guesses: group[0]["steps"] for guesses, group in by_guesses.items()}
    decay_steps = next(iter(results.values()))["decay_steps"]
    pictures = []
    for guesses, group in by_guesses.items():
        path = images / ("lqr.png" if guesses == 1 else "lqr-giving-up.png")
        _plot(group, path)
        title = f"Imitation and model loss of every seed, {_from(guesses)}"
        pictures.append(picture(path, title))
    text = f"""\
An expert and a learner plan five steps of a linear system with three states and three controls,
at the same quadratic cost. The learner does not know the system: it follows the gradient of the
imitation loss through its plan, from 128 fresh start states a step. Expert, initial models and
start states are those of the authors' program, and so is RMSprop at a rate of 1e-2 for
{steps[1]:,} steps. A constant rate leaves a floor of noise, so in {decay_steps:,} further steps it
falls to 1e-6, for all seeds alike. Each line is one seed, and shows the loss expected over the
start states, not that of a batch.

{pictures[0]}

The loss has more than one valley. A second learner therefore gives an initial model up which does
not imitate a hundred times better after 300 steps than at first, and draws another. The one it
keeps learns for {steps[max(steps)]:,} steps more, and for {decay_steps:,} at the falling rate.

{chr(10).join(pictures[1:])}"""
    findings = [_finding(guesses, group) for guesses, group in by_guesses.items()]
    return Section("LQR imitation (section 5.2)", text, findings, [_table(by_guesses)])


def _from(guesses: int) -> str:
    return "from one initial model" if guesses == 1 else "giving up initial models"


def _end_of_constant_rate(result: Result) -> int:
    """The index of the last row before the rate falls."""
    return int(np.searchsorted(result["step"], result["steps"], side="right")) - 1


def _finding(guesses: int, group: list[Result]) -> Finding:
    imitation = [result["imitation_loss"][-1] for result in group]
    model = [result["model_loss"][-1] for result in group]
    stuck = [result for result in group if result["imitation_loss"][-1] >= IMITATED]
    recovered = sum(loss < RECOVERED for loss in model)
    return Finding(
        name="a" if guesses == 1 else "a, giving up",
        statement=f"LQR, {_from(guesses)}: the imitation loss falls below 1e-6 in every seed.",
        holds=not stuck,
        numbers={
            "seeds": len(group),
            "seeds below 1e-6": len(group) - len(stuck),
            "seeds that recover the true model": recovered,
            "largest imitation loss": max(imitation),
            "median imitation loss at the constant rate": float(
                np.median([r["imitation_loss"][_end_of_constant_rate(r)] for r in group])
            ),
            "initial models tried": [result["tried"] for result in group],
            "imitation losses": imitation,
            "model losses": model,
        },
        diagnosis=_diagnosis(stuck) if stuck else "",
    )


def _diagnosis(stuck: list[Result]) -> str:
    """Whether the models of these learners run away, and the loss with it."""
    growth, fall, largest = [], [], 0.0
    for result in stuck:
        last = _end_of_constant_rate(result)
        growth.append(result["model_loss"][last] / result["model_loss"][last // 2])
        fall.append(result["imitation_loss"][last] / result["imitation_loss"][last // 2])
        largest = max(largest, float(np.abs([*result["A"], *result["B"]]).max()))
    seeds = ", ".join(str(result["seed"]) for result in stuck)
    return (
        f"Not below it: seeds {seeds}. Over the second half of the steps at the constant rate the "
        f"model loss there changes by a factor of {_range(growth)}, and the imitation loss by one "
        f"of {_range(fall)}; the largest entry of the models is {shown(largest)} at the end. Where "
        "the model loss grows and the imitation loss hardly falls, the learner is in a valley of "
        "the loss that leads to ever larger models, and not to the expert."
    )


def _range(values: list[float]) -> str:
    return " to ".join(dict.fromkeys((shown(min(values)), shown(max(values)))))


def _table(by_guesses: dict[int, list[Result]]) -> Table:
    rows = []
    for guesses, group in by_guesses.items():
        for result in group:
            imitation, model = result["imitation_loss"], result["model_loss"]
            constant = imitation[_end_of_constant_rate(result)]
            rows.append(
                [
                    _from(guesses),
                    result["seed"],
                    result["tried"],
                    constant,
                    imitation[-1],
                    model[-1],
                    model[-1] < RECOVERED,
                ]
            )
    columns = (
        "learner",
        "seed",
        "initial models",
        "imitation loss, constant rate",
        "imitation loss",
        "model loss",
        "model recovered",
    )
    return Table("lqr", "Losses at the end of learning", columns, rows)


def _plot(group: list[Result], path: Path) -> None:
    figure, panels = make_figure(2)
    for axes, (key, title) in zip(panels, TITLES.items(), strict=True):
        axes.set(yscale="log", xlabel="step")
        axes.set_title(title)
        groups = {
            "seeds found it": [r for r in group if r["model_loss"][-1] < RECOVERED],
            "did not": [r for r in group if r["model_loss"][-1] >= RECOVERED],
        }
        lines = [
            Line(f"{len(found)} {name}", found[0]["step"], np.array([r[key] for r in found]), i)
            for i, (name, found) in enumerate(groups.items())
            if found
        ]
        draw_each(axes, lines)
        _mark(axes, group[0]["steps"])
    save_figure(figure, path)


def _mark(axes: Axes, step: int) -> None:
    """Where the rate begins to fall."""
    axes.axvline(step, color="#777777", linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        "rate falls ",
        (step, 0.03),
        xycoords=("data", "axes fraction"),
        ha="right",
        fontsize=10,
        color="#777777",
    )
