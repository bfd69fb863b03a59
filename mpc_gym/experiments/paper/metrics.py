"""The log of a run: `metrics.csv` and TensorBoard's events."""

from collections.abc import Sequence
from pathlib import Path

from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat

METRICS = "metrics.csv"
Row = dict[str, float]


class Metrics:
    """Rows of numbers, each of which is on disk when `record` returns.

    Args:
        folder: of the run.
        rows: what a run that is resumed had recorded up to its checkpoint. They are written again:
            the file may hold others, from after the checkpoint.
        by: name of the number that counts the rows up.
    """

    def __init__(self, folder: Path, rows: Sequence[Row], by: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = list(rows)
        self._by = by
        table = CSVOutputFormat(str(folder / METRICS))  # empties the file
        for row in rows:
            table.write(dict(row), dict.fromkeys(row, ()), int(row[by]))
        self._logger = Logger(str(folder), [table, TensorBoardOutputFormat(str(folder))])

    def record(self, row: Row) -> None:
        """Add a row."""
        self.rows.append(row)
        for name, number in row.items():
            self._logger.record(name, number)
        self._logger.dump(int(row[self._by]))

    def close(self) -> None:
        """Close the files."""
        self._logger.close()
