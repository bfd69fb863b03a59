"""What the controller asks of a solver: the types, and the protocol that each backend keeps."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from jaxtyping import Float, Int
from torch import Tensor

from mpc_gym.mpc.plan import Plan


class Settings(NamedTuple):
    """Options of the solver; see `MPC`.

    Attributes:
        kinked: the model has kinks, so give an instance up where its steps gain nothing (see
            `reference/ddp.py`).
    """

    exact: bool
    tolerance: float
    max_iterations: int
    kinked: bool = False


@dataclass(frozen=True)
class Gradients:
    """Derivatives of a loss; `context` is None where the problem has none.

    Those by `x_init` and `context` belong to an instance each, the others are summed over them.
    """

    x_init: Float[Tensor, "batch n_state"]
    low: Float[Tensor, "time n_ctrl"]
    high: Float[Tensor, "time n_ctrl"]
    context: Float[Tensor, "batch time n_context"] | None
    dynamics: list[Tensor]
    cost: list[Tensor]


class BackendProblem(Protocol):
    """A batch of control problems, with the values that the model had when it was made."""

    def rows(self, index: Int[Tensor, " rows"]) -> "BackendProblem":
        """The same problem for some instances of the batch."""

    def patient(self) -> "BackendProblem":
        """The same problem, no instance of which is given up early (see `Settings.kinked`)."""

    def lifted(self) -> "BackendProblem":
        """The same problem without the bounds of the first stage."""

    def as_function_of(self, inputs: tuple[Tensor | None, ...]) -> "BackendProblem":
        """The same problem as a function of what it depends on, that autograd can follow.

        Args:
            inputs: low, high, context (or None), the parameters of the dynamics and those of the
                cost, as the controller's caller has them (see `ImplicitSolution.attach`).
        """

    def stages(self, start: int, stop: int) -> "BackendProblem":
        """The problem of the stages `start` to `stop - 1` alone."""

    def costs(
        self,
        x_init: Float[Tensor, "batch n_state"],
        U: Float[Tensor, "batch time n_ctrl"],
    ) -> Float[Tensor, " batch"]:
        """What the controls cost."""

    def solve(
        self,
        x_init: Float[Tensor, "batch n_state"],
        guesses: Float[Tensor, "starts*batch time n_ctrl"],
    ) -> Plan:
        """Solve from one or more guesses, all instances of a guess together."""

    def gradients(
        self,
        X: Float[Tensor, "batch time n_state"],
        U: Float[Tensor, "batch time n_ctrl"],
        g_X: Float[Tensor, "batch time n_state"],
        g_U: Float[Tensor, "batch time n_ctrl"],
        g_cost: Float[Tensor, " batch"],
    ) -> Gradients:
        """Derivatives of a loss whose gradient by the plan (X, U) and its cost is given."""

    def first_step(
        self, X: Float[Tensor, "batch time n_state"], U: Float[Tensor, "batch time n_ctrl"]
    ) -> Float[Tensor, "batch n_ctrl"]:
        """The Newton step of the first controls, from a plan but for their bounds."""
