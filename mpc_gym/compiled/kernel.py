"""A kernel: a program, and where it reads its inputs and writes its results.

It is data, which a target (`compiled.cpu`) turns into code. Its arguments are arrays of float64. A
kernel of several lanes runs on as many problems at once: each entry of an array of theirs is that
many neighbouring numbers, one a lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

from mpc_gym.compiled.blocks import size
from mpc_gym.compiled.program import Expression, Operand, Program, Value
from mpc_gym.compiled.schedule import Step, base_of, schedule

SCRATCH = "scratch"
"""What a kernel calls the array of its own, for what one step hands to another."""

Instruction: TypeAlias = "tuple[str | int | float, ...]"
"""One of

    ("hoist", i, array, offset)           value i = array[offset], of all lanes and entries
    ("load", i, array, offset, step, l)   value i = array[offset + entry step + l lane], l is 0 or 1
    ("store", array, offset, step, a)     array[offset + entry step + lane] = a
    ("sum", array, offset, a)             array[offset + lane] = the sum of a over the entries
    (kind, i, a, b ...)                   value i = kind(a, b ...), a primitive

where an operand is the number of a value, an int, or a constant, a float.
"""

Listing: TypeAlias = "list[tuple[object, ...]]"
"""Steps, one after the other. Each is one of

    ("loop", height, instructions)             for each entry of columns, and each lane; all of
                                               "hoist" come first, then of "load"
    ("matmul", A, rows, inner, [(b, y) ...])   y[i] = sum_k A[i, k] b[k]
    ("outer", Y, rows, columns, [(a, b) ...])  Y[i, j] += sum a[i] b[j]

A matrix is (array, offset, down, across, l), a column (array, offset, step, l): where its first
entry lies, how far it is from there to the next, and whether each lane has its own.
"""


class Place(NamedTuple):
    """An element of an array; of an entry that each lane has one of, the first lane's."""

    array: str
    offset: int
    shared: bool = False  # the same for all lanes


class Matrix(NamedTuple):
    """Where a matrix lies; a column has no step across."""

    array: str
    offset: int
    down: int
    across: int
    laned: int  # 1 where each lane has its own

    @property
    def column(self) -> tuple[str, int, int, int]:
        """As in a listing."""
        return self.array, self.offset, self.down, self.laned


class Sum(NamedTuple):
    """A block that is added to entries first, first + down, ... of what lies at `place`."""

    place: Place
    strides: tuple[int, int]  # in entries
    value: Expression


@dataclass(frozen=True)
class Kernel:
    """A program with places for its inputs and outputs.

    Attributes:
        name: of the function that it becomes.
        program: where the expressions in `stores` come from.
        arguments: names of its arrays, in order; they are contiguous.
        loads: where each input of the program is read.
        stores: where what is written, an expression or a number.
        lanes: how many problems it runs on.
        sums: blocks that are added to what is there.
    """

    name: str
    program: Program
    arguments: tuple[str, ...]
    loads: Mapping[str, Place]
    stores: Sequence[tuple[Place, Value]]
    lanes: int = 1
    sums: Sequence[Sum] = ()

    def listing(self) -> Listing:
        """What it does."""
        return self._listed[0]

    @property
    def scratch(self) -> int:
        """Numbers of scratch memory that it needs."""
        return self._listed[1]

    @cached_property
    def _listed(self) -> tuple[Listing, int]:
        return _Lister(self).listing()


