"""A policy's constructor arguments and spaces as strict JSON, and back.

A file that a stranger made is read here, so nothing in it names what is imported or called. Classes
are looked up in a table, an environment among those that are registered, and a function is never
looked up at all: its name is kept for the reader.

What JSON lacks is an object with one key: {"$float": "inf"}, {"$tuple": [...]},
{"$function": "package.module.name"}.

A config of a few lines can ask for a plan of 10**18 steps, or for a network that fills the memory.
A network can be no larger than its weights, which are in the file beside; for the rest there are
limits that no policy in use comes near (`check_demand`).
"""

import math
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from torch import Tensor, nn, optim

from mpc_gym.envs.spaces import EnvBox
from mpc_gym.known import known_environment

BOX_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")
LARGEST = {"horizon": 10_000, "starts": 10_000, "max_iterations": 1_000_000}
MAX_MATRIX = 2**28  # from every observation to every action

POLICY_MODULES = {
    "MPCPolicy": "mpc_gym.policies",
    "SACMPCPolicy": "mpc_gym.policies",
    "TD3MPCPolicy": "mpc_gym.policies",
    "TQCMPCPolicy": "mpc_gym.policies",
    "LSTMPolicy": "mpc_gym.policies",
    "ActorCriticPolicy": "stable_baselines3.common.policies",
    "SACPolicy": "stable_baselines3.sac.policies",
    "TD3Policy": "stable_baselines3.td3.policies",
}
"""Where the classes are that a folder may name; the file has no say in it."""

CLASSES: dict[str, tuple[type, ...]] = {
    "activation_fn": (
        nn.ELU,
        nn.GELU,
        nn.Identity,
        nn.LeakyReLU,
        nn.Mish,
        nn.ReLU,
        nn.Sigmoid,
        nn.SiLU,
        nn.Softplus,
        nn.Softsign,
        nn.Tanh,
    ),
    "optimizer_class": (
        optim.Adagrad,
        optim.Adam,
        optim.Adamax,
        optim.AdamW,
        optim.NAdam,
        optim.RAdam,
        optim.RMSprop,
        optim.SGD,
        RMSpropTFLike,
    ),
    "features_extractor_class": (FlattenExtractor, CombinedExtractor),
}
"""What an argument that is a class may be, by the argument's name."""

FUNCTIONS = {"mpc": "MPC is made by", "state": "states come from"}
"""What an argument that may be a function does, by the argument's name."""


