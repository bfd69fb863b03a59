"""Learning rates that change while a module is trained."""

import math
from dataclasses import dataclass

from mpc_gym.checks import check_count, check_number


@dataclass(frozen=True)
class FallingRate:
    """A learning rate that is constant at first, then falls by the same factor at every step.

    A constant rate leaves a floor of noise under the loss, which a falling one removes.

    Args:
        start: the constant rate.
        end: the rate after the last step.
        constant: steps before it falls.
        falling: steps in which it falls; 0: it never does.

    Raises:
        ValueError: a rate is not positive, or a number of steps negative.
    """

    start: float
    end: float
    constant: int
    falling: int

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            check_number(name, getattr(self, name), above=0.0)
        for name in ("constant", "falling"):
            check_count(name, getattr(self, name), 0)

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        if self.falling == 0:
            return self.start
        fallen = min(max(step + 1 - self.constant, 0) / self.falling, 1.0)
        return self.start * math.pow(self.end / self.start, fallen)
