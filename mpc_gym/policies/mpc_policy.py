"""A planning policy for SB3's on-policy algorithms (PPO, A2C)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from numpy.typing import NDArray
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.make_mpc import make_mpc
from mpc_gym.envs.spaces import EnvBox
from mpc_gym.mpc import MPC, Plan
from mpc_gym.policies.arguments import check_call, check_importable, check_plain_data
from mpc_gym.policies.observations import check_angle, check_array, check_finite
from mpc_gym.policies.receding_horizon import PlanState, carry, warm_start

MPCSource = str | Callable[..., MPC] | None

DEFAULT_VALUE_LAYERS = (64, 64)


class MPCPolicy(ActorCriticPolicy):
    """A Gaussian policy whose mean is the first control of an optimal plan.

        model = PPO(MPCPolicy, "DiffPendulum-v0")
        model = PPO(MPCPolicy, "Pendulum-v1", policy_kwargs=dict(mpc="DiffPendulum-v0", starts=8))

    The observation must be the model's state: normalised ones (SB3's `VecNormalize`) are refused
    where the model is an environment's. To normalise rewards alone is well.

    The mean is a function of the observation alone: each plan is solved from nothing. Only
    `predict` plans from the last plan, where the caller passes it back (see there).

    Args:
        observation_space: Box, whose flattened observation is the model's state.
        action_space: Box, in the units of the model's control.
        lr_schedule: SB3's learning rate schedule.
        mpc: whose model to plan with: an environment's id; an importable function (or class) that
            returns an `MPC`; None for the environment that the observation space belongs to.
        horizon, learn: options of `make_mpc`: the plan's length in time steps; which parameters are
            trained, and from which values.
        starts, hessian, tolerance, max_iterations, backend: options of `MPC`.
            An option that is None is left at its default. Where `mpc` is a function, the options
            that are given are its keyword arguments.
        net_arch: layers of the value network, a list or a dict with an entry `vf`. An entry `pi`
            is accepted, so that settings for `MlpPolicy` can be used, but the actor has no layers.
        log_std_init: logarithm of the initial standard deviation, in units of the action.
        use_sde: must be False.
        sb3_options: further arguments of `ActorCriticPolicy`: activation_fn, ortho_init,
            normalize_images, optimizer_class, optimizer_kwargs.

    Raises:
        TypeError: an argument is neither plain data nor importable.
        ValueError: the model does not fit the spaces, or an option is not supported.
    """

    action_dist: DiagGaussianDistribution

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        mpc: MPCSource = None,
        horizon: int | None = None,
        learn: Sequence[str] | Mapping[str, float] | None = None,
        starts: int | None = None,
        hessian: str | None = None,
        tolerance: float | None = None,
        max_iterations: int | None = None,
        backend: str | None = None,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        log_std_init: float = 0.0,
        use_sde: bool = False,
        **sb3_options: Any,
    ) -> None:
        if use_sde:
            raise ValueError(
                "use_sde=True is not supported: the plan is no linear layer whose weights could "
                "be perturbed. Leave use_sde at False"
            )
        if sb3_options.get("features_extractor_class", FlattenExtractor) is not FlattenExtractor:
            raise ValueError(
                "features_extractor_class must be FlattenExtractor, got "
                f"{sb3_options['features_extractor_class']}: the plan starts from the observation"
            )
        options = {
            "horizon": horizon,
            "learn": learn,
            "starts": starts,
            "hessian": hessian,
            "tolerance": tolerance,
            "max_iterations": max_iterations,
            "backend": backend,
        }
        _check_arguments(mpc, options)
        self.mpc_source = mpc
        self.mpc_options = options
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=_value_layers(net_arch),
            log_std_init=log_std_init,
            **sb3_options,
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "share_features_extractor": self.share_features_extractor,
            "mpc": self.mpc_source,
            **self.mpc_options,
        }

    def _build(self, lr_schedule: Schedule) -> None:
        self._build_mlp_extractor()
        self.value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, 1)
        if self.ortho_init:
            self.mlp_extractor.apply(lambda layer: self.init_weights(layer, gain=np.sqrt(2)))
            self.init_weights(self.value_net, gain=1)
        self.mpc = self._make_mpc()
        self.log_std = nn.Parameter(torch.full((self.mpc.n_ctrl,), float(self.log_std_init)))
        _check_spaces(self.mpc, self.observation_space, self.action_space)
        self._cosine_index = _cosine_index(self.mpc_source, self.observation_space)
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def _make_mpc(self) -> MPC:
        options = {name: value for name, value in self.mpc_options.items() if value is not None}
        if callable(self.mpc_source):
            check_call(self.mpc_source, options)
            mpc = self.mpc_source(**options)
            if not isinstance(mpc, MPC):
                raise TypeError(
                    f"mpc={self.mpc_source.__qualname__} must return an MPC, "
                    f"got {type(mpc).__name__}"
                )
            return mpc
        return make_mpc(self.mpc_source or self.observation_space, **options)  # type: ignore[arg-type]

    def plan(
        self,
        observation: Float[Tensor, "batch *observation"] | NDArray[np.floating],
        warm_start: Float[Tensor, "batch horizon n_ctrl"] | None = None,
    ) -> Plan:
        """The optimal plan from each observation, with gradients where they are enabled.

        Args:
            observation: a batch.
            warm_start: the solver's first guess; None for zero.

        Raises:
            ValueError: the observation is not finite or was normalised, or a shape does not fit.
        """
        observation = torch.as_tensor(observation, device=self.device).flatten(1)
        check_finite(observation)
        if self._cosine_index is not None:
            check_angle(observation, self._cosine_index)
        return self.mpc(observation, warm_start)  # type: ignore[no-any-return]

    def predict(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        state: PlanState | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.floating], PlanState]:
        """The action at an observation or a batch of them, and the recurrent state.

        With `state=None` each plan is solved from nothing, as in training. With the state that
        the last call returned, it is solved from the last plan, which takes fewer iterations and
        stays in the local optimum once chosen. `evaluate_policy` passes the state back.

        Args:
            observation: an array as the observation space, with or without a leading batch
                dimension. (That it may be a dict is SB3's signature; it is refused.)
            state: a tuple of one array [n_env, horizon, n_ctrl].
            episode_start: [n_env], true where an episode begins: its plan is forgotten.
            deterministic: the mean instead of a sample.

        Returns:
            Actions within the action space's bounds, and the state for the next call.

        Raises:
            TypeError: the observation is a dict.
            ValueError: the observation is not finite or was normalised, or a shape does not fit.
        """
        check_array(observation)
        self.set_training_mode(False)
        obs, is_batch = self.obs_to_tensor(observation)
        assert isinstance(obs, Tensor), "the constructor admits Box observations only"
        with torch.no_grad():
            plan = self.plan(obs.float(), warm_start(self.mpc, len(obs), state, episode_start))
            distribution = self.action_dist.proba_distribution(plan.controls[:, 0], self.log_std)
            actions = distribution.get_actions(deterministic=deterministic).cpu().numpy()
        space = self.action_space
        assert isinstance(space, spaces.Box)
        actions = np.clip(actions.reshape(-1, *space.shape), space.low, space.high)
        return (actions if is_batch else actions[0]), carry(plan)

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        # The actor has no features and no layers, so its latent is the flattened observation.
        mean = self.plan(latent_pi).controls[:, 0]
        return self.action_dist.proba_distribution(mean, self.log_std)

    def load_from_vector(self, vector: NDArray[np.floating]) -> None:
        """Set the parameters from `parameters_to_vector`, each in its own dtype.

        SB3's own would turn the physical parameters into float32.
        """
        values = torch.as_tensor(vector, dtype=torch.float64, device=self.device)
        parameters = list(self.parameters())
        chunks = torch.split(values, [parameter.numel() for parameter in parameters])
        with torch.no_grad():
            for parameter, chunk in zip(parameters, chunks, strict=True):
                parameter.copy_(chunk.view_as(parameter))


def _cosine_index(source: MPCSource, observation_space: spaces.Space[Any]) -> int | None:
    """Where the observation has its angle's cosine, before the sine; None for a user's model."""
    if callable(source):
        return None
    if source is not None:
        env = gym.make(source)
    else:
        assert isinstance(observation_space, EnvBox), "make_mpc admits no other"
        env = gym.make(observation_space.env_id, **observation_space.env_kwargs)
    model = env.unwrapped
    assert isinstance(model, DiffEnv), "make_mpc admits no other"
    return model.cosine_index


def _check_arguments(mpc: MPCSource, options: Mapping[str, object]) -> None:
    if isinstance(mpc, nn.Module) or not (mpc is None or isinstance(mpc, str) or callable(mpc)):
        raise TypeError(
            "mpc must be an environment's id, an importable function that returns an MPC, or "
            f"None, got {type(mpc).__name__}: a policy is saved as its arguments, and must be "
            "able to make its MPC anew"
        )
    if callable(mpc):
        check_importable("mpc", mpc)
    for name, value in options.items():
        check_plain_data(name, value)


def _value_layers(net_arch: list[int] | dict[str, list[int]] | None) -> dict[str, list[int]]:
    if net_arch is None:
        net_arch = list(DEFAULT_VALUE_LAYERS)
    layers = net_arch.get("vf", []) if isinstance(net_arch, dict) else net_arch
    return {"pi": [], "vf": list(layers)}


def _check_spaces(
    mpc: MPC, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> None:
    for name, space, size, meaning in (
        ("observation_space", observation_space, mpc.n_state, "states"),
        ("action_space", action_space, mpc.n_ctrl, "controls"),
    ):
        # n_state is None for a model that takes any state
        if not isinstance(space, spaces.Box) or size not in (None, spaces.flatdim(space)):
            raise ValueError(
                f"{name} must be a Box of {size} numbers, the {meaning} of the MPC's model, got "
                f"{space}. Choose another model with policy_kwargs=dict(mpc=...)"
            )
    assert isinstance(action_space, spaces.Box)
    low, high = _limits(mpc)
    slack = 1e-6 * np.maximum(1.0, np.abs(low) + np.abs(high))  # spaces are float32
    slack = np.where(np.isfinite(slack), slack, 0.0)
    if np.any(low < action_space.low.ravel() - slack) or np.any(
        high > action_space.high.ravel() + slack
    ):
        raise ValueError(
            "the MPC's control bounds must lie within the action space: it plans with controls in "
            f"[{low}, {high}], the environment takes [{action_space.low}, {action_space.high}]. "
            "Set control_low and control_high of the MPC"
        )


def _limits(mpc: MPC) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The widest bounds over the horizon, each [n_ctrl]."""
    shape = (mpc.horizon, mpc.n_ctrl)
    low = mpc.control_low.detach().expand(shape).cpu().numpy().min(0)
    high = mpc.control_high.detach().expand(shape).cpu().numpy().max(0)
    return low, high
