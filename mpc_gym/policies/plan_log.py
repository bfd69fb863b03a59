"""What an algorithm's logger is told of the plans of its policy."""

from dataclasses import dataclass

import numpy as np
from stable_baselines3.common.logger import Logger

from mpc_gym.models import current_values
from mpc_gym.mpc import MPC, Plan


@dataclass
class PlanLog:
    """What came of the plans since they were last recorded.

    Attributes:
        plans: how many there were.
        converged: how many of them converged.
        seconds: that they took, of the clock.
        violation: the largest, of a constraint.
    """

    plans: int = 0
    converged: int = 0
    seconds: float = 0.0
    violation: float = 0.0

    def add(self, plan: Plan, seconds: float) -> None:
        """Count a batch that took so long."""
        self.plans += len(plan.converged)
        self.converged += int(plan.converged.sum())
        self.seconds += seconds
        if plan.violation is not None:
            largest = plan.violation.max().item()  # NaN, where a plan could not be computed
            self.violation = float(np.maximum(self.violation, largest))

    def record(self, logger: Logger, mpc: MPC) -> None:
        """Write it down under `mpc/`, beside the numbers that the model learns, and begin again.

        `mpc/converged` is a share of the plans, `mpc/milliseconds` the mean time of one, and
        `mpc/violation`, where there are constraints, the largest violation of one. An algorithm
        that trains several times before it writes a row gets their mean.
        """
        if self.plans:
            logger.record_mean("mpc/converged", self.converged / self.plans)
            logger.record_mean("mpc/milliseconds", 1e3 * self.seconds / self.plans)
            if mpc.has_constraints:
                logger.record_mean("mpc/violation", self.violation)
        record_numbers(logger, mpc, learned_numbers(mpc))
        self.plans = self.converged = 0
        self.seconds = self.violation = 0.0


def learned_numbers(mpc: MPC) -> set[str]:
    """The names of the single numbers that are learned, such as `dynamics.mass`."""
    return {
        path.replace(".parametrizations", "").removesuffix(".original")
        for path, parameter in mpc.named_parameters()
        if parameter.requires_grad and parameter.numel() == 1
    }


def record_numbers(logger: Logger, mpc: MPC, names: set[str]) -> None:
    """Write some of the controller's numbers down, under `mpc/`."""
    for name, value in current_values(mpc).items():
        if name in names:
            logger.record(f"mpc/{name}", value.item())
