"""Malformed options of the reproduction are answered in words, whatever is wrong with them."""

from functools import partial

from reproduction.reproduce import ReproduceOptions
from tests.malformed import EMPTY, Case, failures, rows

CASES = {
    "ReproduceOptions": Case(
        partial(ReproduceOptions, "."),
        {},
        {
            "jobs": "count",
            "engine": "word",
            "address": "not text",
            "only": "word",
            "quick": "flag",
            "seed": "seed",
        },
        none=("address",),
        accepted={"only": [EMPTY]},
    ),
}


@rows(CASES)
def test_a_bad_option_is_named_with_what_was_found(case: Case, argument: str) -> None:
    assert not failures(case, argument)
