"""Tables: printed, and written as CSV."""

import csv
import io
import math
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rich.table
import torch
from rich.console import Console

from mpc_gym.files import write

console = Console()


@dataclass
class Table:
    """Rows of one measurement."""

    name: str  # of its file
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, *values: Any) -> None:
        """Add a row."""
        assert len(values) == len(self.columns), (self.columns, values)
        self.rows.append(values)

    def records(self, **where: Any) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries; those with the given values."""
        for row in self.rows:
            record = dict(zip(self.columns, row, strict=True))
            if all(record[column] == value for column, value in where.items()):
                yield record

    def print(self) -> None:
        """Print the table."""
        table = rich.table.Table(title=self.title)
        for i, column in enumerate(self.columns):
            text = not self.rows or isinstance(self.rows[0][i], str | bool)
            table.add_column(column, justify="left" if text else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*(_shown(value) for value in row))
        console.print(table)

    def write(self, folder: Path) -> None:
        """Write the table as CSV."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        write(folder / f"{self.name}.csv", text.getvalue())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.4g}"


def machine() -> str:
    """Processor, its number of cores, versions, and the load of other programs."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{model}, {os.cpu_count()} cores{load}; Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
