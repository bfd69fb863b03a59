import csv
import io
from pathlib import Path

import pytest

from mpc_gym.experiments.tables import Table, picture, shown

TABLE = Table("t", "Losses", ("method", "loss", "found"), [["a|b", 1 / 3, True], ["c", 0.0, False]])


def test_a_table_is_markdown_with_numbers_to_the_right() -> None:
    assert TABLE.markdown().splitlines() == [
        "**Losses**",
        "",
        "| method | loss | found |",
        "| --- | ---: | ---: |",
        "| a&#124;b | 0.333 | yes |",
        "| c | 0 | no |",
    ]


def test_the_csv_of_a_table_keeps_all_digits() -> None:
    rows = list(csv.reader(io.StringIO(TABLE.csv())))
    assert rows[0] == ["method", "loss", "found"]
    assert float(rows[1][1]) == 1 / 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5e-7, "1.5e-07"),
        (0.0, "0"),
        (12.345, "12.3"),
        (1234567.0, "1.2e+06"),
        (7, "7"),
        (None, "-"),
        (True, "yes"),
        (float("inf"), "inf"),
        ("x", "x"),
    ],
)
def test_numbers_are_shown_with_three_digits(value: float | str | None, text: str) -> None:
    assert shown(value) == text


def test_a_picture_is_found_from_beside_its_folder() -> None:
    assert picture(Path("run/images/lqr.png"), "Losses") == "![Losses](images/lqr.png)"
