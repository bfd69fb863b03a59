"""Policies to keep and to share, as JSON and tensors: a folder that is safe to load.

Stable-Baselines3's `.zip` files and `policy.save` are pickles, which can run any code when they are
loaded. The folder that `save_pretrained` writes cannot:

    config.json          class, constructor arguments, spaces, versions
    policy.safetensors   the state dict, each tensor in its own dtype
    README.md            a model card

Nothing in it is imported or called by name, and what it can ask for in memory and time is bounded
(see `serial`). The optimiser's state is not in it: to resume a training run, save the algorithm.
"""

import hashlib
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import safetensors.torch
import stable_baselines3
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.utils import get_device
from torch import Tensor

import mpc_gym
from mpc_gym.checks import check_option, check_path
from mpc_gym.policies.fit import Env, check_env
from mpc_gym.policies.observer import StateSource
from mpc_gym.policies.options import MPCSource
from mpc_gym.policies.sharing.hub import check_repository, library, local_folder, upload
from mpc_gym.policies.sharing.model_card import model_card
from mpc_gym.policies.sharing.policy_folder import (
    CONFIG_FILE,
    FORMAT,
    FORMAT_VERSION,
    MAX_CONFIG_BYTES,
    MAX_TENSOR_BYTES,
    TENSOR_FILE,
    Config,
    check_replaceable,
    check_tensor_file,
    read_policy,
    replace_files,
)
from mpc_gym.policies.sharing.serial import (
    POLICY_MODULES,
    check_demand,
    decode_arguments,
    decode_space,
    encode_arguments,
    encode_space,
)

SPACES = ("observation_space", "action_space")
GIVEN_BY_ALGORITHM = (*SPACES, "lr_schedule", "use_sde")
"""Constructor arguments that an algorithm gives to its policy by itself."""

SHIPPED = Path(__file__).parents[1] / "trained"

PathLike = str | os.PathLike[str]
P = TypeVar("P", bound="Pretrained")


def save_pretrained(
    policy: BasePolicy, folder: PathLike, description: str = "", license_id: str = "mit"
) -> None:
    """Write a policy to a folder that is safe to load.

    Stopped at any moment, it leaves the policy that was there before, or this one.

    Args:
        policy: a planning policy, or `MlpPolicy` of PPO, A2C, SAC, TD3 or DDPG (`model.policy`).
            Any other SB3 policy can be saved whose constructor arguments are plain data, but
            to load it its class has to be passed.
        folder: made where it is missing. What else it holds stays.
        description: for the model card, in Markdown: what it was trained on, how well it does.
        license_id: for the model card, as model hubs write it ("mit", "apache-2.0").

    Raises:
        TypeError: a constructor argument can't be written down, or a space is neither a `Box` nor
            a `Dict` of them.
        ValueError: a weight is not finite, the policy is larger than can be loaded, or the folder
            holds a `config.json` or `README.md` of another origin.
        OSError: the folder cannot be written to; the disk is full, for instance.
    """
    _save(policy, check_path("folder", folder), "this_folder", description, license_id)


def push_to_hub(
    policy: BasePolicy,
    repo_id: str,
    description: str = "",
    license_id: str = "mit",
    *,
    private: bool | None = None,
) -> str:
    """Publish a policy on the Hugging Face Hub, from where `load_pretrained(repo_id)` takes it.

    Needs huggingface_hub, and an account (`hf auth login`). What else the repository holds stays.

    Args:
        policy, description, license_id: as for `save_pretrained`.
        repo_id: "user/name"; the repository is made where it is missing.
        private: whether a new repository is; None: as is the account's default.

    Returns:
        The address of the commit.

    Raises:
        ImportError: huggingface_hub is not installed.
        TypeError, ValueError: as for `save_pretrained`, or `repo_id` is no repository's.
        OSError: the Hub cannot be reached, or refuses.
    """
    check_repository("repo_id", repo_id)
    library("push_to_hub")  # before anything is written
    with TemporaryDirectory() as folder:
        _save(policy, Path(folder), repo_id, description, license_id)
        return upload(Path(folder), repo_id, private)


