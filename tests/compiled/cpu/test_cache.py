"""Compiled code on disk: found again, rebuilt when damaged, safe with several processes."""

import hashlib
import os
import pickle
import stat
import subprocess
import sys
import uuid
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mpc_gym.compiled import Program
from mpc_gym.compiled.cpu import cache, emit
from mpc_gym.compiled.cpu.cache import cache_directory
from mpc_gym.compiled.cpu.emit import build, kernel_source, sources
from mpc_gym.compiled.kernel import Kernel, Place, Record
from mpc_gym.mpc.native import ddp as native_ddp
from mpc_gym.mpc.reference import ddp

ROOT = Path(__file__).parents[3]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MPC_GYM_CACHE_DIR", str(tmp_path))
    return tmp_path


def product(name: str = "product") -> str:
    program = Program()
    x = program.inputs("x", 2)
    places = Record({"x": 2}).places("x")
    kernel = Kernel(name, program, ("x", "y"), places, [(Place("y", 0), x[0] * x[1])])
    return sources([kernel_source(kernel)])


def forget(module: ModuleType) -> None:
    """Have the module built again, as a new process would."""
    del emit._MODULES[module.__name__]


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


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("other", ["text", "payload"])
def test_other_content_with_a_sound_checksum_is_rebuilt(directory: Path, other: str) -> None:
    marker = directory / "it ran"
    data = pickle.dumps(Payload(marker) if other == "payload" else "something else")
    forget(called(product()))
    for path in directory.rglob("*.bin"):
        path.write_bytes(hashlib.sha256(data).digest() + data)
    module = called(product())
    assert hits(module) == 0
    forget(module)
    assert not marker.exists()


def test_what_cannot_be_made_a_function_of_is_rebuilt(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(called(product()))
    with monkeypatch.context() as patch:  # as if whoever wrote it had known the function's key
        patch.setattr(cache.pickle, "loads", lambda data: ("something", "else"))
        module = called(product())
    assert hits(module) == 0
    forget(module)


def test_two_swapped_entries_are_rebuilt(directory: Path) -> None:
    forget(called(product()))
    first = directory.rglob("*.bin")
    contents = {path: path.read_bytes() for path in first}
    module = build(product("other"), "test_cache")
    module.other(np.array([3.0, 4.0]), np.zeros(1))
    forget(module)
    others = [path for path in directory.rglob("*.bin") if path not in contents]
    for path, other in zip(contents, others, strict=True):
        path.write_bytes(other.read_bytes())
        other.write_bytes(contents[path])
    module = called(product())
    assert hits(module) == 0
    forget(module)


def test_what_is_kept_is_for_the_user_alone_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPC_GYM_CACHE_DIR", str(tmp_path / "above" / "cache"))
    before = os.umask(0)
    try:
        forget(called(product()))
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_dir()}
    assert modes == {0o700}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o600}


def lend_the_directory(directory: Path) -> None:
    directory.chmod(0o777)


def lend_the_directory_to_the_group(directory: Path) -> None:
    directory.chmod(0o770)


def lend_what_is_above(directory: Path) -> None:
    directory.parent.chmod(0o777)


def lend_the_folder_inside(directory: Path) -> None:
    (directory / cache.versions_key()).mkdir()
    (directory / cache.versions_key()).chmod(0o777)


def give_away(directory: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only the administrator can give a folder away")
    os.chown(directory, 12345, 12345)


@pytest.mark.parametrize(
    "spoil",
    [
        lend_the_directory,
        lend_the_directory_to_the_group,
        lend_what_is_above,
        lend_the_folder_inside,
        give_away,
    ],
)
def test_a_directory_where_others_may_write_is_refused(
    spoil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "above" / "cache"
    directory.mkdir(parents=True)
    spoil(directory)
    monkeypatch.setenv("MPC_GYM_CACHE_DIR", str(directory))
    with pytest.raises(ValueError, match=r"MPC_GYM_CACHE_DIR is .*other users may write.*chmod"):
        cache_directory()


def test_a_directory_of_ones_own_below_one_for_all_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "for all").mkdir()
    (tmp_path / "for all").chmod(0o1777)  # as the temporary one is
    monkeypatch.setenv("MPC_GYM_CACHE_DIR", str(tmp_path / "for all" / "mine"))
    assert cache_directory().parent == tmp_path / "for all" / "mine"


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_write_is_not_read(directory: Path, mode: int) -> None:
    forget(called(product()))
    for path in directory.rglob("*.bin"):
        path.chmod(mode)
    module = called(product())
    assert hits(module) == 0
    forget(module)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="takes the administrator")
