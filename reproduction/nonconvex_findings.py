"""The findings about the imitation of non-convex experts."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import numpy as np

from mpc_gym.experiments.tables import shown
from reproduction.learning import ALL_DONE, NETWORK, SMALL, SYSID
from reproduction.problems import SYSTEMS
from reproduction.report import OURS, PAPER, Finding, Result

METHODS = (SYSID, "mpc.dx", "mpc.cost")
THROUGH_PLANS = METHODS[1:]
EPOCHS, PATIENCE = 1000, 200  # at most; a loss is flat that has not fallen for so many
ONE, EXPERT, BOTH = "one start", "eight of the expert", "eight of both"
# Ways to plan for an expert that takes the best of several starts, beside that with one.
WAYS = ((ONE, PAPER), (EXPERT, PAPER), (BOTH, PAPER), (ONE, OURS), (BOTH, OURS))
# What varies beside demonstrations and seed, with the columns of the tables.
VARIED = {
    "system": "system",
    "method": "method",
    "learner": "learner",
    "planning": "starts",
    "hessian": "Hessian",
}

FACTORS = {"pendulum": 100.0, "cartpole": 1.0}  # by which mpc.dx and mpc.cost beat the network
LEVEL = 10.0  # medians within this factor are level
FLOOR = 100.0  # a floor is a loss so much higher than from an expert of one start


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
        learner: str = PAPER,
        planning: str = ONE,
        hessian: str | None = None,
    ) -> dict[int, list[Result]]:
        """By the number of demonstrations; those of all seeds, in their order.

        Without `hessian`: by the learner's own, which is Gauss-Newton's of the paper's.
        """
        if hessian is None:
            own = learner == PAPER and planning == ONE and method in THROUGH_PLANS
            hessian = "gauss-newton" if own else "exact"
        wanted = (system, method, learner, planning, hessian)
        found: dict[int, list[Result]] = {}
        for result in sorted(self.all, key=lambda r: (r["demonstrations"], int(r["seed"]))):
            if tuple(result[name] for name in VARIED) == wanted:
                found.setdefault(result["demonstrations"], []).append(result)
        return found

    @property
    def counts(self) -> str:
        """The numbers of demonstrations, in words."""
        return " or ".join(map(str, self.of(self.systems[0], NETWORK)))

    def variants(self) -> Iterator[tuple[dict[str, str], dict[int, list[Result]]]]:
        """Each variant in the runs' order, as the first columns of a row, and its results."""
        for variant in dict.fromkeys(tuple(r[name] for name in VARIED) for r in self.all):
            title, *rest = SYSTEMS[variant[0]].title, *variant[1:]
            yield dict(zip(VARIED.values(), (title, *rest), strict=True)), self.of(*variant)

    def losses(self, *variant: str, **varied: str) -> dict[int, list[float]]:
        """Test losses, likewise; the arguments are those of `of`."""
        groups = self.of(*variant, **varied)
        return {count: [r["test_loss"] for r in group] for count, group in groups.items()}


def falls_to_the_end(result: Result) -> bool:
    """Whether learning ended because there were no more epochs, near the lowest loss."""
    return bool(result["ended"] == ALL_DONE and result["best_epoch"] > 0.9 * result["epochs"])


def by_planning(found: ResultsByVariant) -> tuple[int, dict[str, list[Result]]]:
    """The largest number of plans that mpc.dx has learned from in all ways to plan; its results."""
    groups = {
        planning if learner == PAPER else f"{planning}, {OURS}": found.of(
            "cartpole", "mpc.dx", learner, planning, "exact"
        )
        for planning, learner in WAYS
    }
    count = max(set.intersection(*(set(group) for group in groups.values())))
    return count, {name: group[count] for name, group in groups.items()}


def network_finding(found: ResultsByVariant, system: str, learner: str) -> Finding:
    """Whether planners imitate better than the network."""
    factor, title = FACTORS[system], SYSTEMS[system].title
    network = found.losses(system, NETWORK)
    numbers: dict[str, Any] = {}
    missed, ratios = [], []
    for method in ("mpc.dx", "mpc.cost"):
        for count, losses in found.losses(system, method, learner).items():
            ratio = median(network[count]) / median(losses)
            ratios.append(ratio)
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
        f"the seeds) {lower} than the LSTM's, from {found.counts} plans.",
        learner=learner,
        holds=not missed,
        summary=f"at least {shown(min(ratios))} times lower",
        numbers=numbers,
        diagnosis=f"Not so: {'; '.join(missed)}. {_stuck(found, system, learner)}"
        if missed
        else "",
    )