class _Lister:
    """Writes the listing of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._program = kernel, kernel.program
        wanted = [*(value for _, value in kernel.stores), *(each.value for each in kernel.sums)]
        self._live = kernel.program.live(wanted)
        self._steps = schedule(kernel.program, self._live)
        self._slots: dict[int, int] = {}  # where in the scratch memory a value lies
        self._size = 0
        self._handed_on = self._find_handed_on()

    def listing(self) -> tuple[Listing, int]:
        listing: Listing = []
        steps = self._steps or [Step(("loop", 1), [])]
        if steps[-1].kind != ("loop", 1):
            steps.append(Step(("loop", 1), []))
        for step in steps:
            if step.kind[0] == "matmul":
                listing += self._products(step.operations)
            elif step.kind[0] == "pack":
                listing += self._pieces(step.operations[0])
            else:
                stores = self._kernel.stores if step is steps[-1] else ()
                listing.append(self._loop(step.kind[1], step.operations, stores))
        listing += [self._added(each) for each in self._kernel.sums]
        return listing, self._size

    def _find_handed_on(self) -> set[int]:
        """What is computed in one step and used in another."""
        operations = self._program.operations
        step_of = {i: n for n, step in enumerate(self._steps) for i in step.operations}
        last = len(self._steps) - (bool(self._steps) and self._steps[-1].kind == ("loop", 1))
        found: set[int] = set()

        def use(index: int, step: int) -> None:
            whole = base_of(self._program, index)
            if whole in step_of and (step_of[whole] != step or whole != index):
                found.add(whole)

        for i in self._live:
            for operand in operations[i].operands:
                if isinstance(operand, int) and operations[i].kind not in ("view", "element"):
                    use(operand, step_of.get(i, -1))
        for _, value in self._kernel.stores:
            if isinstance(value, Expression):
                use(value.index, last)
        for each in self._kernel.sums:
            use(each.value.index, -1)
        return found

    def _slot(self, index: int) -> int:
        if index not in self._slots:
            self._slots[index] = self._size
            shape = self._program.shapes.get(index, (1, 1))
            self._size += self._kernel.lanes * size(shape)
        return self._slots[index]

    def _matrix(self, index: int) -> Matrix:
        """Where the entries of a block lie."""
        operation, lanes = self._program.operations[index], self._kernel.lanes
        if operation.kind == "block":
            start, down, across = operation.static[:3]
            place = self._kernel.loads[f"{operation.name}{start}"]
            unit = 1 if place.shared else lanes
            return Matrix(place.array, place.offset, down * unit, across * unit, not place.shared)
        if operation.kind == "view":
            start, down, across = operation.static
            base = self._matrix(int(operation.operands[0]))
            offset = base.offset + start * lanes
            return Matrix(base.array, offset, down * lanes, across * lanes, 1)
        columns = self._program.shapes[index][1]
        return Matrix(SCRATCH, self._slot(index), columns * lanes, lanes, 1)

    def _entries(self, index: int) -> tuple[str, int, int, int]:
        """All entries of a block as one column."""
        matrix, (rows, columns) = self._matrix(index), self._program.shapes[index]
        if columns == 1:
            return matrix.column
        assert rows == 1 or matrix.down == columns * matrix.across, "it is in order"
        return matrix.array, matrix.offset, matrix.across, matrix.laned

    def _loop(
        self, height: int, operations: Sequence[int], stores: Sequence[tuple[Place, Value]]
    ) -> tuple[object, ...]:
        """The instructions of a step on scalars, or on columns of that height."""
        here = set(operations)
        hoists: list[Instruction] = []
        loads: list[Instruction] = []
        lines: list[Instruction] = []
        ends: list[Instruction] = []
        loaded: set[int] = set()

        def read(operand: Operand) -> None:
            if isinstance(operand, int) and operand not in here and operand not in loaded:
                loaded.add(operand)
                line = self._load(operand)
                (hoists if line[0] == "hoist" else loads).append(line)

        for i in operations:
            kind, operands, _, static = self._program.operations[i]
            for operand in operands:
                read(operand)
            if kind == "sum":
                ends.append(("sum", SCRATCH, self._slot(i), *operands))
            elif kind == "pack":
                at = self._slot(i)
                places = range(at, at + len(static) * self._kernel.lanes, self._kernel.lanes)
                ends += [("store", SCRATCH, p, 0, o) for p, o in zip(places, operands, strict=True)]
            else:
                lines.append((kind, i, *operands))
                if i in self._handed_on:
                    step = self._kernel.lanes if i in self._program.shapes else 0
                    ends.append(("store", SCRATCH, self._slot(i), step, i))
        for place, value in stores:
            operand = _operand(value)
            read(operand)
            ends.append(("store", place.array, place.offset, 0, operand))
        return "loop", height, [*hoists, *loads, *lines, *ends]

    def _load(self, index: int) -> Instruction:
        """Read what another step has computed, or what is given."""
        operation = self._program.operations[index]
        if operation.kind == "input":
            assert operation.name in self._kernel.loads, operation.name
            place = self._kernel.loads[operation.name]
            if place.shared:
                return "hoist", index, place.array, place.offset
            return "load", index, place.array, place.offset, 0, 1
        if index in self._program.shapes:
            return "load", index, *self._entries(index)
        if operation.kind == "element":
            of = int(operation.operands[0])
            array, offset, step, laned = self._entries(of)
            return "load", index, array, offset + operation.static[0] * step, 0, laned
        return "load", index, SCRATCH, self._slot(index), 0, 1

    def _pieces(self, index: int) -> Listing:
        """A column of parts, among them columns."""
        operation, lanes = self._program.operations[index], self._kernel.lanes
        columns: Listing = []
        loads: dict[Operand, Instruction] = {}
        ends: list[Instruction] = []
        at = self._slot(index)
        for operand, count in zip(operation.operands, operation.static, strict=True):
            load: dict[Operand, Instruction] = {}
            if isinstance(operand, int):
                load[operand] = self._load(operand)
            store: Instruction = ("store", SCRATCH, at, lanes, operand)
            if count == 1:
                loads |= load
                ends.append(store)
            else:
                columns.append(("loop", count, [*load.values(), store]))
            at += count * lanes
        hoists = sorted(loads.values(), key=lambda line: line[0] != "hoist")
        return [("loop", 1, [*hoists, *ends]), *columns] if ends else columns

    def _products(self, indices: Sequence[int]) -> Listing:
        """Products of matrices; those of the same matrix with several columns are one."""
        columns: dict[int, list[tuple[object, object]]] = {}
        for i in indices:
            a, b = map(int, self._program.operations[i].operands)
            right, result = self._matrix(b), self._matrix(i)
            for j in range(self._program.shapes[i][1]):
                pair = [
                    each._replace(offset=each.offset + j * each.across).column
                    for each in (right, result)
                ]
                columns.setdefault(a, []).append((pair[0], pair[1]))
        return [
            ("matmul", tuple(self._matrix(a)), *self._program.shapes[a], of)
            for a, of in columns.items()
        ]

    def _added(self, what: Sum) -> tuple[object, ...]:
        index, place = what.value.index, what.place
        unit = 1 if place.shared else self._kernel.lanes
        down, across = (stride * unit for stride in what.strides)
        operation = self._program.operations[index]
        if operation.kind == "outer":
            factors = [self._matrix(int(o)).column for o in operation.operands]
            to = (place.array, place.offset, down, across, 1)
            pairs = list(zip(factors[::2], factors[1::2], strict=True))
            return "outer", to, *self._program.shapes[index], pairs
        there = len(self._program.operations)
        lines: list[Instruction] = [
            self._load(index),
            ("load", there, place.array, place.offset, down, 1),
            ("add", there + 1, there, index),
            ("store", place.array, place.offset, down, there + 1),
        ]
        return "loop", size(self._program.shapes[index]), lines


@dataclass(frozen=True)
class Record:
    """Fields one after the other, each of so many entries, which a kernel's array is made of.

    Attributes:
        fields: names and numbers of entries, in order.
        lanes: numbers that an entry takes, one for each problem.
    """

    fields: Mapping[str, int]
    lanes: int = 1

    @property
    def size(self) -> int:
        """Numbers in one record."""
        return self.lanes * sum(self.fields.values())

    def offsets(self) -> dict[str, int]:
        """Where each field begins."""
        offsets, end = {}, 0
        for name, entries in self.fields.items():
            offsets[name] = end
            end += self.lanes * entries
        return offsets

    def places(self, array: str, *, shared: bool = False) -> dict[str, Place]:
        """Where the entries of each field lie in an array: of x, for example, `x0`, `x1` ...

        A prime marks those of the next record: `x'0`, `x'1` ... A field of one entry may leave out
        the number.
        """
        places: dict[str, Place] = {}
        for name, start in self.offsets().items():
            for following, at in (("", start), ("'", start + self.size)):
                for entry in range(self.fields[name]):
                    place = Place(array, at + self.lanes * entry, shared)
                    places[f"{name}{following}{entry}"] = place
                    if self.fields[name] == 1:
                        places[f"{name}{following}"] = place
        return places


def _operand(value: Value) -> Operand:
    return value.index if isinstance(value, Expression) else float(value)
