"""What the imitation of non-convex experts shows."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mpc_gym.experiments.plots import Line, draw_lines, make_figure, save_figure
from mpc_gym.experiments.tables import Table, picture
from reproduction.nonconvex_findings import (
    hessian_findings,
    network_finding,
    starts_finding,
    sysid_findings,
)
from reproduction.nonconvex_runs import (
    BOTH,
    EPOCHS,
    EXPERT,
    GUIDED,
    METHODS,
    ONE,
    PATIENCE,
    THROUGH_PLANS,
    Result,
    Runs,
    falls_to_the_end,
)
from reproduction.problems import SYSTEMS
from reproduction.section import Section

COLUMNS = ("system", "method", "Hessian", "starts", "rate")
TEXT = """\
An expert plans 20 steps of a pendulum and of a cart-pole, and learners imitate its plans, with 10,
50 or 100 of them to learn from, 10 more to choose the weights by, and 10 to be measured by. `nn` is
an LSTM that maps a start state to a sequence of controls. `sysid` fits the physics to the motion,
and plans with it. `mpc.dx`, `mpc.cost` and `mpc.cost.dx` learn physics, cost, or both from the
imitation loss, the mean squared error of the controls, through their plans. Validation and test
plans are planned from nothing. All have up to {epochs:,} epochs. Learning ends early where the best
validation loss has been below 1e-9 for 50 epochs or has fallen by less than a hundredth in
{patience}; a planner ends for the latter reason only below a hundredth of its first loss, the
network, whose epochs take much longer, wherever it is. The network was still falling in the last
tenth of all epochs in {late} of {networks} runs. The last table says what ended the others.

{methods}

**A falling learning rate.** RMSprop at the constant rate of the paper leaves the physics some
tenths of a percent off. In further runs of `sysid` and `mpc.dx` the rate falls from 1e-2 to 1e-6 in
the second half of the epochs.

**Exact and Gauss-Newton gradients.** The expert always plans with the exact Hessian. A learner
plans and differentiates either with the exact one, or without the second derivatives of its
dynamics, as the paper does.

{hessians}

**More starts.** From about a third of the cart-pole's start states, the plan that a solver finds
from no control at all is not the best one. With one start, expert and learner find the same plan as
long as their models are alike. An expert that takes the best of eight starts has plans which a
learner with one start cannot make, whatever it learns. With eight starts on both sides it can; but
far from the expert's model the best plan of the learner is on another branch than the expert's, and
the gradient there does not lead to it. It does where the learner's training plans begin at the
demonstrated controls instead, with one start ("guided"); it is judged by the best of eight like the
expert.

