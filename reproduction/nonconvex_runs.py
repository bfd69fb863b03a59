"""The runs of the imitation of non-convex experts, by what was varied."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from reproduction.learning import ALL_DONE

Result = dict[str, Any]

METHODS = ("nn", "sysid", "mpc.dx", "mpc.cost", "mpc.cost.dx")
THROUGH_PLANS = METHODS[2:]
EPOCHS, PATIENCE = 1000, 200  # at most; a loss is flat that has not fallen for so many
CONSTANT, FALLING = "constant", "falling"  # the learning rate
ONE, EXPERT, BOTH, GUIDED = "one start", "eight of the expert", "eight of both", "eight, guided"
VARIED = ("system", "method", "hessian", "planning", "rate")


class Runs:
    """Results, to be asked for."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = results

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
        for result in self.results:
            if tuple(result[name] for name in VARIED) == wanted:
                found.setdefault(result["demonstrations"], []).append(result)
        return {
            count: sorted(found[count], key=lambda result: int(result["seed"]))
            for count in sorted(found)
        }

    def variants(self) -> list[tuple[str, ...]]:
        """What there is of `VARIED`, once each, in the runs' order."""
        return list(dict.fromkeys(tuple(r[name] for name in VARIED) for r in self.results))

    def losses(self, *variant: str, **varied: str) -> dict[int, list[float]]:
        """Test losses, likewise; the arguments are those of `of`."""
        groups = self.of(*variant, **varied)
        return {count: [r["test_loss"] for r in group] for count, group in groups.items()}

    def medians(self, *variant: str, **varied: str) -> dict[int, float]:
        """Their medians over the seeds, likewise."""
        losses = self.losses(*variant, **varied)
        return {count: median(values) for count, values in losses.items()}


def falls_to_the_end(result: Result) -> bool:
    """Whether learning ended because there were no more epochs, near the lowest loss."""
    return bool(result["ended"] == ALL_DONE and result["best_epoch"] > 0.9 * result["epochs"])