def load_pretrained(
    folder: PathLike,
    expected_class: type[BasePolicy] = BasePolicy,
    *,
    mpc: MPCSource = None,
    state: StateSource = None,
    env: Env | None = None,
    device: torch.device | str = "auto",
) -> BasePolicy:
    """The policy that `save_pretrained` wrote, in evaluation mode. Runs no code from the folder.

    To go on training it, give an algorithm the same arguments, then the weights:

        model = PPO(MPCPolicy, env, policy_kwargs=pretrained_kwargs(folder))
        model.policy.load_state_dict(load_pretrained(folder).state_dict())

    Args:
        folder: on this computer, or where there is none of that name, "user/name" of a repository
            of the Hugging Face Hub (needs huggingface_hub). Only its config and tensors are
            downloaded.
        expected_class: what the policy must be an instance of. A class that is not one of
            `serial.POLICY_MODULES` can be loaded only if it is passed here.
        mpc, state: take the place of the arguments of these names, which is needed where that was
            a function.
        env: what the policy is to act in, an environment or its id, to check that it has the spaces
            that the policy was saved with. (That its physics are others is no error.)
        device: as in SB3.

    Raises:
        ImportError: huggingface_hub is needed, and is not installed.
        ValueError: there is no such folder or repository; a file is missing, damaged, or of a
            newer version; the class, an argument or an environment is unknown or another than
            expected; a weight is missing, unknown, of another shape or dtype, or not finite.
    """
    folder = local_folder(folder)
    config, tensors = read_policy(folder)
    policy_class = _policy_class(folder, config, expected_class)
    arguments = _read_arguments(folder, config, tensors, mpc, state)
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
    if config["format_version"] == 1:
        tensors = _renamed(tensors, policy)
    _check_tensors(folder, config, tensors, policy)
    policy.load_state_dict(tensors)
    policy.to(get_device(device))
    policy.set_training_mode(False)
    return policy


class Pretrained(BasePolicy):
    """A policy whose methods these functions are."""

    save_pretrained = save_pretrained
    push_to_hub = push_to_hub

    @classmethod
    def from_pretrained(
        cls: type[P],
        folder: PathLike,
        *,
        mpc: MPCSource = None,
        state: StateSource = None,
        env: Env | None = None,
        device: torch.device | str = "auto",
    ) -> P:
        """The policy of this class in a folder or on the Hub; see `load_pretrained`."""
        policy = load_pretrained(folder, cls, mpc=mpc, state=state, env=env, device=device)
        assert isinstance(policy, cls), "load_pretrained checks it"
        return policy


def pretrained_kwargs(
    folder: PathLike, *, mpc: MPCSource = None, state: StateSource = None
) -> dict[str, Any]:
    """The `policy_kwargs` with which an algorithm makes a policy like the one in a folder.

    Args:
        folder, mpc, state: as for `load_pretrained`.

    Raises:
        ValueError: as for `load_pretrained`.
    """
    folder = local_folder(folder)
    config, tensors = read_policy(folder)
    arguments = _read_arguments(folder, config, tensors, mpc, state)
    return {name: value for name, value in arguments.items() if name not in GIVEN_BY_ALGORITHM}


def shipped_policies() -> list[str]:
    """Their names, an environment's id and a kind of policy: "DiffPendulum-v0/mpc"."""
    configs = SHIPPED.glob(f"*/*/{CONFIG_FILE}")
    return sorted(config.parent.relative_to(SHIPPED).as_posix() for config in configs)


def shipped_folder(name: str) -> Path:
    """Where a policy of `shipped_policies` is, as `save_pretrained` wrote it.

    Raises:
        ValueError: there is none of that name.
    """
    check_option("name", name, shipped_policies())
    return SHIPPED / name


def load_shipped(name: str, device: torch.device | str = "auto") -> BasePolicy:
    """A policy that comes with the package, in evaluation mode.

    Args:
        name: one of `shipped_policies`. Its model card is `README.md` in `shipped_folder(name)`.
        device: as in SB3.

    Raises:
        ValueError: there is none of that name.
    """
    return load_pretrained(shipped_folder(name), device=device)


