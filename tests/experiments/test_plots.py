from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mpc_gym.experiments.plots import (
    LABEL_HEIGHT,
    Line,
    draw_each,
    draw_lines,
    make_figure,
    save_figure,
    thinned,
)
from mpc_gym.rendering.palette import LINES


def draw(ends: list[float]) -> Figure:
    figure, (axes,) = make_figure(1)
    axes.set(yscale="log")
    x = np.arange(3.0)
    draw_lines(
        axes,
        [
            Line(f"line {i}", x, np.array([[10, 5, 0.5 * end], [10, 5, 2 * end], [10, 5, end]]), i)
            for i, end in enumerate(ends)
        ],
    )
    return figure


def test_a_line_is_the_median_and_its_band_reaches_from_the_lowest_to_the_highest() -> None:
    (axes,) = draw([1e-3]).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [10, 5, 1e-3])
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == 0.5e-3
    assert heights.max() == 10


def test_names_stand_right_of_the_lines_in_their_order_and_do_not_touch() -> None:
    (axes,) = draw([1e-3, 1.01e-3, 1e-7, 0.99e-3]).axes
    assert axes.get_legend() is None
    names = sorted(axes.texts, key=lambda text: text.xyann[1])
    assert [text.get_text() for text in names] == ["line 2", "line 3", "line 0", "line 1"]
    assert [text.get_color() for text in names] == [LINES[i] for i in (2, 3, 0, 1)]
    heights = [text.xyann[1] for text in names]
    assert np.diff(heights).min() >= LABEL_HEIGHT - 1e-9
    assert max(heights) <= 1
    assert all(text.xyann[0] > 1 for text in names)


def test_names_of_two_lines_keep_twice_the_distance() -> None:
    _, (axes,) = make_figure(1)
    draw_lines(axes, [Line(f"{i}\nmore", [0, 1], np.ones((1, 2)), i) for i in range(3)])
    heights = sorted(text.xyann[1] for text in axes.texts)
    np.testing.assert_allclose(np.diff(heights), 2 * LABEL_HEIGHT)


def test_every_seed_can_have_its_own_line() -> None:
    _, (axes,) = make_figure(1)
    values = np.array([[1.0, 2.0], [1.0, 5.0], [1.0, 9.0]])
    draw_each(axes, [Line("loss", [0.0, 1.0], values, 0)])
    np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], values)
    assert [text.get_text() for text in axes.texts] == ["loss"]


def test_a_line_that_ends_at_nothing_has_no_name_on_a_logarithmic_axis() -> None:
    (axes,) = draw([0.0, 1e-3]).axes
    assert [text.get_text() for text in axes.texts] == ["line 1"]


def test_a_figure_is_written_as_a_picture(tmp_path: Path) -> None:
    save_figure(draw([1e-3]), tmp_path / "images" / "line.png")
    with Image.open(tmp_path / "images" / "line.png") as picture:
        picture.verify()


@pytest.mark.parametrize("count", [1, 200, 201, 5000])
def test_long_curves_are_thinned_and_keep_their_ends(count: int) -> None:
    indices = thinned(count)
    assert len(indices) == min(count, 200)
    assert indices[0] == 0
    assert indices[-1] == count - 1
