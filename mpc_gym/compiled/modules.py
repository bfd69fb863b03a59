"""`compile_module`: a PyTorch module as native functions of batches of states and controls."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mpc_gym.checks import LARGEST_COUNT, check_count, check_module, real_tensor
from mpc_gym.compiled import derive
from mpc_gym.compiled.cpu.emit import build, kernel_source, sources
from mpc_gym.compiled.graph import Graph
from mpc_gym.compiled.kernel import Kernel, Place, Record
from mpc_gym.compiled.parameters import LiveTensors, unflatten
from mpc_gym.compiled.program import Array, Expression, Program, Value, elements
from mpc_gym.compiled.trace import trace
from mpc_gym.compiled.watch import Watch, watched

Floats: TypeAlias = "npt.NDArray[np.float64]"

_BATCH = """
@native
def {name}_batch({leading}state, control, context, parameters, out):
    for i in range(state.shape[0]):
        {name}_kernel({leading_row}state[i], control[i], context[i], parameters, out[i])
"""


def compile_module(
    module: nn.Module, n_state: int, n_ctrl: int, n_context: int = 0
) -> CompiledModule:
    """Compile `module(state, control)`, or `module(state, control, context)` if n_context > 0.

    Args:
        module: Maps [..., n_state] and [..., n_ctrl] (and [..., n_context]) to [..., n_out], or to
            [...] as a stage cost does. Its parameters and floating-point buffers are read at each
            call; when anything else that it reads has changed (see `compiled.watch`), it is
            compiled again.
        n_state: Size of the state.
        n_ctrl: Size of the control.
        n_context: Size of the context; 0 if the module takes none.

    Raises:
        TypeError: `module` is no module.
        ValueError: A size is no positive integer.
        UnsupportedOperation: The module uses an operation that cannot be compiled, or its control
            flow depends on values; the message names the operation and the line.
        ProgramTooLarge: The module has too many scalar operations. Derivatives are made, and
            everything is compiled, when it is first asked for, so they may raise it later.
    """
    check_module("module", module)
    return CompiledModule(module, n_state, n_ctrl, n_context)


class CompiledModule:
    """Value and exact derivatives of a module, in float64.

    The methods take NumPy arrays or tensors, of any batch shape (they are broadcast), and return
    NumPy arrays. z = (state, control) has n_z = n_state + n_ctrl entries. Parameters are read from
    the module at every call. Of a parameter with a time axis the slice at `stage` is taken.

    For use in other Numba code, without a batch, all arrays of float64 and contiguous:

        value_kernel(state, control, context, parameters, out)                  out [n_out]
        jacobian_kernel(state, control, context, parameters, out)               out [n_out, n_z]
        hessian_kernel(weights, state, control, context, parameters, out)       out [n_z, n_z]

    Here a scalar output has n_out = 1, a context that does not exist is an empty array, and
    `parameters` is what the method of that name returns: parameters, then floating-point buffers,
    each in row-major order, in the order in which the module lists them. A kernel is that of the
    module as it was when the kernel was asked for; only parameters may change later.
    """

    _watch: Watch
    _graph: Graph

    def __init__(self, module: nn.Module, n_state: int, n_ctrl: int, n_context: int = 0) -> None:
        self._module = module
        self._sizes = (n_state, n_ctrl, n_context)
        self._compile()

    @property
    def graph(self) -> Graph:
        """The module's present graph."""
        self._update()
        return self._graph

    def _update(self) -> None:
        """Compile the module again if it has changed."""
        if not self._watch.holds():
            self._compile()

    def _compile(self) -> None:
        watch, graph = watched(lambda: trace(self._module, *self._sizes), [self._module])
        self._watch, self._graph = watch, graph
        self._live = LiveTensors((self._module, name) for name in graph.parameter_shapes)
        self._n_out = math.prod(graph.output_shape)
        self._n_z = graph.n_state + graph.n_ctrl
        for name in ("_value", "_jacobian", "_hessian"):
            vars(self).pop(name, None)
        # At once, so that what cannot be compiled is found here; Numba runs at the first call.
        _ = self._value

    def value(self, state: Any, control: Any, context: Any = None, *, stage: int = 0) -> Floats:
        """The module's output, [..., n_out], or [...] if it is scalar."""
        rows, batch = self._rows(state, control, context)
        out = np.empty((len(rows[0]), self._n_out))
        self._value.value_batch(*rows, self.parameters(stage), out)
        return out.reshape((*batch, *self._graph.output_shape))

    def jacobian(self, state: Any, control: Any, context: Any = None, *, stage: int = 0) -> Floats:
        """Its derivative by z = (state, control), [..., n_out, n_z], or [..., n_z] if scalar."""
        rows, batch = self._rows(state, control, context)
        out = np.empty((len(rows[0]), self._n_out, self._n_z))
        self._jacobian.jacobian_batch(*rows, self.parameters(stage), out)
        return out.reshape((*batch, *self._graph.output_shape, self._n_z))

    def hessian(
        self, weights: Any, state: Any, control: Any, context: Any = None, *, stage: int = 0
    ) -> Floats:
        """The second derivative by z of the weighted sum of the outputs, [..., n_z, n_z].

        Args:
            weights: [..., n_out], or [...] if the output is scalar.
            state: [..., n_state].
            control: [..., n_ctrl].
            context: [..., n_context], if there is one.
            stage: Which slice of parameters with a time axis to take.
        """
        per_output = _given("weights", weights)
        shape = self.graph.output_shape
        if per_output.shape[per_output.ndim - len(shape) :] != shape:
            raise ValueError(
                f"weights has shape {list(per_output.shape)}, expected {_expected(*shape)}: "
                "one for each output"
            )
        per_output = per_output.reshape(
            (*per_output.shape[: per_output.ndim - len(shape)], self._n_out)
        )
        rows, batch = self._rows(state, control, context, per_output)
        out = np.empty((len(rows[0]), self._n_z, self._n_z))
        self._hessian.hessian_batch(rows[-1], *rows[:-1], self.parameters(stage), out)
        return out.reshape((*batch, self._n_z, self._n_z))

    def parameters(self, stage: int = 0) -> Floats:
        """The module's present parameters and floating-point buffers as one vector."""
        graph = self.graph
        arrays = self._live.arrays()
        staged = [name in graph.per_stage for name in graph.parameter_shapes]
        stages = min((len(a) for a, s in zip(arrays, staged, strict=True) if s), default=None)
        check_count("stage", stage, 0, LARGEST_COUNT if stages is None else stages - 1)
        if not arrays:
            return np.empty(0)
        now = [a[stage] if s else a for a, s in zip(arrays, staged, strict=True)]
        return np.concatenate(now, axis=None, dtype=np.float64)

    @property
    def value_kernel(self) -> Callable[..., None]:
        """The Numba function of one state; see the class."""
        self._update()
        kernel: Callable[..., None] = self._value.value_kernel
        return kernel

    @property
    def jacobian_kernel(self) -> Callable[..., None]:
        """The Numba function of one state; see the class."""
        self._update()
        kernel: Callable[..., None] = self._jacobian.jacobian_kernel
        return kernel

    @property
    def hessian_kernel(self) -> Callable[..., None]:
        """The Numba function of one state; see the class."""
        self._update()
        kernel: Callable[..., None] = self._hessian.hessian_kernel
        return kernel

    @cached_property
    def _value(self) -> ModuleType:
        inputs = _Inputs(self._graph)
        return inputs.build("value", inputs.outputs)

    @cached_property
    def _jacobian(self) -> ModuleType:
        inputs = _Inputs(self._graph)
        jacobian = derive.jacobian(inputs.program, inputs.outputs, inputs.z)
        return inputs.build("jacobian", jacobian)

    @cached_property
    def _hessian(self) -> ModuleType:
        inputs = _Inputs(self._graph)
        weights = inputs.add("weights", self._n_out)
        hessian = derive.hessian(inputs.program, inputs.outputs, weights, inputs.z)
        return inputs.build("hessian", hessian, weighted=True)

    def _rows(
        self, state: Any, control: Any, context: Any, *more: Floats
    ) -> tuple[list[Floats], tuple[int, ...]]:
        """State, control, context and more as contiguous [rows, size] arrays; the batch shape."""
        graph = self.graph
        if (context is None) != (graph.n_context == 0):
            found = "None" if context is None else "given"
            raise ValueError(
                f"context is {found}, but the module was compiled with n_context={graph.n_context}"
            )
        named = {"state": (state, graph.n_state), "control": (control, graph.n_ctrl)}
        named["context"] = (np.empty(0) if context is None else context, graph.n_context)
        arrays = []
        for name, (value, size) in named.items():
            array = _given(name, value)
            if array.ndim == 0 or array.shape[-1] != size:
                raise ValueError(
                    f"{name} has shape {list(array.shape)}, expected {_expected(size)}"
                )
            arrays.append(array)
        arrays += more
        try:
            batch = np.broadcast_shapes(*(a.shape[:-1] for a in arrays))
        except ValueError as error:
            found = ", ".join(str(list(a.shape)) for a in arrays)
            raise ValueError(
                f"state, control, context (and weights) have shapes {found}, expected batch "
                "dimensions that can be broadcast against each other"
            ) from error
        rows = [np.broadcast_to(a, (*batch, a.shape[-1])) for a in arrays]
        count = math.prod(batch)
        return [np.ascontiguousarray(a.reshape(count, a.shape[-1])) for a in rows], batch


