"""A program: a flat single-assignment list of float64 operations, on scalars and on blocks.

Everything the compiled backend does happens on this list: a traced module is written into it, it is
differentiated on it, and it is printed as one Numba function. An operation is appended only if it
is new: constants are folded, and an operation that is already there is used again.

Folding keeps NaN and infinity, with one exception: `0 * x` and `0 / x` are 0 whatever x is, and the
sign of zero is free. Structural zeros (of a Jacobian, of a cost's Hessian) have to vanish, or a
sparse stage would cost as much as a dense one. `x - x` and `x / x` are left alone.

An expression may stand for a block of numbers, a matrix or a column (see `blocks.py`): primitives
work on all its entries, and take a scalar beside it for every entry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mpc_gym.checks import check_count
from mpc_gym.compiled.errors import ProgramTooLarge
from mpc_gym.compiled.primitives import COMMUTATIVE, CONDITIONS, fold

MAX_OPERATIONS = 60_000
"""Longest program that is recorded; LLVM takes a second for three thousand operations."""

ALIASES = frozenset({"input", "block", "view", "element"})
"""Operations that only say where a value lies."""

_UNROLLED_POWER = 16  # above it, repeated multiplication is less accurate than the function

Operand: TypeAlias = "int | float"
"""An `int` is the index of an earlier operation, a `float` a constant."""


Shape: TypeAlias = "tuple[int, int]"
"""Rows and columns of a block."""


class Operation(NamedTuple):
    """One line of a program.

    `kind` names a primitive, or an operation on blocks (see `blocks.py`), or is "input", and then
    `name` is set. `static` are whole numbers that the operation depends on.
    """

    kind: str
    operands: tuple[Operand, ...]
    name: str = ""
    static: tuple[int, ...] = ()


class Program:
    """Records operations; see the module's docstring for what is folded.

    Raises `ProgramTooLarge` when more than `limit` operations that compute are recorded.
    """

    def __init__(self, limit: int = MAX_OPERATIONS) -> None:
        self.operations: list[Operation] = []
        self.shapes: dict[int, Shape] = {}  # of those that are blocks
        self.parameter_prefixes: set[str] = set()
        self.limit = check_count("limit", limit)
        self._index: dict[tuple[Operation, Shape | None], int] = {}
        self._length = 0

    def input(self, name: str) -> Expression:
        """The input called `name`, the same one every time it is asked for."""
        return self._append(Operation("input", (), name))

    def inputs(self, prefix: str, *shape: int) -> Array:
        """Inputs `prefix0, prefix1, ...` as an object array of that shape, in row-major order."""
        count = int(np.prod(shape, dtype=int))
        return as_array([self.input(f"{prefix}{i}") for i in range(count)]).reshape(shape)

    def parameters(self, prefix: str, *shape: int) -> Array:
        """Inputs that do not depend on state and control: they may be read as blocks."""
        self.parameter_prefixes.add(prefix)
        return self.inputs(prefix, *shape)

    def apply(self, kind: str, *operands: Operand) -> Expression:
        """Append a primitive, or return the expression that already computes it."""
        if kind in COMMUTATIVE:
            # Constants last; the type is part of the key, so that index 1 is not the constant 1.0.
            operands = tuple(sorted(operands, key=lambda o: (isinstance(o, float), repr(o))))
        shapes = {self.shapes[o] for o in operands if isinstance(o, int) and o in self.shapes}
        assert len(shapes) <= 1, (kind, shapes)
        return self._append(Operation(kind, operands), next(iter(shapes), None))

    def append(self, operation: Operation, shape: Shape | None) -> Expression:
        """Append an operation on blocks whose result is of that shape, None if it is a scalar."""
        return self._append(operation, shape)

    def _append(self, operation: Operation, shape: Shape | None = None) -> Expression:
        key = operation._replace(operands=tuple(map(_identity, operation.operands))), shape
        index = self._index.get(key)
        if index is None:
            self._length += operation.kind not in ALIASES
            if self._length > self.limit:
                raise ProgramTooLarge(
                    f"the program has more than {self.limit} operations, which takes minutes to "
                    "compile"
                )
            index = self._index[key] = len(self.operations)
            self.operations.append(operation)
            if shape is not None:
                self.shapes[index] = shape
        return Expression(self, index)

    def live(self, outputs: Iterable[Any], known: Collection[int] = ()) -> list[int]:
        """Indices of the operations that `outputs` (expressions or numbers) need, in order.

        Without those that are known, and what these alone need.
        """
        pending = [o.index for o in outputs if isinstance(o, Expression)]
        needed: set[int] = set()
        while pending:
            index = pending.pop()
            if index not in needed and index not in known:
                needed.add(index)
                pending.extend(o for o in self.operations[index].operands if isinstance(o, int))
        return sorted(needed)

    def value(self, operand: Operand) -> Value:
        """The expression or the constant that an operand stands for."""
        return Expression(self, operand) if isinstance(operand, int) else operand

    def inputs_of(self, outputs: Iterable[Any]) -> list[str]:
        """Names of the inputs that `outputs` need, in the order in which they were made."""
        operations = (self.operations[i] for i in self.live(outputs))
        return [operation.name for operation in operations if operation.kind == "input"]


def _identity(operand: Operand) -> Any:
    # 1 == 1.0 and 0.0 == -0.0 in a dictionary; repr keeps them, and NaN equal to itself.
    return operand if isinstance(operand, int) else repr(operand)


class Expression:
    """The result of one operation of a program. Arithmetic with it appends to the program."""

    __slots__ = ("index", "program")

    def __init__(self, program: Program, index: int) -> None:
        self.program = program
        self.index = index

    @property
    def kind(self) -> str:
        """The primitive that computes it, or "input"."""
        return self.program.operations[self.index].kind

    @property
    def shape(self) -> Shape | None:
        """Rows and columns of a block, None of a scalar."""
        return self.program.shapes.get(self.index)

    def __repr__(self) -> str:
        operation = self.program.operations[self.index]
        return f"Expression({self.index}: {operation.name or operation.kind})"

    def __bool__(self) -> bool:
        raise TypeError("an expression has no value while the program is being recorded")

    def __add__(self, other: Any) -> Value:
        return add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Value:
        return subtract(self, other)

    def __rsub__(self, other: Any) -> Value:
        return subtract(other, self)

    def __mul__(self, other: Any) -> Value:
        return multiply(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Value:
        return divide(self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return divide(other, self)

    def __pow__(self, other: Any) -> Value:
        return power(self, other)

    def __rpow__(self, other: Any) -> Value:
        return power(other, self)

    def __neg__(self) -> Value:
        return negative(self)

    def __abs__(self) -> Value:
        return absolute(self)

    def __lt__(self, other: Any) -> Value:
        return less(self, other)

    def __le__(self, other: Any) -> Value:
        return less_equal(self, other)

    def __gt__(self, other: Any) -> Value:
        return less(other, self)

    def __ge__(self, other: Any) -> Value:
        return less_equal(other, self)


Value: TypeAlias = "Expression | float"
Array: TypeAlias = "npt.NDArray[Any]"  # of dtype object; its elements are values


def as_array(values: Any) -> Array:
    """An object array of expressions and numbers, zero-dimensional for a single one."""
    if isinstance(values, np.ndarray):
        return values.astype(object, copy=False)
    return np.array(values, dtype=object)


def _operand(value: Any) -> Operand:
    return value.index if isinstance(value, Expression) else float(value)


def _apply(kind: str, *values: Any) -> Value:
    for value in values:
        if isinstance(value, Expression):
            return value.program.apply(kind, *map(_operand, values))
    return fold(kind, *map(float, values))


def _is(value: Any, constant: float) -> bool:
    return not isinstance(value, Expression) and float(value) == constant


def _negated(value: Any) -> Expression | None:
    """The x of an expression -x."""
    if isinstance(value, Expression) and value.kind == "negative":
        inner = value.program.operations[value.index].operands[0]
        assert isinstance(inner, int)
        return Expression(value.program, inner)
    return None


def add(a: Any, b: Any) -> Value:
    """a + b."""
    if _is(b, 0.0):
        return _number(a)
    if _is(a, 0.0):
        return _number(b)
    if (positive := _negated(b)) is not None:
        return subtract(a, positive)
    if (positive := _negated(a)) is not None:
        return subtract(b, positive)
    return _apply("add", a, b)


def subtract(a: Any, b: Any) -> Value:
    """a - b."""
    if _is(b, 0.0):
        return _number(a)
    if _is(a, 0.0):
        return negative(b)
    if (positive := _negated(b)) is not None:
        return add(a, positive)
    return _apply("subtract", a, b)


def negative(a: Any) -> Value:
    """-a."""
    if (positive := _negated(a)) is not None:
        return positive
    return _apply("negative", a)


def multiply(a: Any, b: Any) -> Value:
    """a * b, where 0 * b is 0."""
    for factor, other in ((a, b), (b, a)):
        if _is(factor, 0.0) and isinstance(other, Expression):
            return 0.0
        if _is(factor, 1.0):
            return _number(other)
        if _is(factor, -1.0):
            return negative(other)
        if (positive := _negated(factor)) is not None:
            return negative(multiply(positive, other))
    return _apply("multiply", a, b)


def divide(a: Any, b: Any) -> Value:
    """a / b, where 0 / b is 0."""
    if _is(a, 0.0) and isinstance(b, Expression):
        return 0.0
    if _is(b, 1.0):
        return _number(a)
    if _is(b, -1.0):
        return negative(a)
    for x, y in ((_negated(a), b), (a, _negated(b))):
        if x is not None and y is not None:
            return negative(divide(x, y))
    return _apply("divide", a, b)


def power(a: Any, b: Any) -> Value:
    """a ** b; small whole exponents are multiplied out, halves are square roots."""
    if isinstance(b, Expression):
        return _apply("power", a, b)
    exponent = float(b)
    if exponent.is_integer() and abs(exponent) <= _UNROLLED_POWER:
        return _whole_power(a, int(exponent))
    if exponent == 0.5:
        return sqrt(a)
    if exponent == -0.5:
        return divide(1.0, sqrt(a))
    return _apply("power", a, exponent)


def _whole_power(a: Any, exponent: int) -> Value:
    if exponent < 0:
        return divide(1.0, _whole_power(a, -exponent))
    result: Value = 1.0
    square = _number(a)
    while exponent:
        if exponent & 1:
            result = multiply(result, square)
        exponent >>= 1
        if exponent:
            square = multiply(square, square)
    return result


def _number(a: Any) -> Value:
    return a if isinstance(a, Expression) else float(a)


def _unary(kind: str) -> Callable[[Any], Value]:
    def function(a: Any) -> Value:
        return _apply(kind, a)

    function.__name__ = function.__qualname__ = kind
    return function


sqrt, exp, expm1, log, log1p = map(_unary, ("sqrt", "exp", "expm1", "log", "log1p"))
sin, cos, tan, asin, acos = map(_unary, ("sin", "cos", "tan", "asin", "acos"))
sinh, cosh, tanh, asinh = map(_unary, ("sinh", "cosh", "tanh", "asinh"))
sigmoid, erf, absolute, floor, rint = map(_unary, ("sigmoid", "erf", "absolute", "floor", "rint"))
detach = _unary("detach")


def atan2(a: Any, b: Any) -> Value:
    """The angle of the point (b, a)."""
    return _apply("atan2", a, b)


def hypot(a: Any, b: Any) -> Value:
    """The distance of the point (a, b) from the origin; its square must not overflow."""
    return _apply("hypot", a, b)


def minimum(a: Any, b: Any) -> Value:
    """The smaller one; NaN if either is. Its derivative is shared half and half where a == b."""
    return _number(a) if _same(a, b) else _apply("minimum", a, b)


def maximum(a: Any, b: Any) -> Value:
    """The larger one; NaN if either is. Its derivative is shared half and half where a == b."""
    return _number(a) if _same(a, b) else _apply("maximum", a, b)


def less(a: Any, b: Any) -> Value:
    """The condition a < b, 1 or 0. Conditions have no derivative."""
    return _apply("less", a, b)


def less_equal(a: Any, b: Any) -> Value:
    """The condition a <= b."""
    return _apply("less_equal", a, b)


def equal(a: Any, b: Any) -> Value:
    """The condition a == b."""
    return _apply("equal", a, b)


def logical_not(a: Any) -> Value:
    """The condition a == 0."""
    return _apply("logical_not", condition(a))


def logical_and(a: Any, b: Any) -> Value:
    """Whether both conditions hold."""
    return _both(condition(a), condition(b))


def _both(a: Value, b: Value) -> Value:
    if _is(a, 0.0) or _is(b, 0.0):
        return 0.0
    if _is(a, 1.0) or _same(a, b):
        return b
    return a if _is(b, 1.0) else _apply("logical_and", a, b)


def logical_or(a: Any, b: Any) -> Value:
    """Whether one of the conditions holds."""
    return _either(condition(a), condition(b))


def _either(a: Value, b: Value) -> Value:
    if _is(a, 1.0) or _is(b, 1.0):
        return 1.0
    if _is(a, 0.0) or _same(a, b):
        return b
    return a if _is(b, 0.0) else _apply("logical_or", a, b)


def condition(a: Any) -> Value:
    """a != 0, as 1 or 0."""
    if not isinstance(a, Expression):
        return float(float(a) != 0.0)
    return a if a.kind in CONDITIONS else _apply("logical_not", _apply("equal", a, 0.0))


def select(chosen: Any, a: Any, b: Any) -> Value:
    """a where the condition holds, b elsewhere. Both are computed: there is no branch."""
    chosen = condition(chosen)
    if not isinstance(chosen, Expression):
        return _number(a if chosen else b)
    return _number(a) if _same(a, b) else _apply("select", chosen, a, b)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Expression) and isinstance(b, Expression):
        return a.index == b.index
    if isinstance(a, Expression) or isinstance(b, Expression):
        return False
    return repr(float(a)) == repr(float(b))


def sign(a: Any) -> Value:
    """-1, 0 or 1."""
    return subtract(less(0.0, a), less(a, 0.0))


def is_zero(value: Any) -> bool:
    """Whether it is the number 0."""
    return _is(value, 0.0)


def elements(values: Any) -> list[Value]:
    """The elements of an array (or nested list) of values, in row-major order."""
    return list(as_array(values).ravel())
