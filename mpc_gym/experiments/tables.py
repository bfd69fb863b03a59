"""Tables and pictures in the Markdown of a report."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Cell = str | float | bool | None


@dataclass(frozen=True)
class Table:
    """Rows of numbers and text, for the report and for a CSV file.

    Args:
        name: of the file, without ".csv".
        title: above the table in the report.
        columns: their headings.
        rows: as long as `columns` each.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.name

    def markdown(self) -> str:
        """The title and the table."""
        head = _markdown_row(self.columns)
        numeric = [
            bool(self.rows) and all(isinstance(row[i], (int, float)) for row in self.rows)
            for i in range(len(self.columns))
        ]
        rule = _markdown_row(["---:" if right else "---" for right in numeric])
        body = [_markdown_row([shown(cell) for cell in row]) for row in self.rows]
        return "\n".join([f"**{self.title}**", "", head, rule, *body])

    def csv(self) -> str:
        """The columns and rows, numbers with all their digits."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


def picture(path: Path, description: str) -> str:
    """Markdown of a plot in the folder of images, which lies beside the report."""
    return f"![{description}]({path.parent.name}/{path.name})"


def shown(value: Cell) -> str:
    """A number or text as a reader wants it, with three digits."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    return f"{value:.1e}" if value and not 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
