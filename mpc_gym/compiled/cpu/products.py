"""Products of matrices as loops of LLVM instructions, LANES problems at a time.

A block of the result is kept in registers while the inner dimension is run through. Vectors go
along the lanes, so that a matrix of parameters, which all lanes share, is read number by number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core import cgutils

_for_range: Any = cgutils.for_range
_alloca_once: Any = cgutils.alloca_once
_DOUBLE, _INDEX = ir.DoubleType(), ir.IntType(64)


def _registers() -> tuple[int, int]:
    """Numbers in a vector register, and how many of them a block of results may take."""
    return (8, 24) if get_host_cpu_features().get("avx512f") else (4, 12)


def _matmul(
    builder: Any,
    data: dict[str, Any],
    lanes: int,
    matrix: Sequence[Any],
    rows: int,
    inner: int,
    columns: Sequence[Sequence[Sequence[Any]]],
) -> None:
    """y[i] = sum_k A[i, k] b[k], for several columns b and y."""
    vectors = _Vectors(builder, data, lanes)
    across = max(1, min(len(columns), 3))
    high = max(1, min(rows, vectors.room // (across * vectors.parts)))
    for first in range(0, len(columns), across):
        group = columns[first : first + across]
        whole = rows - rows % high
        if whole:
            with _counted(builder, whole // high) as block:
                row = builder.mul(block, _index(high))
                _rows_of_products(vectors, matrix, row, high, inner, group)
        if rows % high:
            _rows_of_products(vectors, matrix, _index(whole), rows % high, inner, group)


def _rows_of_products(
    vectors: _Vectors,
    matrix: Sequence[Any],
    row: Any,
    high: int,
    inner: int,
    columns: Sequence[Sequence[Sequence[Any]]],
) -> None:
    """The entries row .. row + high - 1 of each column y."""
    builder = vectors.builder
    array, offset, down, across, laned = matrix
    cells = list(product(range(high), range(len(columns)), range(vectors.parts)))
    sums = {cell: vectors.zero() for cell in cells}
    with _counted(builder, inner) as k:
        right = [[vectors.load(b, k, part) for part in range(vectors.parts)] for b, _ in columns]
        for i in range(high):
            at = builder.add(
                builder.mul(builder.add(row, _index(i)), _index(down)),
                builder.mul(k, _index(across)),
            )
            left = vectors.entry(array, offset, at, laned)
            for j, part in product(range(len(columns)), range(vectors.parts)):
                cell = sums[i, j, part]
                term = builder.fmul(left[part], right[j][part])
                builder.store(builder.fadd(builder.load(cell), term), cell)
    for i, j, part in cells:
        place = builder.add(row, _index(i))
        vectors.store(columns[j][1], place, part, builder.load(sums[i, j, part]))


def _outer(
    builder: Any,
    data: dict[str, Any],
    lanes: int,
    to: Sequence[Any],
    rows: int,
    columns: int,
    pairs: Sequence[Sequence[Sequence[Any]]],
) -> None:
    """Y[i, j] += sum a[i] b[j] over pairs of columns."""
    vectors = _Vectors(builder, data, lanes)
    array, offset, down, across, _ = to
    with _counted(builder, rows) as i:
        left = [[vectors.load(a, i, part) for part in range(vectors.parts)] for a, _ in pairs]
        with _counted(builder, columns) as j:
            at = builder.add(builder.mul(i, _index(down)), builder.mul(j, _index(across)))
            for part in range(vectors.parts):
                place = vectors.place(array, offset, at, part)
                total = vectors.read(place)
                for (_, b), of in zip(pairs, left, strict=True):
                    term = builder.fmul(of[part], vectors.load(b, j, part))
                    total = builder.fadd(total, term)
                vectors.write(total, place)


class _Vectors:
    """Reads and writes the numbers of all lanes at an entry, in registers."""

    def __init__(self, builder: Any, data: dict[str, Any], lanes: int) -> None:
        wide, self.room = _registers()
        self.builder = builder
        self._data = data
        self._wide = min(wide, lanes)
        self.parts = lanes // self._wide
        self._type = ir.VectorType(_DOUBLE, self._wide) if self._wide > 1 else _DOUBLE

    def zero(self) -> Any:
        """A register that holds zeros."""
        cell = _alloca_once(self.builder, self._type)
        self.builder.store(ir.Constant(self._type, None), cell)
        return cell

    def place(self, array: str, offset: int, at: Any, part: int) -> Any:
        """Where the lanes of an entry lie that is `at` numbers from the first."""
        first = _index(offset + part * self._wide)
        pointer = self.builder.gep(self._data[array], [self.builder.add(at, first)])
        return self.builder.bitcast(pointer, self._type.as_pointer())

    def read(self, place: Any) -> Any:
        """What lies there; an array begins where a number does, not where a register would."""
        return self.builder.load(place, align=8)

    def write(self, value: Any, place: Any) -> None:
        """Put it there."""
        self.builder.store(value, place, align=8)

    def load(self, column: Sequence[Any], i: Any, part: int) -> Any:
        """Entry i of a column."""
        array, offset, step, laned = column
        at = self.builder.mul(i, _index(step))
        return self.entry(array, offset, at, laned, [part])[0]

    def entry(
        self, array: str, offset: int, at: Any, laned: int, parts: Sequence[int] | None = None
    ) -> list[Any]:
        """An entry, in parts; one that all lanes share is in each of them."""
        parts = range(self.parts) if parts is None else parts
        if laned:
            return [self.read(self.place(array, offset, at, part)) for part in parts]
        number = self.builder.gep(self._data[array], [self.builder.add(at, _index(offset))])
        value = self.builder.load(number)
        if self._wide > 1:
            undefined = ir.Constant(self._type, ir.Undefined)
            one = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
            mask = ir.Constant(ir.VectorType(ir.IntType(32), self._wide), None)
            value = self.builder.shuffle_vector(one, undefined, mask)
        return [value for _ in parts]

    def store(self, column: Sequence[Any], i: Any, part: int, value: Any) -> None:
        """Write entry i of a column."""
        array, offset, step, _ = column
        at = self.builder.mul(i, _index(step))
        self.write(value, self.place(array, offset, at, part))


@contextmanager
def _counted(builder: Any, count: int) -> Iterator[Any]:
    with _for_range(builder, _index(count)) as loop:
        yield loop.index


def _index(value: int) -> Any:
    return ir.Constant(_INDEX, value)


PRODUCTS: dict[str, Callable[..., None]] = {"matmul": _matmul, "outer": _outer}
"""Steps of a listing that are products, by name."""
