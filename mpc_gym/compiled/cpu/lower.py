"""The listing of a kernel as one Numba intrinsic: its loops here, its products in `products.py`.

Numba infers the type of every line, at about a millisecond each, which makes a program of some
thousand operations slow to compile. Here there is nothing to infer, so a listing of operations (see
`compiled.kernel`) is turned into LLVM instructions directly, in a tenth of the time.

What lets LLVM turn a loop over lanes into packed instructions: it is the innermost one, its bounds
are literals, an index is a literal, a multiple of the entry and the lane, all loads stand first and
all stores last, nothing in it branches, and no lane reads what another writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from llvmlite.ir.values import MDValue
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mpc_gym.compiled.cpu import vectormath
from mpc_gym.compiled.cpu.products import PRODUCTS
from mpc_gym.compiled.kernel import SCRATCH

_for_range: Any = cgutils.for_range
_alloca_once: Any = cgutils.alloca_once
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


def run_listing(listing: str, arguments: Sequence[str], lanes: int, scratch: int) -> Any:
    """A function, for Numba code, that runs a listing on a tuple of contiguous float64 arrays.

    Args:
        listing: as JSON; it is read when code is made of it.
        arguments: what the listing calls the arrays in the tuple.
        lanes: how often it is run, for lane = 0, 1, ...
        scratch: numbers of scratch memory, taken from the stack where no argument is `SCRATCH`.
    """

    @intrinsic
    def run(typing_context: Any, arrays: Any) -> Any:
        for name, array in zip(arguments, arrays, strict=True):
            if array.dtype != types.float64 or array.layout != "C":
                raise TypeError(f"{name} is {array}, expected a contiguous array of float64")

        def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
            data = {}
            for i, (name, array) in enumerate(zip(arguments, arrays, strict=True)):
                value = builder.extract_value(values[0], i)
                data[name] = context.make_array(array)(context, builder, value).data
            if scratch and SCRATCH not in data:
                data[SCRATCH] = _alloca_once(builder, _DOUBLE, size=scratch)
            for kind, *step in json.loads(listing):
                if kind == "loop":
                    _Loop(typing_context, context, builder, data, lanes).write(*step)
                else:
                    PRODUCTS[kind](builder, data, lanes, *step)
            return context.get_dummy_value()

        return types.none(arrays), generate

    return run


class _Distinct(MDValue):  # type: ignore[misc]
    """A node of metadata that equals no other."""

    def descr(self, buf: Any) -> None:
        """Its definition."""
        buf += ("distinct !{}", "\n")

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _vectorise_fully(module: Any, back_edge: Any, group: Any) -> None:
    """Say that no lane depends on another's memory, and ask for the widest registers.

    On processors with AVX-512 LLVM prefers half of them for the sake of other code, since it
    expects a loss of clock rate that recent ones do not have.
    """
    name = ir.MetaDataString(module, "llvm.loop.parallel_accesses")
    wishes = [module.add_metadata([name, group])]
    # it expects little of a loop that ends after a register or two
    always = ir.Constant(ir.IntType(1), 1)
    wishes.append(module.add_metadata(["llvm.loop.vectorize.enable", always]))
    if get_host_cpu_features().get("avx512f"):
        width = ir.Constant(ir.IntType(32), 8)
        wishes.append(module.add_metadata(["llvm.loop.vectorize.width", width]))
    loop = module.add_metadata([*wishes, ir.Constant(ir.IntType(64), len(module.metadata))])
    loop.operands = (loop, *wishes)  # a loop's metadata begins with itself
    back_edge.set_metadata("llvm.loop", loop)


def _index(value: int) -> Any:
    return ir.Constant(ir.IntType(64), value)


class _Loop:
    """Writes a loop over entries and lanes, and knows the values of its instructions."""

    def __init__(
        self, typing_context: Any, context: Any, builder: Any, data: dict[str, Any], lanes: int
    ) -> None:
        self._data = data
        self._lanes = lanes
        self._values: dict[int, Any] = {}
        self._typing_context = typing_context
        self._context = context
        self._builder = builder
        self._callees: dict[str, Callable[..., Any]] = {}
        self._group: Any = None  # of what reads and writes memory for one lane

    def write(self, height: int, lines: Sequence[list[Any]]) -> None:
        """Write all of it."""
        hoisted = sum(kind == "hoist" for kind, *_ in lines)
        for _, number, array, offset in lines[:hoisted]:
            self._values[number] = self._builder.load(self._pointer(array, offset))
        lines = lines[hoisted:]
        for line in lines:
            if line[0] == "sum":
                self._clear(*line[1:3])
        if height == 1:
            self._over_lanes(lines, None)
            return
        with _for_range(self._builder, self._context.get_constant(types.intp, height)) as loop:
            self._over_lanes(lines, loop.index)

    def _clear(self, array: str, offset: int) -> None:
        for lane in range(self._lanes):
            self._builder.store(ir.Constant(_DOUBLE, 0.0), self._pointer(array, offset + lane))

    def _over_lanes(self, lines: Sequence[list[Any]], entry: Any) -> None:
        if self._lanes == 1:
            for line in lines:
                self._line(line, entry, None)
            return
        module = self._builder.module
        self._group = _Distinct(module, (), name=str(len(module.metadata)))
        count = self._context.get_constant(types.intp, self._lanes)
        with _for_range(self._builder, count) as loop:
            for line in lines:
                self._line(line, entry, loop.index)
            body = self._builder.basic_block
        _vectorise_fully(module, body.terminator, self._group)

    def _line(self, line: list[Any], entry: Any, lane: Any) -> None:
        """Append one instruction."""
        match line:
            case ["load", number, array, offset, step, laned]:
                place = self._pointer(array, offset, step, entry, lane if laned else None)
                self._values[number] = self._grouped(self._builder.load(place))
            case ["store", array, offset, step, operand]:
                place = self._pointer(array, offset, step, entry, lane)
                self._grouped(self._builder.store(self._number(operand), place))
            case ["sum", array, offset, operand]:
                place = self._pointer(array, offset, 0, entry, lane)
                before = self._grouped(self._builder.load(place))
                total = self._builder.fadd(before, self._number(operand))
                self._grouped(self._builder.store(total, place))
            case [kind, number, *operands]:
                self._values[number] = self._computed(kind, operands)

    def _grouped(self, instruction: Any) -> Any:
        if self._group is not None:
            instruction.set_metadata("llvm.access.group", self._group)
        return instruction

    def _pointer(
        self, array: str, offset: int, step: int = 0, entry: Any = None, lane: Any = None
    ) -> Any:
        pointer = self._builder.gep(self._data[array], [_index(offset)], inbounds=True)
        if entry is not None and step:
            moved = self._builder.mul(entry, _index(step))
            pointer = self._builder.gep(pointer, [moved], inbounds=True)
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
        if value.type == _BOOLEAN:
            return value
        zero = ir.Constant(_DOUBLE, 0.0)  # another step has put it into memory, as a number
        return self._builder.fcmp_unordered("!=", value, zero)

    def _find(self, kind: str, arity: int) -> Callable[..., Any]:
        if kind in _LLVM_FUNCTIONS:
            name = f"llvm.{_LLVM_FUNCTIONS[kind]}"
            function = self._builder.module.declare_intrinsic(name, [_DOUBLE])
            return lambda builder, arguments: builder.call(function, arguments)
        function_type = self._typing_context.resolve_value_type(getattr(vectormath, kind))
        signature = function_type.get_call_type(self._typing_context, (types.float64,) * arity, {})
        callee: Callable[..., Any] = self._context.get_function(function_type, signature)
        return callee
