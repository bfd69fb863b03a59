"""Graphs on disk, and what is written of them, so that a new process need not make them again.

A file holds the operations of one graph as JSON, under the fingerprint of its module (see
`fingerprint.py`) and with a checksum of both, in the directory of compiled code (see
`cpu/cache.py`). It is data: names of PyTorch's own operations, their arguments, and constant
tensors. What is damaged, or belongs to another module, counts as missing. The source of compiled
functions follows from graphs alone; it is kept under all that they contain.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpc_gym.compiled.cpu.cache import cache_directory, read_kept, write_kept
from mpc_gym.compiled.fingerprint import versions
from mpc_gym.compiled.graph import Node, Operations, Ref

_OWN = ("aten.", "prims.")  # namespaces of PyTorch's own operations


class _NotDataError(Exception):
    """An argument that is kept in no file."""


def load(fingerprint: str) -> Operations | None:
    """The operations that were kept for a fingerprint.

    Raises:
        Exception: whatever comes of a file that was written by another version.
    """
    content = read_kept(cache_directory() / _name(fingerprint), (fingerprint,))
    if content is None:
        return None
    found = json.loads(content)
    nodes = tuple(_as_node(each) for each in found["nodes"])
    return Operations(nodes, int(found["result"]), tuple(found["gradless"]))


def save(fingerprint: str, operations: Operations) -> None:
    """Keep operations, if all of them can be written as data; a full disk only costs time."""
    try:
        content = json.dumps(_encoded_operations(operations)).encode()
    except _NotDataError:
        return
    write_kept(cache_directory() / _name(fingerprint), (fingerprint,), content)


def text(kind: str, content: object, make: Callable[[], str]) -> str:
    """A text that follows from graphs and the sources of this package: as kept, or made and kept.

    Args:
        kind: of text; a name for files.
        content: all that it depends on beside these sources, of parts that a graph may have.
        make: it.
    """
    try:
        told = json.dumps([_encoded(content), versions()])
    except _NotDataError:
        return make()
    path = cache_directory() / f"{kind}_{hashlib.sha256(told.encode()).hexdigest()[:32]}.bin"
    found = read_kept(path, (told,))
    if found is not None:
        return found.decode()
    made = make()
    write_kept(path, (told,), made.encode())
    return made


def _name(fingerprint: str) -> str:
    return f"graph_{fingerprint[:32]}.bin"


def _encoded_operations(value: Operations) -> dict[str, Any]:
    nodes = [_as_data(node) for node in value.nodes]
    return {"nodes": nodes, "result": value.result, "gradless": list(value.gradless)}


def _as_data(node: Node) -> dict[str, Any]:
    if node.name and not node.name.startswith(_OWN):
        raise _NotDataError
    fields = vars(node)
    return {name: _encoded(value) for name, value in fields.items() if value is not None}


def _as_node(data: dict[str, Any]) -> Node:
    node = Node(**{name: _decoded(value) for name, value in data.items()})
    shape = None if node.shape is None else tuple(node.shape)
    return replace(node, args=tuple(node.args), shape=shape)


def _encoded(value: Any) -> Any:
    """As JSON has it; what JSON lacks is an object of one entry, named after the type."""
    for kind, name, encode in _ENCODERS:
        if isinstance(value, kind):
            return {name: encode(value)}
    if isinstance(value, tuple | list):
        return [_encoded(each) for each in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise _NotDataError


def _encoded_tensor(value: Tensor) -> dict[str, Any]:
    known = type(value) is Tensor and value.dtype in _DTYPES.values()
    if not known or not value.is_cpu or value.layout != torch.strided:
        raise _NotDataError
    numbers = value.detach().contiguous().numpy()
    data = b64encode(numbers.tobytes()).decode()
    return {"dtype": str(value.dtype), "shape": list(value.shape), "data": data}


_DTYPES = {
    str(dtype): dtype
    for dtype in (torch.float64, torch.float32, torch.int64, torch.int32, torch.bool)
}


def _decoded_tensor(value: dict[str, Any]) -> Tensor:
    dtype = _DTYPES[value["dtype"]]
    of_numpy = torch.empty(0, dtype=dtype).numpy().dtype
    numbers = np.frombuffer(b64decode(value["data"]), of_numpy).reshape(value["shape"])
    return torch.from_numpy(numbers.copy())


_ENCODERS: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
    (Ref, "ref", lambda value: value.number),
    (Operations, "operations", _encoded_operations),
    (dict, "dict", lambda value: {str(key): _encoded(each) for key, each in value.items()}),
    (
        (torch.dtype, torch.layout, torch.memory_format),
        "torch",
        lambda value: str(value).removeprefix("torch."),
    ),
    (torch.device, "device", str),
    (Tensor, "tensor", _encoded_tensor),
)
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "ref": Ref,
    "dict": lambda value: {key: _decoded(each) for key, each in value.items()},
    "torch": lambda value: getattr(torch, value),
    "device": torch.device,
    "tensor": _decoded_tensor,
}


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        return _DECODERS[kind](content)
    return value
