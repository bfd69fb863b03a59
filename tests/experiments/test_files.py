from pathlib import Path

import pytest

from mpc_gym.experiments.files import make_writable_folder


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
