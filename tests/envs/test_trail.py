import numpy as np
import pytest

from mpc_gym.rendering.palette import BACKGROUND
from mpc_gym.rendering.scene import interpolated, interpolated_angles
from tests.envs.drawings import draw_cartpole, draw_pendulum


def swing(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], -1)


def contrast(frame: np.ndarray, angle: float) -> int:
    """How much the picture differs from the background where the tip is at this angle."""
    radius = 500 / 2.7
    row, column = 249.5 - radius * np.cos(angle), 249.5 - radius * np.sin(angle)
    return int(np.abs(frame[round(row), round(column)].astype(int) - BACKGROUND).sum())


def test_the_trail_follows_the_tip_and_fades_with_age() -> None:
    angles = np.linspace(1.0, 3.0, 6)
    frame = draw_pendulum(swing(angles)[-1], trail=swing(angles))
    strengths = [contrast(frame, angle) for angle in np.linspace(1.1, 2.7, 9)]
    assert strengths == sorted(strengths)
    assert strengths[0] > contrast(frame, 0.8)  # the circle that is drawn anyway


def test_the_trail_of_the_pole_comes_from_where_its_tip_was() -> None:
    upright = np.array([0.0, 0.0, 1.0, 0.0, 0.0])
    moved = np.array([-0.8, 0.0, 1.0, 0.0, 0.0])
    plain = draw_cartpole(upright)
    changed = np.argwhere(
        (draw_cartpole(upright, trail=np.stack([moved, upright])) != plain).any(-1)
    )
    tip = 250 - 250 / 1.7
    assert np.abs(changed[:, 0] - tip).max() < 10
    assert changed[:, 1].min() == pytest.approx(250 - 0.8 * 250 / 1.7, abs=8)
    assert changed[:, 1].max() <= 250


def test_a_trail_of_one_state_draws_nothing() -> None:
    state = swing(np.array([1.0]))
    np.testing.assert_array_equal(draw_pendulum(state[0], trail=state), draw_pendulum(state[0]))


def test_between_angles_it_goes_the_short_way_round() -> None:
    ends = np.array([3.0, -3.0])
    angles = interpolated_angles(np.cos(ends), np.sin(ends))
    assert (np.abs(angles) >= 3.0 - 1e-12).all()
    np.testing.assert_allclose(interpolated(np.array([0.0, 4.0, 0.0])), [0, 1, 2, 3, 4, 3, 2, 1, 0])


def test_a_caption_stands_in_the_upper_left_corner_unless_the_picture_is_tiny() -> None:
    state = swing(np.array([np.pi]))[0]
    changed = np.argwhere((draw_pendulum(state, caption="1.25 s") != draw_pendulum(state)).any(-1))
    assert 0 < changed.max() < 100
    tiny = {"width": 40, "height": 40}
    np.testing.assert_array_equal(
        draw_pendulum(state, caption="1.25 s", **tiny), draw_pendulum(state, **tiny)
    )
