"""Imitation of an expert that no model of the learner can be (Amos et al., 2018, section 5.4).

The expert plans with the physics of `DiffPendulumWindy-v0`, in wind and with friction, the learner
with the plain pendulum. System identification (`sysid`) finds the model that predicts best, and
imitation (`mpc.dx`) the one that plans most like the expert: they are not the same. 100 plans to
learn from, 8 seeds; the paper's learner has 250 epochs, ours is that of `learning.OurLoss`. As in
the authors' program the curves are of the plans learned from; the last models are also measured on
1,000 others. What of our learner makes the difference there is tried by itself, and so are ten
times the plans.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from mpc_gym.experiments.plots import Line
from mpc_gym.experiments.runs import Run
from mpc_gym.experiments.tables import Table, picture, shown
from reproduction.learning import (
    PREDICTION,
    STEPS,
    SYSID,
    ImitationLoss,
    ModelLoss,
    OurLoss,
    learn,
    make_planner,
    never,
    our_schedule,
)
from reproduction.problems import TRAINING, Hessian, expert_plans, windy_pendulum
from reproduction.report import (
    OURS,
    PAPER,
    TITLES,
    Finding,
    Panel,
    Result,
    Section,
    make_table,
    plot,
)

SEEDS = 8
FRESH = MORE = 1000
LEARNING_STEPS, QUICK_STEPS = {PAPER: 1000, OURS: STEPS}, 160  # the first are 250 epochs
LAST = 0.2  # of the epochs, whose mean counts: a constant rate leaves noise


class Variant(NamedTuple):
    """A learner.

    Args:
        method: "sysid" or "mpc.dx".
        learner: "paper" or "ours".
        hessian: of plans and gradients.
        prediction: weight of the model loss, of `OurLoss`.
        plans: to learn from.
    """

    method: str
    learner: str
    hessian: Hessian = "exact"
    prediction: float = 0.0
    plans: int = TRAINING


GAUSS_NEWTON, ALONE = "mpc.dx, gauss-newton", "mpc.dx, ours, without the model loss"
VARIANTS = {
    "sysid": Variant(SYSID, PAPER),
    "mpc.dx": Variant("mpc.dx", PAPER),
    GAUSS_NEWTON: Variant("mpc.dx", PAPER, hessian="gauss-newton"),
    "sysid, ours": Variant(SYSID, OURS),
    "mpc.dx, ours": Variant("mpc.dx", OURS, prediction=PREDICTION),
    ALONE: Variant("mpc.dx", OURS),
    "sysid, ours, 1,000 plans": Variant(SYSID, OURS, plans=MORE),
    f"{ALONE}, 1,000 plans": Variant("mpc.dx", OURS, plans=MORE),
}
PAIRS = {PAPER: ("sysid", GAUSS_NEWTON), OURS: ("sysid, ours", "mpc.dx, ours")}
TEXT = """\
The expert's pendulum has friction and stands in wind, the learner's has neither, so no gravity,
mass and length make the learner's plans the expert's. All methods begin with the same physics
around (5, 1, 1). `sysid` comes to predict best, `mpc.dx` to plan most like the expert. The curves
are of the 100 plans learned from, each planned from nothing; 1,000 others are planned with the last
model. None is chosen by its loss.

{curves}

