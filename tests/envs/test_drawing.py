import gymnasium as gym
import numpy as np
import pytest

from mpc_gym.rendering.palette import ACTION, BACKGROUND, BODY, INK, blend
from tests.envs.drawings import (
    draw_acrobot,
    draw_car,
    draw_cartpole,
    draw_pendulum,
    draw_quadrotor,
)
from tests.envs.systems import IDS

UPRIGHT = np.array([1.0, 0.0, 0.0])
CARTPOLE_UPRIGHT = np.array([0.0, 0.0, 1.0, 0.0, 0.0])
ACROBOT_UPRIGHT = np.array([-1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
LEVEL = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
PARKED = np.array([0.0, 0.0, 1.0, 0.0, 0.0])
EACH = [
    (draw_pendulum, UPRIGHT, 1),
    (draw_cartpole, CARTPOLE_UPRIGHT, 1),
    (draw_acrobot, ACROBOT_UPRIGHT, 1),
    (draw_quadrotor, LEVEL, 2),
    (draw_car, PARKED, 2),
]


def pixels_of(frame: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of the pixels of this colour, [n, 2]."""
    return np.argwhere((frame == colour).all(-1))


def pendulum(theta: float) -> np.ndarray:
    return np.array([np.cos(theta), np.sin(theta), 0.0])


@pytest.mark.parametrize(("draw", "state", "n_ctrl"), EACH)
@pytest.mark.parametrize(("width", "height"), [(500, 500), (64, 64), (640, 360), (1, 1)])
def test_a_frame_has_the_size_that_was_asked_for(draw, state, n_ctrl, width, height) -> None:
    frame = draw(state, np.ones(n_ctrl), width=width, height=height)
    assert frame.shape == (height, width, 3)
    assert frame.dtype == np.uint8


@pytest.mark.parametrize("env_id", IDS)
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


@pytest.mark.parametrize(("draw", "state", "n_ctrl"), EACH)
def test_no_control_and_no_torque_draw_no_arrow(draw, state, n_ctrl) -> None:
    assert not len(pixels_of(draw(state), ACTION))
    assert not len(pixels_of(draw(state, np.zeros(n_ctrl)), ACTION))


@pytest.mark.parametrize(
    ("theta1", "theta2", "row", "column"),
    [
        (0.0, 0.0, 2, 0),
        (np.pi, 0.0, -2, 0),
        (np.pi / 2, 0.0, 0, 2),
        (np.pi / 2, np.pi / 2, -1, 1),
    ],
)
def test_the_acrobot_hangs_at_zero_and_turns_counter_clockwise(theta1, theta2, row, column) -> None:
    """The tip, by the bob there; 500 pixels are five halves of the length."""
    angles = (np.cos(theta1), np.sin(theta1), np.cos(theta2), np.sin(theta2))
    frame = draw_acrobot(np.array([*angles, 0.0, 0.0]))
    at = (np.array([row, column]) * 100 + 249.5).astype(int)
    assert tuple(frame[tuple(at)]) == INK


def test_a_torque_at_the_elbow_bends_its_arrow_the_way_it_turns_the_lower_link() -> None:
    hanging = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    for torque, side in ((6.0, 1), (-6.0, -1)):
        columns = pixels_of(draw_acrobot(hanging, np.array([torque])), ACTION)[:, 1]
        assert np.sign(columns.mean() - 249.5) == side


def test_each_rotor_has_its_arrow_along_the_axis_of_the_body() -> None:
    def arrow(*thrusts: float, tilt: float = 0.0) -> np.ndarray:
        state = np.array([0.0, 0.0, np.cos(tilt), np.sin(tilt), 0.0, 0.0, 0.0])
        return pixels_of(draw_quadrotor(state, np.array(thrusts)), ACTION) - 249.5

    left, right, down = arrow(3.0, 0.0), arrow(0.0, 3.0), arrow(-3.0, 0.0)
    assert left[:, 1].max() < 0.0 < right[:, 1].min()
    assert left[:, 0].max() < 0.0 < down[:, 0].max()
    assert np.ptp(arrow(1.0, 0.0)[:, 0]) < np.ptp(left[:, 0])
    leaning = arrow(3.0, 3.0, tilt=np.pi / 2)  # its axis points to the left
    assert leaning[:, 1].max() < 0.0


def test_the_quadrotor_leans_to_the_left_where_its_sine_is_positive() -> None:
    tilted = np.array([0.0, 0.0, np.cos(0.5), np.sin(0.5), 0.0, 0.0, 0.0])
    pixels = pixels_of(draw_quadrotor(tilted), BODY)
    right = pixels[pixels[:, 1] > 255]
    assert right[:, 0].mean() < pixels[:, 0].mean()  # its right arm is up


def test_the_obstacle_is_drawn_where_the_body_would_touch_it() -> None:
    grey = blend(INK, 0.5)
    far = np.array([-1.5, 1.9, 1.0, 0.0, 0.0, 0.0, 0.0])
    pixels = pixels_of(draw_quadrotor(far, obstacle=0.7), grey)
    assert np.ptp(pixels[:, 0]) * 2 * 2.7 / 500 == pytest.approx(2 * (0.7 - 0.2), abs=0.03)


@pytest.mark.parametrize("heading", [0.0, 0.7, np.pi / 2, -2.0])
def test_the_cars_arrow_points_where_it_is_accelerated(heading: float) -> None:
    state = np.array([0.0, 0.0, np.cos(heading), np.sin(heading), 0.0])
    ahead = np.array([-np.sin(heading), np.cos(heading)])  # rows grow downwards
    for acceleration in (2.0, -1.0):
        arrow = pixels_of(draw_car(state, np.array([acceleration, 0.0])), ACTION) - 249.5
        assert np.sign((arrow @ ahead).mean()) == np.sign(acceleration)
        assert abs(arrow.mean(0) @ [ahead[1], -ahead[0]]) < 2.0  # pixels beside its axis


def test_the_front_wheels_are_turned_as_they_are_steered() -> None:
    straight, left, right = (draw_car(PARKED, np.array([0.0, angle])) for angle in (0.0, 0.5, -0.5))
    assert (left[:, :250] == straight[:, :250]).all()
    assert (left[:, 250:] != straight[:, 250:]).any()
    assert (left[:, 250:] != right[:, 250:]).any()


def test_walls_stand_where_the_road_ends() -> None:
    rows = pixels_of(draw_car(PARKED, road=0.5), blend(INK, 0.5))[:, 0]
    inner = rows[rows > 249.5].min() - 249.5, 249.5 - rows[rows < 249.5].max()
    for distance in inner:
        assert distance * 3.2 / 500 == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("draw", "state"), [(draw_quadrotor, LEVEL), (draw_car, PARKED)])
@pytest.mark.parametrize("position", [(-50.0, 3.0), (1.9, -1.9), (1e5, -1e5)])
def test_the_camera_keeps_what_moves_in_the_plane_in_view(draw, state, position) -> None:
    moved = np.array([*position, *state[2:]])
    seen, expected = pixels_of(draw(moved), BODY), pixels_of(draw(state), BODY)
    assert len(seen) == pytest.approx(len(expected), rel=0.1)
    # rows grow downwards
    assert (np.sign(seen.mean(0) - 249.5) == np.sign([-position[1], position[0]])).all()


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
