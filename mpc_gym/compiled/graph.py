"""The ATen operations of a module's forward, as data, and two ways to run them.

`Graph.evaluate` runs them over NumPy object arrays whose elements are expressions of a program:
elementary operations append to the program, operations on shapes cost nothing. `Graph.replay` runs
them in PyTorch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mpc_gym.compiled.errors import ProgramTooLarge, UnsupportedOperation
from mpc_gym.compiled.operations import operation
from mpc_gym.compiled.operations.shapes import SHAPES
from mpc_gym.compiled.program import Array, Expression, Program, as_array

INPUT, CONSTANT, CALL, ITEM = "input", "constant", "call", "item"
_DETACH = "aten.detach.default"
_SPLITS = ("aten.split.Tensor", "aten.split_with_sizes.default")


@dataclass(frozen=True)
class Ref:
    """The result of the node of that number, in the arguments of another."""

    number: int


@dataclass(frozen=True)
class Node:
    """An operation.

    Attributes:
        kind: `INPUT`, the next argument of the graph; `CONSTANT`, args[0]; `CALL`; or `ITEM`, one
            of several results.
        name: of what is called, in full: "aten.add.Tensor".
        args, kwargs: with `Ref` in the place of results of nodes before.
        shape, dtype: of the result, where that is one tensor.
        line: of the user's that it comes from.
        cuts: whether a module called it, and it is no `detach` of autograd's own.
    """

    kind: str
    name: str = ""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    shape: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None
    line: str = ""
    cuts: bool = False

    @property
    def is_autograds(self) -> bool:
        """Whether it is a `detach` that autograd puts around what it keeps; see `Calls`."""
        return self.name == _DETACH and not self.cuts

    def operands(self) -> list[int]:
        """The numbers of the nodes whose results it takes."""
        found: list[int] = []
        _replaced((self.args, self.kwargs), lambda ref: found.append(ref.number))
        return found


@dataclass(frozen=True)
class Operations:
    """What was captured of a forward: nodes in order, of which the result is one.

    Attributes:
        nodes: of which the inputs come in the order of the arguments.
        result: number of the node that is returned.
        gradless: lines that computed where autograd could not follow.
    """

    nodes: tuple[Node, ...]
    result: int
    gradless: tuple[str, ...]

    def run(self, inputs: Sequence[Any], call: Callable[[Node, list[Any]], Any]) -> Any:
        """The result, where `call` computes nodes from the results of the nodes before."""
        given = iter(inputs)
        values: list[Any] = []
        for node in self.nodes:
            values.append(next(given) if node.kind == INPUT else call(node, values))
        return values[self.result]


@dataclass(frozen=True)
class Graph:
    """The ATen operations of a module's forward, for one state, control and context.

    Attributes:
        module: What was traced.
        n_state, n_ctrl, n_context: Sizes of the inputs; `n_context` is 0 if there is none.
        parameter_shapes: Shape of each parameter and floating buffer, by its dotted name, in the
            order in which `module` lists them; for those in `per_stage`, of one stage's slice.
        per_stage: Names of the parameters that have a leading time axis in `module`.
        operations: Functions of state, control, context and the parameters.
    """

    module: nn.Module
    n_state: int
    n_ctrl: int
    n_context: int
    parameter_shapes: dict[str, tuple[int, ...]]
    per_stage: frozenset[str]
    operations: Operations

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the result: (n_state,) for a dynamics, () for a stage cost."""
        shape = self.operations.nodes[self.operations.result].shape
        assert shape is not None
        return shape

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of state, control, context if there is one, and the parameters."""
        sizes = [self.n_state, self.n_ctrl] + [self.n_context] * (self.n_context > 0)
        return [*((size,) for size in sizes), *self.parameter_shapes.values()]

    @property
    def content(self) -> tuple[object, ...]:
        """All that `evaluate` depends on."""
        sizes = self.n_state, self.n_ctrl, self.n_context
        return (*sizes, self.parameter_shapes, sorted(self.per_stage), self.operations)

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
        shapes = self.input_shapes
        assert [a.shape for a in arrays] == shapes, ([a.shape for a in arrays], shapes)
        assert all(v.program is program for a in arrays for v in a.flat if _is_expression(v))
        result: Array = self.operations.run(arrays, _interpreted)
        return result

    def replay(self, values: Sequence[Tensor]) -> Tensor:
        """Run the captured operations in PyTorch, on state, control, context and parameters."""
        result: Tensor = self.operations.run([value.clone() for value in values], _replayed)
        return result

    @property
    def size(self) -> int:
        """About how many scalar operations its value takes."""
        nodes = self.operations.nodes
        return sum(_scalar_operations(node, nodes) for node in nodes)


def _replaced(value: Any, by: Callable[[Ref], Any]) -> Any:
    """Arguments of a node with something else in the place of each `Ref`."""
    if isinstance(value, Ref):
        return by(value)
    if isinstance(value, tuple | list):
        return type(value)(_replaced(each, by) for each in value)
    if isinstance(value, dict):
        return {key: _replaced(each, by) for key, each in value.items()}
    return value


def _arguments(node: Node, values: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    found: tuple[Any, Any] = _replaced(
        (node.args, node.kwargs or {}), lambda ref: values[ref.number]
    )
    return found


def torch_operation(name: str) -> Callable[..., Any]:
    """PyTorch's operation by its full name.

    Raises:
        AttributeError: there is none.
    """
    found: Any = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def _replayed(node: Node, values: list[Any]) -> Any:
    """A node in PyTorch; autograd passes what autograd itself detached."""
    args, kwargs = _arguments(node, values)
    if node.kind == CONSTANT or node.is_autograds:
        return args[0]
    if node.kind == ITEM:
        return operator.getitem(*args)
    found = torch_operation(node.name)(*args, **kwargs)
    if node.name in _SPLITS:
        # cells write into their gates; autograd allows that of copies only
        return [piece.clone() for piece in found]
    return found


def _interpreted(node: Node, values: list[Any]) -> Any:
    """A node over object arrays instead of tensors.

    Views are NumPy views, so an in-place operation on one writes to what it views, as in PyTorch.
    """
    args, kwargs = _arguments(node, values)
    if node.kind == CONSTANT:
        return _typed(_as_objects(args[0]), node)
    if node.kind == ITEM:
        return _typed(operator.getitem(*args), node)
    if node.is_autograds:
        return args[0]
    function = operation(node.name)
    if function is None:
        raise UnsupportedOperation(f"{node.name} cannot be compiled ({node.line})")
    try:
        return _typed(function(*args, **kwargs), node)
    except ProgramTooLarge:
        raise
    except Exception as error:
        reason = str(error)
        if not isinstance(error, UnsupportedOperation):  # arguments that its row did not expect
            reason = f"{type(error).__name__}: {error}"
        message = f"{node.name} cannot be compiled: {reason} ({node.line})"
        raise UnsupportedOperation(message) from error


def _as_objects(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    # NumPy lacks some types of floating-point numbers
    value = value.detach().cpu()
    return as_array((value.double() if value.is_floating_point() else value).numpy())


def _scalar_operations(node: Node, nodes: Sequence[Node]) -> int:
    """Scalar operations of a node: matrix products sum over a dimension, others have one each."""
    if node.kind != CALL or node.shape is None or node.name in SHAPES:
        return 0
    entries = int(np.prod(node.shape, dtype=int))
    if any(name in node.name for name in ("mm.", "mv.", "dot.")):
        shapes = [nodes[number].shape for number in node.operands()]
        last = [shape for shape in shapes if shape is not None][-1]
        return entries * 2 * last[0 if len(last) == 1 else -2]
    return entries


def _typed(value: Any, node: Node) -> Any:
    """Constants as their dtype has them: indices need int and bool, and float32 was rounded."""
    dtype = torch.float64 if node.dtype is None else node.dtype
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
