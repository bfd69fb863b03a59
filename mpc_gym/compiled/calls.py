"""What is noted, and refused, of the calls that a module makes while it is traced."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.overrides import TorchFunctionMode

from mpc_gym.compiled.errors import ImpureModule, UnsupportedOperation
from mpc_gym.functional import call_with

_TORCH = str(Path(torch.__file__).parent) + os.sep
_NOT_THE_USERS = (_TORCH, str(Path(__file__).parent) + os.sep, call_with.__code__.co_filename, "<")
BRANCHES = (
    "branches on a tensor's value, or takes it as a Python number, and so does something else for "
    "another state; torch.where is compiled"
)
IN_TORCH = "in a module of torch"
LINE, CUTS = "mpc_gym_line", "mpc_gym_cuts"  # in a node's meta
_APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]
_GET_DATA: Any = Tensor.data
_DETACHES = frozenset({Tensor.detach, Tensor.detach_, torch.detach, _GET_DATA.__get__})
_TAKES_VALUES = frozenset({Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__})
_TAKES_NUMBER = frozenset(
    {Tensor.item, Tensor.__float__, Tensor.__int__, Tensor.__bool__, Tensor.__index__}
)


class Calls(TorchFunctionMode):
    """Notes on each node of the graph which line of the user's made it.

    It tells `detach` in a module from the one that autograd puts around what it keeps for the
    backward pass, which cuts nothing off: only the first is a call in Python. And it refuses to
    let values that depend on state, control, context or parameters out of PyTorch.

    Attributes:
        gradless: Lines that computed where autograd could not follow.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name  # of the module
        self.gradless: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        mode = get_proxy_mode()
        if mode is None:
            return func(*args, **(kwargs or {}))
        line = _line_of(sys._getframe(1))
        if func in _TAKES_VALUES and _is_variable(args[0], mode.tracer):
            name = func.__name__
            raise ImpureModule(
                f"{self._name} takes values that depend on state, control, context or parameters "
                f"out of PyTorch ({line}: Tensor.{name}, which NumPy and SciPy call too), where "
                "neither derivatives nor compiled code can follow: compute with torch alone, and "
                "keep arrays as tensors, self.register_buffer('goal', torch.as_tensor(goal))"
            )
        if func in _TAKES_NUMBER and _is_variable(args[0], mode.tracer):
            raise UnsupportedOperation(f"{self._name} cannot be compiled: it {BRANCHES} ({line})")
        if _without_gradients(sys._getframe(1)) or _forgets_graph(func, args, kwargs or {}):
            self.gradless.append(line)
        nodes = mode.tracer.graph.nodes
        before = len(nodes)
        result = func(*args, **(kwargs or {}))
        for node in islice(reversed(nodes), len(nodes) - before):
            node.meta.setdefault(LINE, line)
            node.meta[CUTS] = func in _DETACHES
        return result


def _without_gradients(frame: FrameType | None) -> bool:
    """Whether gradients are off, by other than a `torch.autograd.Function`."""
    if torch.is_grad_enabled():
        return False
    while frame is not None and frame.f_code is not _APPLY:
        frame = frame.f_back
    return frame is None


def _forgets_graph(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether this is `torch.autograd.grad` without `create_graph=True`."""
    if func is not torch.autograd.grad:
        return False
    return not kwargs.get("create_graph", args[4] if len(args) > 4 else False)


def _is_variable(value: object, tracer: Any) -> bool:
    """Whether a tensor is more than a constant of the trace."""
    if not isinstance(value, Tensor):
        return False
    proxy = get_proxy_slot(value, tracer, None)
    return proxy is not None and proxy.constant is None


def _is_users(file: str) -> bool:
    return not file.startswith(_NOT_THE_USERS)


def _line_of(frame: FrameType | None) -> str:
    """The innermost line of a call that is neither PyTorch's nor ours."""
    while frame is not None and not _is_users(frame.f_code.co_filename):
        frame = frame.f_back
    return IN_TORCH if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def line_in_traceback(frames: TracebackType | None) -> str:
    """The innermost line of the user's where an error was raised."""
    users = [frame for frame in traceback.extract_tb(frames) if _is_users(frame.filename)]
    return f"{users[-1].filename}:{users[-1].lineno}" if users else IN_TORCH
