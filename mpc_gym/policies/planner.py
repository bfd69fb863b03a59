"""The module of a policy or an actor that plans: an MPC that fits the spaces, and its plans."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, nn

from mpc_gym.envs.spaces import EnvBox
from mpc_gym.models import ContextualCost
from mpc_gym.models.base import unit_pairs
from mpc_gym.mpc import MPC, Plan
from mpc_gym.mpc.reference.sensitivity import BOUND_TOLERANCE
from mpc_gym.policies.algorithms import (
    calling_algorithm,
    check_not_normalised,
    environment_of,
)
from mpc_gym.policies.fit import (
    box,
    check_actions,
    check_angles,
    check_dimensions,
    check_finite,
    check_observations,
    check_own_actions,
    no_model,
)
from mpc_gym.policies.limits import ActionLimits
from mpc_gym.policies.options import PlanOptions
from mpc_gym.policies.receding_horizon import PlanState, warm_start

COST_MAP_LAYERS = (64, 64)
COST_MAP_RANGE = 3.0  # of each entry: a weight changes by a factor of 20 at most
# Of a batch, which may hold the same states many times: training does without the gradient of
# some plans, such as those at the limit of the speed.
UNCONVERGED = 0.5
RETRY_ITERATIONS = 20  # other guesses that beat a warm start show it by then


class CostMap(nn.Module):
    """A network from the observation to the context of every stage of the plan, zero at first.

    Args:
        n_observation: entries of the observation.
        horizon: stages of the plan.
        n_context: entries of the context of one stage, each within +-`COST_MAP_RANGE`.
    """

    def __init__(self, n_observation: int, horizon: int, n_context: int) -> None:
        super().__init__()
        self.shape = (horizon, n_context)
        sizes = (n_observation, *COST_MAP_LAYERS)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.Tanh()]
        self.hidden = nn.Sequential(*layers)
        self.last = nn.Linear(sizes[-1], horizon * n_context)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, observation: Float[Tensor, "batch n_observation"]
    ) -> Float[Tensor, "batch horizon n_context"]:
        """The context."""
        raw = self.last(self.hidden(observation)).reshape(-1, *self.shape)
        return COST_MAP_RANGE * torch.tanh(raw / COST_MAP_RANGE)


class Planner(nn.Module):
    """Plans whose start state is an observation, and whose first control is an action.

    Args:
        options: whose model to plan with, how, and what of it is learned.
        observation_space: Box, whose flattened observation is the model's state.
        action_space: Box, in the units of the model's control.

    Attributes:
        mpc: the controller.
        cost_map: from the observation to its cost's context; None where the cost is the same
            everywhere.

    Raises:
        ValueError: the model does not fit the spaces, or is not known; an algorithm makes the
            policy for observations that are normalised.
    """

    cost_map: CostMap | None
    _unit_pairs: Sequence[tuple[int, int]]
    _low: Tensor
    _high: Tensor

    def __init__(
        self,
        options: PlanOptions,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
    ) -> None:
        super().__init__()
        observations = box("observation_space", observation_space)
        actions = box("action_space", action_space)
        algorithm = calling_algorithm("_setup_model")
        if callable(options.mpc) and algorithm is not None:
            check_not_normalised(algorithm)
        env_id, wrappers = environment_of(algorithm)
        if options.mpc is None and not isinstance(observations, EnvBox):
            raise no_model(observations, env_id, wrappers)
        source = None if callable(options.mpc) else options.environment(observations)
        mpc = options.make(spaces.flatdim(observations), source)
        check_dimensions(mpc, observations, actions)
        own = callable(options.mpc) and "RescaleAction" not in wrappers
        (check_own_actions if own else check_actions)(mpc, actions)
        _leave_out_bounds(mpc)
        mpc.expected_unconverged = UNCONVERGED
        self.mpc = mpc
        self.cost_map = None
        if isinstance(mpc.cost, ContextualCost):
            size = spaces.flatdim(observations)
            self.cost_map = CostMap(size, mpc.horizon, mpc.cost.n_context)
        self._unit_pairs = ()
        if source is not None:
            named = options.mpc
            if not isinstance(named, str):
                assert isinstance(observations, EnvBox), "looked at above"
                named = observations.env_id
            check_observations(named, source.observation_space, observations)
            self._unit_pairs = unit_pairs(mpc.dynamics)
        for name, bound in (("_low", actions.low), ("_high", actions.high)):
            # in float32, as the networks are, whatever the space is in
            limit = torch.tensor(bound.ravel(), dtype=torch.float32)
            self.register_buffer(name, limit, persistent=False)

    @property
    def action_limits(self) -> ActionLimits:
        """The bounds of the action space."""
        return ActionLimits(self._low, self._high)

    def plan(
        self,
        observation: Float[Tensor, "batch *observation"] | NDArray[np.floating],
        warm_start: Float[Tensor, "batch horizon n_ctrl"] | None = None,
        *,
        unclamped: bool = False,
    ) -> Plan:
        """The optimal plan from each observation, with gradients where they are enabled.

        Args:
            observation: a batch.
            warm_start: the solver's guess; None for zero.
            unclamped: whether to find `Plan.unclamped` too.

        Raises:
            ValueError: the observation is not finite or was normalised, or a shape does not fit.
        """
        states, context = self._start(observation)
        return self.mpc(states, warm_start, context, unclamped=unclamped)  # type: ignore[no-any-return]

    def replan(
        self,
        observation: Float[Tensor, "batch *observation"],
        state: PlanState | None,
        episode_start: NDArray[Any] | None,
        *,
        unclamped: bool = False,
    ) -> Plan:
        """The plan from each observation, solved from the last plan where there is one.

        Other guesses are tried again only where the plan holds a control at a bound (one
        that does not is close to where the problem is convex), and for `RETRY_ITERATIONS` at most.

        Args:
            observation: a batch.
            state: the recurrent state, which `carry` makes of the last plan; None: no last plan.
            episode_start: [batch], true where an episode begins: its last plan is forgotten.
            unclamped: whether to find `Plan.unclamped` too.

        Raises:
            ValueError: as in `plan`, or the recurrent state has other shapes.
        """
        guess = warm_start(self.mpc, len(observation), state, episode_start)
        if guess is None or self.mpc.starts == 1:
            return self.plan(observation, guess, unclamped=unclamped)
        states, context = self._start(observation)
        plan: Plan = self.mpc(states, guess, context, starts=1, unclamped=unclamped)
        begins = np.zeros(len(states), dtype=bool)
        if episode_start is not None:
            begins |= np.asarray(episode_start, dtype=bool)
        doubtful = self._holds_a_bound(plan) | ~plan.converged.cpu().numpy()
        for chosen, iterations in (
            (begins, self.mpc.max_iterations),
            (doubtful & ~begins, min(RETRY_ITERATIONS, self.mpc.max_iterations)),
        ):
            if chosen.any():
                rows = torch.from_numpy(chosen.nonzero()[0]).to(states.device)
                controls = plan.controls[rows]
                retried = self.mpc(
                    states[rows],
                    torch.zeros_like(controls) if chosen is begins else controls,
                    None if context is None else context[rows],
                    max_iterations=iterations,
                    unclamped=unclamped,
                )
                if self.mpc.has_constraints or bool(self.mpc.smoothing > 0):
                    # several solves share the iterations: cut off, a plan is worse than its guess
                    kept = retried.converged | ~plan.converged[rows]
                    rows, retried = rows[kept], retried.rows(kept.nonzero()[:, 0])
                plan = plan.with_rows(rows, retried)
        return plan

    def _holds_a_bound(self, plan: Plan) -> Bool[NDArray[np.bool_], " batch"]:
        # NumPy takes half of PyTorch's time for a single plan
        controls = plan.controls.detach().cpu().numpy()
        # in the plan's dtype, in which a control at a bound is the bound that was rounded
        low, high = (
            bound.detach().cpu().numpy().astype(controls.dtype)
            for bound in (self.mpc.control_low, self.mpc.control_high)
        )
        near = BOUND_TOLERANCE * np.minimum(np.abs(controls), high - low)  # as `nearness`
        held = (controls <= low + near) | (controls >= high - near)
        return held.any(axis=(1, 2))  # type: ignore[no-any-return]

    def _start(
        self, observation: Tensor | NDArray[np.floating]
    ) -> tuple[Float[Tensor, "batch n_state"], Float[Tensor, "batch horizon n_context"] | None]:
        """The states to plan from, and the context of their cost."""
        states = torch.as_tensor(observation, device=self._low.device)
        if states.ndim < 2:  # flatten would say that a dimension is out of range
            raise ValueError(
                f"observation must be a batch, got shape {list(states.shape)}; for a single one "
                "use observation[None]"
            )
        states = states.flatten(1)
        check_finite(states)
        check_angles(states, self._unit_pairs)
        return states, None if self.cost_map is None else self.cost_map(states.float())


def _leave_out_bounds(mpc: MPC) -> None:
    """Keep the bounds out of the state dict: they were checked against the spaces, once."""
    bounds = dict(mpc.named_buffers(recurse=False))
    for name in ("control_low", "control_high"):
        if name in bounds:  # a bound that is learned is a parameter
            mpc.register_buffer(name, bounds[name], persistent=False)
