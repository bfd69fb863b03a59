import pickle

import numpy as np
import pytest

from mpc_gym.envs.streams import AHEAD, Streams


def test_each_gets_the_numbers_of_its_own_generator_however_they_are_asked_for() -> None:
    streams = Streams(3)
    streams.seed([7, 8, 9])
    rng = np.random.default_rng(0)
    found: list[list[float]] = [[], [], []]
    for _ in range(200):
        rows = np.flatnonzero(rng.random(3) < 0.6)
        for i, numbers in zip(rows, streams.draw(rows, int(rng.integers(0, 9))), strict=True):
            found[i] += numbers.tolist()
    for seed, numbers in zip((7, 8, 9), found, strict=True):
        assert len(numbers) > 2 * AHEAD
        assert numbers == np.random.default_rng(seed).random(len(numbers)).tolist()


def test_seeding_one_leaves_the_others() -> None:
    streams, expected = Streams(2), np.random.default_rng(1).random(4)
    streams.seed([0, 1])
    both = np.array([0, 1])
    np.testing.assert_array_equal(streams.draw(both, 2)[1], expected[:2])
    streams.seed([5, None])
    drawn = streams.draw(both, 2)
    np.testing.assert_array_equal(drawn, [np.random.default_rng(5).random(2), expected[2:]])
    assert streams.seeds == [5, 1]


def test_a_copy_goes_on_with_the_same_numbers() -> None:
    streams, rows = Streams(2), np.array([0, 1])
    streams.draw(rows, 3)
    other = pickle.loads(pickle.dumps(streams))
    for _ in range(30):
        np.testing.assert_array_equal(streams.draw(rows, 5), other.draw(rows, 5))


def test_a_seed_is_missing() -> None:
    with pytest.raises(ValueError, match="one for each of the 2 environments, got 1"):
        Streams(2).seed([0])
