"""What the imitation of non-convex experts shows."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mpc_gym.experiments.paper.learning import ALL_DONE
from mpc_gym.experiments.paper.plots import Line, draw_lines, make_figure, save_figure
from mpc_gym.experiments.paper.problems import SYSTEMS
from mpc_gym.experiments.paper.section import Finding, Section, Table, picture, shown

Result = dict[str, Any]

METHODS = ("nn", "sysid", "mpc.dx", "mpc.cost", "mpc.cost.dx")
THROUGH_PLANS = METHODS[2:]
ONE, EXPERT, BOTH, GUIDED = "one start", "eight of the expert", "eight of both", "eight, guided"
FACTORS = {"pendulum": 100.0, "cartpole": 1.0}  # by which mpc.dx and mpc.cost beat the network
LEVEL = 10.0  # medians within this factor are level
FLOOR = 100.0  # a floor is a loss so much higher than it need be

TEXT = """\
An expert plans 20 steps of a pendulum and of a cart-pole, and learners imitate its plans, with 10,
50 or 100 of them to learn from, 10 more to choose the weights by, and 10 to be measured by. `nn` is
an LSTM that maps a start state to a sequence of controls. `sysid` fits the physics to the motion,
and plans with it. `mpc.dx`, `mpc.cost` and `mpc.cost.dx` learn physics, cost, or both from the
imitation loss, the mean squared error of the controls, through their plans. Validation and test
plans are planned from nothing. Learning ends early where the last table says; the network has fewer
epochs, each of which takes some ten times as long, and was still falling in the last tenth of them
in {late} of {networks} runs.

{methods}

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
    runs = _Runs(list(results.values()))
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
        late=sum(map(_falls_to_the_end, networks)),
        **{name: picture(paths[name], title) for name, title in titles.items()},
    )
    findings = [
        *(_network_finding(runs, system) for system in systems),
        _sysid_finding(runs, systems),
        *_hessian_findings(runs, systems),
        _starts_finding(runs),
    ]
    tables = [_loss_table(runs), _ending_table(runs)]
    return Section("Non-convex imitation (section 5.3)", text, findings, tables)


