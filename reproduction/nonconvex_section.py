"""What the imitation of non-convex experts shows."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mpc_gym.experiments.plots import Line
from mpc_gym.experiments.tables import picture
from reproduction.learning import (
    FINAL_RATE,
    MUS,
    NETWORK,
    OUR_RATE,
    PREDICTION,
    SMOOTHED,
    STEPS,
)
from reproduction.nonconvex_findings import (
    EPOCHS,
    METHODS,
    PATIENCE,
    THROUGH_PLANS,
    ResultsByVariant,
    by_planning,
    falls_to_the_end,
    hessian_findings,
    network_finding,
    starts_finding,
    sysid_finding,
)
from reproduction.problems import SYSTEMS
from reproduction.report import OURS, PAPER, TITLES, Panel, Result, Section, make_table, plot

BEST = "best validation loss so far"
TEXT = """\
An expert plans 20 steps of a pendulum and of a cart-pole, and learners imitate its plans, with
{counts} of them to learn from, 10 more to choose the weights by, and 10 to be measured by. `nn` is
an LSTM that maps a start state to a sequence of controls. `sysid` fits the physics to the motion,
and plans with it. `mpc.dx` and `mpc.cost` learn the physics and the cost from the imitation loss,
the mean squared error of the controls, through their plans. Validation and test plans are planned
from nothing.

**The paper's learner** has up to {epochs:,} epochs of RMSprop at 1e-2, of batches of 32 plans.
Learning ends early where the best validation loss has been below 1e-9 for 50 epochs, or has fallen
by less than a hundredth in {patience} and is below a hundredth of the first. The network learns by
Adam at 1e-4, and ends wherever it is flat; it was still falling in the last tenth of all epochs in
{late} of {networks} runs. The last table says what ended the others.

{paper}

**Ours** is one learner for both systems, all methods and seeds. It has {steps:,}
steps of RMSprop, of batches of 32 plans as well. The rate is {rate:g}, and falls to {final:g} in
the second half of the epochs. Training plans are smoothed (`MPC(smoothing=mu)`, a logarithmic
barrier): mu falls from {first:g} to {last:g} in the first {smoothed:.0%} of the epochs, and then
plans are plain ones, as in validation and test throughout. The model loss is added with a weight
of {prediction:g}, in units of the observed change of the states, as the imitation loss is in units
of the limit of the control; it has nothing to say where the dynamics are known. Training plans
begin at the demonstrated controls, and all parameters are learned at once, where the authors'
program alternates between the two parts of a cost. `sysid` has the same steps and rate, and
minimises the model loss. The settings were chosen on the seeds 0 to 7, those of a run from seed 0.

{ours}

**Exact and Gauss-Newton gradients.** The expert always plans with the exact Hessian. The paper's
learner plans and differentiates without the second derivatives of its dynamics; here it does so
with the exact ones, too. The first table has the medians of both.

{hessians}

**More starts.** From about a third of the cart-pole's start states, the plan that a solver finds
from no control at all is not the best one. With one start, expert and learner find the same plan as
long as their models are alike. An expert that takes the best of eight starts has plans which a
learner with one start cannot make, whatever it learns. With eight starts on both sides it can; but
far from the expert's model the best plan of the learner is on another branch than the expert's, and
the gradient there does not lead to it. Our learner is judged by the best of eight starts like the
expert, and its training plans begin at the demonstrated controls.

