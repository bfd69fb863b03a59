"""Policies to keep and to share, as JSON and tensors: a folder that is safe to load.

Stable-Baselines3's `.zip` files and `policy.save` are pickles, which can run any code when they are
loaded. The folder that `save_pretrained` writes cannot:

    config.json          class, constructor arguments, spaces, versions
    policy.safetensors   the state dict, each tensor in its own dtype
    README.md            a model card

Nothing in it is imported or called by name (see `serial`). What it can do is ask for a large model,
and so for memory and time. The optimiser's state is not in it: to resume a training run, save
the algorithm.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import stable_baselines3
import torch
from safetensors import SafetensorError
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.utils import get_device
from torch import Tensor

import mpc_gym
from mpc_gym.mpc import MPC
from mpc_gym.policies.model_card import LIBRARY_LINE, model_card
from mpc_gym.policies.serial import POLICIES, decode_arguments, encode_arguments
from mpc_gym.policies.spaces import Env, check_env, decode_space, encode_space

FORMAT = "mpc_gym.policy"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
TENSOR_FILE = "policy.safetensors"
CARD_FILE = "README.md"
MAX_CONFIG_BYTES = 2**24

SPACES = ("observation_space", "action_space")
NOT_OF_THE_POLICY = (*SPACES, "lr_schedule", "use_sde")
"""Constructor arguments that an algorithm gives to its policy by itself."""

PathLike = str | os.PathLike[str]
MPCSource = str | Callable[..., MPC]
Config = dict[str, Any]
P = TypeVar("P", bound="Pretrained")


class Pretrained(BasePolicy):
    """A policy with `save_pretrained` and `from_pretrained`."""

    def save_pretrained(
        self, folder: PathLike, description: str = "", license_id: str = "mit"
    ) -> None:
        """See `mpc_gym.policies.pretrained.save_pretrained`."""
        save_pretrained(self, folder, description, license_id)

    @classmethod
    def from_pretrained(
        cls: type[P],
        folder: PathLike,
        *,
        mpc: MPCSource | None = None,
        env: Env | None = None,
        device: torch.device | str = "auto",
    ) -> P:
        """See `mpc_gym.policies.pretrained.load_pretrained`."""
        policy = load_pretrained(folder, cls, mpc=mpc, env=env, device=device)
        assert isinstance(policy, cls), "load_pretrained checks it"
        return policy


def save_pretrained(
    policy: BasePolicy, folder: PathLike, description: str = "", license_id: str = "mit"
) -> None:
    """Write a policy to a folder that is safe to load.

    Its three files are replaced one by one, `config.json` last. A folder where that was cut short
    is refused by `load_pretrained`.

    Args:
        policy: a planning policy, or `MlpPolicy` of PPO, A2C, SAC, TD3 or DDPG (`model.policy`).
            Any other SB3 policy can be saved whose constructor arguments are plain data, but
            to load it its class has to be passed.
        folder: made where it is missing. What else it holds stays.
        description: for the model card, in Markdown: what it was trained on, how well it does.
        license_id: for the model card, as model hubs write it ("mit", "apache-2.0").

    Raises:
        TypeError: a constructor argument can't be written down, or a space is no `Box`.
        ValueError: a weight is not finite, or the folder holds a `config.json` or `README.md` of
            another origin.
    """
    folder = Path(folder)
    _check_replaceable(folder)
    tensors = {name: tensor.detach().cpu() for name, tensor in policy.state_dict().items()}
    _check_finite("policy", tensors, policy)
    # a copy each: what shares its memory, or is not contiguous, cannot be written
    content = safetensors.torch.save(
        {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    )
    given = {
        name: value
        for name, value in policy._get_constructor_parameters().items()
        if name not in (*SPACES, "lr_schedule")
    }
    arguments = encode_arguments(given)
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class": type(policy).__name__,
        "arguments": arguments,
        "learning_rate": _learning_rate(policy),
        **{name: encode_space(name, getattr(policy, name)) for name in SPACES},
        "versions": {
            "mpc_gym": mpc_gym.__version__,
            "torch": str(torch.__version__),
            "stable_baselines3": stable_baselines3.__version__,
        },
        "tensors": {name: _describe(tensor) for name, tensor in tensors.items()},
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
    }
    files = {
        TENSOR_FILE: content,
        CARD_FILE: model_card(policy, arguments, description, license_id).encode(),
        CONFIG_FILE: json.dumps(config, indent=2, allow_nan=False).encode(),
    }
    _replace(folder, files)


def load_pretrained(
    folder: PathLike,
    expected_class: type[BasePolicy] = BasePolicy,
    *,
    mpc: MPCSource | None = None,
    env: Env | None = None,
    device: torch.device | str = "auto",
) -> BasePolicy:
    """The policy that `save_pretrained` wrote, in evaluation mode. Runs no code from the folder.

    To go on training it, give an algorithm the same arguments, then the weights:

        model = PPO(MPCPolicy, env, policy_kwargs=pretrained_kwargs(folder))
        model.policy.load_state_dict(load_pretrained(folder).state_dict())

    Args:
        folder: on this computer.
        expected_class: what the policy must be an instance of. A class that is not one of
            `serial.POLICIES` can be loaded only if it is passed here.
        mpc: takes the place of the argument of that name, which is needed where that was a
            function.
        env: what the policy is to act in, an environment or its id, to check that it has the spaces
            that the policy was saved with. (That its physics are others is no error.)
        device: as in SB3.

    Raises:
        ValueError: there is no such folder; a file is missing, damaged, or of a newer version; the
            class, an argument or an environment is unknown or another than expected; a weight is
            missing, unknown, of another shape or dtype, or not finite.
    """
    folder = Path(folder)
    config = _read_config(folder)
    policy_class = _policy_class(folder, config, expected_class)
    tensors = _read_tensors(folder, config)
    arguments = _read_arguments(folder, config, mpc)
    if env is not None:
        check_env(folder, arguments["observation_space"], arguments["action_space"], env)
    learning_rate = _read_learning_rate(folder, config)
    try:
        policy = policy_class(**arguments, lr_schedule=lambda _: learning_rate)
    except Exception as error:  # whatever a constructor says to arguments that anybody wrote
        raise ValueError(
            f"{folder / CONFIG_FILE}: {policy_class.__name__} cannot be made from the arguments "
            f"there ({_origin(config)}): {error}"
        ) from error
    _check_tensors(folder, config, tensors, policy)
    policy.load_state_dict(tensors)
    policy.to(get_device(device))
    policy.set_training_mode(False)
    return policy


def pretrained_kwargs(folder: PathLike, *, mpc: MPCSource | None = None) -> dict[str, Any]:
    """The `policy_kwargs` with which an algorithm makes a policy like the one in a folder.

    Args:
        folder: which `save_pretrained` wrote.
        mpc: as for `load_pretrained`.

    Raises:
        ValueError: as for `load_pretrained`.
    """
    folder = Path(folder)
    arguments = _read_arguments(folder, _read_config(folder), mpc)
    return {name: value for name, value in arguments.items() if name not in NOT_OF_THE_POLICY}


def _learning_rate(policy: BasePolicy) -> float:
    optimizer = getattr(policy, "optimizer", None) or getattr(policy.actor, "optimizer", None)
    assert isinstance(optimizer, torch.optim.Optimizer)
    return float(optimizer.param_groups[0]["lr"])


def _describe(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}


def _check_finite(where: object, tensors: dict[str, Tensor], policy: BasePolicy) -> None:
    """Refuse NaN everywhere, and infinity in what is learned; a buffer may have it."""
    learned = dict(policy.named_parameters())
    wrong = [
        name
        for name, tensor in tensors.items()
        if tensor.isnan().any() or (name in learned and not tensor.isfinite().all())
    ]
    if wrong:
        raise ValueError(f"{where}: NaN or infinity in {', '.join(wrong)}")


def _check_replaceable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder must be a folder or not exist yet, got the file {folder}")
    config, card = folder / CONFIG_FILE, folder / CARD_FILE
    for file, mark in ((config, f'"format": "{FORMAT}"'), (card, LIBRARY_LINE)):
        if file.exists() and mark.encode() not in file.read_bytes():
            raise ValueError(
                f"{file} was not written by save_pretrained, and would be overwritten. Choose "
                "another folder, or remove it"
            )


def _replace(folder: Path, files: dict[str, bytes]) -> None:
    """Put the files in place, in this order, once all of them are written."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as unfinished:
        for name, content in files.items():
            (Path(unfinished) / name).write_bytes(content)
        for name in files:
            (Path(unfinished) / name).replace(folder / name)