def encode_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments, without the spaces and the schedule, as JSON.

    Raises:
        TypeError: an argument is neither plain data nor a class that can be named.
        ValueError: `mpc` is the id of no registered environment with a model.
    """
    return {name: _encode_argument(name, value) for name, value in arguments.items()}


def decode_arguments(
    data: object,
    mpc: str | Callable[..., Any] | None = None,
    state: Callable[..., Any] | None = None,
) -> dict[str, Any]:
    """What `encode_arguments` wrote.

    Args:
        data: from a file that anybody may have made.
        mpc, state: take the place of the arguments of these names.

    Raises:
        ValueError: the data are damaged, a class is not in the table, an environment is not
            registered, or `mpc` or `state` is needed or of no use.
    """
    if not isinstance(data, dict):
        raise ValueError(f"arguments must be an object, got {excerpt(data)}")
    given = {name: value for name, value in (("mpc", mpc), ("state", state)) if value is not None}
    for name in given:
        if "mpc" not in data:
            raise ValueError(f"{name} is an option of planning policies only; this one has no plan")
    read = {name: _decode_argument(name, each) for name, each in data.items() if name not in given}
    return {**read, **given}


def encode_space(name: str, space: gym.Space[Any]) -> dict[str, Any]:
    """A `Box` or an `EnvBox`, or a `Dict` of such, as JSON.

    Raises:
        TypeError: it is another kind of space.
    """
    if isinstance(space, gym.spaces.Dict):
        parts = {key: _encode_box(f"{name}[{key!r}]", part) for key, part in space.items()}
        # the size of the network that SB3 makes for a picture is not bounded by `check_demand`
        for key, part in space.items():
            if is_image_space(part):
                raise TypeError(f"{name} must hold no pictures to be saved, got {key!r}: {part}")
        return {"type": "Dict", "spaces": parts}
    return _encode_box(name, space)


def _encode_box(name: str, space: gym.Space[Any]) -> dict[str, Any]:
    if type(space) not in (gym.spaces.Box, EnvBox):
        raise TypeError(f"{name} must be a Box to be saved, got {space}")
    assert isinstance(space, gym.spaces.Box)
    data = {
        "type": type(space).__name__,
        "shape": list(space.shape),
        "dtype": str(space.dtype),
        "low": encode(name, space.low.ravel().tolist()),
        "high": encode(name, space.high.ravel().tolist()),
    }
    if isinstance(space, EnvBox):
        check_env_id(f"{name}.env_id", space.env_id)
        data["env_id"] = space.env_id
        data["env_kwargs"] = encode(f"{name}.env_kwargs", space.env_kwargs)
    return data


def decode_space(name: str, data: object) -> gym.Space[Any]:
    """What `encode_space` wrote.

    Raises:
        ValueError: the data are damaged, or the environment is not registered.
    """
    try:
        if isinstance(data, dict) and data["type"] == "Dict":
            # no further: what is deeper was not written
            parts: dict[str, gym.Space[Any]] = {
                key: _read_space(name, part) for key, part in data["spaces"].items()
            }
            if any(map(is_image_space, parts.values())):
                raise _no_box(name, data)
            return gym.spaces.Dict(parts)
        return _read_space(name, data)
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise _no_box(name, data) from error


def check_env_id(name: str, env_id: object) -> None:
    """Refuse what is not registered here as an environment with a differentiable model.

    `gymnasium.make` imports the module before a colon, and hands its keyword arguments to whatever
    is registered, so a name from a file must not reach it unchecked.

    Raises:
        ValueError: it is not registered, or has no model.
    """
    spec = gym.registry.get(env_id) if isinstance(env_id, str) else None
    if spec is None:
        raise ValueError(
            f"{name} must be the id of a registered environment, with its version and without a "
            f"module before it, got {excerpt(env_id)}. If it is a package's, and you trust that "
            "package, import it first"
        )
    maker: object = spec.entry_point
    if isinstance(maker, str):
        # so that a file cannot choose which of the installed packages runs its code for importing
        known = maker.partition(":")[0]
        maker = load_env_creator(maker) if _is_trusted(known) else None
    # of the five names of `HasModel`, the one that a class has before there is an environment
    if not (isinstance(maker, type) and hasattr(maker, "nominal_dynamics")):
        raise ValueError(
            f"{name} must be an environment with a differentiable model (as make_mpc.HasModel "
            f"says), of this package or of one that has been imported, got {env_id!r}"
        )


def check_demand(arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse arguments that ask for more than a policy with these tensors can have.

    Args:
        arguments: of a policy's constructor, the spaces among them.
        tensors: its state dict.

    Raises:
        ValueError: an argument is too large; it names which.
    """
    for name, limit in LARGEST.items():
        value = arguments.get(name)
        if isinstance(value, (int, float)) and value > limit:
            raise ValueError(f"{name} must be at most {limit} in a saved policy, got {value}")
    elements = sum(tensor.numel() for tensor in tensors.values())
    n_obs, n_act = (
        gym.spaces.flatdim(arguments[name]) for name in ("observation_space", "action_space")
    )
    if n_obs * n_act > MAX_MATRIX:
        raise ValueError(f"{n_obs} observations by {n_act} actions are more than can be loaded")
    quantiles, hidden = (_count(arguments.get(name)) for name in ("n_quantiles", "hidden"))
    needed = {
        "n_critics": _count(arguments.get("n_critics")),
        "hidden": 4 * hidden * (hidden + n_obs) if hidden else 0,
        "n_quantiles": quantiles,
    }
    for name, widths in _networks(arguments.get("net_arch")):
        end = {"net_arch": max(n_act, quantiles), "pi": n_act, "qf": quantiles}.get(name, 1)
        needed[name] = sum(a * b for a, b in pairwise([n_obs, *widths, end])) if widths else 0
    for name, count in needed.items():
        if count > elements:
            raise ValueError(
                f"{name} asks for a network of at least {count} numbers, and the saved weights are "
                f"{elements}"
            )


def _is_trusted(module: str) -> bool:
    return module in sys.modules or module.partition(".")[0] == "mpc_gym"