{starts}"""


def section(results: dict[str, Result], images: Path) -> Section:
    """The findings, plots and tables."""
    found = ResultsByVariant(list(results.values()))
    panels = {
        learner: [_methods_panel(found, system, learner) for system in found.systems]
        for learner in TITLES
    }
    panels |= {
        "hessians": [_hessians_panel(found, system) for system in found.systems],
        "starts": [_starts_panel(found)],
    }
    titles = {
        PAPER: "Best validation loss so far of the network and of the paper's learner",
        OURS: "Best validation loss so far of the network and of our learner",
        "hessians": "Best validation loss so far, with exact and with Gauss-Newton gradients",
        "starts": "Best validation loss so far of mpc.dx on the cart-pole, by how it is planned",
    }
    pictures = {}
    for name, each in panels.items():
        path = images / f"nonconvex-{name}.png"
        plot(path, each)
        pictures[name] = picture(path, titles[name])
    networks = [result for result in found.all if result["method"] == NETWORK]
    late = sum(map(falls_to_the_end, networks))
    settings = {
        "counts": found.counts,
        "epochs": EPOCHS,
        "patience": PATIENCE,
        "networks": len(networks),
        "late": late,
        "steps": STEPS,
        "rate": OUR_RATE,
        "final": FINAL_RATE,
        "first": MUS[0],
        "last": MUS[1],
        "smoothed": SMOOTHED,
        "prediction": PREDICTION,
    }
    findings = [
        *(network_finding(found, system, who) for system in found.systems for who in TITLES),
        *(sysid_finding(found, learner) for learner in TITLES),
        *hessian_findings(found),
        *(starts_finding(found, learner) for learner in TITLES),
    ]
    tables = [
        make_table("nonconvex", "Test imitation loss over the seeds", list(_loss_rows(found))),
        make_table("nonconvex-epochs", "Where learning ended", list(_ending_rows(found))),
    ]
    text = TEXT.format(**settings, **pictures)
    return Section("Non-convex imitation (section 5.3)", text, findings, tables)


def _loss_rows(found: ResultsByVariant) -> Iterator[dict[str, Any]]:
    for columns, groups in found.variants():
        for count, group in groups.items():
            losses = [result["test_loss"] for result in group]
            summary = {"median": median(losses), "lowest": min(losses), "highest": max(losses)}
            yield {**columns, "plans": count, **summary}


def _ending_rows(found: ResultsByVariant) -> Iterator[dict[str, Any]]:
    for columns, groups in found.variants():
        results = [result for group in groups.values() for result in group]
        reasons = sorted(Counter(result["ended"] for result in results).items())
        yield {
            **columns,
            "why learning ended: runs": "; ".join(f"{why}: {times}" for why, times in reasons),
            "epochs (median)": median(result["epochs"] for result in results),
            "best epoch (median)": median(result["best_epoch"] for result in results),
            "largest share of plans that did not converge": max(
                result.get("unconverged", 0.0) for result in results
            ),
        }


def _methods_panel(found: ResultsByVariant, system: str, learner: str) -> Panel:
    by_count = {NETWORK: found.of(system, NETWORK)}
    by_count |= {method: found.of(system, method, learner) for method in METHODS}
    count = max(by_count[NETWORK])
    groups = {method: results[count] for method, results in by_count.items()}
    return Panel(f"{SYSTEMS[system].title}, {count} plans", "epoch", BEST, _curves(groups))


def _hessians_panel(found: ResultsByVariant, system: str) -> Panel:
    groups = {
        f"{method}, {hessian}": by_count[count]
        for count in found.of(system, "mpc.dx", hessian="gauss-newton")
        for method in THROUGH_PLANS
        for hessian in ("exact", "gauss-newton")
        for by_count in [found.of(system, method, hessian=hessian)]
    }
    count = next(iter(groups.values()))[0]["demonstrations"]
    return Panel(f"{SYSTEMS[system].title}, {count} plans", "epoch", BEST, _curves(groups))


def _starts_panel(found: ResultsByVariant) -> Panel:
    count, groups = by_planning(found)
    return Panel(f"cart-pole, mpc.dx, {count} plans", "epoch", BEST, _curves(groups))


def _curves(groups: dict[str, list[Result]]) -> list[Line]:
    """The lowest validation loss so far of every seed; one that ended early keeps its own."""
    lines = []
    for colour, (name, group) in enumerate(groups.items()):
        x = np.linspace(0, max(result["epoch"][-1] for result in group), 200)
        y = np.stack([np.interp(x, r["epoch"], r["best_loss"]) for r in group])
        lines.append(Line(name, x, y, colour))
    return lines
