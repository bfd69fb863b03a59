"""The table of ATen operations that can be compiled, one row an operation.

A row maps an operation's name to a function on object arrays of expressions. Operations without
a row are first taken apart by PyTorch's own decompositions, where it has one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torch._decomp import core_aten_decompositions

from mpc_gym.compiled.operations.elementwise import ELEMENTWISE
from mpc_gym.compiled.operations.layers import LAYERS
from mpc_gym.compiled.operations.linalg import LINALG
from mpc_gym.compiled.operations.order import ORDER
from mpc_gym.compiled.operations.reductions import REDUCTIONS
from mpc_gym.compiled.operations.shapes import SHAPES

OPERATIONS: dict[str, Callable[..., Any]] = {
    **ELEMENTWISE,
    **LAYERS,
    **LINALG,
    **ORDER,
    **REDUCTIONS,
    **SHAPES,
}


def operation(name: str) -> Callable[..., Any] | None:
    """The function for an ATen operation by its full name, "aten.add.Tensor"; None if missing.

    An in-place operation, "aten.add_.Tensor", is the plain one with its result written back.
    """
    if name in OPERATIONS:
        return OPERATIONS[name]
    namespace, base, overload = name.split(".")
    plain = OPERATIONS.get(f"{namespace}.{base.removesuffix('_')}.{overload}")
    if plain is None or not base.endswith("_"):
        return None

    def in_place(a: Any, *arguments: Any, **options: Any) -> Any:
        a[...] = plain(a, *arguments, **options)
        return a

    return in_place


@cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """PyTorch's decompositions of the operations that are not in the table."""
    table: dict[Any, Callable[..., Any]] = core_aten_decompositions()
    return {target: f for target, f in table.items() if operation(str(target)) is None}
