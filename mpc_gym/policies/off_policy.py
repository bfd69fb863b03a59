"""Planning policies for SB3's off-policy algorithms: SAC, and TD3 and DDPG.

Their actors act in [-1, 1], the units of the replay buffer; `limits` says how a plan at a bound
keeps its gradient there. Critics, target networks and exploration are SB3's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gymnasium import spaces
from jaxtyping import Float
from numpy.typing import ArrayLike
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac import policies as sac
from stable_baselines3.td3 import policies as td3
from torch import Tensor

from mpc_gym.mpc import Plan
from mpc_gym.policies.functions import save_with_functions
from mpc_gym.policies.observer import StateSource, in_float32
from mpc_gym.policies.options import MPCSource, PlanOptions, sb3_options
from mpc_gym.policies.planner import Planner
from mpc_gym.policies.planning_policy import PlanningPolicy


class PlanningActor(BasePolicy):
    """An actor of SB3's, the next class among the bases, with a plan in the place of its mean.

    Args:
        plan_options: how the plan is made.
        arguments: those of SB3's actor.

    Attributes:
        planner: the module that plans.
        plan_options: as given.
    """

    def __init__(self, *, plan_options: PlanOptions, **arguments: Any) -> None:
        super().__init__(**arguments)
        del self.mu  # the plan takes its place
        self.planner = Planner(plan_options, self.observation_space, self.action_space)
        self.plan_options = self.planner.options

    def sample(
        self,
        obs: PyTorchObs,  # noqa: ARG002  (the algorithm adds its noise)
        plan: Plan,
    ) -> Float[Tensor, "batch n_ctrl"]:
        """An action to explore by."""
        return self.planner.action_limits.action(plan.controls[:, 0])

    def save(self, path: str | Path) -> None:
        """See `save_with_functions`."""
        save_with_functions(self, path)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "plan_options": self.plan_options}

    def _plan(self, obs: PyTorchObs) -> Plan:
        return self.planner.plan(in_float32(obs), unclamped=True)


class SACMPCActor(PlanningActor, sac.Actor):
    """A squashed Gaussian about the first control of a plan, with a network for its spread.

    Its `net_arch` are the layers of the network that gives the standard deviation.
    """

    def get_action_dist_params(self, obs: PyTorchObs) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Mean before tanh, logarithm of the standard deviation, and nothing else."""
        mean = self.planner.action_limits.squashed_mean(self._plan(obs))
        return mean, self.log_spread(obs), {}

    def log_spread(self, obs: PyTorchObs) -> Tensor:
        """Logarithm of the standard deviation before tanh, [batch, n_ctrl]."""
        latent = self.latent_pi(self.extract_features(obs, self.features_extractor))
        log_std: Tensor = self.log_std(latent)  # type: ignore[operator]
        return log_std.clamp(sac.LOG_STD_MIN, sac.LOG_STD_MAX)

    def sample(self, obs: PyTorchObs, plan: Plan) -> Float[Tensor, "batch n_ctrl"]:
        """A random action about a plan."""
        limits = self.planner.action_limits
        mean, log_std = limits.squashed_mean(plan), self.log_spread(obs)
        distribution = self.action_dist.proba_distribution(mean, log_std)  # type: ignore[call-arg]
        return limits.action(limits.unscaled(distribution.sample()))

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Actions in [-1, 1]; the deterministic one is the plan's control."""
        if deterministic:
            return self.planner.action_limits.squashed_action(self._plan(obs))
        return super().forward(obs)


class TD3MPCActor(PlanningActor, td3.Actor):
    """The first control of a plan, scaled to [-1, 1]. `net_arch` and `activation_fn` do nothing."""

    def forward(self, obs: PyTorchObs) -> Tensor:
        """Actions in [-1, 1]."""
        return self.planner.action_limits.squashed_action(self._plan(obs))


class OffPolicyMPCPolicy(PlanningPolicy):
    """What the planning policies for off-policy algorithms have in common.

    Args:
        observation_space: Box, whose flattened observation is the model's state; any other, Dict
            among them, with `state`.
        action_space: Box with finite bounds, in the units of the model's control, or see
            `control_scale`.
        lr_schedule: SB3's learning rate schedule.
        mpc, learn, state, control_scale, normalized: whose model to plan with, from what, in which
            units, and what is trained: see `PlanOptions`.
        horizon, starts, hessian, tolerance, max_iterations, backend, smoothing: how to plan: see
            `PlanOptions`.
        use_sde: must be False.
        more_options: further arguments of SB3's policy, such as net_arch and n_critics.

    Raises:
        TypeError: an argument is neither plain data nor importable.
        ValueError: the model does not fit the spaces, or an option is not supported.
    """

    actor: PlanningActor
    actor_class: type[PlanningActor]

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        *,
        mpc: MPCSource = None,
        horizon: int | None = None,
        learn: str | Sequence[str] | Mapping[str, float | None] | None = None,
        starts: int | None = None,
        hessian: str | None = None,
        tolerance: float | None = None,
        max_iterations: int | None = None,
        backend: str | None = None,
        smoothing: float | None = None,
        state: StateSource = None,
        control_scale: tuple[ArrayLike, ArrayLike] | None = None,
        normalized: bool | None = None,
        use_sde: bool = False,
        **more_options: Any,
    ) -> None:
        self.plan_options = PlanOptions(
            mpc,
            horizon,
            learn,
            starts,
            hessian,
            tolerance,
            max_iterations,
            backend,
            smoothing,
            state,
            control_scale,
            normalized,
        )
        observed = self.plan_options.completed().state
        options = sb3_options(use_sde, more_options, observation_space, observed)
        # the next class is SB3's policy, whose third argument is the schedule
        super().__init__(observation_space, action_space, lr_schedule, **options)

    @property
    def planner(self) -> Planner:  # type: ignore[override]
        """The actor's."""
        return self.actor.planner

    # Any: each of SB3's policies has a class of its own for what it returns
    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """A new actor."""
        sb3: dict[str, Any] = self._update_features_extractor(self.actor_kwargs, features_extractor)  # type: ignore[arg-type]
        actor = self.actor_class(**sb3, plan_options=self.plan_options).to(self.device)
        self.plan_options = actor.plan_options
        return actor

    def _act(self, obs: PyTorchObs, plan: Plan) -> Tensor:
        return self.actor.sample(obs, plan)


class SACMPCPolicy(OffPolicyMPCPolicy, sac.SACPolicy):
    """A planning policy for SAC: the arguments are those of `OffPolicyMPCPolicy`.

        model = SAC(SACMPCPolicy, "DiffPendulum-v0")

    The actor's layers in `net_arch` give the standard deviation of its squashed Gaussian.
    """

    actor: SACMPCActor
    actor_class = SACMPCActor


class TD3MPCPolicy(OffPolicyMPCPolicy, td3.TD3Policy):
    """A planning policy for TD3 and DDPG: the arguments are those of `OffPolicyMPCPolicy`.

        model = TD3(TD3MPCPolicy, "DiffPendulum-v0")

    The actor has no layers: `net_arch` is for the critics.
    """

    actor: TD3MPCActor
    actor_target: TD3MPCActor
    actor_class = TD3MPCActor
