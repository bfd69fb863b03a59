"""The listing of a kernel as one Numba intrinsic.

Numba infers the type of every line, at about a millisecond each, which makes a program of some
thousand operations slow to compile. Here there is nothing to infer, so a listing of operations (see
`compiled.kernel`) is turned into LLVM instructions directly, in a tenth of the time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mpc_gym.compiled.cpu import vectormath

_for_range: Any = cgutils.for_range
_DOUBLE, _BOOLEAN = ir.DoubleType(), ir.IntType(1)
_LOGICAL = frozenset({"logical_and", "logical_or", "logical_not"})

_INSTRUCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda builder, a, b: builder.fadd(a, b),
    "subtract": lambda builder, a, b: builder.fsub(a, b),
    "multiply": lambda builder, a, b: builder.fmul(a, b),
    "divide": lambda builder, a, b: builder.fdiv(a, b),
    "negative": lambda builder, a: builder.fneg(a),
    "less": lambda builder, a, b: builder.fcmp_ordered("<", a, b),
    "less_equal": lambda builder, a, b: builder.fcmp_ordered("<=", a, b),
    "equal": lambda builder, a, b: builder.fcmp_ordered("==", a, b),
    "logical_and": lambda builder, a, b: builder.and_(a, b),
    "logical_or": lambda builder, a, b: builder.or_(a, b),
    "logical_not": lambda builder, a: builder.not_(a),
    "select": lambda builder, chosen, a, b: builder.select(chosen, a, b),
    "detach": lambda builder, a: a,
}
_LLVM_FUNCTIONS = {"absolute": "fabs", "floor": "floor", "rint": "rint", "sqrt": "sqrt"}


def straight_line(listing: str, arguments: Sequence[str], lanes: int) -> Any:
    """A function, for Numba code, that runs a listing on a tuple of contiguous float64 arrays.

    Args:
        listing: as JSON; it is read when code is made of it.
        arguments: what the listing calls the arrays in the tuple.
        lanes: how often it is run, for lane = 0, 1, ...
    """

    @intrinsic
    def run(typing_context: Any, arrays: Any) -> Any:
        for name, array in zip(arguments, arrays, strict=True):
            if array.dtype != types.float64 or array.layout != "C":
                raise TypeError(f"{name} is {array}, expected a contiguous array of float64")

        def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
            writer = _Writer(typing_context, context, builder)
            for i, (name, array) in enumerate(zip(arguments, arrays, strict=True)):
                value = builder.extract_value(values[0], i)
                writer.data[name] = context.make_array(array)(context, builder, value).data
            lines = json.loads(listing)
            hoisted = sum(kind == "hoist" for kind, *_ in lines)
            for line in lines[:hoisted]:
                writer.write(line, lane=None)
            if lanes == 1:
                for line in lines[hoisted:]:
                    writer.write(line, lane=None)
            else:
                with _for_range(builder, context.get_constant(types.intp, lanes)) as loop:
                    for line in lines[hoisted:]:
                        writer.write(line, lane=loop.index)
                    body = builder.basic_block
                _vectorise_fully(builder.module, body.terminator)
            return context.get_dummy_value()

        return types.none(arrays), generate

    return run


def _vectorise_fully(module: Any, back_edge: Any) -> None:
    """Ask for the widest registers, where LLVM prefers half of them for the sake of other code.

    On processors with AVX-512 it expects a loss of clock rate that recent ones do not have.
    """
    if not get_host_cpu_features().get("avx512f"):
        return
    width = module.add_metadata(["llvm.loop.vectorize.width", ir.Constant(ir.IntType(32), 8)])
    loop = module.add_metadata([width, ir.Constant(ir.IntType(64), len(module.metadata))])
    loop.operands = (loop, width)  # a loop's metadata begins with itself
    back_edge.set_metadata("llvm.loop", loop)


class _Writer:
    """Appends LLVM instructions to a block, and knows the values that they make."""

    def __init__(self, typing_context: Any, context: Any, builder: Any) -> None:
        self.data: dict[str, Any] = {}
        self._values: dict[int, Any] = {}
        self._typing_context = typing_context
        self._context = context
        self._builder = builder
        self._callees: dict[str, Callable[..., Any]] = {}

    def write(self, line: list[Any], lane: Any) -> None:
        """Append one line of the listing."""
        match line:
            case ["hoist" | "load", number, array, index]:
                self._values[number] = self._builder.load(self._pointer(array, index, lane))
            case ["store", array, index, operand]:
                self._builder.store(self._number(operand), self._pointer(array, index, lane))
            case [kind, number, *operands]:
                self._values[number] = self._computed(kind, operands)

    def _pointer(self, array: str, index: int, lane: Any) -> Any:
        place = ir.Constant(ir.IntType(64), index)
        pointer = self._builder.gep(self.data[array], [place], inbounds=True)
        return pointer if lane is None else self._builder.gep(pointer, [lane], inbounds=True)

    def _computed(self, kind: str, operands: list[int | float]) -> Any:
        if kind in _LOGICAL:
            arguments = [self._condition(o) for o in operands]
        elif kind == "select":
            arguments = [self._condition(operands[0]), *map(self._number, operands[1:])]
        else:
            arguments = [self._number(o) for o in operands]
        if kind in _INSTRUCTIONS:
            return _INSTRUCTIONS[kind](self._builder, *arguments)
        if kind not in self._callees:
            self._callees[kind] = self._find(kind, len(operands))
        return self._callees[kind](self._builder, arguments)

    def _number(self, operand: int | float) -> Any:
        """An operand as a double: a value, or a constant."""
        if isinstance(operand, float):
            return ir.Constant(_DOUBLE, operand)
        value = self._values[operand]
        return value if value.type == _DOUBLE else self._builder.uitofp(value, _DOUBLE)

    def _condition(self, operand: int | float) -> Any:
        assert isinstance(operand, int)
        value = self._values[operand]
        assert value.type == _BOOLEAN
        return value

    def _find(self, kind: str, arity: int) -> Callable[..., Any]:
        if kind in _LLVM_FUNCTIONS:
            name = f"llvm.{_LLVM_FUNCTIONS[kind]}"
            function = self._builder.module.declare_intrinsic(name, [_DOUBLE])
            return lambda builder, arguments: builder.call(function, arguments)
        function_type = self._typing_context.resolve_value_type(getattr(vectormath, kind))
        signature = function_type.get_call_type(self._typing_context, (types.float64,) * arity, {})
        callee: Callable[..., Any] = self._context.get_function(function_type, signature)
        return callee