class _Runs:
    """Results, to be asked for."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = results

    def of(
        self, system: str, method: str, hessian: str = "exact", planning: str = ONE
    ) -> dict[int, list[Result]]:
        """By the number of demonstrations; those of all seeds, in their order."""
        wanted = (system, method, hessian, planning)
        found: dict[int, list[Result]] = {}
        for result in self.results:
            key = tuple(result[name] for name in ("system", "method", "hessian", "planning"))
            if key == wanted:
                found.setdefault(result["demonstrations"], []).append(result)
        return {
            count: sorted(found[count], key=lambda result: int(result["seed"]))
            for count in sorted(found)
        }

    def losses(
        self, system: str, method: str, hessian: str = "exact", planning: str = ONE
    ) -> dict[int, list[float]]:
        """Test losses, likewise."""
        groups = self.of(system, method, hessian, planning)
        return {count: [r["test_loss"] for r in group] for count, group in groups.items()}

    def medians(
        self, system: str, method: str, hessian: str = "exact", planning: str = ONE
    ) -> dict[int, float]:
        """Their medians over the seeds."""
        losses = self.losses(system, method, hessian, planning)
        return {count: median(values) for count, values in losses.items()}


def _network_finding(runs: _Runs, system: str) -> Finding:
    factor, title = FACTORS[system], SYSTEMS[system].title
    network = runs.losses(system, "nn")
    numbers: dict[str, Any] = {}
    short = []
    for method in ("mpc.dx", "mpc.cost"):
        for count, losses in runs.losses(system, method).items():
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
                short.append(f"{method} with {count} plans ({shown(ratio)} times lower)")
    lower = f"at least {factor:.0f} times lower" if factor > 1 else "lower"
    return Finding(
        name=f"b, {title}",
        statement=f"On the {title}, mpc.dx and mpc.cost reach a test imitation loss (median over "
        f"the seeds) {lower} than the LSTM's at every number of demonstrations.",
        holds=not short,
        numbers=numbers,
        diagnosis=f"Not so: {'; '.join(short)}. {_stuck(runs, system)}" if short else "",
    )


def _stuck(runs: _Runs, system: str) -> str:
    """How many learners never came near the expert, and what they had reached by the end."""
    parts = []
    for method in ("mpc.dx", "mpc.cost"):
        for count, group in runs.of(system, method).items():
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


def _falls_to_the_end(result: Result) -> bool:
    """Whether learning ended because there were no more epochs, near the lowest loss."""
    return bool(result["ended"] == ALL_DONE and result["best_epoch"] > 0.9 * result["epochs"])


def _sysid_finding(runs: _Runs, systems: Sequence[str]) -> Finding:
    numbers: dict[str, Any] = {}
    apart = []
    for system in systems:
        fitted, imitated = runs.medians(system, "sysid"), runs.medians(system, "mpc.dx")
        for count, loss in imitated.items():
            ratio = fitted[count] / loss
            key = f"{SYSTEMS[system].title}, {count} plans"
            numbers[key] = {"sysid": fitted[count], "mpc.dx": loss, "ratio": ratio}
            if not 1 / LEVEL <= ratio <= LEVEL:
                apart.append(f"{key} (sysid / mpc.dx = {shown(ratio)})")
    return Finding(
        name="c",
        statement="Where the expert is realizable, sysid and mpc.dx are level: their median test "
        f"imitation losses are within a factor of {LEVEL:.0f}.",
        holds=not apart,
        numbers=numbers,
        diagnosis=f"Apart: {'; '.join(apart)}. Both know a model class that holds the expert, and "
        "what is left is not a difference of what can be learned: RMSprop's steps at a constant "
        "rate leave the parameters some tenths of a percent off, and the best validation epoch is "
        "chosen among such; mpc.dx follows the very loss by which it is chosen. Where mpc.dx is "
        "the higher one, see how many of its learners were stuck under b."
        if apart
        else "",
    )


def _hessian_findings(runs: _Runs, systems: Sequence[str]) -> list[Finding]:
    pairs: dict[str, list[tuple[Result, Result]]] = {}
    for system in systems:
        for method in THROUGH_PLANS:
            rough = runs.of(system, method, "gauss-newton")
            for count, group in runs.of(system, method).items():
                key = f"{SYSTEMS[system].title}, {method}"
                pairs.setdefault(key, []).extend(zip(group, rough.get(count, []), strict=True))
    return [
        _hessian_finding(
            pairs,
            "exact, better",
            "Exact gradients reach a lower test imitation loss than Gauss-Newton's, with the same "
            "plans and seed, in more than half of the runs.",
            lambda result: float(result["test_loss"]),
        ),
        _hessian_finding(
            pairs,
            "exact, faster",
            "Exact gradients reach a hundredth of the first validation loss in fewer epochs than "
            "Gauss-Newton's, with the same plans and seed, in more than half of the runs in which "
            "they differ.",
            lambda result: np.inf if result["hundredfold"] is None else result["hundredfold"],
        ),
    ]


def _hessian_finding(
    pairs: dict[str, list[tuple[Result, Result]]],
    name: str,
    statement: str,
    measure: Callable[[Result], float],
) -> Finding:
    numbers: dict[str, Any] = {}
    wins, losses = 0, 0
    for key, group in pairs.items():
        measured = [(measure(exact), measure(rough)) for exact, rough in group]
        lower, higher = (sum(x < y for x, y in measured), sum(x > y for x, y in measured))
        wins, losses = wins + lower, losses + higher
        exact, rough = (median(values) for values in zip(*measured, strict=True))
        numbers[key] = {
            "exact is lower": lower,
            "Gauss-Newton is lower": higher,
            "runs": len(group),
            "median, exact": _number(exact),
            "median, Gauss-Newton": _number(rough),
        }
    numbers["all"] = {"exact is lower": wins, "Gauss-Newton is lower": losses}
    failed = [
        f"{key}: {n['Gauss-Newton is lower']} of {n['runs']} runs"
        for key, n in numbers.items()
        if "runs" in n and n["Gauss-Newton is lower"] > n["exact is lower"]
    ]
    return Finding(
        name=name,
        statement=statement,
        holds=wins > losses,
        numbers=numbers,
        diagnosis=f"Gauss-Newton is ahead in {'; '.join(failed)}." if failed else "",
    )


def _number(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return value if np.isfinite(value) else None


def _starts_finding(runs: _Runs) -> Finding:
    medians = {
        planning: runs.medians("cartpole", "mpc.dx", planning=planning)
        for planning in (ONE, EXPERT, BOTH, GUIDED)
    }
    shared = sorted(set.intersection(*(set(values) for values in medians.values())))
    count = shared[-1]
    floor, freed = medians[EXPERT][count], medians[GUIDED][count]
    return Finding(
        name="starts",
        statement="On the cart-pole, an expert of eight starts and a learner (mpc.dx) of one leave "
        f"a floor under the test imitation loss, which is at least {FLOOR:.0f} times lower with "
        "eight starts on both sides and training plans that begin at the demonstrations.",
        holds=floor >= FLOOR * freed,
        numbers={
            f"{planning}, {count} plans": {
                "median test loss": medians[planning][count],
                "test losses": runs.losses("cartpole", "mpc.dx", planning=planning)[count],
            }
            for planning in medians
        },
        diagnosis=""
        if floor >= FLOOR * freed
        else f"The losses are {shown(floor)} and {shown(freed)}.",
    )


def _loss_table(runs: _Runs) -> Table:
    rows: list[list[str | float | bool | None]] = []
    for system, method, hessian, planning in _variants(runs):
        for count, losses in runs.losses(system, method, hessian, planning).items():
            summary = [median(losses), min(losses), max(losses)]
            rows.append([SYSTEMS[system].title, planning, method, hessian, count, *summary])
    columns = ("system", "starts", "method", "Hessian", "plans", "median", "lowest", "highest")
    return Table("nonconvex", "Test imitation loss over the seeds", columns, rows)


def _ending_table(runs: _Runs) -> Table:
    """Where learning ended early."""
    rows: list[list[str | float | bool | None]] = []
    for system, method, hessian, planning in _variants(runs):
        groups = runs.of(system, method, hessian, planning)
        results = [result for group in groups.values() for result in group]
        reasons = Counter(result["ended"] for result in results)
        rows.append(
            [
                SYSTEMS[system].title,
                planning,
                method,
                hessian,
                "; ".join(f"{reason}: {times}" for reason, times in sorted(reasons.items())),
                median(result["epochs"] for result in results),
                median(result["best_epoch"] for result in results),
                max(result.get("unconverged", 0.0) for result in results),
            ]
        )
    columns = (
        "system",
        "starts",
        "method",
        "Hessian",
        "why learning ended: runs",
        "epochs (median)",
        "best epoch (median)",
        "largest share of plans that did not converge",
    )
    return Table("nonconvex-epochs", "Where learning ended", columns, rows)


def _variants(runs: _Runs) -> list[tuple[str, str, str, str]]:
    """What there is of (system, method, hessian, planning), once each, in the runs' order."""
    names = ("system", "method", "hessian", "planning")
    return list(dict.fromkeys((*(r[name] for name in names),) for r in runs.results))


def _plot_methods(runs: _Runs, systems: Sequence[str], path: Path) -> None:
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


def _plot_hessians(runs: _Runs, systems: Sequence[str], path: Path) -> None:
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


def _plot_starts(runs: _Runs, path: Path) -> None:
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
