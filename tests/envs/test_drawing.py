import gymnasium as gym
import numpy as np
import pytest

from mpc_gym.rendering.palette import ACTION, BACKGROUND, BODY, INK
from tests.envs.drawings import draw_cartpole, draw_pendulum

UPRIGHT = np.array([1.0, 0.0, 0.0])
CARTPOLE_UPRIGHT = np.array([0.0, 0.0, 1.0, 0.0, 0.0])


def pixels_of(frame: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of the pixels of this colour, [n, 2]."""
    return np.argwhere((frame == colour).all(-1))


def pendulum(theta: float) -> np.ndarray:
    return np.array([np.cos(theta), np.sin(theta), 0.0])


@pytest.mark.parametrize(
    ("draw", "state"), [(draw_pendulum, UPRIGHT), (draw_cartpole, CARTPOLE_UPRIGHT)]
)
@pytest.mark.parametrize(("width", "height"), [(500, 500), (64, 64), (640, 360), (1, 1)])
def test_a_frame_has_the_size_that_was_asked_for(draw, state, width, height) -> None:
    frame = draw(state, width=width, height=height)
    assert frame.shape == (height, width, 3)
    assert frame.dtype == np.uint8


@pytest.mark.parametrize("env_id", ["DiffPendulum-v0", "DiffCartPole-v0"])
def test_the_size_is_500_by_500_by_default(env_id: str) -> None:
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset()
    assert env.render().shape == (500, 500, 3)


@pytest.mark.parametrize(
    ("theta", "row", "column"),
    [(0.0, -1, 0), (np.pi, 1, 0), (np.pi / 2, 0, -1), (-np.pi / 2, 0, 1)],
)
def test_the_pendulum_points_up_at_zero_and_turns_counter_clockwise(theta, row, column) -> None:
    offset = pixels_of(draw_pendulum(pendulum(theta)), BODY).mean(0) - 249.5
    length = np.linalg.norm(offset)
    np.testing.assert_allclose(offset / length, [row, column], atol=0.02)


def test_a_torque_bends_its_arrow_the_way_it_turns() -> None:
    hanging = pendulum(np.pi)
    left_turn = pixels_of(draw_pendulum(hanging, np.array([2.0])), ACTION)[:, 1].mean()
    right_turn = pixels_of(draw_pendulum(hanging, np.array([-2.0])), ACTION)[:, 1].mean()
    # From the bottom, counter-clockwise is to the right.
    assert right_turn < 249.5 < left_turn
    assert left_turn - 249.5 == pytest.approx(249.5 - right_turn, abs=2)


@pytest.mark.parametrize(
    ("draw", "state"), [(draw_pendulum, UPRIGHT), (draw_cartpole, CARTPOLE_UPRIGHT)]
)
def test_no_control_and_no_torque_draw_no_arrow(draw, state) -> None:
    assert not len(pixels_of(draw(state), ACTION))
    assert not len(pixels_of(draw(state, np.array([0.0])), ACTION))


def test_a_force_points_where_it_pushes_and_grows_with_it() -> None:
    def arrow(force: float) -> np.ndarray:
        return pixels_of(draw_cartpole(CARTPOLE_UPRIGHT, np.array([force])), ACTION)[:, 1]

    assert arrow(50.0).min() > 249.5 > arrow(-50.0).max()
    assert np.ptp(arrow(10.0)) < np.ptp(arrow(100.0))


def test_the_pole_leans_to_the_right_where_its_sine_is_positive() -> None:
    state = np.array([0.0, 0.0, np.cos(0.5), np.sin(0.5), 0.0])
    assert pixels_of(draw_cartpole(state), BODY)[:, 1].mean() > 249.5


@pytest.mark.parametrize("position", [-1000.0, -3.0, 0.4, 3.0, 1e6])
def test_the_camera_keeps_the_cart_and_its_pole_in_view(position: float) -> None:
    outward = np.array([position, 0.0, 0.0, np.sign(position), 0.0])
    centred = np.array([0.0, 0.0, 0.0, np.sign(position), 0.0])
    frame, in_the_middle = draw_cartpole(outward), draw_cartpole(centred)
    for colour in (INK, BODY):
        seen, expected = pixels_of(frame, colour), pixels_of(in_the_middle, colour)
        assert len(seen) == pytest.approx(len(expected), rel=0.02)
        assert np.sign(seen[:, 1].mean() - 249.5) == np.sign(position)


def test_the_picture_scales_with_the_pole() -> None:
    long = draw_cartpole(CARTPOLE_UPRIGHT, pole_length=5.0)
    short = draw_cartpole(CARTPOLE_UPRIGHT, pole_length=0.5)
    np.testing.assert_array_equal(pixels_of(long, BODY), pixels_of(short, BODY))


def test_edges_are_smooth() -> None:
    colours = np.unique(draw_pendulum(pendulum(0.3)).reshape(-1, 3), axis=0)
    assert len(colours) > 20


def test_ghosts_of_a_plan_lie_where_it_leads_and_fade() -> None:
    plan = np.stack([pendulum(theta) for theta in np.linspace(0.0, -np.pi / 2, 9)])
    plain, shown = draw_pendulum(UPRIGHT), draw_pendulum(UPRIGHT, None, plan)
    changed = np.argwhere((plain != shown).any(-1))
    assert changed[:, 1].min() >= 240
    assert changed[:, 0].max() <= 280
    contrast = np.abs(shown.astype(int) - BACKGROUND).sum(-1)

    def at(theta: float) -> int:
        radius = 0.6 * 500 / 2.7
        return contrast[
            round(249.5 - radius * np.cos(theta)), round(249.5 - radius * np.sin(theta))
        ]

    strengths = [at(theta) for theta in np.linspace(0.0, -np.pi / 2, 9)[2:]]
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[-1] > 0


def test_the_body_is_drawn_over_its_ghosts() -> None:
    plan = np.tile(UPRIGHT, (20, 1))
    plain, shown = draw_pendulum(UPRIGHT), draw_pendulum(UPRIGHT, None, plan)
    np.testing.assert_array_equal(pixels_of(plain, BODY), pixels_of(shown, BODY))


def test_a_plan_of_one_state_or_of_no_number_draws_no_ghost() -> None:
    plain = draw_pendulum(UPRIGHT)
    np.testing.assert_array_equal(plain, draw_pendulum(UPRIGHT, None, UPRIGHT[None]))
    np.testing.assert_array_equal(plain, draw_pendulum(UPRIGHT, None, np.full((9, 3), np.nan)))


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, -1)])
def test_an_empty_picture_is_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        draw_pendulum(UPRIGHT, width=width, height=height)
