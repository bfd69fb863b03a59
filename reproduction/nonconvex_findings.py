"""What the imitation of non-convex experts shows: the findings."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from mpc_gym.experiments.tables import shown
from reproduction.learning import SMALL
from reproduction.nonconvex_runs import (
    BOTH,
    CONSTANT,
    EXPERT,
    FALLING,
    GUIDED,
    ONE,
    THROUGH_PLANS,
    Result,
    Runs,
    falls_to_the_end,
)
from reproduction.problems import SYSTEMS
from reproduction.section import Finding

FACTORS = {"pendulum": 100.0, "cartpole": 1.0}  # by which mpc.dx and mpc.cost beat the network
LEVEL = 10.0  # medians within this factor are level
FLOOR = 100.0  # a floor is a loss so much higher than it need be


def network_finding(runs: Runs, system: str) -> Finding:
    """Whether planners imitate better than the network."""
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


def _stuck(runs: Runs, system: str) -> str:
    """How many learners never came near the expert, and what they had reached by the end."""
    parts = []
    for method in ("mpc.dx", "mpc.cost"):
        for count, group in runs.of(system, method).items():
            far = [r for r in group if r["hundredfold"] is None]
            late = sum(map(falls_to_the_end, far))
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


def sysid_findings(runs: Runs, systems: Sequence[str]) -> list[Finding]:
    """Whether fitting the motion does as well as imitating, with both learning rates."""
    return [_sysid_finding(runs, systems, rate) for rate in (CONSTANT, FALLING)]


def _sysid_finding(runs: Runs, systems: Sequence[str], rate: str) -> Finding:
    numbers: dict[str, Any] = {}
    apart = []
    for system in systems:
        fitted, imitated = (
            runs.medians(system, method, rate=rate) for method in ("sysid", "mpc.dx")
        )
        for count, loss in imitated.items():
            ratio = max(fitted[count], SMALL) / max(loss, SMALL)
            key = f"{SYSTEMS[system].title}, {count} plans"
            numbers[key] = {"sysid": fitted[count], "mpc.dx": loss, "ratio": ratio}
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


_DIAGNOSES = {
    CONSTANT: "RMSprop's steps at a constant rate leave the parameters some tenths of a percent "
    "off, and the best validation epoch is chosen among such; mpc.dx follows the very loss by "
    "which it is chosen. The next finding takes that noise away. Where mpc.dx is the higher one, "
    "see how many of its learners were stuck under b.",
    FALLING: "Where mpc.dx is the higher one, see how many of its learners were stuck under b.",
}


def hessian_findings(runs: Runs, systems: Sequence[str]) -> list[Finding]:
    """Whether exact gradients learn better or faster than Gauss-Newton's."""
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
    numbers: dict[str, Any] = {}
    wins, losses, total = 0, 0, 0
    for key, group in pairs.items():
        measured = [(measure(exact), measure(rough)) for exact, rough in group]
        total += len(measured)
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
    numbers["all"] = {"exact is lower": wins, "Gauss-Newton is lower": losses, "runs": total}
    failed = [
        f"{key}: {n['Gauss-Newton is lower']} of {n['runs']} runs"
        for key, n in numbers.items()
        if key != "all" and n["Gauss-Newton is lower"] > n["exact is lower"]
    ]
    return Finding(
        name=name,
        statement=statement,
        holds=2 * wins > total,
        numbers=numbers,
        diagnosis=f"Gauss-Newton is ahead in {'; '.join(failed)}." if failed else "",
    )


def _number(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return value if np.isfinite(value) else None


def starts_finding(runs: Runs) -> Finding:
    """Whether one start on the learner's side leaves a floor, and what removes it."""
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