class _Inputs:
    """A module's graph, evaluated in a program of its own whose inputs are arguments."""

    def __init__(self, graph: Graph) -> None:
        self.program = Program()
        self._loads: dict[str, Place] = {}
        self._name = type(graph.module).__name__
        state, control = self.add("state", graph.n_state), self.add("control", graph.n_ctrl)
        context = self.add("context", graph.n_context)
        shapes = graph.parameter_shapes
        count = sum(map(math.prod, shapes.values()))
        self._loads |= Record({"parameters": count}).places("parameters")
        parameters = self.program.parameters("parameters", count)
        self.z: list[Expression] = [*state, *control]
        self.outputs: list[Value] = elements(
            graph.evaluate(
                self.program,
                state,
                control,
                context if graph.n_context else None,
                unflatten(parameters, shapes),
            )
        )

    def add(self, name: str, count: int) -> Array:
        """Inputs that the kernel reads from its argument of that name."""
        self._loads |= Record({name: count}).places(name)
        return self.program.inputs(name, count)

    def build(self, name: str, values: Any, *, weighted: bool = False) -> ModuleType:
        """Generate the kernel that writes these values, and its loop over a batch."""
        leading = ["weights"] if weighted else []
        kernel = Kernel(
            f"{name}_kernel",
            self.program,
            (*leading, "state", "control", "context", "parameters", "out"),
            self._loads,
            [(Place("out", i), value) for i, value in enumerate(elements(values))],
        )
        batch = _BATCH.format(
            name=name,
            leading="weights, " if weighted else "",
            leading_row="weights[i], " if weighted else "",
        )
        return build(sources([kernel_source(kernel), batch]), f"{self._name}_{name}")


def _given(name: str, value: Any) -> Floats:
    array: Floats = real_tensor(name, value, torch.float64).detach().cpu().numpy()
    return array


def _expected(*sizes: int) -> str:
    return "[{}]".format(", ".join(["...", *map(str, sizes)]))
