import numpy as np
import pytest

from mpc_gym.rendering import side_by_side, tile
from mpc_gym.rendering.palette import BACKGROUND


def frames(count: int, width: int = 60, height: int = 40, start: int = 0) -> list[np.ndarray]:
    return [np.full((height, width, 3), start + index, np.uint8) for index in range(count)]


def test_rollouts_stand_side_by_side_from_left_to_right() -> None:
    left, right = frames(3), frames(3, start=100)
    for index, picture in enumerate(side_by_side({"left": left, "right": right})):
        below = picture[-40:]
        np.testing.assert_array_equal(below[:, :60], left[index])
        np.testing.assert_array_equal(below[:, -60:], right[index])


def test_a_shorter_rollout_stays_at_its_last_frame() -> None:
    pictures = list(side_by_side({"short": frames(2), "long": frames(5)}))
    assert len(pictures) == 5
    np.testing.assert_array_equal(pictures[-1][-40:, :60], frames(2)[-1])


def test_each_rollout_has_its_caption_above_it() -> None:
    (picture,) = side_by_side({"": frames(1), "expert": frames(1)})
    title = picture[:-40]
    assert (title[:, :60] == BACKGROUND).all()
    assert (title[:, -60:] != BACKGROUND).any()


def test_a_long_caption_is_made_to_fit() -> None:
    caption = "a caption that is far too long for its narrow frame"
    (picture,) = side_by_side({caption: frames(1, width=400, height=400)})
    title = picture[:-400]
    assert (title != BACKGROUND).any()
    assert (title[:, [0, -1]] == BACKGROUND).all()


def test_frames_of_different_height_are_refused() -> None:
    with pytest.raises(ValueError, match="one height"):
        side_by_side({"a": frames(1), "b": frames(1, height=50)})


def test_nothing_to_show_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one rollout"):
        side_by_side({})
    with pytest.raises(ValueError, match=r"frames_by_caption\['a'\]"):
        side_by_side({"a": []})


def test_tiles_lie_in_rows_and_what_is_left_over_is_background() -> None:
    frames = [np.full((2, 3, 3), shade, dtype=np.uint8) for shade in (10, 20, 30)]
    picture = tile(frames, columns=2)
    assert picture.shape == (4, 6, 3)
    np.testing.assert_array_equal(picture[[0, 1, 2]][:, [0, 5], 0][:2], [[10, 20], [10, 20]])
    assert (picture[2:, :3] == 30).all()
    assert (picture[2:, 3:] == BACKGROUND).all()


@pytest.mark.parametrize(("count", "columns"), [(0, 1), (2, 0)])
def test_an_empty_grid_is_refused(count: int, columns: int) -> None:
    with pytest.raises(ValueError, match="frames must hold at least one"):
        tile([np.zeros((2, 2, 3), dtype=np.uint8)] * count, columns)
