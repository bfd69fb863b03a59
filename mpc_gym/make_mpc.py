"""The controller that plans with an environment's own model."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import gymnasium as gym
import torch
from numpy.typing import ArrayLike
from torch import nn

from mpc_gym.checks import check_option, found, real_tensor
from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.registration import ENTRY_POINTS, make_env
from mpc_gym.envs.spaces import EnvBox
from mpc_gym.known import KNOWN, KnownEnvironment, known_environment
from mpc_gym.models.base import positive_parameters

if TYPE_CHECKING:
    from mpc_gym.mpc import MPC

Learn = str | Sequence[str] | Mapping[str, ArrayLike | None]
GROUPS = ("dynamics", "cost")
MODELS = ("nominal", "true")


@runtime_checkable
class HasModel(Protocol):
    """What an environment has that a controller can plan in: ours, or one of another library.

    A `gymnasium.Env`, or a wrapper of one, that defines these five names. Its observation is the
    model's state, its action the model's control, and its reward minus the cost of the two. Where
    it also has `constraints`, as `MPC` takes them, a plan keeps to these.
    """

    @property
    def dynamics(self) -> nn.Module:
        """As the environment has them: [..., n_state], [..., n_ctrl] -> [..., n_state]."""

    @property
    def cost(self) -> nn.Module:
        """Of a stage: [..., n_state], [..., n_ctrl] -> [...]."""

    @property
    def observation_space(self) -> gym.spaces.Box:
        """Of the state."""

    @property
    def action_space(self) -> gym.spaces.Box:
        """Of the control; a plan keeps within its limits."""

    def nominal_dynamics(self) -> nn.Module:
        """The dynamics as a controller is meant to know them; where that is all, a copy."""


EnvSource = str | gym.Env[Any, Any] | gym.Space[Any] | HasModel


def make_mpc(
    env: EnvSource,
    horizon: int | None = None,
    learn: Learn | None = None,
    model: Literal["nominal", "true"] = "nominal",
    **options: Any,
) -> "MPC":
    """An `MPC` on a fresh copy of an environment's dynamics and cost, within its limits.

    These are the limits of its actions, and its constraints, where it has some: the track of
    `gymnasium.make("DiffCartPole-v0", track=2.4)`.

    Args:
        env: an id ("DiffPendulum-v0"), an environment that has a model (see `HasModel`), wrapped
            or not, or the observation space of one of this package; or the id of an environment of
            another library whose model is written here (`mpc_gym.known.KNOWN`).
        horizon: number of planned time steps; None: what suits the environment, if it is of this
            package or of `KNOWN`, else 20.
        learn: which parameters of dynamics and cost require a gradient. None: all. A name, or a
            sequence of names ("gravity"; "cost.angle_weight" where the dynamics and the cost both
            have one of that name; "dynamics" or "cost" for all of one): only these. A mapping from
            name to initial value: only these, and they start there (None: at the model's own).
        model: "nominal": the dynamics that a controller for this environment is meant to know,
            which are the environment's own except in `DiffPendulumWindy-v0`; "true": the
            environment's own, always.
        **options: for `MPC`, such as `starts=8`, in the place of those of an environment of
            `KNOWN`; `control_low`, `control_high` and `constraints` replace the environment's.

    Raises:
        TypeError: `env` is no id, environment or space.
        ValueError: `env` has no differentiable model, `model` is unknown, `learn` names a
            parameter that does not exist or is ambiguous, or an initial value is impossible or of
            another shape.
    """
    from mpc_gym.mpc import MPC  # which imports Numba

    check_option("model", model, MODELS)
    source = model_of("env", env)
    suited = source.options if isinstance(source, KnownEnvironment) else {}
    if horizon is None:
        # what others call so may be the length of an episode
        said = source if isinstance(source, DiffEnv | KnownEnvironment) else DiffEnv
        horizon = said.horizon
    limits: dict[str, Any] = {
        "control_low": torch.from_numpy(source.action_space.low).double(),
        "control_high": torch.from_numpy(source.action_space.high).double(),
        "constraints": copy.deepcopy(getattr(source, "constraints", None)),
    }
    known = source.nominal_dynamics() if model == "nominal" else source.dynamics
    dynamics, cost = copy.deepcopy(known), copy.deepcopy(source.cost)
    parameters = model_parameters(dynamics, cost)
    learned = _learned(parameters, learn)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in learned)
    if isinstance(learn, Mapping):
        positive = {f"dynamics.{name}" for name in positive_parameters(dynamics)}
        for name, value in zip(learned, learn.values(), strict=True):
            if value is not None:
                _set_initial_value(name, parameters[name], value, name in positive)
    return MPC(dynamics, cost, horizon, **{**limits, **suited, **options})


def model_of(name: str, env: EnvSource) -> HasModel:
    """The environment, or the wrapper around it, that has the model.

    Args:
        name: of the argument that it was given for.
        env: an id, an environment, or the observation space of one of this package.

    Raises:
        TypeError: it is none of these.
        ValueError: it has no model, or spaces that are no `Box`.
    """
    layer: Any = env
    known = known_environment(env)
    if known is not None:
        return known
    if isinstance(env, str):
        layer = make_env(name, env, {})
    elif isinstance(env, EnvBox):
        layer = gym.make(env.env_id, **env.env_kwargs)
    if isinstance(layer, gym.Wrapper):
        # asked through the wrappers, ours takes the parameters that were set on one of them
        layer.has_wrapper_attr("physics")
    while not isinstance(layer, HasModel) and isinstance(layer, gym.Wrapper):
        layer = layer.env
    spec = getattr(layer, "spec", None)
    if not isinstance(layer, HasModel) and spec is not None and spec.id in KNOWN:
        raise ValueError(
            f"{name} must be the id itself, {spec.id!r}, to plan in {found(env)}: the model is of "
            "the environment with its default arguments"
        )
    if not isinstance(layer, HasModel):
        error = ValueError if isinstance(layer, gym.Env | gym.Space) else TypeError
        raise error(
            f"{name} must be the id of an environment with a differentiable model "
            f"({', '.join((*ENTRY_POINTS, *KNOWN))}; or another with dynamics, cost and "
            "nominal_dynamics(), see mpc_gym.make_mpc.HasModel), such an environment or its "
            "observation space, got "
            f"{found(env)}; for any other model build mpc_gym.MPC(dynamics, cost, ...), which a "
            "policy takes as a function that returns it"
        )
    for space in (layer.observation_space, layer.action_space):
        if not isinstance(space, gym.spaces.Box):
            raise ValueError(f"{name} must have spaces that are a Box, got {space}")
    return layer


def model_parameters(dynamics: nn.Module, cost: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model by their full names, such as "dynamics.mass"."""
    return {
        f"{group}.{name}": parameter
        for group, module in zip(GROUPS, (dynamics, cost), strict=True)
        for name, parameter in module.named_parameters()
    }


def _learned(parameters: Mapping[str, nn.Parameter], learn: Learn | None) -> list[str]:
    """The full names of the parameters that `learn` selects, in its order."""
    if learn is None:
        return list(parameters)
    if not isinstance(learn, str | Mapping | list | tuple | set | frozenset):
        raise TypeError(
            "learn must be a parameter's name, a sequence of names, or a mapping from name to "
            f"initial value, got {found(learn)}"
        )
    names = [learn] if isinstance(learn, str) else list(learn)
    groups = () if isinstance(learn, Mapping) else GROUPS
    selected: list[str] = []
    for name in names:
        if name in groups:
            selected += [full for full in parameters if full.startswith(f"{name}.")]
        else:
            selected.append(full_name(parameters, name, parameters))
    return selected


def full_name(parameters: Mapping[str, nn.Parameter], name: str, known: Iterable[str]) -> str:
    """The full name of a parameter that is called "dynamics.mass" or "mass".

    Args:
        parameters: of `model_parameters`.
        name: which it is called by.
        known: the names there are, for the message.

    Raises:
        ValueError: there is no parameter of that name, or one in the dynamics and one in the cost.
    """
    matches = [full for full in parameters if name in (full, full.partition(".")[2])]
    if not matches:
        raise ValueError(f"learn: no parameter {found(name)}; there are {', '.join(known)}")
    if len(matches) > 1:
        raise ValueError(f"learn: {name!r} is ambiguous; say one of {', '.join(matches)}")
    return matches[0]


def _set_initial_value(
    name: str, parameter: nn.Parameter, value: ArrayLike, positive: bool
) -> None:
    initial = real_tensor(f"learn: {name}", value, parameter.dtype)
    if initial.shape != parameter.shape:
        raise ValueError(
            f"learn: {name} has shape {list(parameter.shape)}, got {list(initial.shape)}"
        )
    if not initial.isfinite().all():
        raise ValueError(f"learn: the initial value of {name} must be finite, got {found(value)}")
    if positive and not (initial > 0).all():
        kind = "a positive number" if initial.ndim == 0 else "positive in every entry"
        raise ValueError(f"learn: {name} must be {kind}, got {found(value)}")
    with torch.no_grad():
        parameter.copy_(initial)
