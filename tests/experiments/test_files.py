from pathlib import Path

import pytest

from mpc_gym.experiments.files import make_writable_folder, replacing


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


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_writable_folder(folder)
    assert list(folder.iterdir()) == []


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ValueError, match="output must be a folder that can be written to"):
        make_writable_folder(path)
    with pytest.raises(ValueError, match="output must be a folder that can be written to"):
        make_writable_folder(path / "below")
