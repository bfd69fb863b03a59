"""A checkpoint is read as it was written, or refused, whatever happened to its file."""

import io
import os
import zipfile
from pathlib import Path

import pytest
import torch

from mpc_gym.imitation.checkpoint import read_checkpoint, write_checkpoint
from tests.killing import at_every_call, largest_file, names, needs_fork
from tests.mutations import of_bytes, refusals

IDENTITY = {"method": "a test", "seed": 0, "shape": (1, 2)}


def content(value: float = 1.0) -> dict[str, object]:
    return {"weights": {"w": torch.full((50,), value)}, "history": [{"loss": value}], "epoch": 3}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "checkpoint.pt", IDENTITY, content())
    return tmp_path / "checkpoint.pt"


def assert_read(path: Path, value: float) -> None:
    found = read_checkpoint(path, IDENTITY)
    assert torch.equal(found.pop("weights")["w"], torch.full((50,), value))
    assert found == {"history": [{"loss": value}], "epoch": 3}


def test_what_is_written_is_read(path: Path) -> None:
    assert_read(path, 1.0)


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(path: Path) -> None:
    with pytest.raises(ValueError, match="another run: seed was 0 and is 1"):
        read_checkpoint(path, {**IDENTITY, "seed": 1})


def test_whatever_happens_to_the_file_it_is_read_as_it_was_or_refused(path: Path) -> None:
    """A bit that flips in a weight is noticed too, which torch alone does not."""
    contents = of_bytes(path.read_bytes(), 600, seed=0)
    assert refusals(path, contents, lambda: assert_read(path, 1.0)) > 300


def test_a_file_that_grows_as_it_is_read_is_refused(path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry) + bytes(10**6))
    path.write_bytes(packed.getvalue())
    with pytest.raises(ValueError, match="damaged or no checkpoint") as error:
        read_checkpoint(path, IDENTITY)
    assert "it is compressed" in str(error.value.__cause__)


@pytest.mark.skipif(os.name == "nt", reason="there are none of these")
def test_what_is_no_file_is_refused_at_once(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="must be a file, got a pipe"):
        read_checkpoint(path, IDENTITY)


@needs_fork
def test_a_write_that_is_killed_at_any_call_leaves_the_old_one_or_the_new(path: Path) -> None:
    for _ in at_every_call(lambda: write_checkpoint(path, IDENTITY, content(2.0))):
        found = read_checkpoint(path, IDENTITY)["history"][0]["loss"]
        assert found in {1.0, 2.0}
        assert_read(path, found)
        write_checkpoint(path, IDENTITY, content(1.0))
        assert names(path.parent) == ["checkpoint.pt"]


def test_a_full_disk_is_one_clear_error_and_keeps_the_old_one(path: Path) -> None:
    with largest_file(100), pytest.raises(OSError, match=r"checkpoint\.pt' cannot be written"):
        write_checkpoint(path, IDENTITY, content(2.0))
    assert_read(path, 1.0)
    assert names(path.parent) == ["checkpoint.pt"]
