"""A planning policy for a discrete set of actions, for PPO and A2C.

    Q(x, a) = min  l(x, u_a) + l(x_1, u_1) + ... + l(x_{T-1}, u_{T-1}),   x_1 = f(x, u_a)
    pi(a | x) = exp(-Q(x, a) / tau) / sum_b exp(-Q(x, b) / tau)

Q is the optimal cost of all plans that begin with the control u_a of an action, and what follows is
free within the box about the controls of all actions. That the first decision is exact and the
others are relaxed keeps every plan a continuous one: of 2^T sequences none is enumerated, and Q,
which is a lower bound of the cost with discrete actions throughout, has the exact gradient of an
optimal cost. Rounding the first control of a continuous plan would have none, and would choose by
the distance of controls and not by what they cost. The plan is made anew at the next step, so only
first controls are ever carried out.

Of all distributions over the actions, pi has the least expected Q less tau times its entropy. tau
is learned, in units of the cost.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.distributions import CategoricalDistribution, Distribution
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from mpc_gym.checks import found, real_tensor
from mpc_gym.known import known_environment
from mpc_gym.make_mpc import HasModel
from mpc_gym.mpc import MPC, Plan
from mpc_gym.policies.fit import check_observation
from mpc_gym.policies.mpc_policy import MPCPolicy
from mpc_gym.policies.observer import in_float32
from mpc_gym.policies.options import PlanOptions
from mpc_gym.policies.planner import Planner
from mpc_gym.policies.receding_horizon import PlanState


@dataclass(frozen=True)
class Choice:
    """The plans that begin with each action.

    Attributes:
        plans: one for each action.
    """

    plans: Sequence[Plan]

    @property
    def costs(self) -> Float[Tensor, "batch n_actions"]:
        """Q of each action."""
        return torch.stack([plan.cost for plan in self.plans], -1)

    @property
    def cost(self) -> Float[Tensor, " batch"]:
        """Of the best one."""
        return self.costs.min(-1).values


class DiscretePlanner(Planner):
    """Plans that begin with the control of an action each.

    Args:
        options, observation_space: as for `Planner`.
        controls: [n_actions, n_ctrl], of the actions. The MPC's bounds are narrowed to the box
            about them.

    Raises:
        ValueError: see `Planner`.
    """

    def __init__(
        self,
        options: PlanOptions,
        observation_space: spaces.Space[Any],
        controls: Float[Tensor, "n_actions n_ctrl"],
    ) -> None:
        self._hull = controls.min(0).values, controls.max(0).values  # for what is made below
        low, high = (side.numpy() for side in self._hull)
        super().__init__(options, observation_space, spaces.Box(low, high, dtype=np.float64))
        self.register_buffer("_controls", controls, persistent=False)

    def choose(self, observation: PyTorchObs | NDArray[np.floating]) -> Choice:
        """The plans from each observation, with gradients where they are enabled.

        Raises:
            ValueError: see `Planner.plan`.
        """
        states, context = self._start(observation)
        controls = self._controls
        assert isinstance(controls, Tensor)
        plans = []
        for control in controls:
            with self._beginning_with(control):
                plans.append(self.mpc(states, None, context))
        return Choice(plans)

    def controls(self, actions: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch n_ctrl"]:
        """The controls of actions, which are given by their numbers.

        Raises:
            ValueError: they are no numbers of actions.
        """
        table = self._controls
        assert isinstance(table, Tensor)
        numbers = actions[:, 0].long()
        known = (numbers == actions[:, 0]) & (numbers >= 0) & (numbers < len(table))
        if actions.shape[1] != 1 or not bool(known.all()):
            raise ValueError(
                f"actions must be [batch, 1], numbers from 0 to {len(table) - 1}, got "
                f"{list(actions.shape)} with values in [{actions.min():g}, {actions.max():g}]"
            )
        return table[numbers]

    @contextmanager
    def _beginning_with(self, control: Float[Tensor, " n_ctrl"]) -> Iterator[None]:
        """Both bounds of the first control are this one."""
        mpc = self.mpc
        bounds = {"control_low": mpc.control_low, "control_high": mpc.control_high}
        for name, bound in bounds.items():
            stages = bound.expand(mpc.horizon, mpc.n_ctrl).clone()
            stages[0] = control
            mpc.register_buffer(name, stages, persistent=False)  # as the planner keeps them
        try:
            yield
        finally:
            for name, bound in bounds.items():
                mpc.register_buffer(name, bound, persistent=False)

    def _make(self, options: PlanOptions, source: HasModel | None) -> MPC:
        mpc = super()._make(options, source)
        low, high = self._hull
        if low.shape[0] == mpc.n_ctrl:  # or the spaces do not fit, and it is said
            mpc.control_low = torch.maximum(mpc.control_low.double(), low)
            mpc.control_high = torch.minimum(mpc.control_high.double(), high)
        return mpc


class DiscreteMPCPolicy(MPCPolicy):
    """A policy that chooses among the plans that begin with each action, by their optimal costs.

        model = PPO(
            DiscreteMPCPolicy,
            "CartPole-v1",
            policy_kwargs=dict(mpc=my_mpc, state=my_state, controls=[-10.0, 10.0]),
        )
        model = PPO(DiscreteMPCPolicy, "CartPole-v1", policy_kwargs=dict(mpc="CartPole-v1"))

    Its deterministic action is that of the cheapest plan. It solves as many plans as there are
    actions.

    Args:
        observation_space: as for `MPCPolicy`.
        action_space: Discrete.
        lr_schedule: SB3's learning rate schedule.
        controls: the control of each action, [n_actions] where the model has one, or
            [n_actions, n_ctrl]. None: as it is known of the environment that `mpc` names.
        options: those of `MPCPolicy`. `log_std_init` is the logarithm of the initial temperature,
            in units of the cost.

    Raises:
        TypeError, ValueError: see `MPCPolicy`; the action space is not discrete, or `controls` are
            not as many.
    """

    planner: DiscretePlanner

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        controls: ArrayLike | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(action_space, spaces.Discrete):
            raise ValueError(
                f"action_space must be Discrete for DiscreteMPCPolicy, got {action_space}: take "
                "MPCPolicy for continuous actions"
            )
        if controls is None:
            known = known_environment(options.get("mpc"))
            controls = None if known is None else known.controls
        if controls is None:
            raise ValueError(
                "controls must say which control each action is, policy_kwargs=dict(controls=[-10, "
                "10]), unless mpc is the id of an environment with discrete actions that is known "
                f"(mpc_gym.known.KNOWN); mpc is {found(options.get('mpc'))}"
            )
        table = real_tensor("controls", controls, torch.float64)
        if table.ndim not in (1, 2) or len(table) != action_space.n or not table.isfinite().all():
            raise ValueError(
                f"controls must be a finite control for each of {action_space.n} actions, "
                f"[n_actions] or [n_actions, n_ctrl], got {found(controls)}"
            )
        self.controls = table.tolist()
        super().__init__(observation_space, action_space, lr_schedule, **options)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "controls": self.controls}

    def _make_planner(self) -> DiscretePlanner:
        table = torch.tensor(self.controls, dtype=torch.float64)
        return DiscretePlanner(
            self.plan_options, self.observation_space, table.reshape(len(table), -1)
        )

    def _spread_shape(self) -> tuple[int, ...]:
        return ()

    def _plan(self, obs: PyTorchObs) -> Choice:  # type: ignore[override]
        return self.planner.choose(in_float32(obs))

    def _distribution(self, plan: Choice) -> Distribution:  # type: ignore[override]
        logits = -plan.costs / self.log_std.exp()
        return CategoricalDistribution(len(self.controls)).proba_distribution(logits)

    def predict(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        state: PlanState | None = None,  # noqa: ARG002  (each action's plan is solved from nothing)
        episode_start: NDArray[Any] | None = None,  # noqa: ARG002
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], PlanState]:
        """The action at an observation or a batch of them, and an empty recurrent state.

        Raises:
            TypeError, ValueError: see `MPCPolicy.predict`.
        """
        check_observation(observation, self.observation_space)
        if self.training:
            self.set_training_mode(False)
        obs, is_batch = self.obs_to_tensor(observation)
        with torch.no_grad():
            distribution = self._distribution(self._plan(obs))
            actions = distribution.get_actions(deterministic=deterministic).cpu().numpy()
        return (actions if is_batch else actions[0]), ()
