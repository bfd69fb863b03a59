"""From a PyTorch module to a scalar program.

`trace` runs a module's forward once, in float64 and without a batch dimension, and keeps the graph
of its ATen operations. `Graph.evaluate` interprets that graph over NumPy object arrays whose
elements are expressions of a program: elementary operations append to the program, operations on
shapes cost nothing. Parameters and floating buffers are inputs of the graph, so that learning a
parameter never means compiling again.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from mpc_gym.checks import check_module, check_size
from mpc_gym.compiled.errors import UnsupportedOperation
from mpc_gym.compiled.operations import decompositions, operation
from mpc_gym.compiled.program import Array, Expression, Program, as_array
from mpc_gym.functional import LOCK, call_with

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype)
_MODULE_INTERNALS = frozenset(vars(nn.Module())) - {"training"}
_TORCH = str(Path(torch.__file__).parent) + os.sep
_NOT_THE_USERS = (__file__, call_with.__code__.co_filename)
_STACK_FRAME = re.compile(r'File "([^"<]+)", line (\d+)')


@dataclass(frozen=True)
class Graph:
    """The ATen operations of a module's forward, for one state, control and context.

    Attributes:
        module: What was traced.
        n_state, n_ctrl, n_context: Sizes of the inputs; `n_context` is 0 if there is none.
        parameter_shapes: Shape of each parameter and floating buffer, by its dotted name, in the
            order in which `module` lists them; for those in `per_stage`, of one stage's slice.
        per_stage: Names of the parameters that have a leading time axis in `module`.
        output_shape: Shape of the result: (n_state,) for a dynamics, () for a stage cost.
    """

    module: nn.Module
    n_state: int
    n_ctrl: int
    n_context: int
    parameter_shapes: dict[str, tuple[int, ...]]
    per_stage: frozenset[str]
    output_shape: tuple[int, ...]
    _graph: torch.fx.GraphModule

    def evaluate(
        self,
        program: Program,
        state: Array,
        control: Array,
        context: Array | None,
        parameters: Mapping[str, Array],
    ) -> Array:
        """Write the module into `program`, applied to these arrays of expressions (or numbers).

        Args:
            program: Where new operations are appended; a graph may be evaluated many times.
            state, control, context: Object arrays [n_state], [n_ctrl], [n_context]; context is
                None if the graph has none.
            parameters: An object array for each name in `parameter_shapes`, of that shape.

        Returns:
            An object array of `output_shape`.

        Raises:
            UnsupportedOperation: The module uses an operation that is not in the table.
            ProgramTooLarge: The program exceeds its limit.
        """
        inputs = [state, control] if self.n_context == 0 else [state, control, context]
        inputs += [parameters[name] for name in self.parameter_shapes]
        arrays = [as_array(value).copy() for value in inputs]
        sizes = [self.n_state, self.n_ctrl] + [self.n_context] * (self.n_context > 0)
        shapes = [*((size,) for size in sizes), *self.parameter_shapes.values()]
        assert [a.shape for a in arrays] == shapes, ([a.shape for a in arrays], shapes)
        assert all(v.program is program for a in arrays for v in a.flat if _is_expression(v))
        with LOCK:
            result: Array = _Interpreter(self._graph).run(*arrays)
        return result


def trace(module: nn.Module, n_state: int, n_ctrl: int, n_context: int = 0) -> Graph:
    """Capture `module(state, control)`, or `module(state, control, context)` if n_context > 0.

    A module may name parameters that have a leading time axis in an attribute
    `per_stage_parameters`, a collection of names (dotted ones for those of its parts); it is
    traced with one stage's slice of them. Of a parametrised one (`torch.nn.utils.parametrize`) all
    parameters and floating buffers of the parametrisation have that axis.

    Raises:
        TypeError: `module` is no module.
        ValueError: A size is no positive integer.
        UnsupportedOperation: Its forward depends on values (`if state[0] > 0`), or fails on a state
            [n_state], control [n_ctrl] and context [n_context]; the message names the line.
    """
    check_module("module", module)
    for name, size, least in (
        ("n_state", n_state, 1),
        ("n_ctrl", n_ctrl, 1),
        ("n_context", n_context, 0),
    ):
        check_size(name, size, least)
    generator = torch.Generator().manual_seed(0)
    sizes = [n_state, n_ctrl] + [n_context] * (n_context > 0)
    inputs = [0.1 * torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes]
    values = numeric_parameters(module)
    per_stage = _per_stage_names(module, values)
    parameters = {
        name: (value[0] if name in per_stage else value).detach().to("cpu", torch.float64)
        for name, value in values.items()
    }
    graph = _capture(module, inputs, parameters)
    outputs = next(node for node in graph.graph.nodes if node.op == "output").args[0]
    outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    if len(outputs) != 1 or not isinstance(outputs[0], torch.fx.Node):
        raise UnsupportedOperation(
            f"{type(module).__name__} returned {len(outputs)} values, expected one tensor"
        )
    return Graph(
        module=module,
        n_state=n_state,
        n_ctrl=n_ctrl,
        n_context=n_context,
        parameter_shapes={name: tuple(value.shape) for name, value in parameters.items()},
        per_stage=per_stage,
        output_shape=tuple(outputs[0].meta["tensor_meta"].shape),
        _graph=graph,
    )


def numeric_parameters(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters, then its floating-point buffers, by dotted name."""
    buffers = {k: v for k, v in module.named_buffers() if v.is_floating_point()}
    return {**dict(module.named_parameters()), **buffers}


