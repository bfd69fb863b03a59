"""The page about learning from rewards says what its data say."""

import json
from pathlib import Path

import pytest

from benchmarks.learners import ALONE, TRANSITIONS
from benchmarks.learning_report import bar, table, with_table

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/rewards.md").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / "docs/images/learning.json").read_text())


def row(kind, returns, system="pendulum", true=-100.0):
    """A row of results, of runs that end at these returns."""
    runs = [{"step": [9], "return": [each], "wall": [4.0], "cpu": [2.0]} for each in returns]
    failed = sum(each < bar(true) for each in returns)
    return {"algorithm": "PPO", "kind": kind, "system": system, "failed": failed, "runs": runs}


def test_the_page_has_the_table_of_the_data():
    assert table(RESULTS) in PAGE


def test_the_table_counts_failures_and_rounds_to_what_the_error_leaves():
    rows = [row("MLP", [-100.0, -104.0, -120.0]), row("MLP", [-2e6, -1e6], "cart-pole")]
    results = {"true": {"pendulum": [-100.0, 3.0], "cart-pole": [-100.0, 3.0]}, "rows": rows}
    *_, true, last = table(results).splitlines()
    assert true == "| true physics |  |  |  | -100.0 | -100.0 |  |"
    cells = "PPO | MLP | 1 of 3 | 2 of 2 | -108.0 ± 6.1 | -1.50e6 ± 0.50e6 | 2 / 2 (4 / 4)"
    assert last == f"| {cells} |"


def test_a_page_gets_the_table_of_other_results_in_the_place_of_its_own():
    true = {"pendulum": [-100.0, 3.0]}
    old = {"true": true, "rows": [row("MLP", [-100.0])]}
    new = {"true": true, "rows": [row("MLP", [-300.0]), row(ALONE, [-99.0])]}
    page = f"# Title\n\n{table(old)}\nAfter it.\n"
    assert with_table(page, new) == f"# Title\n\n{table(new)}\nAfter it.\n"
    with pytest.raises(ValueError, match="put one there"):
        with_table("# Title\n", new)


def test_the_page_says_how_many_are_level_after_the_first_fit():
    first = [
        next(score for step, score in zip(run["step"], run["return"], strict=True) if step >= 1_000)
        >= bar(RESULTS["true"][row["system"]][0])
        for row in RESULTS["rows"]
        if row["kind"] == TRANSITIONS
        for run in row["runs"]
    ]
    assert f"{sum(first)} of the {len(first)} are level" in PAGE