def _read_config(folder: Path) -> Config:
    if folder.is_file():
        raise ValueError(
            f"folder must be a folder that save_pretrained wrote, got the file {folder}. A zip of "
            "Stable-Baselines3 is a pickle, which can run code: load one that you trust with "
            "the algorithm's own load, such as PPO.load"
        )
    if not folder.is_dir():
        raise ValueError(f"folder must be a folder on this computer, and {folder} does not exist")
    file = folder / CONFIG_FILE
    content = _read_file(file, MAX_CONFIG_BYTES)
    try:
        config = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{file} describes no policy: its format is not {FORMAT!r}")
    version = config.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"{file} has format version {version!r}, and this mpc_gym reads up to "
            f"{FORMAT_VERSION}. Update mpc_gym"
        )
    return config


def _read_file(file: Path, limit: int | None = None) -> bytes:
    try:
        if limit is not None and file.stat().st_size > limit:
            raise ValueError(f"{file} must be at most {limit} bytes, got {file.stat().st_size}")
        return file.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{file} cannot be read: {error.strerror}. {file.parent} holds no policy that "
            "save_pretrained wrote, or its saving was cut short"
        ) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _policy_class(
    folder: Path, config: Config, expected_class: type[BasePolicy]
) -> type[BasePolicy]:
    name = config.get("class")
    if name == expected_class.__name__:
        return expected_class
    if not isinstance(name, str) or name not in POLICIES:
        raise ValueError(
            f"{folder / CONFIG_FILE}: class must be one of {', '.join(POLICIES)}, got {name!r}. To "
            "load a class of your own, pass it as expected_class"
        )
    policy_class: type[BasePolicy] = getattr(import_module(POLICIES[name]), name)
    if not issubclass(policy_class, expected_class):
        raise ValueError(f"{folder} holds a {name}, expected a {expected_class.__name__}")
    return policy_class


