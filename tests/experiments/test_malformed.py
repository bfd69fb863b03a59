"""Malformed options of the experiments are answered in words, whatever is wrong with them."""

from functools import partial

import numpy as np

from mpc_gym.experiments import DemoOptions
from mpc_gym.experiments.agents import EpisodeOptions
from mpc_gym.experiments.compare import CompareOptions
from mpc_gym.experiments.learner import TrainOptions
from tests.malformed import EMPTY, ONE, PAIR, Case, failures, rows

ENV = "DiffPendulum-v0"
EPISODES = {"env": "word", "episodes": "count", "seed": "seed", "max_steps": "count"}
WHERE = {"jobs": "count", "engine": "word", "address": "not text"}
LEARNING = {
    **dict.fromkeys(("horizon", "starts"), "count"),
    **dict.fromkeys(("env", "learn"), "word"),
    "effort": "positive",
    "seed": "seed",
    "folder": "path",
}

CASES = {
    "DemoOptions": Case(
        DemoOptions,
        {"folder": lambda: "."},
        {
            "env": "word",
            "demonstrations": "count",
            "seed": "seed",
            "folder": "path",
            "quick": "flag",
        },
    ),
    "EpisodeOptions": Case(
        partial(EpisodeOptions, env=ENV),
        {},
        {**EPISODES, "policies": "word", "horizon": "count"},
        none=("max_steps", "horizon"),
    ),
    "TrainOptions": Case(
        partial(TrainOptions, env=ENV),
        {},
        {**LEARNING, "method": "word", "demonstrations": "count"},
        none=("horizon",),
        accepted={"learn": [EMPTY]},
    ),
    "CompareOptions": Case(
        partial(CompareOptions, env=ENV, methods=["mlp"], demonstrations=[1]),
        {},
        {
            **LEARNING,
            **WHERE,
            **dict.fromkeys(("seeds", "episodes", "unseen", "max_steps"), "count"),
            **dict.fromkeys(("methods", "demonstrations"), "word"),
            "film": "count or zero",
        },
        none=("max_steps", "film", "address", "horizon"),
        accepted={"learn": [EMPTY], "demonstrations": [ONE, PAIR]},
    ),
}


@rows(CASES)
def test_a_bad_option_is_named_with_what_was_found(case: Case, argument: str) -> None:
    assert not failures(case, argument)


def test_a_comparison_with_numbers_of_numpy_is_that_with_pythons() -> None:
    given = CompareOptions(
        ENV, methods=("mlp",), demonstrations=[np.int64(1)], seeds=np.int64(1), effort=np.float32(2)
    )
    plain = CompareOptions(ENV, methods=("mlp",), demonstrations=(1,), seeds=1, effort=2.0)
    assert given.identity == plain.identity
    assert given.runs == plain.runs