**On other plans.** Most controls sit at a limit whatever the model is, so a few of the 100 plans,
whose controls switch at another time, decide what `mpc.dx` learns from actions alone: it fits
these. The table of fresh plans says what was tried: smoothing alone, ten times the plans, and the
model loss beside the imitation loss. Either of the last two is enough. What moved says something of
every stage of every plan, and so holds the model where the few actions leave it free. The weight of
the model loss, {prediction:g}, was chosen among 0, 0.1, 1 and 10 on the seeds 0 to 7."""

Groups = dict[str, list[Result]]  # by variant, in the order of the seeds


def runs(quick: bool, seed: int = 0) -> list[Run]:
    """All variants, for every seed.

    Quick: two seeds and few steps.
    """
    return [
        Run(
            f"nonrealizable/{name.replace(', ', '/').replace(',', '')}/seed-{each}",
            f"{__name__}:run",
            {
                "variant": name,
                "seed": each,
                "steps": QUICK_STEPS if quick else LEARNING_STEPS[variant.learner],
            },
        )
        for name, variant in VARIANTS.items()
        for each in range(seed, seed + (2 if quick else SEEDS))
    ]


def run(folder: Path, variant: str, seed: int, steps: int) -> Result:
    """Let one learner imitate the expert.

    Args:
        folder: for log and checkpoint; the run goes on from a checkpoint there.
        variant: one of `VARIANTS`.
        seed: of the start states, the learner's first physics and the order of learning.
        steps: how many.

    Returns:
        The settings, and what `learn` returns.
    """
    settings = {"variant": variant, "seed": seed, "steps": steps}
    method, learner, hessian, prediction, count = VARIANTS[variant]
    system = windy_pendulum(seed)
    more = count - TRAINING
    plans = expert_plans(system, seed, test=FRESH, more=more)
    rows = torch.cat([plans.training(TRAINING), plans.more])
    mpc = make_planner(system, method, hessian, starts=1)
    epochs, rate = our_schedule(len(rows), steps)
    loss: ModelLoss
    if method == SYSID:
        loss = ModelLoss(mpc, plans)
    elif learner == PAPER:
        loss = ImitationLoss(mpc, plans)
    else:
        loss = OurLoss(mpc, plans, epochs, prediction)
    falling = rate if learner == OURS else None
    return {**settings, **learn(folder, loss, rows, rows, epochs, never, settings, falling)}


def section(results: dict[str, Result], images: Path) -> Section:
    """The findings, a plot and two tables."""
    groups: Groups = {name: [] for name in VARIANTS}
    for result in sorted(results.values(), key=lambda result: int(result["seed"])):
        groups[result["variant"]].append(result)
    path = images / "nonrealizable.png"
    _plot(groups, path)
    title = "Imitation and model loss of the plans learned from, over the epochs"
    text = TEXT.format(curves=picture(path, title), prediction=PREDICTION)
    findings = [
        *(_finding(groups, learner) for learner in TITLES),
        *(_fresh_finding(groups, learner) for learner in TITLES),
        _hessian_finding(groups),
    ]
    title = "Losses on 1,000 fresh plans: medians over the seeds"
    fresh = make_table("nonrealizable-fresh", title, list(_fresh_rows(groups)))
    section = "Non-realizable expert (section 5.4)"
    return Section(section, text, findings, [fresh, _table(groups)])


def _at_end(group: list[Result], name: str) -> list[float]:
    """Of each result, the mean over the last epochs of a curve."""
    means = []
    for result in group:
        epochs = np.array(result["epoch"])
        means.append(float(np.mean(np.array(result[name])[epochs > (1 - LAST) * epochs[-1]])))
    return means


def _finding(groups: Groups, learner: str) -> Finding:
    losses = {
        f"{name} loss, {method}": _at_end(groups[variant], f"{name}_loss")
        for name in ("imitation", "model")
        for method, variant in zip((SYSID, "mpc.dx"), PAIRS[learner], strict=True)
    }
    fitted, imitated, fitted_model, imitated_model = losses.values()
    closer = [i < f for f, i in zip(fitted, imitated, strict=True)]
    worse = [i > f for f, i in zip(fitted_model, imitated_model, strict=True)]
    failed = [
        str(result["seed"])
        for result, *good in zip(groups[PAIRS[learner][1]], closer, worse, strict=True)
        if not all(good)
    ]
    return Finding(
        name="d",
        statement="Where the expert is not realizable, mpc.dx comes to a lower imitation loss than "
        "sysid in every seed, though to a worse state-prediction loss, on the plans learned from.",
        learner=learner,
        holds=not failed,
        summary=f"{sum(closer)} of {len(closer)} seeds, medians {shown(median(imitated))} and "
        f"{shown(median(fitted))}",
        numbers={
            "seeds": len(closer),
            "seeds with a lower imitation loss": sum(closer),
            "seeds with a higher model loss": sum(worse),
            **losses,
        },
        diagnosis=f"Not so in seeds {', '.join(failed)}." if failed else "",
    )


def _fresh_finding(groups: Groups, learner: str) -> Finding:
    """Whether it also holds beyond the plans learned from."""
    fitted, imitated = (
        [result["last_test_loss"] for result in groups[variant]] for variant in PAIRS[learner]
    )
    closer = sum(i < f for f, i in zip(fitted, imitated, strict=True))
    learned = median(_at_end(groups[PAIRS[learner][1]], "imitation_loss"))
    holds = closer == len(fitted)
    return Finding(
        name="d, fresh plans",
        statement="It comes to a lower imitation loss on 1,000 other plans, too, in every seed.",
        learner=learner,
        holds=holds,
        summary=f"{closer} of {len(fitted)} seeds, medians {shown(median(imitated))} and "
        f"{shown(median(fitted))}",
        numbers={
            "seeds": len(fitted),
            "seeds with a lower imitation loss": closer,
            "imitation losses, sysid": fitted,
            "imitation losses, mpc.dx": imitated,
        },
        diagnosis=""
        if holds
        else f"The median loss of mpc.dx is {shown(learned)} on the plans that it learned from and "
        f"{shown(median(imitated))} on others, that of sysid {shown(median(fitted))} there: it "
        "fits the few plans that tell models apart.",
    )


def _hessian_finding(groups: Groups) -> Finding:
    exact, gauss_newton = (
        _at_end(groups[variant], "imitation_loss") for variant in ("mpc.dx", GAUSS_NEWTON)
    )
    wins = sum(e < g for e, g in zip(exact, gauss_newton, strict=True))
    holds = 2 * wins > len(exact)
    medians = median(exact), median(gauss_newton)
    return Finding(
        name="exact, non-realizable",
        statement="Where the expert is not realizable, exact gradients come to a lower "
        "imitation loss of the plans learned from than Gauss-Newton's, in more than half of the "
        "seeds.",
        learner=PAPER,
        holds=holds,
        summary=f"{wins} of {len(exact)} seeds, medians {shown(medians[0])} and "
        f"{shown(medians[1])}",
        numbers={
            "seeds": len(exact),
            "exact is lower": wins,
            "median, exact": medians[0],
            "median, Gauss-Newton": medians[1],
        },
        diagnosis=""
        if holds
        else "What separates the model class from the expert is larger than what separates the "
        "gradients.",
    )


def _fresh_rows(groups: Groups) -> Iterator[dict[str, Any]]:
    """A row for each variant, beside `sysid` of the same learner from as many plans."""
    for name, group in groups.items():
        variant = VARIANTS[name]
        beside = next(
            other
            for other, (method, learner, _, _, plans) in VARIANTS.items()
            if (method, learner, plans) == (SYSID, variant.learner, variant.plans)
        )
        losses, others = ([r["last_test_loss"] for r in groups[key]] for key in (name, beside))
        lower = sum(mine < other for mine, other in zip(losses, others, strict=True))
        yield {
            "learner": name,
            "plans": variant.plans,
            "imitation loss, plans learned from": median(_at_end(group, "imitation_loss")),
            "imitation loss, fresh plans": median(losses),
            "model loss, fresh plans": median(r["last_test_model_loss"] for r in group),
            "lower on fresh plans than sysid": "-"
            if name == beside
            else f"{lower} of {len(losses)}",
        }


def _table(groups: Groups) -> Table:
    rows = []
    for name, group in groups.items():
        losses = (_at_end(group, "imitation_loss"), _at_end(group, "model_loss"))
        for result, imitation, model in zip(group, *losses, strict=True):
            gravity, mass, length = (
                result["parameters"][f"dynamics.{name}"] for name in ("gravity", "mass", "length")
            )
            rows.append(
                {
                    "learner": name,
                    "seed": result["seed"],
                    "imitation loss": imitation,
                    "imitation loss, fresh plans": result["last_test_loss"],
                    "model loss": model,
                    "gravity / length": gravity / length,
                    "1 / (mass length^2)": 1 / (mass * length**2),
                }
            )
    title = "Losses at the end, and the physics that imitates best (the expert's are 10 and 1)"
    return make_table("nonrealizable", title, rows)


def _plot(groups: Groups, path: Path) -> None:
    panels = []
    for loss in ("imitation", "model"):
        lines = []
        for colour, name in enumerate(("sysid", "mpc.dx", GAUSS_NEWTON, *PAIRS[OURS])):
            y = np.array([result[f"{loss}_loss"] for result in groups[name]])
            lines.append(Line(name, groups[name][0]["epoch"], y, colour))
        panels.append(Panel(f"{loss.capitalize()} loss", "epoch", "loss", lines))
    plot(path, panels, y_ticks=(0.1, 0.2, 0.5, 1.0, 2.0))
