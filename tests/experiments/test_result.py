from pathlib import Path

import pytest

from mpc_gym.experiments import DemoOptions


@pytest.mark.parametrize("demonstrations", [-1, 0, 1])
def test_too_few_demonstrations_are_refused_before_anything_is_written(
    demonstrations: int, tmp_path: Path
) -> None:
    message = f"demonstrations must be at least 2.*got {demonstrations}"
    with pytest.raises(ValueError, match=message):
        DemoOptions(demonstrations=demonstrations, output=tmp_path / "videos")
    assert list(tmp_path.iterdir()) == []


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        DemoOptions(seed=-1, output=tmp_path)
