"""From a PyTorch module to a scalar program.

`trace` runs a module's forward once, in float64 and without a batch dimension, and keeps the graph
of its ATen operations. `Graph.evaluate` interprets that graph over NumPy object arrays whose
elements are expressions of a program: elementary operations append to the program, operations on
shapes cost nothing. Parameters and floating buffers are inputs of the graph, so that learning a
parameter never means compiling again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from mpc_gym.checks import check_module, check_size
from mpc_gym.compiled.autograd import recording
from mpc_gym.compiled.calls import BRANCHES, CUTS, IN_TORCH, LINE, Calls, line_in_traceback
from mpc_gym.compiled.errors import ImpureModule, ProgramTooLarge, UnsupportedOperation
from mpc_gym.compiled.faithful import (
    Trials,
    check_has_shapes,
    check_not_compiled,
    check_program,
    check_pure,
    try_out,
)
from mpc_gym.compiled.operations import decompositions, operation
from mpc_gym.compiled.operations.shapes import SHAPES
from mpc_gym.compiled.parameters import numeric_parameters, per_stage_names
from mpc_gym.compiled.program import Array, Expression, Program, as_array
from mpc_gym.functional import LOCK, call_with

_GRADLESS = "mpc_gym_gradless"  # in a graph's meta


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

    def replay(self, values: Sequence[Tensor]) -> Tensor:
        """Run the captured operations in PyTorch, on state, control, context and parameters."""
        result: Tensor = _Replay(self._graph).run(*(value.clone() for value in values))
        return result

    @property
    def gradless(self) -> list[str]:
        """Lines of its forward that computed where autograd could not follow."""
        found: list[str] = self._graph.meta[_GRADLESS]
        return found

    @property
    def size(self) -> int:
        """About how many scalar operations its value takes."""
        return sum(_scalar_operations(node) for node in self._graph.graph.nodes)


def trace(module: nn.Module, n_state: int, n_ctrl: int, n_context: int = 0) -> Graph:
    """Capture `module(state, control)`, or `module(state, control, context)` if n_context > 0.

    A module may name parameters that have a leading time axis in an attribute
    `per_stage_parameters`, a collection of names (dotted ones for those of its parts); it is
    traced with one stage's slice of them. Of a parametrised one (`torch.nn.utils.parametrize`) all
    parameters and floating buffers of the parametrisation have that axis.

    The program that comes of it is compared with the module at other points (see `faithful`).

    Raises:
        TypeError: `module` is no module.
        ValueError: A size is no positive integer.
        UnsupportedOperation: Its forward depends on values (`if state[0] > 0`), uses an operation
            that is not in the table, or fails on a state [n_state], control [n_ctrl] and context
            [n_context], and the message names the line; or its derivative is not that of what it
            computes.
        ImpureModule: It is no function of its arguments; no backend can plan with it.
        ProgramTooLarge: It has too many scalar operations.
    """
    check_module("module", module)
    for name, size, least in (
        ("n_state", n_state, 1),
        ("n_ctrl", n_ctrl, 1),
        ("n_context", n_context, 0),
    ):
        check_size(name, size, least)
    graph, trials = _captured(module, n_state, n_ctrl, n_context)
    try:
        check_program(graph, trials)
    except ProgramTooLarge as error:
        raise ProgramTooLarge(
            f"{type(module).__name__} takes about {graph.size:,} scalar operations, and {error}"
        ) from error
    return graph


def captured(module: nn.Module, n_state: int, n_ctrl: int, n_context: int = 0) -> Graph | None:
    """The graph of a module whose program may be compiled or not; None if it has none.

    Raises:
        ImpureModule: No backend can plan with it.
    """
    try:
        return _captured(module, n_state, n_ctrl, n_context)[0]
    except ImpureModule:
        raise
    except UnsupportedOperation:
        return None


def _captured(module: nn.Module, n_state: int, n_ctrl: int, n_context: int) -> tuple[Graph, Trials]:
    """The graph of a module, after it was compared with the module."""
    check_not_compiled(module)
    check_has_shapes(module)
    with LOCK, recording():
        return _captured_alone(module, n_state, n_ctrl, n_context)


def _captured_alone(
    module: nn.Module, n_state: int, n_ctrl: int, n_context: int
) -> tuple[Graph, Trials]:
    generator = torch.Generator().manual_seed(0)
    sizes = [n_state, n_ctrl] + [n_context] * (n_context > 0)
    inputs = [0.1 * torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes]
    values = numeric_parameters(module)
    per_stage = per_stage_names(module, values)
    parameters = {
        name: (value[0] if name in per_stage else value).detach().to("cpu", torch.float64).clone()
        for name, value in values.items()
    }
    captured = _capture(module, inputs, parameters)
    outputs = next(node for node in captured.graph.nodes if node.op == "output").args[0]
    outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    if len(outputs) != 1 or not isinstance(outputs[0], torch.fx.Node):
        raise UnsupportedOperation(
            f"{type(module).__name__} returned {len(outputs)} values, expected one tensor"
        )
    graph = Graph(
        module=module,
        n_state=n_state,
        n_ctrl=n_ctrl,
        n_context=n_context,
        parameter_shapes={name: tuple(value.shape) for name, value in parameters.items()},
        per_stage=per_stage,
        output_shape=tuple(outputs[0].meta["tensor_meta"].shape),
        _graph=captured,
    )
    return graph, try_out(graph, inputs, parameters)


def _capture(
    module: nn.Module, inputs: list[Tensor], parameters: dict[str, Tensor]
) -> torch.fx.GraphModule:
    def forward(*values: Tensor) -> Any:
        # As in training: a module may ask whether its state requires a gradient.
        values = tuple(value.requires_grad_().clone() for value in values)
        arguments, replaced = values[: len(inputs)], values[len(inputs) :]
        named = dict(zip(parameters, replaced, strict=True))
        with calls, torch.enable_grad():
            return call_with(module, named, arguments)

    calls = Calls(type(module).__name__)
    tracer: Callable[..., torch.fx.GraphModule] = make_fx(
        forward, decomposition_table=decompositions()
    )
    try:
        check_pure(module, inputs, parameters)
        captured = tracer(*(value.clone() for value in (*inputs, *parameters.values())))
        captured.meta[_GRADLESS] = calls.gradless
        return captured
    except UnsupportedOperation:
        raise
    except Exception as error:
        reason = f"it raised {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if "get value out of a tracing tensor" in str(error):
            reason = f"it {BRANCHES}"
        shapes = ", ".join(str(list(value.shape)) for value in inputs)
        raise UnsupportedOperation(
            f"{type(module).__name__} cannot be compiled, on arguments of shape {shapes}: {reason} "
            f"({line_in_traceback(error.__traceback__)})"
        ) from error


class _Replay(torch.fx.Interpreter):
    """Runs a graph in PyTorch; autograd passes what autograd itself detached."""

    def run_node(self, n: torch.fx.Node) -> Any:
        if _is_autograds(n):
            return self.fetch_args_kwargs_from_env(n)[0][0]
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        found = super().call_function(target, args, kwargs)
        if str(target) in ("aten.split.Tensor", "aten.split_with_sizes.default"):
            # cells write into their gates; autograd allows that of copies only
            return [piece.clone() for piece in found]
        return found


class _Interpreter(torch.fx.Interpreter):
    """Runs a graph over object arrays instead of tensors.

    Views are NumPy views, so an in-place operation on one writes to what it views, as in PyTorch.
    """

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__(graph)
        self.extra_traceback = False  # it would prepend itself to our messages

    def run_node(self, n: torch.fx.Node) -> Any:
        if _is_autograds(n):
            return self.fetch_args_kwargs_from_env(n)[0][0]
        return _typed(super().run_node(n), n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(target, torch._ops.OpOverload):
            return super().call_function(target, args, kwargs)  # operator.getitem
        function = operation(str(target))
        if function is None:
            raise UnsupportedOperation(f"{target} cannot be compiled ({self._line()})")
        try:
            return function(*args, **kwargs)
        except ProgramTooLarge:
            raise
        except Exception as error:
            reason = str(error)
            if not isinstance(error, UnsupportedOperation):  # arguments that its row did not expect
                reason = f"{type(error).__name__}: {error}"
            message = f"{target} cannot be compiled: {reason} ({self._line()})"
            raise UnsupportedOperation(message) from error

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        if not isinstance(value, Tensor):
            return value
        # NumPy lacks some types of floating-point numbers
        value = value.detach().cpu()
        return as_array((value.double() if value.is_floating_point() else value).numpy())

    def _line(self) -> str:
        line: str = self._node.meta.get(LINE, IN_TORCH)
        return line

    def fetch_args_kwargs_from_env(self, n: torch.fx.Node) -> Any:
        self._node = n
        return super().fetch_args_kwargs_from_env(n)


def _is_autograds(node: torch.fx.Node) -> bool:
    """Whether a node is a `detach` that no module called; see `Calls`."""
    return node.target is torch.ops.aten.detach.default and not node.meta.get(CUTS)


def _scalar_operations(node: torch.fx.Node) -> int:
    """Scalar operations of a node: matrix products sum over a dimension, others have one each."""
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    if node.op != "call_function" or shape is None or str(node.target) in SHAPES:
        return 0
    entries = int(np.prod(shape, dtype=int))
    factors = [a.meta["tensor_meta"].shape for a in node.all_input_nodes if "tensor_meta" in a.meta]
    if any(name in str(node.target) for name in ("mm.", "mv.", "dot.")):
        return entries * 2 * int(factors[-1][0 if len(factors[-1]) == 1 else -2])
    return entries


def _typed(value: Any, node: torch.fx.Node) -> Any:
    """Constants as their dtype has them: indices need int and bool, and float32 was rounded."""
    dtype = getattr(node.meta.get("tensor_meta"), "dtype", torch.float64)
    if dtype == torch.float64 or not isinstance(value, np.ndarray):
        return value
    convert = _conversion(dtype)
    if not any(_is_expression(v) for v in value.flat):
        if not value.flags.writeable:  # expanded
            value = value.copy()
        for index in np.ndindex(value.shape):
            value[index] = convert(value[index])
    return value


def _conversion(dtype: torch.dtype) -> Callable[[Any], Any]:
    if dtype.is_floating_point:
        return lambda v: torch.tensor(v, dtype=dtype).item()
    return bool if dtype == torch.bool else int


def _is_expression(value: Any) -> bool:
    return isinstance(value, Expression)
