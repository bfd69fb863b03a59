"""The log of a run: `metrics.csv` and TensorBoard's events."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat

from mpc_gym.files import naming

METRICS = "metrics.csv"
Row = dict[str, float]


class Metrics:
    """Rows of numbers, each of which is on disk when `record` returns.

    Args:
        folder: of the run.
        rows: what a run that is resumed had recorded up to its checkpoint. They are written again:
            the file may hold others, from after the checkpoint.
        by: name of the number that counts the rows up.

    Raises:
        OSError: the files cannot be written; the disk is full, for instance. So do the methods.
    """

    def __init__(self, folder: Path, rows: Sequence[Row], by: str) -> None:
        self.rows = list(rows)
        self._by = by
        self._path = folder / METRICS
        with naming(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            table = CSVOutputFormat(str(self._path))  # empties the file
            for row in rows:
                table.write(dict(row), dict.fromkeys(row, ()), int(row[by]))
            self._logger = Logger(str(folder), [table, TensorBoardOutputFormat(str(folder))])

    def record(self, row: Row) -> None:
        """Add a row."""
        self.rows.append(row)
        for name, number in row.items():
            self._logger.record(name, number)
        with naming(self._path):
            self._logger.dump(int(row[self._by]))

    def close(self) -> None:
        """Close the files."""
        with naming(self._path):
            self._logger.close()

    def abandon(self) -> None:
        """Close the files after an error, which a second one must not hide."""
        for output in self._logger.output_formats:
            with contextlib.suppress(OSError):
                output.close()
