"""Environments whose episodes end where a constraint of the state is violated."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray

from mpc_gym.envs.base import DiffEnv

CRASH_COST = 2000.0
TOLERANCE = 1e-6  # [m]: observations are float32, constraints kept to 1e-7


class ConstrainedEnv(DiffEnv):
    """An environment that ends an episode which violates its constraints, where it has some.

    They depend on the state alone. No episode starts where they are violated.
    """

    place: ClassVar[str]
    """Where its states are, for messages: "outside the obstacle"."""

    def terminated(
        self, states: Float[NDArray[np.float64], "batch n_state"]
    ) -> Bool[NDArray[np.bool_], " batch"]:
        """Whether the constraints are violated in each of these states."""
        if self.constraints is None:
            return super().terminated(states)
        controls = torch.zeros(len(states), len(self.action_space.low), dtype=torch.float64)
        with torch.no_grad():
            rows = self.constraints(torch.from_numpy(states), controls).numpy()
        violated: NDArray[np.bool_] = ~(rows <= TOLERANCE).all(-1)  # NaN is nowhere
        return violated

    def checked_state(self, name: str, state: ArrayLike) -> Float[NDArray[np.float64], " n_state"]:
        """As in `DiffEnv`; the constraints, where there are some, hold there."""
        checked = super().checked_state(name, state)
        if self.terminated(checked[np.newaxis])[0]:
            raise ValueError(
                f"{name} must be {self.place}, {self.constraints}, got {checked.tolist()}"
            )
        return checked
