"""Imitation of an expert that no model of the learner can be (Amos et al., 2018, section 5.4).

The expert plans with the physics of `DiffPendulumWindy-v0`, in wind and with friction, the learner
with the plain pendulum. System identification (`sysid`) finds the model that predicts best, and
imitation (`mpc.dx`) the one that plans most like the expert: they are not the same. 100 plans to
learn from, 250 epochs, 8 seeds. As in the authors' program the curves are of the plans learned
from; the last models are also measured on 1,000 others.
"""

from pathlib import Path
from statistics import median

import numpy as np

from mpc_gym.experiments.plots import Line
from mpc_gym.experiments.runs import Run
from mpc_gym.experiments.tables import Table, picture, shown
from reproduction.learning import SYSID, ImitationLoss, ModelLoss, learn, make_planner, never
from reproduction.problems import TRAINING, Hessian, expert_plans, windy_pendulum
from reproduction.report import Finding, Panel, Result, Section, make_table, plot

SEEDS = 8
FRESH = 1000
EPOCHS = 250
FITTED, EXACT, GAUSS_NEWTON = (SYSID, "exact"), ("mpc.dx", "exact"), ("mpc.dx", "gauss-newton")
NAMES = {FITTED: "sysid", EXACT: "mpc.dx", GAUSS_NEWTON: "mpc.dx, gauss-newton"}
LAST = 50  # epochs whose mean counts: a constant rate leaves noise
TEXT = """\
The expert's pendulum has friction and stands in wind, the learner's has neither, so no gravity,
mass and length make the learner's plans the expert's. Both methods begin with the same physics
around (5, 1, 1). `sysid` comes to predict best, `mpc.dx` to plan most like the expert. The curves
are of the 100 plans learned from, each planned from nothing; 1,000 others are planned with the last
model. None is chosen by its loss.

{curves}"""

Groups = dict[tuple[str, str], list[Result]]  # by method and Hessian, in the order of the seeds


def runs(quick: bool, seed: int = 0) -> list[Run]:
    """Both methods, and imitation with both gradients, for every seed.

    Quick: two seeds and few epochs.
    """
    epochs = 40 if quick else EPOCHS
    return [
        Run(
            f"nonrealizable/{method}/{hessian}/seed-{each}",
            f"{__name__}:run",
            {"method": method, "hessian": hessian, "seed": each, "epochs": epochs},
        )
        for method, hessian in NAMES
        for each in range(seed, seed + (2 if quick else SEEDS))
    ]


def run(folder: Path, method: str, hessian: Hessian, seed: int, epochs: int) -> Result:
    """Let one learner imitate the expert.

    Args:
        folder: for log and checkpoint; the run goes on from a checkpoint there.
        method: "sysid" or "mpc.dx".
        hessian: of the learner's plans and gradients.
        seed: of the start states, the learner's first physics and the order of learning.
        epochs: how many.

    Returns:
        The settings, and what `learn` returns.
    """
    settings = {"method": method, "hessian": hessian, "seed": seed, "epochs": epochs}
    system = windy_pendulum(seed)
    plans = expert_plans(system, seed, test=FRESH)
    mpc = make_planner(system, method, hessian, starts=1)
    loss = ModelLoss(mpc, plans) if method == SYSID else ImitationLoss(mpc, plans)
    rows = plans.training(TRAINING)
    return {**settings, **learn(folder, loss, rows, rows, epochs, never, settings)}


def section(results: dict[str, Result], images: Path) -> Section:
    """The findings, a plot and a table."""
    groups: Groups = {key: [] for key in NAMES}
    for result in sorted(results.values(), key=lambda result: int(result["seed"])):
        groups[result["method"], result["hessian"]].append(result)
    path = images / "nonrealizable.png"
    _plot(groups, path)
    title = "Imitation and model loss of the plans learned from, over the epochs"
    text = TEXT.format(curves=picture(path, title))
    findings = [_finding(groups), _fresh_finding(groups), _hessian_finding(groups)]
    return Section("Non-realizable expert (section 5.4)", text, findings, [_table(groups)])


def _at_end(group: list[Result], name: str) -> list[float]:
    """Of each result, the mean over the last epochs of a curve."""
    means = []
    for result in group:
        epochs = np.array(result["epoch"])
        means.append(float(np.mean(np.array(result[name])[epochs > epochs[-1] - LAST])))
    return means


