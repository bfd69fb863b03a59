"""Compiled code on disk: found again, rebuilt when damaged, safe with several processes."""

import os
import subprocess
import sys
import uuid
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mpc_gym.compiled import Program
from mpc_gym.compiled.cache import cache_directory
from mpc_gym.compiled.emit import build, row_function_source, sources

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MPC_GYM_CACHE_DIR", str(tmp_path))
    return tmp_path


def product() -> str:
    program = Program()
    x = program.inputs("x", 2)
    return sources(
        [
            row_function_source(
                "product",
                program,
                arguments=["x", "y"],
                loads={"x0": "x[0]", "x1": "x[1]"},
                stores=[("y[0]", x[0] * x[1])],
            )
        ]
    )


def forget(module: ModuleType) -> None:
    """Have the module built again, as a new process would."""
    del sys.modules[module.__name__]


def called(source: str) -> ModuleType:
    module = build(source, "test_cache")
    y = np.zeros(1)
    module.product(np.array([3.0, 4.0]), y)
    assert y[0] == 12.0
    return module


def hits(module: ModuleType) -> int:
    return sum(module.product.stats.cache_hits.values())


def test_the_environment_variable_says_where_it_is_kept(directory: Path) -> None:
    module = called(product())
    assert cache_directory().parent == directory
    assert list(directory.rglob("mpc_gym_generated_test_cache_*.py"))
    assert list(directory.rglob("*product*.bin"))
    forget(module)


def test_a_compiled_function_is_found_again(directory: Path) -> None:
    module = called(product())
    assert hits(module) == 0
    forget(module)
    again = called(product())
    assert hits(again) == 1
    forget(again)


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_damaged_files_are_rebuilt(directory: Path, damage: bytes | None) -> None:
    forget(called(product()))
    for path in directory.rglob("*test_cache*"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage is None else damage)
    module = called(product())
    assert hits(module) == 0
    forget(module)
    restored = called(product())
    assert hits(restored) == 1
    forget(restored)


def test_another_source_is_another_module(directory: Path) -> None:
    module = called(product())
    changed = called(product() + "\n# changed\n")
    assert changed.__name__ != module.__name__
    assert hits(changed) == 0
    forget(module)
    forget(changed)


SCRIPT = """
import sys
import numpy as np
from mpc_gym.compiled.cache import cache_directory
from mpc_gym.compiled.emit import build
module = build(sys.argv[1], "test_cache")
y = np.zeros(1)
module.product(np.array([3.0, 4.0]), y)
print(cache_directory(), y[0])
"""


def start(source: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, source],
        cwd=ROOT,
        env={k: v for k, v in {**os.environ, **environment}.items() if v},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_may_compile_the_same_at_once(directory: Path) -> None:
    processes = [start(product()) for _ in range(2)]
    for process in processes:
        out, error = process.communicate()
        assert process.returncode == 0, error
        assert out.split()[-1] == "12.0"
    module = called(product())
    assert hits(module) == 1
    forget(module)
    assert not list(directory.rglob("*.tmp"))


def test_a_home_that_cannot_be_written_falls_back_to_a_temporary_directory(tmp_path: Path) -> None:
    home = tmp_path / "file"  # nothing can be made below a file, not even by root
    home.write_text("")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = start(
        product(),
        MPC_GYM_CACHE_DIR="",
        HOME=str(home),
        XDG_CACHE_HOME=str(home / "cache"),
        LOCALAPPDATA=str(home / "cache"),
        TMPDIR=str(temporary),
    )
    out, error = process.communicate()
    assert process.returncode == 0, error
    assert Path(out.split()[0]).is_relative_to(temporary)
    assert out.split()[-1] == "12.0"


def test_a_directory_that_cannot_be_written_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"file-{uuid.uuid4().hex}"
    file.write_text("")
    monkeypatch.setenv("MPC_GYM_CACHE_DIR", str(file / "below"))
    with pytest.raises(ValueError, match=r"MPC_GYM_CACHE_DIR is .*cannot be written"):
        cache_directory()