def _save(policy: BasePolicy, folder: Path, shown: str, description: str, license_id: str) -> None:
    """As `save_pretrained`, with a model card that loads the policy from `shown`."""
    check_replaceable(folder)
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
    arguments, digest = encode_arguments(given), hashlib.sha256(content).hexdigest()
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
        "tensors_sha256": digest,
    }
    card = model_card(policy, arguments, shown, description, license_id).encode()
    text = json.dumps(config, indent=2, allow_nan=False).encode()
    check_tensor_file("policy", content)
    check_demand({**{name: getattr(policy, name) for name in SPACES}, **given}, tensors)
    for name, data, limit in (
        ("the weights", content, MAX_TENSOR_BYTES),
        ("the arguments", text, MAX_CONFIG_BYTES),
    ):
        if len(data) > limit:
            raise ValueError(
                f"policy cannot be saved: {name} take {len(data)} bytes, and at most {limit} are "
                "loaded"
            )
    replace_files(folder, digest, content, text, card)


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


def _policy_class(
    folder: Path, config: Config, expected_class: type[BasePolicy]
) -> type[BasePolicy]:
    name = config.get("class")
    if name == expected_class.__name__:
        return expected_class
    if not isinstance(name, str) or name not in POLICY_MODULES:
        raise ValueError(
            f"{folder / CONFIG_FILE}: class must be one of {', '.join(POLICY_MODULES)}, got "
            f"{name!r}. To load a class of your own, pass it as expected_class"
        )
    policy_class: type[BasePolicy] = getattr(import_module(POLICY_MODULES[name]), name)
    if not issubclass(policy_class, expected_class):
        raise ValueError(f"{folder} holds a {name}, expected a {expected_class.__name__}")
    return policy_class


def _read_arguments(
    folder: Path,
    config: Config,
    tensors: dict[str, Tensor],
    mpc: MPCSource,
    state: StateSource,
) -> dict[str, Any]:
    try:
        arguments = decode_arguments(config.get("arguments"), mpc, state)
        reserved = {"lr_schedule", *SPACES}.intersection(arguments)
        if reserved:
            raise ValueError(f"arguments must not hold {', '.join(reserved)}")
        spaces = {name: decode_space(name, config.get(name)) for name in SPACES}
        check_demand({**spaces, **arguments}, tensors)
        return {**spaces, **arguments}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {error}") from error


def _read_learning_rate(folder: Path, config: Config) -> float:
    rate = config.get("learning_rate")
    most = sys.float_info.max
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= most:
        raise ValueError(f"{folder / CONFIG_FILE}: learning_rate must be a number, got {rate!r}")
    return float(rate)


def _renamed(tensors: dict[str, Tensor], policy: BasePolicy) -> dict[str, Tensor]:
    """The tensors of a folder of format version 1, by the names of today."""
    names = policy.state_dict()
    today = {name.replace("planner.", "", 1): name for name in names} | {
        name: name for name in names
    }
    return {today.get(name, name): tensor for name, tensor in tensors.items()}


def _check_tensors(
    folder: Path, config: Config, tensors: dict[str, Tensor], policy: BasePolicy
) -> None:
    file = folder / TENSOR_FILE
    expected = {name: _describe(tensor) for name, tensor in policy.state_dict().items()}
    given = {name: _describe(tensor) for name, tensor in tensors.items()}
    wrong = [f"{name} is missing" for name in expected if name not in given]
    wrong += [f"{name} is unknown" for name in given if name not in expected]
    wrong += [
        f"{name} is {given[name]}, expected {expected[name]}"
        for name in expected
        if name in given and given[name] != expected[name]
    ]
    if wrong:
        raise ValueError(
            f"{file} does not fit a {type(policy).__name__} with the arguments in {CONFIG_FILE} "
            f"({_origin(config)}): {'; '.join(wrong)}"
        )
    _check_finite(file, tensors, policy)


def _origin(config: Config) -> str:
    return f"saved with {config.get('versions')}"