def _finding(groups: Groups) -> Finding:
    losses = {
        f"{name} loss, {NAMES[key]}": _at_end(groups[key], f"{name}_loss")
        for name in ("imitation", "model")
        for key in (FITTED, EXACT)
    }
    fitted, imitated, fitted_model, imitated_model = losses.values()
    closer = [i < f for f, i in zip(fitted, imitated, strict=True)]
    worse = [i > f for f, i in zip(fitted_model, imitated_model, strict=True)]
    failed = [
        str(result["seed"])
        for result, *good in zip(groups[EXACT], closer, worse, strict=True)
        if not all(good)
    ]
    return Finding(
        name="d",
        statement="Where the expert is not realizable, mpc.dx comes to a lower imitation loss than "
        "sysid in every seed, though to a worse state-prediction loss, on the plans learned from.",
        holds=not failed,
        numbers={
            "seeds": len(closer),
            "seeds with a lower imitation loss": sum(closer),
            "seeds with a higher model loss": sum(worse),
            **losses,
        },
        diagnosis=f"Not so in seeds {', '.join(failed)}." if failed else "",
    )


def _fresh_finding(groups: Groups) -> Finding:
    """Whether it also holds beyond the plans learned from."""
    fitted, imitated = ([r["last_test_loss"] for r in groups[key]] for key in (FITTED, EXACT))
    closer = sum(i < f for f, i in zip(fitted, imitated, strict=True))
    learned = median(_at_end(groups[EXACT], "imitation_loss"))
    holds = closer == len(fitted)
    return Finding(
        name="d, fresh plans",
        statement="It does so on 1,000 other plans, too, in every seed.",
        holds=holds,
        numbers={
            "seeds": len(fitted),
            "seeds with a lower imitation loss": closer,
            "imitation losses, sysid": fitted,
            "imitation losses, mpc.dx": imitated,
        },
        diagnosis=""
        if holds
        else f"The median loss of mpc.dx is {shown(learned)} on the plans that it learned from and "
        f"{shown(median(imitated))} on others, that of sysid {shown(median(fitted))} there. Most "
        "controls sit at a limit whatever the model is, so a few of the 100 plans, whose controls "
        "switch at another time, decide what mpc.dx learns: it fits these, and gains little "
        "elsewhere.",
    )


def _hessian_finding(groups: Groups) -> Finding:
    exact, gauss_newton = (_at_end(groups[key], "imitation_loss") for key in (EXACT, GAUSS_NEWTON))
    wins = sum(e < g for e, g in zip(exact, gauss_newton, strict=True))
    holds = 2 * wins > len(exact)
    medians = median(exact), median(gauss_newton)
    return Finding(
        name="exact, non-realizable",
        statement="Where the expert is not realizable, exact gradients come to a lower "
        "imitation loss of the plans learned from than Gauss-Newton's, in more than half of the "
        "seeds.",
        holds=holds,
        numbers={
            "seeds": len(exact),
            "exact is lower": wins,
            "median, exact": medians[0],
            "median, Gauss-Newton": medians[1],
        },
        diagnosis=""
        if holds
        else f"The medians are {shown(medians[0])} and {shown(medians[1])}: what separates the "
        "model class from the expert is larger than what separates the gradients.",
    )


def _table(groups: Groups) -> Table:
    rows = []
    for (method, hessian), group in groups.items():
        losses = (_at_end(group, "imitation_loss"), _at_end(group, "model_loss"))
        for result, imitation, model in zip(group, *losses, strict=True):
            gravity, mass, length = (
                result["parameters"][f"dynamics.{name}"] for name in ("gravity", "mass", "length")
            )
            rows.append(
                {
                    "method": method,
                    "Hessian": hessian,
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
        for colour, (key, group) in enumerate(groups.items()):
            y = np.array([result[f"{loss}_loss"] for result in group])
            lines.append(Line(NAMES[key], group[0]["epoch"], y, colour))
        panels.append(Panel(f"{loss.capitalize()} loss", "epoch", "loss", lines))
    plot(path, panels, y_ticks=(0.1, 0.2, 0.5, 1.0, 2.0))
