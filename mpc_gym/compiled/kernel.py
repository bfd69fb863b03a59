"""A kernel: a scalar program, and where it reads its inputs and writes its results.

It is data, which a target (`compiled.cpu`) turns into code. Its arguments are arrays of float64. A
kernel of several lanes runs on as many problems at once: each entry of an array of theirs is that
many neighbouring numbers, one a lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from mpc_gym.compiled.program import Expression, Operand, Program, Value

Instruction: TypeAlias = "tuple[str | int | float, ...]"
"""One of

    ("hoist", i, array, offset)     value i = array[offset], the same for all lanes
    ("load", i, array, offset)      value i = array[offset + lane]
    ("store", array, offset, a)     array[offset + lane] = a
    (kind, i, a, b ...)              value i = kind(a, b ...), a primitive

where an operand is the number of a value, an int, or a constant, a float.
"""


class Place(NamedTuple):
    """An element of an array; of an entry that each lane has one of, the first lane's."""

    array: str
    offset: int
    shared: bool = False  # the same for all lanes


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
    """

    name: str
    program: Program
    arguments: tuple[str, ...]
    loads: Mapping[str, Place]
    stores: Sequence[tuple[Place, Value]]
    lanes: int = 1

    def listing(self) -> list[Instruction]:
        """What it does: all of "hoist" first, then of "load", the program, all of "store"."""
        operations = self.program.operations
        live = self.program.live(value for _, value in self.stores)
        inputs = {i: operations[i].name for i in live if operations[i].kind == "input"}
        assert set(inputs.values()) <= self.loads.keys(), inputs
        places = {i: self.loads[name] for i, name in inputs.items()}
        lines: list[Instruction] = []
        for kind, shared in (("hoist", True), ("load", False)):
            lines += [(kind, i, p.array, p.offset) for i, p in places.items() if p.shared == shared]
        lines += [(operations[i].kind, i, *operations[i].operands) for i in live if i not in inputs]
        lines += [("store", place.array, place.offset, _operand(v)) for place, v in self.stores]
        return lines


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
