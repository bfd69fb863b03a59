import numpy as np
import pytest

from mpc_gym.imitation.rates import FallingRate


def test_the_rate_is_constant_at_first_and_falls_by_the_same_factor_afterwards() -> None:
    rate = FallingRate(1e-2, 1e-6, constant=10, falling=4)
    rates = [rate.at(step) for step in range(14)]
    assert rates[:10] == [1e-2] * 10
    np.testing.assert_allclose(rates[10:], [1e-3, 1e-4, 1e-5, 1e-6])


def test_the_rate_stays_where_it_has_fallen_to() -> None:
    assert FallingRate(1e-2, 1e-6, constant=1, falling=2).at(100) == pytest.approx(1e-6)


def test_without_steps_to_fall_in_the_rate_is_constant() -> None:
    rate = FallingRate(1e-2, 1e-6, constant=3, falling=0)
    assert {rate.at(step) for step in range(9)} == {1e-2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 0.0}, "start must be a positive number, got 0"),
        ({"end": float("nan")}, "end must be a positive number, got nan"),
        ({"falling": -1}, "falling must not be negative, got -1"),
    ],
)
def test_impossible_rates_are_refused(change: dict[str, float], message: str) -> None:
    options = {"start": 1e-2, "end": 1e-6, "constant": 3, "falling": 4, **change}
    with pytest.raises(ValueError, match=message):
        FallingRate(**options)
