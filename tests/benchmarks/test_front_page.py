"""The pictures of the front page are drawn of what was measured."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import front_page

IMAGES = Path(__file__).parents[2] / "docs" / "images"
PAGE = (Path(__file__).parents[2] / "docs" / "index.md").read_text(encoding="utf-8")


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        picture.verify()
        return picture.size


@pytest.mark.parametrize("name", ["demonstrations", "constraint", "plan"])
def test_a_picture_is_drawn_as_it_is_shown(name: str, tmp_path: Path) -> None:
    (tmp_path / "constraint.json").write_bytes((IMAGES / "constraint.json").read_bytes())
    getattr(front_page, name)(tmp_path)
    assert size(tmp_path / f"{name}.png") == size(IMAGES / f"{name}.png")
    assert f"(images/{name}.png)" in PAGE


def test_the_page_counts_the_episodes_that_left_as_they_were_measured() -> None:
    trainings = json.loads((IMAGES / "constraint.json").read_text(encoding="utf-8"))
    episodes, left = (
        {name: [count(training[name]) for training in trainings] for name in ("MPC", "MLP")}
        for count in (lambda each: each["episodes"], lambda each: len(each["left"]))
    )
    words = " ".join(PAGE.split())
    assert sum(left["MPC"]) == 0
    assert f"none of {sum(episodes['MPC'])} episodes" in words
    assert f"{min(left['MLP'])} to {max(left['MLP'])} times" in words


def test_the_plan_is_drawn_at_three_times(tmp_path: Path) -> None:
    front_page.plan(tmp_path)
    with Image.open(tmp_path / "plan.png") as picture:
        thirds = np.split(np.asarray(picture), 3, axis=1)
    assert not np.array_equal(thirds[0], thirds[1])
    assert not np.array_equal(thirds[1], thirds[2])
