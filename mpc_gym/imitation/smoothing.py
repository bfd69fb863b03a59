"""How much the plans are smoothed that a learner is trained by."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mpc_gym.checks import check_count, check_number
from mpc_gym.mpc import MPC


@dataclass(frozen=True)
class FallingSmoothing:
    """A smoothing mu that falls by the same factor in each epoch, and then is the controller's own.

    A large mu gives a learner whose plans sit at their limits a gradient to begin with. But the
    smoothed plan of the right model is not the plan that was demonstrated, so training has to end
    with that.

    Args:
        first: mu in the first epoch, in units of the cost (see `MPC`).
        last: mu in the last epoch in which it is set.
        epochs: in which it is set.

    Raises:
        ValueError: a mu is not positive, the last is above the first, or the number of epochs is
            not positive.
    """

    first: float
    last: float
    epochs: int

    def __post_init__(self) -> None:
        check_number("first", self.first, above=0.0)
        check_number("last", self.last, above=0.0, most=self.first)
        check_count("epochs", self.epochs)

    def at(self, epoch: int) -> float | None:
        """Mu of an epoch, counted from 0; None where it is the controller's own."""
        if epoch >= self.epochs:
            return None
        fallen = epoch / max(self.epochs - 1, 1)
        return float(self.first * (self.last / self.first) ** fallen)

    @contextmanager
    def of(self, mpc: MPC, epoch: int) -> Iterator[None]:
        """Let the controller plan with the smoothing of this epoch, within."""
        own, mu = float(mpc.smoothing), self.at(epoch)
        mpc.smoothing.fill_(own if mu is None else mu)
        try:
            yield
        finally:
            mpc.smoothing.fill_(own)