def _read_arguments(folder: Path, config: Config, mpc: MPCSource | None) -> dict[str, Any]:
    try:
        arguments = decode_arguments(config.get("arguments"), mpc)
        reserved = {"lr_schedule", *SPACES}.intersection(arguments)
        if reserved:
            raise ValueError(f"arguments must not hold {', '.join(reserved)}")
        return {**{name: decode_space(name, config.get(name)) for name in SPACES}, **arguments}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {error}") from error


def _read_learning_rate(folder: Path, config: Config) -> float:
    rate = config.get("learning_rate")
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < math.inf:
        raise ValueError(f"{folder / CONFIG_FILE}: learning_rate must be a number, got {rate!r}")
    return float(rate)


def _read_tensors(folder: Path, config: Config) -> dict[str, Tensor]:
    file = folder / TENSOR_FILE
    content = _read_file(file)
    if hashlib.sha256(content).hexdigest() != config.get("tensors_sha256"):
        raise ValueError(
            f"{file} is not the one that {CONFIG_FILE} was written with: it is damaged, or the "
            "saving was cut short. Save or download the folder again"
        )
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{file} is damaged or no safetensors file: {error}") from error


def _check_tensors(
    folder: Path, config: Config, tensors: dict[str, Tensor], policy: BasePolicy
) -> None:
    file = folder / TENSOR_FILE
    expected = {name: _describe(tensor) for name, tensor in policy.state_dict().items()}
    found = {name: _describe(tensor) for name, tensor in tensors.items()}
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{name} is unknown" for name in found if name not in expected]
    wrong += [
        f"{name} is {found[name]}, expected {expected[name]}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    if wrong:
        raise ValueError(
            f"{file} does not fit a {type(policy).__name__} with the arguments in {CONFIG_FILE} "
            f"({_origin(config)}): {'; '.join(wrong)}"
        )
    _check_finite(file, tensors, policy)


def _origin(config: Config) -> str:
    return f"saved with {config.get('versions')}"