{starts}"""


def section(results: dict[str, Result], images: Path) -> Section:
    """The findings, plots and tables.

    Args:
        results: of the runs, by their names.
        images: folder for the plots.
    """
    runs = Runs(list(results.values()))
    systems = [system for system in SYSTEMS if runs.losses(system, "nn")]
    paths = {name: images / f"nonconvex-{name}.png" for name in ("methods", "hessians", "starts")}
    _plot_methods(runs, systems, paths["methods"])
    _plot_hessians(runs, systems, paths["hessians"])
    _plot_starts(runs, paths["starts"])
    titles = {
        "methods": "Test imitation loss over the number of the expert's plans",
        "hessians": "Best validation loss so far, with exact and with Gauss-Newton gradients",
        "starts": "Best validation loss so far of mpc.dx on the cart-pole, by how it is planned",
    }
    networks = [result for result in runs.results if result["method"] == "nn"]
    text = TEXT.format(
        networks=len(networks),
        epochs=EPOCHS,
        patience=PATIENCE,
        late=sum(map(falls_to_the_end, networks)),
        **{name: picture(paths[name], title) for name, title in titles.items()},
    )
    findings = [
        *(network_finding(runs, system) for system in systems),
        *sysid_findings(runs, systems),
        *hessian_findings(runs, systems),
        starts_finding(runs),
    ]
    tables = [_loss_table(runs), _ending_table(runs)]
    return Section("Non-convex imitation (section 5.3)", text, findings, tables)


def _loss_table(runs: Runs) -> Table:
    rows: list[list[str | float | bool | None]] = []
    for system, *how in runs.variants():
        for count, losses in runs.losses(system, *how).items():
            summary = [median(losses), min(losses), max(losses)]
            rows.append([SYSTEMS[system].title, *how, count, *summary])
    columns = (*COLUMNS, "plans", "median", "lowest", "highest")
    return Table("nonconvex", "Test imitation loss over the seeds", columns, rows)


def _ending_table(runs: Runs) -> Table:
    """Where learning ended early."""
    rows: list[list[str | float | bool | None]] = []
    for system, *how in runs.variants():
        groups = runs.of(system, *how)
        results = [result for group in groups.values() for result in group]
        reasons = Counter(result["ended"] for result in results)
        rows.append(
            [
                SYSTEMS[system].title,
                *how,
                "; ".join(f"{reason}: {times}" for reason, times in sorted(reasons.items())),
                median(result["epochs"] for result in results),
                median(result["best_epoch"] for result in results),
                max(result.get("unconverged", 0.0) for result in results),
            ]
        )
    columns = (
        *COLUMNS,
        "why learning ended: runs",
        "epochs (median)",
        "best epoch (median)",
        "largest share of plans that did not converge",
    )
    return Table("nonconvex-epochs", "Where learning ended", columns, rows)


def _plot_methods(runs: Runs, systems: Sequence[str], path: Path) -> None:
    figure, panels = make_figure(len(systems))
    for axes, system in zip(panels, systems, strict=True):
        axes.set(xscale="log", yscale="log", xlabel="plans of the expert", ylabel="test loss")
        axes.set_title(f"Imitation loss, {SYSTEMS[system].title}")
        lines = []
        for colour, method in enumerate(METHODS):
            losses = runs.losses(system, method)
            y = np.array(list(losses.values())).T
            lines.append(Line(method, list(losses), y, colour, markers=True))
        draw_lines(axes, lines)
        counts = list(runs.losses(system, METHODS[0]))
        axes.set_xticks(counts, [str(count) for count in counts])
    save_figure(figure, path)


def _plot_hessians(runs: Runs, systems: Sequence[str], path: Path) -> None:
    figure, panels = make_figure(len(systems))
    for axes, system in zip(panels, systems, strict=True):
        count = max(runs.of(system, "mpc.dx"))
        axes.set(yscale="log", xlabel="epoch", ylabel="best validation loss so far")
        axes.set_title(f"{SYSTEMS[system].title}, {count} plans")
        lines: list[Line] = []
        for method in THROUGH_PLANS[:2]:
            for hessian in ("exact", "gauss-newton"):
                group = runs.of(system, method, hessian).get(count, [])
                lines.append(_curve(f"{method}, {hessian}", group, len(lines)))
        draw_lines(axes, lines)
    save_figure(figure, path)


def _plot_starts(runs: Runs, path: Path) -> None:
    figure, (axes,) = make_figure(1)
    groups = {p: runs.of("cartpole", "mpc.dx", planning=p) for p in (ONE, EXPERT, BOTH, GUIDED)}
    count = max(set.intersection(*(set(group) for group in groups.values())))
    axes.set(yscale="log", xlabel="epoch", ylabel="best validation loss so far")
    axes.set_title(f"cart-pole, mpc.dx, {count} plans")
    draw_lines(
        axes, [_curve(name, group[count], i) for i, (name, group) in enumerate(groups.items())]
    )
    save_figure(figure, path)


def _curve(name: str, group: Sequence[Result], colour: int) -> Line:
    """The lowest validation loss so far of every seed; one that ended early keeps its own."""
    x = np.linspace(0, max(result["epoch"][-1] for result in group), 200)
    y: Float[NDArray[np.float64], "seeds points"] = np.stack(
        [np.interp(x, r["epoch"], r["best_loss"]) for r in group]
    )
    return Line(name, x, y, colour)
