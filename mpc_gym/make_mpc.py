"""The controller that plans with an environment's own model."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym
import torch
from numpy.typing import ArrayLike
from torch import nn

from mpc_gym.checks import check_option, found, real_tensor
from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.registration import ENTRY_POINTS, make_env
from mpc_gym.envs.spaces import EnvBox
from mpc_gym.mpc import MPC

Learn = str | Sequence[str] | Mapping[str, ArrayLike | None]
GROUPS = ("dynamics", "cost")
MODELS = ("nominal", "true")


def make_mpc(
    env: str | gym.Env[Any, Any] | gym.Space[Any],
    horizon: int = 20,
    learn: Learn | None = None,
    model: Literal["nominal", "true"] = "nominal",
    **options: Any,
) -> MPC:
    """An `MPC` on a fresh copy of an environment's dynamics and cost, within its action limits.

    Args:
        env: an id ("DiffPendulum-v0"), an environment of this package, wrapped or not, or the
            observation space of one.
        horizon: number of planned time steps.
        learn: which parameters of dynamics and cost require a gradient. None: all. A name, or a
            sequence of names ("gravity"; "cost.angle_weight" where the dynamics and the cost both
            have one of that name; "dynamics" or "cost" for all of one): only these. A mapping from
            name to initial value: only these, and they start there (None: at the model's own).
        model: "nominal": the dynamics that a controller for this environment is meant to know,
            which are the environment's own except in `DiffPendulumWindy-v0`; "true": the
            environment's own, always.
        **options: for `MPC`, such as `starts=8`; `control_low` and `control_high` replace the
            environment's limits.

    Raises:
        TypeError: `env` is no id, environment or space.
        ValueError: `env` has no differentiable model, `model` is unknown, `learn` names a
            parameter that does not exist or is ambiguous, or an initial value is impossible or of
            another shape.
    """
    check_option("model", model, MODELS)
    source = _environment(env)
    limits: dict[str, Any] = {
        "control_low": torch.from_numpy(source.action_space.low).double(),
        "control_high": torch.from_numpy(source.action_space.high).double(),
    }
    dynamics = source.nominal_dynamics() if model == "nominal" else copy.deepcopy(source.dynamics)
    cost = copy.deepcopy(source.cost)
    parameters = {
        f"{group}.{name}": parameter
        for group, module in zip(GROUPS, (dynamics, cost), strict=True)
        for name, parameter in module.named_parameters()
    }
    learned = _learned(parameters, learn)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in learned)
    if isinstance(learn, Mapping):
        given = zip(learned, learn.values(), strict=True)
        starts = {name: value for name, value in given if value is not None}
        for name, value in starts.items():
            _set_start(name, parameters[name], value)
        _check_physics(source, starts)
    return MPC(dynamics, cost, horizon, **{**limits, **options})


def _environment(env: str | gym.Env[Any, Any] | gym.Space[Any]) -> DiffEnv:
    if isinstance(env, str):
        env = make_env("env", env, {})
    elif isinstance(env, EnvBox):
        env = gym.make(env.env_id, **env.env_kwargs)
    if isinstance(env, gym.Env) and isinstance(env.unwrapped, DiffEnv):
        # through the wrappers, so that it takes the parameters that were set on one of them
        env.get_wrapper_attr("physics")
        return env.unwrapped
    message = (
        "env must be the id of an environment with a differentiable model "
        f"({', '.join(ENTRY_POINTS)}), such an environment or its observation space, got "
        f"{found(env)}; for another model build mpc_gym.MPC(dynamics, cost, ...)"
    )
    error = ValueError if isinstance(env, gym.Env | gym.Space) else TypeError
    raise error(message)


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
            selected.append(_full_name(parameters, name))
    return selected


def _full_name(parameters: Mapping[str, nn.Parameter], name: str) -> str:
    matches = [full for full in parameters if name in (full, full.partition(".")[2])]
    if not matches:
        raise ValueError(f"learn: no parameter {found(name)}; there are {', '.join(parameters)}")
    if len(matches) > 1:
        raise ValueError(f"learn: {name!r} is ambiguous; say one of {', '.join(matches)}")
    return matches[0]


def _set_start(name: str, parameter: nn.Parameter, value: ArrayLike) -> None:
    start = real_tensor(f"learn: {name}", value, parameter.dtype)
    if start.shape != parameter.shape:
        raise ValueError(
            f"learn: {name} has shape {list(parameter.shape)}, got {list(start.shape)}"
        )
    if not start.isfinite().all():
        raise ValueError(f"learn: the initial value of {name} must be finite, got {found(value)}")
    with torch.no_grad():
        parameter.copy_(start)


def _check_physics(source: DiffEnv, starts: Mapping[str, ArrayLike]) -> None:
    """Build the environment with these values, which refuses what is impossible (a mass of -1)."""
    known = source.observation_space.env_kwargs
    changed = {name.partition(".")[2]: start for name, start in starts.items()}
    try:
        type(source)(**{**known, **{name: changed[name] for name in changed if name in known}})
    except ValueError as error:
        raise ValueError(f"learn: {error}") from error
