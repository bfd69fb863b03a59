"""What the imitation of non-convex experts shows."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mpc_gym.experiments.plots import Line
from mpc_gym.experiments.tables import picture, shown
from reproduction.learning import ALL_DONE, NETWORK, PLANNERS, SMALL, SYSID
from reproduction.problems import SYSTEMS
from reproduction.report import Finding, Panel, Result, Section, make_table, plot

THROUGH_PLANS = tuple(method for method in PLANNERS if method != SYSID)
EPOCHS, PATIENCE = 1000, 200  # at most; a loss is flat that has not fallen for so many
CONSTANT, FALLING = "constant", "falling"  # the learning rate
ONE, EXPERT, BOTH, GUIDED = "one start", "eight of the expert", "eight of both", "eight, guided"
# What varies beside demonstrations and seed, with the columns of the tables.
VARIED = {
    "system": "system",
    "method": "method",
    "hessian": "Hessian",
    "planning": "starts",
    "rate": "rate",
}

FACTORS = {"pendulum": 100.0, "cartpole": 1.0}  # by which mpc.dx and mpc.cost beat the network
LEVEL = 10.0  # medians within this factor are level
FLOOR = 100.0  # a floor is a loss so much higher than it need be
BEST = "best validation loss so far"
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


class ResultsByVariant:
    """The results of the runs, by what was varied.

    Args:
        results: of the runs, in their order.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self.all = results
        self.systems = [name for name in SYSTEMS if self.of(name, NETWORK)]

    def of(
        self,
        system: str,
        method: str,
        hessian: str = "exact",
        planning: str = ONE,
        rate: str = CONSTANT,
    ) -> dict[int, list[Result]]:
        """By the number of demonstrations; those of all seeds, in their order."""
        wanted = (system, method, hessian, planning, rate)
        found: dict[int, list[Result]] = {}
        for result in sorted(self.all, key=lambda r: (r["demonstrations"], int(r["seed"]))):
            if tuple(result[name] for name in VARIED) == wanted:
                found.setdefault(result["demonstrations"], []).append(result)
        return found

    def variants(self) -> Iterator[tuple[dict[str, str], dict[int, list[Result]]]]:
        """Each variant in the runs' order, as the first columns of a row, and its results."""
        for variant in dict.fromkeys(tuple(r[name] for name in VARIED) for r in self.all):
            title, *rest = SYSTEMS[variant[0]].title, *variant[1:]
            yield dict(zip(VARIED.values(), (title, *rest), strict=True)), self.of(*variant)

    def losses(self, *variant: str, **varied: str) -> dict[int, list[float]]:
        """Test losses, likewise; the arguments are those of `of`."""
        groups = self.of(*variant, **varied)
        return {count: [r["test_loss"] for r in group] for count, group in groups.items()}


def section(results: dict[str, Result], images: Path) -> Section:
    """The findings, plots and tables."""
    found = ResultsByVariant(list(results.values()))
    panels = {
        "methods": [_methods_panel(found, system) for system in found.systems],
        "hessians": [_hessians_panel(found, system) for system in found.systems],
        "starts": [_starts_panel(found)],
    }
    titles = {
        "methods": "Test imitation loss over the number of the expert's plans",
        "hessians": "Best validation loss so far, with exact and with Gauss-Newton gradients",
        "starts": "Best validation loss so far of mpc.dx on the cart-pole, by how it is planned",
    }
    pictures = {}
    for name, each in panels.items():
        path = images / f"nonconvex-{name}.png"
        plot(path, each)
        pictures[name] = picture(path, titles[name])
    networks = [result for result in found.all if result["method"] == NETWORK]
    late = sum(map(_falls_to_the_end, networks))
    counts = {"epochs": EPOCHS, "patience": PATIENCE, "networks": len(networks), "late": late}
    findings = [
        *(_network_finding(found, system) for system in found.systems),
        *(_sysid_finding(found, rate) for rate in (CONSTANT, FALLING)),
        *_hessian_findings(found),
        _starts_finding(found),
    ]
    tables = [
        make_table("nonconvex", "Test imitation loss over the seeds", list(_loss_rows(found))),
        make_table("nonconvex-epochs", "Where learning ended", list(_ending_rows(found))),
    ]
    text = TEXT.format(**counts, **pictures)
    return Section("Non-convex imitation (section 5.3)", text, findings, tables)


def _falls_to_the_end(result: Result) -> bool:
    """Whether learning ended because there were no more epochs, near the lowest loss."""
    return bool(result["ended"] == ALL_DONE and result["best_epoch"] > 0.9 * result["epochs"])


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


