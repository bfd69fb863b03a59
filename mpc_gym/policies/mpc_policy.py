"""A planning policy for SB3's on-policy algorithms (PPO, A2C)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from mpc_gym.checks import check_number, check_option
from mpc_gym.messages import warn
from mpc_gym.mpc import Plan
from mpc_gym.policies.algorithms import calling_algorithm
from mpc_gym.policies.normalization import renormalize
from mpc_gym.policies.observer import StateSource, in_float32
from mpc_gym.policies.options import MPCSource, PlanOptions, check_layers, sb3_options
from mpc_gym.policies.planner import Planner
from mpc_gym.policies.planning_policy import PlanningPolicy

DEFAULT_VALUE_LAYERS = (64, 64)
VALUES = ("network", "plan")


class MPCPolicy(PlanningPolicy, ActorCriticPolicy):
    """A Gaussian policy whose deterministic action is the first control of an optimal plan.

        model = PPO(MPCPolicy, "DiffPendulum-v0")
        model = PPO(MPCPolicy, "Pendulum-v1", policy_kwargs=dict(mpc="DiffPendulum-v0", starts=8))
        model = PPO(MPCPolicy, "Reacher-v5", policy_kwargs=dict(mpc="Reacher-v5"))

    The observation must be the model's state, or `state` says how that follows from it; and the
    action its control, or `control_scale` says what the limits of the action space stand for. Both
    are known of the environments in `mpc_gym.known.KNOWN`. What Gymnasium's `RescaleAction` and
    SB3's `VecNormalize` do is undone. An action space with other limits is refused else, and so are
    observations in other limits than those of the environment whose model is named.

    The mean is a function of the observation alone: each plan is solved from nothing. Where a limit
    of the action space holds the plan's control, the mean lies beyond it (see `limits`), so that it
    has a gradient; the action that is carried out is clipped. Only `predict` plans from the last
    plan, where the caller passes it back (see there).

    Args:
        observation_space: Box, whose flattened observation is the model's state; any other, Dict
            among them, with `state`.
        action_space: Box, in the units of the model's control, or see `control_scale`.
        lr_schedule: SB3's learning rate schedule.
        mpc, learn, state, control_scale, normalized: whose model to plan with, from what, in which
            units, and what is trained: see `PlanOptions`.
        horizon, starts, hessian, tolerance, max_iterations, backend, smoothing: how to plan: see
            `PlanOptions`.
        value: the critic: "network" for SB3's own, or "plan" for minus the plan's optimal cost
            times a learned scale, plus a learned residual that starts at zero. The critic's
            loss does not change the plan.
        net_arch: layers of the value network, a list or a dict with an entry `vf`. An entry `pi`
            is accepted, so that settings for `MlpPolicy` can be used, but the actor has no layers.
            `[dict(...)]`, the form of SB3 before 1.8, is taken with a warning.
        log_std_init: logarithm of the initial standard deviation, in units of the action.
        use_sde: must be False.
        more_options: further arguments of `ActorCriticPolicy`: activation_fn, ortho_init,
            normalize_images, optimizer_class, optimizer_kwargs.

    Raises:
        TypeError: an argument is neither plain data nor importable.
        ValueError: the model does not fit the spaces, an option is not supported, or an algorithm
            other than PPO or A2C makes the policy.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
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
        value: Literal["network", "plan"] = "network",
        net_arch: list[int] | dict[str, list[int]] | None = None,
        log_std_init: float = 0.0,
        use_sde: bool = False,
        **more_options: Any,
    ) -> None:
        check_option("value", value, VALUES)
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
        check_number("log_std_init", log_std_init)
        self.value = value
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=_value_layers(net_arch),
            log_std_init=log_std_init,
            **options,
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "share_features_extractor": self.share_features_extractor,
            "value": self.value,
        }

    def _build(self, lr_schedule: Schedule) -> None:
        self._build_mlp_extractor()
        self.value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, 1)
        if self.ortho_init:
            self.mlp_extractor.apply(lambda layer: self.init_weights(layer, gain=np.sqrt(2)))
            self.init_weights(self.value_net, gain=1)
        if self.value == "plan":
            nn.init.zeros_(self.value_net.weight)
            nn.init.zeros_(self.value_net.bias)
            self.value_scale = nn.Parameter(torch.ones(()))
        self.planner = self._make_planner()
        self.plan_options = self.planner.options
        self._rollout: dict[int, PyTorchObs] = {}
        self.log_std = nn.Parameter(torch.full(self._spread_shape(), float(self.log_std_init)))
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def _make_planner(self) -> Planner:
        return Planner(self.plan_options, self.observation_space, self.action_space)

    def _spread_shape(self) -> tuple[int, ...]:
        return (self.mpc.n_ctrl,)

    def forward(
        self, obs: PyTorchObs, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Actions, their values and log likelihoods, as in `ActorCriticPolicy`."""
        self._keep(obs)
        plan = self._plan(obs)
        distribution = self._distribution(plan)
        actions = distribution.get_actions(deterministic=deterministic)
        log_prob = distribution.log_prob(actions)
        return actions.reshape(-1, *self.action_space.shape), self._values(obs, plan), log_prob  # type: ignore[misc]

    def evaluate_actions(
        self, obs: PyTorchObs, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values, log likelihoods and entropies, as in `ActorCriticPolicy`."""
        plan = self._plan(obs)
        distribution = self._distribution(plan)
        return self._values(obs, plan), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """The Gaussian about each observation's mean."""
        return self._distribution(self._plan(obs))

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """The critic's value of each observation, [batch, 1]."""
        return self._values(obs, self._plan(obs) if self.value == "plan" else None)

    def set_training_mode(self, mode: bool) -> None:
        """See `PlanningPolicy`. Normalised observations of a rollout are brought up to date here.

        Raises:
            ValueError: see `PlanningPolicy`.
        """
        super().set_training_mode(mode)
        algorithm = calling_algorithm("train") if mode and self._rollout else None
        if isinstance(algorithm, OnPolicyAlgorithm):
            envs = algorithm.get_vec_normalize_env()
            assert envs is not None, "there were statistics to undo"
            renormalize(algorithm.rollout_buffer, self._rollout, envs)
        self._rollout = {}

    def _keep(self, obs: PyTorchObs) -> None:
        """Remember the observations of a rollout as the environment gave them."""
        normalization = self.planner.observer.normalization
        algorithm = None if normalization is None else calling_algorithm("collect_rollouts")
        if normalization is not None and isinstance(algorithm, OnPolicyAlgorithm):
            # a callback that asks for more at the same position comes after the algorithm
            self._rollout.setdefault(algorithm.rollout_buffer.pos, normalization(obs))

    def _act(self, obs: PyTorchObs, plan: Plan) -> Tensor:  # noqa: ARG002  (the spread is the same everywhere)
        return self._distribution(plan).sample()

    def _plan(self, obs: PyTorchObs) -> Plan:
        return self.plan(in_float32(obs), unclamped=True)

    def _distribution(self, plan: Plan) -> Distribution:
        limits = self.planner.action_limits
        mean = limits.action(limits.gaussian_mean(plan))
        # a new one: PyTorch does not copy a policy that holds on to the graph of its last mean
        return DiagGaussianDistribution(self.mpc.n_ctrl).proba_distribution(mean, self.log_std)

    def _values(self, obs: PyTorchObs, plan: Plan | None) -> Tensor:
        features = BasePolicy.extract_features(self, obs, self.vf_features_extractor)
        assert isinstance(features, Tensor)
        values: Tensor = self.value_net(self.mlp_extractor.forward_critic(features))
        if self.value == "plan":
            assert plan is not None
            values = values - self.value_scale * plan.cost.detach().unsqueeze(-1)
        return values


def _value_layers(net_arch: object) -> dict[str, list[int]]:
    """The layers of the value network.

    Raises:
        TypeError, ValueError: see `check_layers`.
    """
    layers = DEFAULT_VALUE_LAYERS if net_arch is None else net_arch
    if isinstance(layers, Sequence) and layers and isinstance(layers[0], Mapping):
        warn(
            "net_arch=[dict(pi=..., vf=...)] is the form of SB3 before 1.8: pass the dict itself, "
            "net_arch=dict(pi=..., vf=...)",
        )
        layers = layers[0]
    check_layers(layers)
    if isinstance(layers, Mapping):
        layers = layers.get("vf", [])
    return {"pi": [], "vf": [*layers] if isinstance(layers, Sequence) else []}
