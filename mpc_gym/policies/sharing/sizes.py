"""How large a policy may be that a file describes, before anything of it is made.

A config of a few lines can ask for a plan of 10**18 steps, or for a network that fills the memory.
A network can be no larger than its weights, which are in the file beside; for the rest there are
limits that no policy in use comes near.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from gymnasium import spaces
from torch import Tensor

LIMITS = {"horizon": 10_000, "starts": 10_000, "max_iterations": 1_000_000}
MAX_HEADER_BYTES = 2**20  # about ten thousand tensors
MAX_MATRIX = 2**28  # from every observation to every action


def check_tensor_file(where: object, content: bytes) -> None:
    """Refuse a file of safetensors whose list of tensors is as long as no policy's.

    Args:
        where: it is from, for the message.
        content: which begins with the length of the list, 8 bytes, little endian.

    Raises:
        ValueError: the list is too long.
    """
    size = int.from_bytes(content[:8], "little")
    if size > MAX_HEADER_BYTES:
        raise ValueError(
            f"{where} is damaged or no safetensors file: its header must be at most "
            f"{MAX_HEADER_BYTES} bytes, got {size}"
        )


def check_sizes(arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse arguments that ask for more than a policy with these tensors can have.

    Args:
        arguments: of a policy's constructor, the spaces among them.
        tensors: its state dict.

    Raises:
        ValueError: an argument is too large; it names which.
    """
    for name, limit in LIMITS.items():
        value = arguments.get(name)
        if isinstance(value, (int, float)) and value > limit:
            raise ValueError(f"{name} must be at most {limit} in a saved policy, got {value}")
    elements = sum(tensor.numel() for tensor in tensors.values())
    n_obs, n_act = (_flat(arguments[name]) for name in ("observation_space", "action_space"))
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


def _networks(net_arch: object) -> list[tuple[str, list[int]]]:
    """The layers' widths of each network, where they are numbers at all."""
    if isinstance(net_arch, Mapping):
        return [(str(name), _widths(layers)) for name, layers in net_arch.items()]
    return [("net_arch", _widths(net_arch))]


def _widths(layers: object) -> list[int]:
    return [_count(width) for width in layers] if isinstance(layers, (list, tuple)) else []


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _flat(space: spaces.Space[Any]) -> int:
    return spaces.flatdim(space)
