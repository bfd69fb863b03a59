"""The warning that plans which did not converge give no gradient."""

from mpc_gym.messages import warn
from mpc_gym.mpc.plan import Plan

_JUDGED = 16  # problems, before a share of them is


class Unconverged:
    """Counts the problems of a controller that have no gradient, and says once if they are many.

    Args:
        told: whether it has been said.
    """

    def __init__(self, *, told: bool = False) -> None:
        self._told = told
        self._problems = self._missing = 0

    def note(self, plan: Plan, max_iterations: int, expected: float) -> None:
        """Count those of a plan; `expected`: the share that may lack a gradient."""
        if self._told or not plan.controls.requires_grad:
            return
        missing = int((~plan.converged).sum())
        self._problems += len(plan.converged)
        self._missing += missing
        few = self._problems < _JUDGED or self._missing <= expected * self._problems
        if missing == 0 if expected == 0.0 else few:  # a small batch says nothing of a share
            return
        self._told = True
        limit = int((plan.iterations[~plan.converged] >= max_iterations).sum())
        warn(
            f"{missing} of {len(plan.converged)} control problems did not converge and give no "
            f"gradient; see Plan.converged. {limit} of them used all iterations. Likely causes: "
            "constraints that cannot be satisfied (see Plan.violation); a jump in dynamics or "
            "cost, or a kink that is not rounded by itself, as relu, abs, clamp and maximum are "
            "(see mpc/kinks.py): use a smooth function there. "
            "Otherwise raise max_iterations, or check the start states and the model's parameters. "
            "(This is said once.)",
        )
