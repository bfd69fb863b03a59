"""From a PyTorch module to a graph of ATen operations, which becomes a scalar program.

`trace` runs a module's forward once, in float64 and without a batch dimension, and keeps the graph
of its ATen operations (see `graph.py`). Parameters and floating buffers are inputs of the graph, so
that learning a parameter never means compiling again.

A graph that passed all checks is kept on disk (see `kept.py`). A process that finds one there does
not run PyTorch's tracer, which takes a second to import; what only the tracer sees (a value that
leaves PyTorch, a branch on one) and what follows from the graph alone (its scalar program is what
it computes) was found in order when it was kept, for the same code. What it finds is compared with
the module in values, first and second derivatives all the same, and is traced anew where they
differ.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mpc_gym.checks import check_module, check_size
from mpc_gym.compiled import kept
from mpc_gym.compiled.autograd import recording
from mpc_gym.compiled.calls import BRANCHES, CUTS, IN_TORCH, LINE, Calls, line_in_traceback
from mpc_gym.compiled.errors import ImpureModule, ProgramTooLarge, UnsupportedOperation
from mpc_gym.compiled.faithful import Trials, check_program, learnt_among, try_out
from mpc_gym.compiled.fingerprint import fingerprint
from mpc_gym.compiled.graph import CALL, CONSTANT, INPUT, ITEM, Graph, Node, Operations, Ref
from mpc_gym.compiled.operations import decompositions
from mpc_gym.compiled.parameters import numeric_parameters, per_stage_names
from mpc_gym.compiled.purity import check_has_shapes, check_not_compiled, check_pure
from mpc_gym.functional import LOCK, call_with
from mpc_gym.messages import long_work

if TYPE_CHECKING:
    import torch.fx


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
    check_not_compiled(module)
    check_has_shapes(module)
    with LOCK, recording():
        begun = _Begun(module, n_state, n_ctrl, n_context)
        graph = begun.kept()
        if graph is None:
            long_work()
            graph, trials = begun.traced()
            _check_program(graph, trials)
            begun.keep(graph)
    return graph


def _check_program(graph: Graph, trials: Trials) -> None:
    try:
        check_program(graph, trials)
    except ProgramTooLarge as error:
        raise ProgramTooLarge(
            f"{type(graph.module).__name__} takes about {graph.size:,} scalar operations, and "
            f"{error}"
        ) from error
    except (AssertionError, ArithmeticError, LookupError, TypeError) as error:
        raise UnsupportedOperation(
            f"{type(graph.module).__name__} cannot be compiled: its program could not be made "
            f"({type(error).__name__}: {error}), which is a fault of mpc_gym"
        ) from error


def captured(module: nn.Module, n_state: int, n_ctrl: int, n_context: int = 0) -> Graph | None:
    """The graph of a module whose program may be compiled or not; None if it has none.

    Raises:
        ImpureModule: No backend can plan with it.
    """
    check_not_compiled(module)
    check_has_shapes(module)
    try:
        with LOCK, recording():
            begun = _Begun(module, n_state, n_ctrl, n_context)
            return begun.kept() or begun.traced()[0]
    except ImpureModule:
        raise
    except UnsupportedOperation:
        return None


class _Begun:
    """A module, and arguments and parameters to trace it with."""

    def __init__(self, module: nn.Module, n_state: int, n_ctrl: int, n_context: int) -> None:
        self._module = module
        self._sizes = (n_state, n_ctrl, n_context)
        generator = torch.Generator().manual_seed(0)
        sizes = [n_state, n_ctrl] + [n_context] * (n_context > 0)
        self._inputs = [
            0.1 * torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes
        ]
        values = numeric_parameters(module)
        self._per_stage = per_stage_names(module, values)
        self._parameters = {
            k: (v[0] if k in self._per_stage else v).detach().to("cpu", torch.float64).clone()
            for k, v in values.items()
        }
        self._fingerprint = fingerprint(module, self._sizes)

    def kept(self) -> Graph | None:
        """The graph that an earlier process kept, if the module still does what it says."""
        if self._fingerprint is None:
            return None
        with suppress(Exception):  # whatever is wrong, the tracer says it better
            operations = kept.load(self._fingerprint)
            if operations is not None:
                graph = self._graph(operations)
                check_pure(self._module, self._inputs, self._parameters)
                try_out(graph, self._inputs, self._parameters)
                return graph
        return None

    def traced(self) -> tuple[Graph, Trials]:
        """Its graph, after it was compared with the module."""
        graph = self._graph(_capture(self._module, self._inputs, self._parameters))
        return graph, try_out(graph, self._inputs, self._parameters)

    def keep(self, graph: Graph) -> None:
        """Keep a graph that passed all checks for other processes."""
        before = self._fingerprint
        if before is not None and before == fingerprint(self._module, self._sizes):
            kept.save(before, graph.operations)

    def _graph(self, operations: Operations) -> Graph:
        _check_numbers(type(self._module).__name__, operations)
        shapes = {name: tuple(value.shape) for name, value in self._parameters.items()}
        return Graph(self._module, *self._sizes, shapes, self._per_stage, operations)


def _check_numbers(name: str, operations: Operations) -> None:
    """Refuse what computes with fewer digits than float32 has, or returns no such number.

    Raises:
        ImpureModule: from its arguments or parameters, it computes in float16 or the like.
        UnsupportedOperation: it returns integers, truth values or complex numbers.
    """
    depends: list[bool] = []  # as a real number, which a comparison is not
    for node in operations.nodes:
        dtype = node.dtype
        given = node.kind == INPUT or any(depends[number] for number in node.operands())
        depends.append(given and (dtype is None or dtype.is_floating_point))
        if given and dtype is not None and dtype.is_floating_point and dtype.itemsize < 4:
            raise ImpureModule(
                f"{name} computes in {dtype} ({node.line}), whose rounding hides its derivatives: "
                "precision lower than float32 is not supported, cast to float32 or float64"
            )
    returned = operations.nodes[operations.result].dtype
    if returned is not None and not returned.is_floating_point:
        raise UnsupportedOperation(
            f"{name} returns {returned}, expected torch.float64 (or float32): cast what it returns "
            "with .to(state.dtype)"
        )


def _capture(module: nn.Module, inputs: list[Tensor], parameters: dict[str, Tensor]) -> Operations:
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    learnt = learnt_among(module, inputs, parameters)

    def forward(*values: Tensor) -> Any:
        # As in training: a module may ask whether its state requires a gradient.
        values = tuple(v.requires_grad_(l).clone() for v, l in zip(values, learnt, strict=True))
        arguments, replaced = values[: len(inputs)], values[len(inputs) :]
        named = dict(zip(parameters, replaced, strict=True))
        with calls, torch.enable_grad():
            return call_with(module, named, arguments)

    calls = Calls(type(module).__name__)
    try:
        check_pure(module, inputs, parameters)
        tracer: Callable[..., torch.fx.GraphModule] = make_fx(
            forward, decomposition_table=decompositions()
        )
        # The tracer makes a mode for each node where it finds none, which costs more than the rest.
        with tracing(TracingContext(FakeTensorMode())):
            captured = tracer(*(value.clone() for value in (*inputs, *parameters.values())))
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
    return _as_data(captured, type(module).__name__, calls.gradless)


def _as_data(captured: torch.fx.GraphModule, name: str, gradless: list[str]) -> Operations:
    numbers: dict[torch.fx.Node, int] = {}
    nodes: list[Node] = []
    result: Any = None
    for node in captured.graph.nodes:
        if node.op == "output":
            result = node.args[0]
            break
        numbers[node] = len(nodes)
        nodes.append(_node(node, captured, numbers))
    results = list(result) if isinstance(result, tuple | list) else [result]
    if len(results) != 1 or not isinstance(results[0], torch.fx.Node):
        raise UnsupportedOperation(f"{name} returned {len(results)} values, expected one tensor")
    return Operations(tuple(nodes), numbers[results[0]], tuple(gradless))


def _node(
    node: torch.fx.Node, captured: torch.fx.GraphModule, numbers: Mapping[torch.fx.Node, int]
) -> Node:
    def plain(value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return Ref(numbers[value])
        if isinstance(value, tuple | list):
            return [plain(each) for each in value]
        return value

    line = node.meta.get(LINE, IN_TORCH)
    kind, name, target = CALL, "", node.target
    args = tuple(map(plain, node.args))
    kwargs = {key: plain(value) for key, value in node.kwargs.items()}
    if node.op == "placeholder":
        kind, args = INPUT, ()
    elif node.op == "get_attr":
        kind, args = CONSTANT, (operator.attrgetter(str(target))(captured),)
    elif target is operator.getitem:
        kind = ITEM
    elif isinstance(target, torch._ops.OpOverload):
        name = str(target)
    if (kind == CALL and not name) or (kind == CONSTANT and not isinstance(args[0], Tensor)):
        raise UnsupportedOperation(f"{target} cannot be compiled ({line})")
    meta = node.meta.get("tensor_meta")
    shape = getattr(meta, "shape", None)
    dtype = getattr(meta, "dtype", None)
    shape = None if shape is None else tuple(shape)
    return Node(kind, name, args, kwargs, shape, dtype, line, bool(node.meta.get(CUTS)))
