"""Some of many combinations for every run, and the rest for the slow ones."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def covering(cases: Iterable[Sequence[Any]]) -> list[Any]:
    """Cases for `pytest.mark.parametrize`: few that have every value, and the others marked slow.

    Each case that is chosen has the most values that none of those before it has.
    """
    left = [tuple(case) for case in cases]
    seen: set[tuple[int, int]] = set()
    chosen = []
    places = [{(i, id(value)) for i, value in enumerate(case)} for case in left]
    everything = set().union(*places)
    while seen != everything:
        best = max(range(len(left)), key=lambda i: len(places[i] - seen))
        seen |= places.pop(best)
        chosen.append(left.pop(best))
    return [*chosen, *(pytest.param(*case, marks=pytest.mark.slow) for case in left)]


def covering_product(*axes: Iterable[Any]) -> list[Any]:
    """`covering` all combinations of a value of each axis."""
    return covering(itertools.product(*axes))
