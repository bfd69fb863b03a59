"""The module of a policy or an actor that plans: an MPC that fits the spaces, and its plans.

observation  --observer-->  state [, context]  --MPC-->  control  --limits-->  action
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from mpc_gym.envs.spaces import EnvBox
from mpc_gym.make_mpc import HasModel
from mpc_gym.models import ContextualCost
from mpc_gym.models.base import unit_pairs
from mpc_gym.mpc import MPC, Plan
from mpc_gym.mpc.reference.sensitivity import BOUND_TOLERANCE
from mpc_gym.policies.algorithms import (
    calling_algorithm,
    check_no_unknown_statistics,
    environment_of,
    normalizing,
    remember,
    unscaled_actions,
)
from mpc_gym.policies.fit import (
    box,
    check_actions,
    check_angles,
    check_dimensions,
    check_observations,
    check_own_actions,
    control_range,
    no_model,
)
from mpc_gym.policies.limits import ActionLimits
from mpc_gym.policies.observer import Observer
from mpc_gym.policies.options import PlanOptions
from mpc_gym.policies.plan_log import PlanLog
from mpc_gym.policies.receding_horizon import PlanState, warm_start

COST_MAP_LAYERS = (64, 64)
COST_MAP_RANGE = 3.0  # of each entry: a weight changes by a factor of 20 at most
# Of a batch, which may hold the same states many times: training does without the gradient of
# some plans, such as those at the limit of the speed.
UNCONVERGED = 0.5
RETRY_ITERATIONS = 20  # other guesses that beat a warm start show it by then


class CostMap(nn.Module):
    """A network from the state to the context of every stage of the plan, zero at first.

    Args:
        n_state: entries of the state that a plan starts from.
        horizon: stages of the plan.
        n_context: entries of the context of one stage, each within +-`COST_MAP_RANGE`.
    """

    def __init__(self, n_state: int, horizon: int, n_context: int) -> None:
        super().__init__()
        self.shape = (horizon, n_context)
        sizes = (n_state, *COST_MAP_LAYERS)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.Tanh()]
        self.hidden = nn.Sequential(*layers)
        self.last = nn.Linear(sizes[-1], horizon * n_context)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, state: Float[Tensor, "batch n_state"]
    ) -> Float[Tensor, "batch horizon n_context"]:
        """The context."""
        raw = self.last(self.hidden(state)).reshape(-1, *self.shape)
        return COST_MAP_RANGE * torch.tanh(raw / COST_MAP_RANGE)


class Planner(nn.Module):
    """Plans whose start state follows from an observation, and whose first control is an action.

    Args:
        options: whose model to plan with, how, from what, and what of it is learned.
        observation_space: Box, whose flattened observation is the model's state, or what the
            options' `state` takes.
        action_space: Box, in the units of the model's control, or as the options' `control_scale`
            says.

    Attributes:
        options: with what was taken from the environment of the algorithm that makes the policy.
        observer: from the observation to the state.
        mpc: the controller.
        log: of its plans in training.
        cost_map: from the state to its cost's context; None where the cost is the same everywhere.

    Raises:
        ValueError: the model does not fit the spaces, or is not known; an algorithm makes the
            policy for observations that are normalised, and it is not known how to undo that.
    """

    cost_map: CostMap | None
    _action_low: Tensor | None
    _action_high: Tensor | None
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
        given, options = options, options.completed()
        actions = box("action_space", action_space)
        algorithm = calling_algorithm("_setup_model")
        env_id, wrappers = environment_of(algorithm)
        if options.mpc is None and not isinstance(observation_space, EnvBox):
            raise no_model(observation_space, env_id, wrappers)
        if algorithm is not None and algorithm.get_env() is not None:
            if not options.checks_angles:
                check_no_unknown_statistics(algorithm)
            envs = normalizing(algorithm, options.state_is_known, options.normalized)
        else:
            envs = None
        normalized = options.normalized or envs is not None
        self.observer = Observer(options.state, observation_space, normalized)
        if envs is not None and self.observer.normalization is not None:
            self.observer.normalization.follow(envs)
        source = None if callable(options.mpc) else options.environment(observation_space)
        mpc = self._make(options, source)
        self._check_states(options, observation_space, source, mpc, actions)
        controls = _controls(options, algorithm, wrappers, mpc, actions)
        _leave_out_bounds(mpc)
        mpc.expected_unconverged = UNCONVERGED
        self.mpc = mpc
        self.log = PlanLog()
        self.cost_map = None
        if isinstance(mpc.cost, ContextualCost):
            self.cost_map = CostMap(self.observer.n_state, mpc.horizon, mpc.cost.n_context)
        found: dict[str, Any] = {}
        if normalized and options.normalized is None:
            found["normalized"] = True
        if controls is not actions and options.control_scale is None:
            found["control_scale"] = (controls.low.ravel().tolist(), controls.high.ravel().tolist())
        self.options = replace(given, **found)
        if algorithm is not None and found:
            remember(algorithm, **found)
        self._keep_limits(controls, actions)

    def _make(self, options: PlanOptions, source: HasModel | None) -> MPC:
        """The controller."""
        observer = self.observer
        return options.make(observer.n_state, source, has_context=observer.gives_context)

    def _keep_limits(self, controls: spaces.Box, actions: spaces.Box) -> None:
        """Register the limits of the actions in the units of the control, and in their own."""
        scaled = controls is not actions
        for name, bound in (
            ("_low", controls.low),
            ("_high", controls.high),
            ("_action_low", actions.low if scaled else None),
            ("_action_high", actions.high if scaled else None),
        ):
            # in float32, as the networks are, whatever the space is in
            limit = None if bound is None else torch.tensor(bound.ravel(), dtype=torch.float32)
            self.register_buffer(name, limit, persistent=False)

    def _check_states(
        self,
        options: PlanOptions,
        space: spaces.Space[Any],
        source: HasModel | None,
        mpc: MPC,
        actions: spaces.Box,
    ) -> None:
        """Refuse observations, or what they are mapped to, that are not the model's states."""
        self._unit_pairs = ()
        if options.state is not None:
            check_dimensions(mpc, None, actions)
            if mpc.n_state not in (None, self.observer.n_state):
                raise ValueError(
                    f"state={options.state.__qualname__} must return the states of the MPC's "
                    f"model, [batch, n_state={mpc.n_state}], got {self.observer.n_state} entries"
                )
            return
        observations = box("observation_space", space)
        check_dimensions(mpc, observations, actions)
        if source is not None:
            named = options.mpc
            if not isinstance(named, str):
                assert isinstance(observations, EnvBox), "looked at above"
                named = observations.env_id
            check_observations(named, source.observation_space, observations)
            self._unit_pairs = unit_pairs(mpc.dynamics)

    @property
    def action_limits(self) -> ActionLimits:
        """The bounds of the action space."""
        return ActionLimits(self._low, self._high, self._action_low, self._action_high)

    def controls(self, actions: Float[Tensor, "batch n_act"]) -> Float[Tensor, "batch n_ctrl"]:
        """What arrives of the environment's actions.

        Raises:
            ValueError: they are not as many.
        """
        if actions.shape[1] != self.mpc.n_ctrl:
            raise ValueError(
                f"actions must be [batch, {self.mpc.n_ctrl}], the controls of the MPC's model, got "
                f"{list(actions.shape)}"
            )
        return self.action_limits.control(actions)

    def plan(
        self,
        observation: PyTorchObs | NDArray[np.floating],
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
        began = time.perf_counter()
        plan: Plan = self.mpc(states, warm_start, context, unclamped=unclamped)
        self.log.add(plan, time.perf_counter() - began)
        return plan

    def replan(
        self,
        observation: PyTorchObs | NDArray[np.floating],
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
        states, context = self._start(observation)
        guess = warm_start(self.mpc, len(states), state, episode_start)
        if guess is None or self.mpc.starts == 1:
            return self.mpc(states, guess, context, unclamped=unclamped)  # type: ignore[no-any-return]
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
        self, observation: PyTorchObs | NDArray[np.floating]
    ) -> tuple[Float[Tensor, "batch n_state"], Tensor | None]:
        """The states to plan from, and their context."""
        states, context = self.observer(observation, self._low.device)
        if self.observer.normalization is None:  # VecNormalize may clip, which is said
            check_angles(states, self._unit_pairs)
        return states, context if self.cost_map is None else self.cost_map(states.float())


def _controls(
    options: PlanOptions,
    algorithm: BaseAlgorithm | None,
    wrappers: Sequence[str],
    mpc: MPC,
    actions: spaces.Box,
) -> spaces.Box:
    """The controls that the limits of the action space stand for; the space itself: those."""
    if options.control_scale is not None:
        return control_range(options.control_scale, mpc, actions)
    behind = unscaled_actions(algorithm)
    controls = actions if behind is None or behind == actions else behind
    # the scale of a wrapper in another process is out of reach
    seen = behind is not None or "RescaleAction" not in wrappers
    own = callable(options.mpc) and seen
    (check_own_actions if own else check_actions)(mpc, controls)
    return controls


def _leave_out_bounds(mpc: MPC) -> None:
    """Keep the bounds out of the state dict: they were checked against the spaces, once."""
    bounds = dict(mpc.named_buffers(recurse=False))
    for name in ("control_low", "control_high"):
        if name in bounds:  # a bound that is learned is a parameter
            mpc.register_buffer(name, bounds[name], persistent=False)
