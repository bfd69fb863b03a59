"""When training has paid: the first score at a level, over several runs."""

import pytest

from benchmarks.cost_map import steps_to


def run(*returns):
    """Scored after every thousand steps, from none on."""
    return {"rows": [{"step": 1_000 * i, "return": each} for i, each in enumerate(returns)]}


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ([run(1, 5, 3), run(1, 2, 6), run(5, 1, 1)], "1,000"),
        ([run(1, 5, 3), run(1, 2, 3)], "1,000 (1 of 2)"),
        ([run(1, 2, 3)], "never"),
    ],
)
def test_it_is_the_median_over_the_runs_that_came_there(runs, told):
    assert steps_to(runs, 5) == told