def _stuck(found: ResultsByVariant, system: str, learner: str) -> str:
    """How many learners never came near the expert, and what they had reached by the end."""
    parts = []
    for method in ("mpc.dx", "mpc.cost"):
        for count, group in found.of(system, method, learner).items():
            far = [r for r in group if r["hundredfold"] is None]
            late = sum(map(falls_to_the_end, far))
            if far:
                parts.append(
                    f"{method} with {count} plans, {len(far)} of {len(group)} seeds ({late} of "
                    "them were still falling at the last epoch)"
                )
    return (
        "Validation losses that never fell to a hundredth of the first: "
        f"{'; '.join(parts) or 'none'}. With few plans there are few steps, and most "
        "controls of a swing-up sit at their limits, where the loss has no gradient: a learner "
        "may rest in a local minimum of these few plans."
    )


def sysid_finding(found: ResultsByVariant, learner: str) -> Finding:
    """Whether fitting the motion does as well as imitating."""
    numbers: dict[str, Any] = {}
    apart = []
    for system in found.systems:
        fitted = found.losses(system, SYSID, learner)
        for count, losses in found.losses(system, "mpc.dx", learner).items():
            medians = {SYSID: median(fitted[count]), "mpc.dx": median(losses)}
            ratio = max(medians[SYSID], SMALL) / max(medians["mpc.dx"], SMALL)
            key = f"{SYSTEMS[system].title}, {count} plans"
            numbers[key] = {**medians, "ratio": ratio}
            if not 1 / LEVEL <= ratio <= LEVEL:
                apart.append(f"{key} (sysid / mpc.dx = {shown(ratio)})")
    return Finding(
        name="c",
        statement="Where the expert is realizable, sysid and mpc.dx are level from "
        f"{found.counts} plans: their median test imitation losses are within a factor of "
        f"{LEVEL:.0f} (what is below {SMALL:.0e} counts as that).",
        learner=learner,
        holds=not apart,
        summary=f"{len(numbers) - len(apart)} of {len(numbers)} systems",
        numbers=numbers,
        diagnosis=f"Apart: {'; '.join(apart)}. {_NOISE}" if apart else "",
    )


_NOISE = (
    "Steps of RMSprop at a constant rate leave the parameters some tenths of a percent off, and "
    "the best validation epoch is chosen among such; mpc.dx follows the very loss by which it is "
    "chosen. Where mpc.dx is the higher one, see how many of its learners were stuck under b."
)


def hessian_findings(found: ResultsByVariant) -> list[Finding]:
    """Whether exact gradients learn better or faster than Gauss-Newton's."""
    pairs: dict[str, list[tuple[Result, Result]]] = {}
    for system in found.systems:
        for method in THROUGH_PLANS:
            exact = found.of(system, method, hessian="exact")
            for count, others in found.of(system, method, hessian="gauss-newton").items():
                key = f"{SYSTEMS[system].title}, {method}"
                pairs.setdefault(key, []).extend(zip(exact[count], others, strict=True))
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
        learner=PAPER,
        holds=2 * total[exact_wins] > total[runs],
        summary=f"{total[exact_wins]} of {total[runs]} runs (Gauss-Newton in {total[other_wins]})",
        numbers={**numbers, "all": total},
        diagnosis=f"Gauss-Newton is ahead in {'; '.join(behind)}. Where the medians are close, "
        "what a constant rate leaves decides, not the gradient."
        if behind
        else "",
    )


def _finite(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return value if np.isfinite(value) else None


def starts_finding(found: ResultsByVariant, learner: str) -> Finding:
    """Whether an expert of several starts is imitated as well as one of one start."""
    count, groups = by_planning(found)
    losses = {
        name: [r["test_loss"] for r in group]
        for name, group in groups.items()
        if name.endswith(f", {OURS}") is (learner == OURS)
    }
    medians = [median(values) for values in losses.values()]
    one, best = medians[0], min(medians[1:])
    ratio = max(best, SMALL) / max(one, SMALL)
    return Finding(
        name="starts",
        statement="On the cart-pole, mpc.dx imitates an expert that takes the best of eight starts "
        f"to a median test imitation loss within a factor of {FLOOR:.0f} of that from an expert of "
        f"one start (what is below {SMALL:.0e} counts as that).",
        learner=learner,
        holds=ratio <= FLOOR,
        summary=f"{shown(best)} and {shown(one)}",
        numbers={
            f"{name}, {count} plans": {"median test loss": median(values), "test losses": values}
            for name, values in losses.items()
        },
        diagnosis=""
        if ratio <= FLOOR
        else "Far from the expert's model the best plan of the learner is on another branch than "
        "the expert's, and the gradient there does not lead to it.",
    )
