"""Initial guesses of the controls."""

import math

import pytest
import torch

from mpc_gym.mpc.starts import initial_guesses, van_der_corput


def test_the_first_points_of_the_sequence_are_those_of_the_definition():
    expected = [0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]
    assert [van_der_corput(i) for i in range(8)] == expected


@pytest.mark.parametrize("power", range(1, 7))
def test_the_sequence_fills_every_dyadic_cell_once(power):
    cells = sorted(math.floor(van_der_corput(i) * 2**power) for i in range(2**power))
    assert cells == list(range(2**power))


def guesses_of(low, high, count, horizon=8, batch=3):
    low, high = (torch.as_tensor(b, dtype=torch.float64) for b in (low, high))
    m = low.shape[-1]
    first = torch.full((batch, horizon, m), 0.25, dtype=torch.float64)
    guesses = initial_guesses(first, low.expand(horizon, m), high.expand(horizon, m), count)
    assert guesses.shape == (count * batch, horizon, m)
    guesses = guesses.reshape(count, batch, horizon, m)
    assert torch.equal(guesses[0], first)
    assert (guesses[1:] == guesses[1:, :1]).all(), "every instance starts from the same guesses"
    return guesses[1:, 0]


def test_constant_and_switching_controls_come_with_their_mirror_images():
    guesses = guesses_of([-2.0], [2.0], 9)[..., 0]
    assert guesses[0].tolist() == [2.0] * 8
    assert guesses[2].tolist() == [-2.0] * 4 + [2.0] * 4
    assert guesses[4].tolist() == [-2.0] * 2 + [2.0] * 6
    assert torch.equal(guesses[1::2], -guesses[::2])


def test_guesses_differ_from_one_another():
    guesses = guesses_of([-2.0], [2.0], 9)
    assert len(torch.unique(guesses.flatten(1), dim=0)) == 8


def test_guesses_lie_at_the_bounds_of_each_control():
    low, high = torch.tensor([-1.0, 3.0, -7.0]), torch.tensor([2.0, 4.0, -5.0])
    guesses = guesses_of(low, high, 17)
    assert ((guesses == low) | (guesses == high)).all()


def test_four_consecutive_guesses_hold_all_combinations_for_two_controls():
    guesses = guesses_of([-1.0, -1.0], [1.0, 1.0], 5, horizon=1)
    signs = {tuple(guess[0].tolist()) for guess in guesses}
    assert signs == {(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-math.inf, math.inf, {-1.0, 1.0}),
        (-math.inf, 5.0, {4.0, 5.0}),
        (5.0, math.inf, {5.0, 7.0}),
    ],
)
def test_a_missing_bound_is_replaced_by_a_finite_one_within_the_other(low, high, expected):
    assert set(guesses_of([low], [high], 3).flatten().tolist()) == expected
