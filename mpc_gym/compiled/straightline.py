"""Straight-line float64 code as one Numba intrinsic.

Numba infers the type of every line, at about a millisecond each, which makes a program of some
thousand operations slow to compile. Here there is nothing to infer, so a listing of operations is
turned into LLVM instructions directly, in a tenth of the time. It looks like this:

    inputs t0 t3
    t4 = sin t0
    t5 = multiply t4 t3
    results t5 t4
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from mpc_gym.compiled import vectormath

_UniTuple: Any = types.UniTuple
_DOUBLE = ir.DoubleType()
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


def straight_line(listing: str) -> Any:
    """A function, for Numba code, from the tuple of a listing's inputs to that of its results."""
    first, *operations, last = listing.strip().splitlines()
    n_results = len(last.split()) - 1

    @intrinsic
    def run(typing_context: Any, inputs: Any) -> Any:
        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            writer = _Writer(typing_context, context, builder)
            for i, name in enumerate(first.split()[1:]):
                writer.values[name] = builder.extract_value(arguments[0], i)
            for operation in operations:
                writer.write(*operation.replace("= ", "").split())
            results = [writer.number(name) for name in last.split()[1:]]
            return context.make_tuple(builder, returned, results)

        returned: Any = _UniTuple(types.float64, n_results)
        return returned(inputs), generate

    return run


class _Writer:
    """Appends LLVM instructions to a block, and knows the value of each name."""

    def __init__(self, typing_context: Any, context: Any, builder: Any) -> None:
        self.values: dict[str, Any] = {}
        self._typing_context = typing_context
        self._context = context
        self._builder = builder
        self._callees: dict[str, Callable[..., Any]] = {}

    def write(self, name: str, kind: str, *operands: str) -> None:
        """Compute one operation of the listing."""
        arguments = [self.number(o) for o in operands if kind not in _LOGICAL]
        if kind in _LOGICAL:
            arguments = [self._condition(o) for o in operands]
        elif kind == "select":
            arguments[0] = self._condition(operands[0])
        if kind in _INSTRUCTIONS:
            self.values[name] = _INSTRUCTIONS[kind](self._builder, *arguments)
        else:
            self.values[name] = self._callee(kind, len(operands))(self._builder, arguments)

    def number(self, operand: str) -> Any:
        """An operand as a double: a name, or a constant."""
        if not operand.startswith("t"):
            return ir.Constant(_DOUBLE, float(operand))
        value = self.values[operand]
        return value if value.type == _DOUBLE else self._builder.uitofp(value, _DOUBLE)

    def _condition(self, operand: str) -> Any:
        value = self.values[operand]
        assert value.type == ir.IntType(1)
        return value

    def _callee(self, kind: str, arity: int) -> Callable[..., Any]:
        if kind not in self._callees:
            self._callees[kind] = self._find(kind, arity)
        return self._callees[kind]

    def _find(self, kind: str, arity: int) -> Callable[..., Any]:
        if kind in _LLVM_FUNCTIONS:
            name = f"llvm.{_LLVM_FUNCTIONS[kind]}"
            function = self._builder.module.declare_intrinsic(name, [_DOUBLE])
            return lambda builder, arguments: builder.call(function, arguments)
        function_type = self._typing_context.resolve_value_type(getattr(vectormath, kind))
        signature = function_type.get_call_type(self._typing_context, (types.float64,) * arity, {})
        callee: Callable[..., Any] = self._context.get_function(function_type, signature)
        return callee
