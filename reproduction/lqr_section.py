"""What the imitation of the LQR shows."""

from pathlib import Path

import numpy as np

from mpc_gym.experiments.plots import Line, draw_each, make_figure, save_figure
from mpc_gym.experiments.tables import picture, shown
from reproduction.report import OURS, PAPER, TITLES, Finding, Result, Section, make_table

IMITATED = 1e-6  # imitation loss
RECOVERED = 1e-6  # model loss
GREY = "#777777"
TEXT = """\
An expert and a learner plan five steps of a linear system with three states and three controls,
at the same quadratic cost. The learner does not know the system: it follows the gradient of the
imitation loss through its plan, from 128 fresh start states a step. Expert, initial models and
start states are those of the authors' program, and so is RMSprop at a rate of 1e-2 for
{steps:,} steps. A constant rate leaves a floor of noise, so in {decay_steps:,} further steps it
falls to 1e-6, for all seeds alike. Each line is one seed, and shows the loss expected over the
start states, not that of a batch.

{paper}

The loss has more than one valley, and which one a learner runs into depends on its initial model.
Ours follows a path that begins at the same model for all: it adds w (|A - I|² + |B|²) to the loss,
the distance from a system in which nothing changes, and w falls from 1 to 1e-4 in the first
{path_steps:,} of {our_steps:,} steps and is 0 from then on; the same {decay_steps:,} follow. At
first the distance decides, and has one minimum; as w falls the minimum moves, and the learner with
it, to a model that imitates.

{ours}"""


def section(results: dict[str, Result], images: Path) -> Section:
    """The findings, and a plot for each learner."""
    groups: dict[str, list[Result]] = {}
    for result in results.values():
        groups.setdefault(result["learner"], []).append(result)
    pictures = {}
    for learner, group in groups.items():
        path = images / f"lqr-{learner}.png"
        _plot(group, path)
        title = f"Imitation and model loss of every seed, {TITLES[learner]}"
        pictures[learner] = picture(path, title)
    text = TEXT.format(
        steps=groups[PAPER][0]["steps"],
        our_steps=groups[OURS][0]["steps"],
        path_steps=groups[OURS][0]["path_steps"],
        decay_steps=groups[PAPER][0]["decay_steps"],
        **pictures,
    )
    rows = [
        {
            "learner": learner,
            "seed": result["seed"],
            "imitation loss, constant rate": _constant_rate(result)[-1],
            "imitation loss": result["imitation_loss"][-1],
            "model loss": result["model_loss"][-1],
            "model recovered": _recovered(result),
        }
        for learner, group in groups.items()
        for result in group
    ]
    table = make_table("lqr", "Losses at the end of learning", rows)
    findings = [_finding(learner, group) for learner, group in groups.items()]
    return Section("LQR imitation (section 5.2)", text, findings, [table])


def _recovered(result: Result) -> bool:
    return bool(result["model_loss"][-1] < RECOVERED)


def _constant_rate(result: Result, loss: str = "imitation_loss") -> list[float]:
    """The part of a curve before the rate falls."""
    return [y for x, y in zip(result["step"], result[loss], strict=True) if x <= result["steps"]]


def _finding(learner: str, group: list[Result]) -> Finding:
    imitation = [result["imitation_loss"][-1] for result in group]
    constant = [_constant_rate(result)[-1] for result in group]
    stuck = [result for result in group if result["imitation_loss"][-1] >= IMITATED]
    return Finding(
        name="a",
        statement="LQR: the imitation loss falls below 1e-6 in every seed.",
        learner=learner,
        holds=not stuck,
        summary=f"{len(group) - len(stuck)} of {len(group)} seeds, the true model in "
        f"{sum(map(_recovered, group))}",
        numbers={
            "seeds": len(group),
            "seeds below 1e-6": len(group) - len(stuck),
            "seeds that recover the true model": sum(map(_recovered, group)),
            "largest imitation loss": max(imitation),
            "median imitation loss at the constant rate": float(np.median(constant)),
            "imitation losses": imitation,
            "model losses": [result["model_loss"][-1] for result in group],
        },
        diagnosis=_diagnosis(stuck) if stuck else "",
    )


def _diagnosis(stuck: list[Result]) -> str:
    """Whether the models of these learners run away, and the loss with it."""
    ratios: dict[str, list[float]] = {"model_loss": [], "imitation_loss": []}
    for result in stuck:
        for name, values in ratios.items():
            curve = _constant_rate(result, name)
            values.append(curve[-1] / curve[(len(curve) - 1) // 2])
    model, imitation = (
        " to ".join(dict.fromkeys((shown(min(values)), shown(max(values)))))
        for values in ratios.values()
    )
    largest = max(float(np.abs([*result["A"], *result["B"]]).max()) for result in stuck)
    seeds = ", ".join(str(result["seed"]) for result in stuck)
    return (
        f"Not below it: seeds {seeds}. Over the second half of the steps at the constant rate the "
        f"model loss there changes by a factor of {model}, and the imitation loss by one "
        f"of {imitation}; the largest entry of the models is {shown(largest)} at the end. Where "
        "the model loss grows and the imitation loss hardly falls, the learner is in a valley of "
        "the loss that leads to ever larger models, and not to the expert."
    )


def _plot(group: list[Result], path: Path) -> None:
    """Every seed by itself, with a mark where the rate begins to fall."""
    groups = {
        "seeds found it": [result for result in group if _recovered(result)],
        "did not": [result for result in group if not _recovered(result)],
    }
    figure, panels = make_figure(2)
    for axes, loss in zip(panels, ("imitation", "model"), strict=True):
        axes.set(yscale="log", xlabel="step")
        axes.set_title(f"{loss.capitalize()} loss of each seed")
        lines = []
        for colour, (name, found) in enumerate(groups.items()):
            if found:
                y = np.array([result[f"{loss}_loss"] for result in found])
                lines.append(Line(f"{len(found)} {name}", found[0]["step"], y, colour))
        draw_each(axes, lines)
        step = group[0]["steps"]
        axes.axvline(step, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        over = ("data", "axes fraction")
        axes.annotate(
            "rate falls ", (step, 0.03), xycoords=over, ha="right", fontsize=10, color=GREY
        )
    save_figure(figure, path)
