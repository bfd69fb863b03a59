"""The values of a program by NumPy, for many values of its inputs at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc_gym.compiled.primitives import CONDITIONS, primitive
from mpc_gym.compiled.program import Expression, Operation, Program, Shape, Value

Floats = npt.NDArray[np.float64]


def evaluate(
    program: Program, outputs: Sequence[Value], inputs: Mapping[str, Any], count: int
) -> Floats:
    """The values [outputs, count] of scalars, for `count` values of each input."""
    values: dict[int, Any] = {}
    with np.errstate(all="ignore"):
        for index in program.live(outputs):
            operation, shape = program.operations[index], program.shapes.get(index)
            if operation.kind == "input":
                values[index] = inputs[operation.name]
                continue
            arguments = [values[o] if isinstance(o, int) else o for o in operation.operands]
            if operation.kind in _BLOCKS:
                values[index] = _BLOCKS[operation.kind](operation, shape, arguments, inputs, count)
            else:
                value = primitive(operation.kind)(*arguments)
                values[index] = np.float64(value) if operation.kind in CONDITIONS else value
    found = [values[y.index] if isinstance(y, Expression) else y for y in outputs]
    return np.array([np.broadcast_to(each, count) for each in found], dtype=np.float64)


# Blocks are arrays [rows, columns, count].


def _block(operation: Operation, shape: Shape, _: Any, inputs: Any, count: int) -> Floats:
    start, down, across = operation.static[:3]
    rows, columns = shape
    found = [
        np.broadcast_to(inputs[f"{operation.name}{start + i * down + j * across}"], count)
        for i in range(rows)
        for j in range(columns)
    ]
    return np.array(found).reshape(*shape, count)


def _pack(operation: Operation, shape: Shape, parts: Sequence[Any], _: Any, count: int) -> Floats:
    pieces = [
        np.broadcast_to(part if np.ndim(part) < 3 else part[:, 0], (n, count))
        for part, n in zip(parts, operation.static, strict=True)
    ]
    return np.concatenate(pieces).reshape(*shape, count)


def _view(operation: Operation, shape: Shape, parts: Sequence[Any], *_: Any) -> Any:
    start, down, across = operation.static
    flat = parts[0].reshape(-1, parts[0].shape[-1])
    rows, columns = np.indices(shape)
    return flat[start + rows * down + columns * across]


def _outer(_: Operation, __: Shape, parts: Sequence[Any], *___: Any) -> Any:
    return sum(
        a[:, 0][:, None] * b[:, 0][None] for a, b in zip(parts[::2], parts[1::2], strict=True)
    )


_BLOCKS: dict[str, Any] = {
    "block": _block,
    "pack": _pack,
    "view": _view,
    "element": lambda operation, _, parts, *__: parts[0].reshape(-1, parts[0].shape[-1])[
        operation.static[0]
    ],
    "sum": lambda _, __, parts, *___: parts[0].sum((0, 1)),
    "matmul": lambda _, __, parts, *___: np.einsum("ikn,kjn->ijn", *parts),
    "outer": _outer,
}