def _methods_panel(found: ResultsByVariant, system: str) -> Panel:
    lines = []
    for colour, method in enumerate((NETWORK, *PLANNERS)):
        losses = found.losses(system, method)
        y = np.array(list(losses.values())).T
        lines.append(Line(method, list(losses), y, colour, markers=True))
    title = f"Imitation loss, {SYSTEMS[system].title}"
    ticks = list(found.losses(system, NETWORK))
    return Panel(title, "plans of the expert", "test loss", lines, ticks)


def _hessians_panel(found: ResultsByVariant, system: str) -> Panel:
    count = max(found.of(system, "mpc.dx"))
    groups = {
        f"{method}, {hessian}": found.of(system, method, hessian).get(count, [])
        for method in THROUGH_PLANS[:2]
        for hessian in ("exact", "gauss-newton")
    }
    return Panel(f"{SYSTEMS[system].title}, {count} plans", "epoch", BEST, curves(groups))


def _starts_panel(found: ResultsByVariant) -> Panel:
    count, groups = _by_planning(found)
    return Panel(f"cart-pole, mpc.dx, {count} plans", "epoch", BEST, curves(groups))


def _by_planning(found: ResultsByVariant) -> tuple[int, dict[str, list[Result]]]:
    """The largest number of plans that mpc.dx has learned from in all ways to plan; its results."""
    groups = {
        planning: found.of("cartpole", "mpc.dx", planning=planning)
        for planning in (ONE, EXPERT, BOTH, GUIDED)
    }
    count = max(set.intersection(*(set(group) for group in groups.values())))
    return count, {planning: group[count] for planning, group in groups.items()}


def curves(groups: dict[str, list[Result]]) -> list[Line]:
    """The lowest validation loss so far of every seed; one that ended early keeps its own."""
    lines = []
    for colour, (name, group) in enumerate(groups.items()):
        x = np.linspace(0, max(result["epoch"][-1] for result in group), 200)
        y = np.stack([np.interp(x, r["epoch"], r["best_loss"]) for r in group])
        lines.append(Line(name, x, y, colour))
    return lines


def _network_finding(found: ResultsByVariant, system: str) -> Finding:
    """Whether planners imitate better than the network."""
    factor, title = FACTORS[system], SYSTEMS[system].title
    network = found.losses(system, NETWORK)
    numbers: dict[str, Any] = {}
    missed = []
    for method in ("mpc.dx", "mpc.cost"):
        for count, losses in found.losses(system, method).items():
            ratio = median(network[count]) / median(losses)
            pairs = list(zip(network[count], losses, strict=True))
            numbers[f"{method}, {count} plans"] = {
                "loss": median(losses),
                "network's loss": median(network[count]),
                "ratio of medians": ratio,
                "seeds in which it is so": sum(there >= factor * here for there, here in pairs),
                "seeds": len(pairs),
            }
            if ratio < factor:
                missed.append(f"{method} with {count} plans ({shown(ratio)} times lower)")
    lower = f"at least {factor:.0f} times lower" if factor > 1 else "lower"
    return Finding(
        name=f"b, {title}",
        statement=f"On the {title}, mpc.dx and mpc.cost reach a test imitation loss (median over "
        f"the seeds) {lower} than the LSTM's at every number of demonstrations.",
        holds=not missed,
        numbers=numbers,
        diagnosis=f"Not so: {'; '.join(missed)}. {_stuck(found, system)}" if missed else "",
    )


def _stuck(found: ResultsByVariant, system: str) -> str:
    """How many learners never came near the expert, and what they had reached by the end."""
    parts = []
    for method in ("mpc.dx", "mpc.cost"):
        for count, group in found.of(system, method).items():
            far = [r for r in group if r["hundredfold"] is None]
            late = sum(map(_falls_to_the_end, far))
            if far:
                parts.append(
                    f"{method} with {count} plans, {len(far)} of {len(group)} seeds ({late} of "
                    "them were still falling at the last epoch)"
                )
    return (
        "Validation losses that never fell to a hundredth of the first: "
        f"{'; '.join(parts) or 'none'}. With few plans there are few steps an epoch, and most "
        "controls of a swing-up sit at their limits, where the loss has no gradient: a learner "
        "may rest in a local minimum of these few plans."
    )