def test_a_file_of_another_user_is_not_read(directory: Path) -> None:
    forget(called(product()))
    for path in directory.rglob("*.bin"):
        os.chown(path, 12345, 12345)
    module = called(product())
    assert hits(module) == 0
    forget(module)


def refuse_to_write(*_, **__):
    raise OSError(30, "Read-only file system")


def test_a_directory_that_is_full_of_code_and_read_only_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPC_GYM_CACHE_DIR", str(tmp_path))
    forget(called(product()))
    cache._directory.cache_clear()
    monkeypatch.setattr(cache.tempfile, "TemporaryFile", refuse_to_write)
    monkeypatch.setattr(cache, "write", refuse_to_write)
    module = called(product())
    assert hits(module) == 1
    forget(module)
    changed = called(product() + "\n# changed\n")  # compiled, and kept nowhere
    assert hits(changed) == 0
    forget(changed)


def test_a_directory_that_is_empty_and_read_only_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPC_GYM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache.tempfile, "TemporaryFile", refuse_to_write)
    with pytest.raises(ValueError, match=r"cannot be written \(Read-only file system\)"):
        cache_directory()


def make_a_file(path: Path) -> None:
    path.write_text("")


def make_a_link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def make_a_folder_for_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.skipif(os.name == "nt", reason="there a user's temporary directory is his own")
@pytest.mark.parametrize("take", [make_a_file, make_a_link_to_nowhere, make_a_folder_for_all])
def test_a_temporary_directory_whose_name_is_taken_has_another(
    take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(tmp_path / f"mpc_gym-{os.getuid()}")
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    directory = cache._temporary_directory()
    assert directory.parent == tmp_path
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == []


SCRIPT = """
import sys
import numpy as np
from mpc_gym.compiled.cpu import cache
from mpc_gym.compiled.cpu.cache import cache_directory
from mpc_gym.compiled.cpu.emit import build
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
    assert not list(directory.rglob(".*"))


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


@pytest.mark.parametrize("requested", ["x" * 300, "~nobody-of-this-name/cache"])
def test_a_name_that_no_directory_can_have_is_refused(requested, monkeypatch) -> None:
    monkeypatch.setenv("MPC_GYM_CACHE_DIR", requested)
    with pytest.raises(ValueError, match=r"MPC_GYM_CACHE_DIR is .*no directory"):
        cache_directory()


def test_the_directory_that_was_checked_is_used_from_anywhere(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MPC_GYM_CACHE_DIR", f"kept-{uuid.uuid4().hex}")
    monkeypatch.chdir(tmp_path)
    directory = cache_directory()
    assert directory.is_relative_to(tmp_path)
    monkeypatch.chdir("/")
    assert cache_directory() == directory


def test_code_is_whole_so_that_what_else_is_loaded_does_not_change_its_bits(directory) -> None:
    """Of a function that is left standing, the linker takes the copy that was loaded first."""
    many = 40  # too long for the compiler to inline of its own accord
    lines = "\n".join(
        f"        y[{k}] += x[{k}] * y[i] + x[i] / (2.0 + y[{k}])" for k in range(many)
    )
    source = sources(
        [
            f"@native\ndef sums(x, y):\n    for i in range({many}):\n{lines}",
            "@native\ndef twice(x, y):\n    sums(x, y)\n    sums(y, x)",
        ]
    )
    module = build(source, "test_cache")
    module.twice(np.ones(many), np.ones(many))
    (assembly,) = module.twice.inspect_asm().values()
    assert "twice" in assembly
    assert not [line for line in assembly.splitlines() if ".weak" in line and "sums" in line]


FINDS = """
import hashlib, torch
from mpc_gym import make_mpc

torch.set_num_threads(1)
angle = torch.linspace(-3.0, 3.0, 30, dtype=torch.float64)[:, None]
x_init = torch.cat([angle.cos(), angle.sin(), angle], 1).requires_grad_()
mpc = make_mpc("DiffPendulum-v0", horizon=10)
plan = mpc(x_init)
found = [plan.controls, *torch.autograd.grad(plan.controls.square().sum(), [*mpc.parameters()])]
print(hashlib.sha256(b"".join(each.detach().numpy().tobytes() for each in found)).hexdigest())
"""


@pytest.mark.slow
def test_the_process_that_compiles_finds_the_same_bits_as_the_next(directory) -> None:
    first, second = (
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FINDS],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    )
    assert first == second
    assert len(first.strip()) == 64


def test_a_kernel_is_compiled_again_when_a_number_of_the_reference_changes() -> None:
    """The native solver takes its constants from the reference, and they are in its code."""
    room = cache._room(Path(native_ddp.__file__))
    assert Path(ddp.__file__).is_relative_to(room)
    assert cache._room(Path("/somewhere/else/module.py")) == Path("/somewhere/else")
