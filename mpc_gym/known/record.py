"""What a planner has to know of an environment that does not bring its model."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import nn

from mpc_gym.models.base import dynamics_sizes


@dataclass(frozen=True)
class KnownEnvironment:
    """The model of an environment of another library, and how to plan with it.

    It is what `mpc_gym.make_mpc.HasModel` describes, without the environment.

    Args:
        env_id: under which the environment is registered.
        dynamics: as the environment has them: a step is that of its simulator.
        cost: what plans minimise. It is minus the reward where a plan can see and improve that, and
            something of the same end elsewhere; its docstring says which.
        control_low, control_high: limits of each control, [n_ctrl].
        horizon: length of a plan, in steps of the environment.
        state: from a batch of observations to states, or to states and the cost's context; None:
            the observation is the state.
        observations: where it is, their space.
        controls: of a discrete action each, [n_actions]; None: the action is the control.
        control_scale: (low, high), the controls that the limits of the action space stand for;
            None: these are the limits.
        planned: dynamics of the same parameters that plans are made with, where those of the
            environment take many small steps; None: these.
        options: of `MPC`, such as `starts`.
    """

    env_id: str
    dynamics: nn.Module
    cost: nn.Module
    control_low: Sequence[float]
    control_high: Sequence[float]
    horizon: int
    state: Callable[..., Any] | None = None
    observations: spaces.Box | None = None
    controls: Sequence[float] | None = None
    control_scale: tuple[float, float] | None = None
    planned: nn.Module | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def observation_space(self) -> spaces.Box:
        """Of the state."""
        if self.observations is not None:
            return self.observations
        n_state, _ = dynamics_sizes(self.dynamics)
        assert n_state is not None, "the dynamics say so"
        return spaces.Box(-np.inf, np.inf, (n_state,))

    @property
    def action_space(self) -> spaces.Box:
        """Of the control."""
        low, high = (np.array(side, np.float32) for side in (self.control_low, self.control_high))
        return spaces.Box(low, high)

    def nominal_dynamics(self) -> nn.Module:
        """A copy of those that plans are made with."""
        return copy.deepcopy(self.dynamics if self.planned is None else self.planned)