def encode(name: str, value: object) -> Any:
    """Plain data as strict JSON.

    Raises:
        TypeError: it, or something inside it, is another kind of object.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, (list, tuple)):
        items = [encode(f"{name}[{i}]", item) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key.startswith("$"):
                raise TypeError(
                    f"{name} has the key {key!r}: only text that does not begin with '$' is saved"
                )
        return {key: encode(f"{name}[{key!r}]", item) for key, item in value.items()}
    raise TypeError(
        f"{name} must be plain data (a number, a text, or a list, tuple or dict of them) to be "
        f"saved, got {type(value).__name__}"
    )


def decode(data: Any) -> Any:
    """What `encode` wrote.

    Raises:
        ValueError: an object with a key that begins with "$" is none of those that it writes.
    """
    if isinstance(data, list):
        return [decode(item) for item in data]
    if not isinstance(data, dict):
        return data
    match data:
        case {"$float": "inf" | "-inf" | "nan" as number, **others} if not others:
            return float(number)
        case {"$tuple": list() as items, **others} if not others:
            return tuple(decode(item) for item in items)
    if any(key.startswith("$") for key in data):
        raise ValueError(f"no value is written as {excerpt(data)}")
    return {key: decode(item) for key, item in data.items()}


def excerpt(data: object) -> str:
    """What was found, for an error's message."""
    text = repr(data)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _encode_argument(name: str, value: Any) -> Any:
    if name in CLASSES:
        for known in CLASSES[name]:
            if known is value:
                return known.__name__
        raise TypeError(f"{name} must be one of {_names(name)} to be saved, got {value!r}")
    if name in FUNCTIONS and callable(value):
        return {"$function": f"{value.__module__}.{value.__qualname__}"}
    if name == "mpc" and isinstance(value, str):
        if known_environment(value) is not None:  # whose model is this package's
            return value
        env_id = value.rpartition(":")[2]  # "module:id" imports the module
        check_env_id(name, env_id)
        return env_id
    return encode(name, value)


def _decode_argument(name: str, data: Any) -> Any:
    if name in CLASSES:
        for known in CLASSES[name]:
            if known.__name__ == data:
                return known
        raise ValueError(f"{name} must be one of {_names(name)}, got {excerpt(data)}")
    if name in FUNCTIONS and isinstance(data, dict):
        raise ValueError(
            f"the policy's {FUNCTIONS[name]} the function {excerpt(data.get('$function'))}. No "
            "code is looked up by a name in a file: bring that function (import it, or define it "
            f"again) and pass it as {name}="
        )
    if name == "mpc" and data is not None and known_environment(data) is None:
        check_env_id(name, data)
    return decode(data)


def _names(argument: str) -> str:
    return ", ".join(known.__name__ for known in CLASSES[argument])


def _read_space(name: str, data: Any) -> gym.spaces.Box:
    kind, dtype = data["type"], data["dtype"]
    if kind not in {"Box", "EnvBox"} or dtype not in BOX_DTYPES:
        raise _no_box(name, data)
    try:
        low, high = (
            np.asarray(decode(data[side]), dtype=dtype).reshape(data["shape"])
            for side in ("low", "high")
        )
    except ValueError as error:
        raise _no_box(name, data) from error
    if not np.all(low <= high):  # NaN included
        raise _no_box(name, data)
    if kind == "Box":
        return gym.spaces.Box(low, high, dtype=getattr(np, dtype))
    env_id, env_kwargs = data["env_id"], decode(data["env_kwargs"])
    check_env_id(f"{name}.env_id", env_id)
    if not isinstance(env_kwargs, dict):
        raise _no_box(name, data)
    return EnvBox(low, high, env_id, env_kwargs)


def _no_box(name: str, data: object) -> ValueError:
    return ValueError(
        f"{name} must describe a Box or an EnvBox, or a Dict of such, got {excerpt(data)}"
    )


def _networks(net_arch: object) -> list[tuple[str, list[int]]]:
    """The layers' widths of each network, where they are numbers at all."""
    if isinstance(net_arch, Mapping):
        return [(str(name), _widths(layers)) for name, layers in net_arch.items()]
    return [("net_arch", _widths(net_arch))]


def _widths(layers: object) -> list[int]:
    return [_count(width) for width in layers] if isinstance(layers, (list, tuple)) else []


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
