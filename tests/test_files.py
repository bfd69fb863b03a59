"""Files are there whole or not at all, are read within bounds, and folders have one user."""

import json
import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mpc_gym.files import (
    InUseError,
    holding,
    is_private,
    make_private_folder,
    make_writable_folder,
    parse_json,
    read,
    read_json,
    replacing,
    write,
)
from mpc_gym.imitation import Demonstrations
from mpc_gym.imitation.checkpoint import write_checkpoint
from tests.killing import at_every_call, at_random, largest_file, names, needs_fork


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


# ---- killed


@needs_fork
def test_a_write_that_is_killed_at_any_call_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    found = []
    write(path, "old")
    for _ in at_every_call(lambda: write(path, "new")):
        found.append(path.read_text())
        write(path, "old")
        assert names(tmp_path) == ["result.txt"]
    assert set(found) == {"old", "new"}
    assert path.read_text() == "new"


@needs_fork
def test_what_a_killed_writer_left_is_removed_by_the_next_write_of_any_file(tmp_path: Path) -> None:
    def begin() -> None:
        with replacing(tmp_path / "video.mp4") as unfinished:
            unfinished.write_bytes(b"half")
            while True:
                pass

    at_random(begin, 0.2, random.Random(0))
    write(tmp_path / "table.csv", "1")
    assert names(tmp_path) == ["table.csv"]


def test_what_another_writer_is_at_is_left_to_it(tmp_path: Path) -> None:
    with replacing(tmp_path / "slow.txt") as slow:
        write(tmp_path / "quick.txt", "1")
        write(tmp_path / "slow.txt", "first")
        slow.write_text("second")
    assert names(tmp_path) == ["quick.txt", "slow.txt"]
    assert (tmp_path / "slow.txt").read_text() == "second"


# ---- no room


def test_a_disk_that_is_full_is_one_clear_error_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    write(path, "old")
    with largest_file(1000), pytest.raises(OSError, match=r"result\.txt' cannot be written: File"):
        write(path, "new" * 1000)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "file", "")
    with pytest.raises(OSError, match=r"file/below' cannot be written"):
        write(tmp_path / "file" / "below", "")


# ---- reading


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


@pytest.mark.skipif(os.name == "nt", reason="there are none of these")
@pytest.mark.parametrize(
    ("make", "found"),
    [
        (make_pipe, "a pipe"),
        (link_to("/dev/zero"), "a device"),
        (Path.mkdir, "a folder"),
    ],
)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make, found: str) -> None:
    make(tmp_path / "config.json")
    with pytest.raises(ValueError, match=rf"config\.json must be a file, got {found}"):
        read(tmp_path / "config.json", 100)


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    write(tmp_path / "file", "text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read(tmp_path / "link", 4) == b"text"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(10**12)  # a hole, which takes no space
    with pytest.raises(ValueError, match="must be at most 100 bytes, got 1000000000000"):
        read(tmp_path / "file", 100)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there are no such files")
def test_a_file_that_does_not_say_its_size_is_read_no_further_than_it_may() -> None:
    assert Path("/proc/self/status").stat().st_size == 0
    with pytest.raises(ValueError, match="must be at most 10 bytes"):
        read(Path("/proc/self/status"), 10)


@pytest.mark.parametrize("text", ["", "{", "[" * 10**6, "9" * 5000, "\udcff"])
def test_what_is_no_json_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match="is damaged"):
        read_json(tmp_path / "file")


def test_numbers_that_json_does_not_have_are_read_where_they_are_not_refused() -> None:
    assert parse_json("[Infinity, 1]") == [float("inf"), 1]

    def refuse(name: str) -> None:
        raise ValueError(name)

    with pytest.raises(ValueError, match="-Infinity"):
        parse_json("[-Infinity]", refuse)
    assert parse_json(json.dumps({"a": [1, None]}).encode()) == {"a": [1, None]}


# ---- folders


def test_what_is_held_is_refused_to_others_and_nothing_is_left(tmp_path: Path) -> None:
    with holding(tmp_path / ".lock", "folder 'mine'"):
        with (
            pytest.raises(InUseError, match="folder 'mine' is in use by another process"),
            holding(tmp_path / ".lock", "folder 'mine'"),
        ):
            pass
        assert names(tmp_path) == [".lock"]
    assert names(tmp_path) == []
    with holding(tmp_path / ".lock", "folder 'mine'"):
        pass


@needs_fork
def test_the_lock_of_a_killed_process_is_free_and_removed_by_the_next(tmp_path: Path) -> None:
    def hold() -> None:
        with holding(tmp_path / ".lock", "folder"):
            pass

    for _ in at_every_call(hold):
        hold()
        assert names(tmp_path) == []


@needs_fork
def test_of_many_that_wait_one_at_a_time_is_let_in(tmp_path: Path) -> None:
    write(tmp_path / "count", "0")

    def count() -> None:
        for _ in range(20):
            with holding(tmp_path / ".lock", "folder", timeout=None):
                number = int((tmp_path / "count").read_text())
                (tmp_path / "count").write_text(str(number + 1))

    children = []
    for _ in range(4):
        children.append(os.fork())
        if not children[-1]:
            count()
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    assert (tmp_path / "count").read_text() == "80"
    assert names(tmp_path) == ["count"]


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_writable_folder(folder)
    assert list(folder.iterdir()) == []


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ValueError, match="folder must be a folder that can be written to"):
        make_writable_folder(path)
    with pytest.raises(ValueError, match="folder must be a folder that can be written to"):
        make_writable_folder(path / "below")


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@needs_fork
@pytest.mark.skipif(os.name == "nt", reason="there a folder belongs to its place")
def test_a_private_folder_is_so_whatever_the_umask(tmp_path: Path, no_umask: None) -> None:
    make_private_folder(tmp_path / "a" / "b")
    make_private_folder(tmp_path / "a" / "b")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert is_private(folder)
    (tmp_path / "a").chmod(0o777)
    assert not is_private(tmp_path / "a" / "b")


def test_a_private_folder_whose_name_is_taken_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    write(tmp_path / "file", "")
    for name in ("link", "file"):
        with pytest.raises(OSError, match=r"exists|Not a directory"):
            make_private_folder(tmp_path / name)
