"""Files are there whole or not at all, and belong to the user like any other."""

import os
from pathlib import Path

import numpy as np
import pytest

from mpc_gym.files import replacing
from mpc_gym.imitation import Demonstrations
from mpc_gym.imitation.checkpoint import write_checkpoint


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")
    with replacing(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def fail_half_way(path: Path) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        fail_half_way(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "result.txt"
    with replacing(path) as unfinished:
        unfinished.write_text("new")
    assert path.read_text() == "new"


def save_demonstrations(path: Path) -> None:
    Demonstrations(
        np.zeros((2, 3)), np.zeros((2, 1)), np.zeros(2), np.array([2]), np.zeros((1, 3)), "id"
    ).save(path)


def save_checkpoint(path: Path) -> None:
    write_checkpoint(path, {}, {})


@pytest.mark.parametrize("save", [save_demonstrations, save_checkpoint])
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_file_has_the_permissions_that_the_user_gives_to_files(
    tmp_path: Path, save, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        save(tmp_path / "file")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