def trace_key(module: nn.Module) -> Hashable:
    """All that a trace of the module depends on: a trace is valid as long as this is the same.

    These are the submodules, the shapes of parameters and floating-point buffers, and every other
    attribute. Numbers, strings and containers of them count by value, tensors and other objects
    by identity, tensors by their version too: keep what `trace_inputs` returns, so that no
    identity is used again.
    """
    return tuple(_part_key(part) for part in module.modules())


def trace_inputs(module: nn.Module) -> object:
    """The objects that `trace_key` knows by identity."""
    return [(part, dict(vars(part)), dict(part._buffers)) for part in module.modules()]


def _part_key(part: nn.Module) -> Hashable:
    attributes = vars(part)
    return (
        id(part),
        *((k, _value_key(v)) for k, v in attributes.items() if k not in _MODULE_INTERNALS),
        *((k, None if v is None else v.shape) for k, v in attributes["_parameters"].items()),
        *((k, _buffer_key(v)) for k, v in attributes["_buffers"].items()),
    )


def _buffer_key(value: Tensor | None) -> Hashable:
    if value is not None and value.is_floating_point():
        return value.shape
    return _value_key(value)  # a constant of the trace


def _value_key(value: object) -> Hashable:
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, list | tuple):
        return type(value), *map(_value_key, value)
    if isinstance(value, dict):
        return type(value), *((k, _value_key(v)) for k, v in value.items())
    return id(value), value._version if isinstance(value, Tensor) else None


def _per_stage_names(module: nn.Module, values: Collection[str]) -> frozenset[str]:
    declared = {
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        for name in getattr(part, "per_stage_parameters", ())
    }
    return frozenset(name for name in values if _parametrised_name(name) in declared)


def _parametrised_name(name: str) -> str:
    """The parameter that a tensor belongs to: itself, or what it is a parametrisation of."""
    path, parametrisation, rest = f".{name}".rpartition(".parametrizations.")
    return f"{path}.{rest.partition('.')[0]}".lstrip(".") if parametrisation else name


def _capture(
    module: nn.Module, inputs: list[Tensor], parameters: dict[str, Tensor]
) -> torch.fx.GraphModule:
    def forward(*values: Tensor) -> Any:
        arguments, replaced = values[: len(inputs)], values[len(inputs) :]
        named = dict(zip(parameters, replaced, strict=True))
        return call_with(module, named, arguments)

    tracer: Callable[..., torch.fx.GraphModule] = make_fx(
        forward, decomposition_table=decompositions(), record_stack_traces=True
    )
    try:
        with LOCK:
            return tracer(*inputs, *parameters.values())
    except Exception as error:
        reason = f"it raised {type(error).__name__}: {str(error).splitlines()[0]}"
        if "get value out of a tracing tensor" in str(error):
            reason = (
                "it branches on a tensor's value, or takes it as a Python number, and so does "
                "something else for another state; torch.where is compiled"
            )
        shapes = ", ".join(str(list(value.shape)) for value in inputs)
        raise UnsupportedOperation(
            f"{type(module).__name__} cannot be compiled, on arguments of shape {shapes}: {reason} "
            f"({_line_in_traceback(error.__traceback__)})"
        ) from error


class _Interpreter(torch.fx.Interpreter):
    """Runs a graph over object arrays instead of tensors.

    Views are NumPy views, so an in-place operation on one writes to what it views, as in PyTorch.
    """

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__(graph)
        self.extra_traceback = False  # it would prepend itself to our messages

    def run_node(self, n: torch.fx.Node) -> Any:
        return _typed(super().run_node(n), n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(target, torch._ops.OpOverload):
            function = operation(str(target))
            if function is None:
                raise UnsupportedOperation(f"{target} cannot be compiled ({self._line()})")
            try:
                return function(*args, **kwargs)
            except UnsupportedOperation as error:
                message = f"{target} cannot be compiled: {error} ({self._line()})"
                raise UnsupportedOperation(message) from error
        return super().call_function(target, args, kwargs)  # operator.getitem

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        return as_array(value.detach().cpu().numpy()) if isinstance(value, Tensor) else value

    def _line(self) -> str:
        return _line_in_stack(self._node.stack_trace or "")

    def fetch_args_kwargs_from_env(self, n: torch.fx.Node) -> Any:
        self._node = n
        return super().fetch_args_kwargs_from_env(n)


def _typed(value: Any, node: torch.fx.Node) -> Any:
    """Constants as their dtype has them: indices need int and bool, and float32 was rounded."""
    dtype = getattr(node.meta.get("tensor_meta"), "dtype", torch.float64)
    if dtype == torch.float64 or not isinstance(value, np.ndarray):
        return value
    convert = _conversion(dtype)
    if not any(_is_expression(v) for v in value.flat):
        for index in np.ndindex(value.shape):
            value[index] = convert(value[index])
    return value


def _conversion(dtype: torch.dtype) -> Callable[[Any], Any]:
    if dtype.is_floating_point:
        return lambda v: torch.tensor(v, dtype=dtype).item()
    return bool if dtype == torch.bool else int


def _is_expression(value: Any) -> bool:
    return isinstance(value, Expression)


def _is_users(file: str) -> bool:
    return not file.startswith((_TORCH, "<")) and file not in _NOT_THE_USERS


def _line_in_stack(stack: str) -> str:
    frames = [(file, line) for file, line in _STACK_FRAME.findall(stack) if _is_users(file)]
    return "{}:{}".format(*frames[-1]) if frames else "in a module of torch"


def _line_in_traceback(frames: TracebackType | None) -> str:
    users = [frame for frame in traceback.extract_tb(frames) if _is_users(frame.filename)]
    return f"{users[-1].filename}:{users[-1].lineno}" if users else "in a module of torch"