def _sysid_finding(found: ResultsByVariant, rate: str) -> Finding:
    """Whether fitting the motion does as well as imitating."""
    numbers: dict[str, Any] = {}
    apart = []
    for system in found.systems:
        fitted = found.losses(system, SYSID, rate=rate)
        for count, losses in found.losses(system, "mpc.dx", rate=rate).items():
            medians = {SYSID: median(fitted[count]), "mpc.dx": median(losses)}
            ratio = max(medians[SYSID], SMALL) / max(medians["mpc.dx"], SMALL)
            key = f"{SYSTEMS[system].title}, {count} plans"
            numbers[key] = {**medians, "ratio": ratio}
            if not 1 / LEVEL <= ratio <= LEVEL:
                apart.append(f"{key} (sysid / mpc.dx = {shown(ratio)})")
    when = "" if rate == CONSTANT else " when the learning rate falls in the second half"
    return Finding(
        name="c" if rate == CONSTANT else "c, falling rate",
        statement=f"Where the expert is realizable, sysid and mpc.dx are level{when}: their median "
        f"test imitation losses are within a factor of {LEVEL:.0f} (what is below {SMALL:.0e} "
        "counts as that).",
        holds=not apart,
        numbers=numbers,
        diagnosis=f"Apart: {'; '.join(apart)}. {_DIAGNOSES[rate]}" if apart else "",
    )


_STUCK = "Where mpc.dx is the higher one, see how many of its learners were stuck under b."
_DIAGNOSES = {
    CONSTANT: "RMSprop's steps at a constant rate leave the parameters some tenths of a percent "
    "off, and the best validation epoch is chosen among such; mpc.dx follows the very loss by "
    f"which it is chosen. The next finding takes that noise away. {_STUCK}",
    FALLING: _STUCK,
}


def _hessian_findings(found: ResultsByVariant) -> list[Finding]:
    """Whether exact gradients learn better or faster than Gauss-Newton's."""
    pairs: dict[str, list[tuple[Result, Result]]] = {}
    for system in found.systems:
        for method in THROUGH_PLANS:
            others = found.of(system, method, "gauss-newton")
            for count, group in found.of(system, method).items():
                key = f"{SYSTEMS[system].title}, {method}"
                pairs.setdefault(key, []).extend(zip(group, others.get(count, []), strict=True))
    return [
        _hessian_finding(
            pairs,
            "exact, better",
            "Exact gradients reach a lower test imitation loss than Gauss-Newton's, with the same "
            f"plans and seed, in more than half of the runs (what is below {SMALL:.0e} counts as "
            "that).",
            lambda result: max(float(result["test_loss"]), SMALL),
        ),
        _hessian_finding(
            pairs,
            "exact, faster",
            "Exact gradients reach a hundredth of the first validation loss in fewer epochs than "
            "Gauss-Newton's, with the same plans and seed, in more than half of the runs.",
            lambda result: np.inf if result["hundredfold"] is None else result["hundredfold"],
        ),
    ]


def _hessian_finding(
    pairs: dict[str, list[tuple[Result, Result]]],
    name: str,
    statement: str,
    measure: Callable[[Result], float],
) -> Finding:
    exact_wins, other_wins, runs = "exact is lower", "Gauss-Newton is lower", "runs"
    numbers: dict[str, Any] = {}
    for key, group in pairs.items():
        measured = [(measure(exact), measure(other)) for exact, other in group]
        medians = [median(values) for values in zip(*measured, strict=True)]
        numbers[key] = {
            exact_wins: sum(x < y for x, y in measured),
            other_wins: sum(x > y for x, y in measured),
            runs: len(group),
            "median, exact": _finite(medians[0]),
            "median, Gauss-Newton": _finite(medians[1]),
        }
    behind = [
        f"{key}: {each[other_wins]} of {each[runs]} runs"
        for key, each in numbers.items()
        if each[other_wins] > each[exact_wins]
    ]
    total = {k: sum(each[k] for each in numbers.values()) for k in (exact_wins, other_wins, runs)}
    return Finding(
        name=name,
        statement=statement,
        holds=2 * total[exact_wins] > total[runs],
        numbers={**numbers, "all": total},
        diagnosis=f"Gauss-Newton is ahead in {'; '.join(behind)}." if behind else "",
    )


def _finite(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return value if np.isfinite(value) else None


def _starts_finding(found: ResultsByVariant) -> Finding:
    """Whether one start on the learner's side leaves a floor, and what removes it."""
    count, groups = _by_planning(found)
    losses = {name: [r["test_loss"] for r in group] for name, group in groups.items()}
    floor, guided = median(losses[EXPERT]), median(losses[GUIDED])
    holds = floor >= FLOOR * guided
    return Finding(
        name="starts",
        statement="On the cart-pole, an expert of eight starts and a learner (mpc.dx) of one leave "
        f"a floor under the test imitation loss, which is at least {FLOOR:.0f} times lower with "
        "eight starts on both sides and training plans that begin at the demonstrations.",
        holds=holds,
        numbers={
            f"{name}, {count} plans": {"median test loss": median(values), "test losses": values}
            for name, values in losses.items()
        },
        diagnosis="" if holds else f"The losses are {shown(floor)} and {shown(guided)}.",
    )
