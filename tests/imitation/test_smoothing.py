"""The smoothing of training plans, epoch by epoch."""

import numpy as np
import pytest

from mpc_gym import make_mpc
from mpc_gym.imitation import FallingSmoothing


def test_mu_falls_by_the_same_factor_and_is_then_the_controllers_own() -> None:
    smoothing = FallingSmoothing(10.0, 1e-2, epochs=4)
    mus = [smoothing.at(epoch) for epoch in range(6)]
    np.testing.assert_allclose(np.array(mus[:4], dtype=float), [10.0, 1.0, 0.1, 0.01])
    assert mus[4:] == [None, None]


def test_a_single_epoch_has_the_first_mu() -> None:
    smoothing = FallingSmoothing(0.5, 1e-2, epochs=1)
    assert (smoothing.at(0), smoothing.at(1)) == (0.5, None)


def test_the_controller_has_it_within_and_its_own_again_after_an_error() -> None:
    mpc = make_mpc("DiffPendulum-v0", horizon=3, smoothing=0.25)
    smoothing = FallingSmoothing(0.5, 0.125, epochs=2)
    seen = []

    def interrupted(epoch: int) -> None:
        with smoothing.of(mpc, epoch):
            seen.append(mpc.smoothing.item())
            raise KeyboardInterrupt

    for epoch in range(3):
        with pytest.raises(KeyboardInterrupt):
            interrupted(epoch)
        assert mpc.smoothing.item() == 0.25
    assert seen == [0.5, 0.125, 0.25]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": 0.0}, "first must be a positive number, got 0"),
        ({"last": 2.0}, "last must be a positive number of at most 1"),
        ({"last": float("nan")}, "last must be a positive number"),
        ({"epochs": 0}, "epochs must be"),
    ],
)
def test_an_impossible_smoothing_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FallingSmoothing(**{"first": 1.0, "last": 1e-2, "epochs": 3, **change})
