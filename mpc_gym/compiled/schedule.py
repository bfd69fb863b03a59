"""The order in which a program's operations run: loops over the entries of columns, and products.

Scalars are computed together, as far as they can be before a block is needed; so are columns of one
height, entry by entry. A product of matrices is a step of its own, with all others by the same
matrix that can be made by then. What one step hands to another lies in scratch memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from mpc_gym.compiled import blocks
from mpc_gym.compiled.program import ALIASES, Operation, Program

Kind: TypeAlias = "tuple[str, int]"
"""("loop", height), ("pack", index) or ("matmul", 0)."""


LONGEST = 2500
"""Operations on scalars in one step. LLVM takes more than twice as long for twice as many."""


class Step(NamedTuple):
    """Operations that run together, in order."""

    kind: Kind
    operations: list[int]


def schedule(program: Program, live: Sequence[int]) -> list[Step]:
    """Steps that compute the live operations; each at the first step at which it can run."""
    pending = [i for i in live if program.operations[i].kind not in {*ALIASES, "outer"}]
    kinds = {i: _kind(program, i) for i in pending}
    done: set[int] = set()
    steps: list[Step] = []
    while pending:
        ready = [kinds[i] for i in pending if _sources(program, i) <= done]
        # scalars first, products last: so products by the same matrix come together
        kind = min(ready, key=lambda k: (k[0] == "matmul", k))
        step = _taken(program, pending, kinds, kind, done)
        parts = -(-len(step) // LONGEST) if kind == ("loop", 1) else 1
        size = -(-len(step) // parts)
        steps += [Step(kind, step[i : i + size]) for i in range(0, len(step), size)]
        done.update(step)
        pending = [i for i in pending if i not in done]
    return steps


def _taken(
    program: Program, pending: Iterable[int], kinds: dict[int, Kind], kind: Kind, done: set[int]
) -> list[int]:
    """All operations of a kind that can run, one after the other, after those that are done."""
    taken: list[int] = []
    inside: set[int] = set()  # what an operation of the same step can use
    for i in pending:
        if kinds[i] == kind:
            operands = {o for o in program.operations[i].operands if isinstance(o, int)}
            outside = operands - inside
            if all(base_of(program, o) in done or _is_given(program, o) for o in outside):
                taken.append(i)
                if kind[0] == "loop" and program.operations[i].kind not in ("sum", "pack"):
                    inside.add(i)
    return taken


def _kind(program: Program, index: int) -> Kind:
    operation, shape = program.operations[index], program.shapes.get(index)
    if operation.kind == "matmul":
        return "matmul", 0
    if operation.kind == "sum":
        operand = operation.operands[0]
        assert isinstance(operand, int)
        return "loop", blocks.size(program.shapes[operand])
    if operation.kind == "pack":
        return ("loop", 1) if is_of_scalars(program, operation) else ("pack", index)
    return "loop", 1 if shape is None else blocks.size(shape)


def is_of_scalars(program: Program, packed: Operation) -> bool:
    """Whether a pack is of scalars alone, each of them once."""
    columns = any(o in program.shapes for o in packed.operands if isinstance(o, int))
    return not columns and all(count == 1 for count in packed.static)


def _sources(program: Program, index: int) -> set[int]:
    """The operations that are no aliases and that an operation needs at once."""
    operands = [o for o in program.operations[index].operands if isinstance(o, int)]
    return {base_of(program, o) for o in operands if not _is_given(program, o)}


def base_of(program: Program, index: int) -> int:
    """What a view or an element is of, or the operation itself."""
    while program.operations[index].kind in ("view", "element"):
        operand = program.operations[index].operands[0]
        assert isinstance(operand, int)
        index = operand
    return index


def _is_given(program: Program, index: int) -> bool:
    return program.operations[base_of(program, index)].kind in ("input", "block")
