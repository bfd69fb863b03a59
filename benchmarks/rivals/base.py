"""What the comparison asks of a solver."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.problems import Array, PaperProblem


@dataclass(frozen=True)
class Prepared:
    """A batch that is ready to be solved: what these functions do is what is timed."""

    forward: Callable[[], Any]
    forward_backward: Callable[[], Any]  # also the gradient of sum over the batch of mean_t u^2
    controls: Callable[[Any], Array]  # [batch, time], from what `forward` returned


class Rival(Protocol):
    """A solver, cold-started from zero controls, on one thread, in float64."""

    @property
    def name(self) -> str:
        """As in the tables."""

    def prepare(self, problem: PaperProblem, x_init: Array) -> Prepared:
        """Get ready for start states [batch, n_state]."""

    def gradients(self, problem: PaperProblem, x_init: Array) -> tuple[Array, Array]:
        """Controls [batch, time], and gradients of mean_t u^2 laid out as `gradient_groups`."""
