import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mpc_gym
from tests.scripts import Scripts

ROOT = Path(__file__).parents[1]


HEAVY = ("stable_baselines3", "numba", "matplotlib", "PIL")

# Some of what a user may import first, and so some of the orders in which modules are loaded.
FIRST = ("mpc_gym", "mpc_gym.make_mpc", "mpc_gym.mpc", "mpc_gym.imitation")


def run(script: str) -> str:
    """What a fresh interpreter prints, into which no other test has imported anything."""
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_importing_the_package_imports_nothing_that_takes_long() -> None:
    script = f"import sys, mpc_gym; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(script) == "[]\n"


@pytest.mark.parametrize("first", FIRST)
def test_make_mpc_is_the_function_whatever_is_imported_first(
    first: str, tmp_path: Path, scripts: Scripts
) -> None:
    script = tmp_path / "script.py"
    source = f"""
import {first}
from mpc_gym import make_mpc, collect, rollout, MPC
import mpc_gym.make_mpc, mpc_gym.models.rollout, mpc_gym.imitation.collect
assert make_mpc is mpc_gym.make_mpc and collect is mpc_gym.collect
assert rollout is mpc_gym.models.rollout is mpc_gym.rollout
assert all(type(each).__name__ == "function" for each in (make_mpc, collect, rollout))
assert isinstance(mpc_gym.make_mpc("DiffPendulum-v0", horizon=3), MPC)
"""
    script.write_text(source, encoding="utf-8")
    ended = scripts.run(script)
    assert ended.returncode == 0, ended.stderr


def test_every_public_name_is_there_and_is_its_own() -> None:
    assert len(set(mpc_gym.__all__)) == len(mpc_gym.__all__)
    for name in mpc_gym.__all__:
        value = getattr(mpc_gym, name)
        assert name in dir(mpc_gym)
        assert getattr(value, "__name__", name) == name
    namespace: dict[str, object] = {}
    exec("from mpc_gym import *", namespace)
    assert namespace.keys() >= set(mpc_gym.__all__)


def test_the_policy_that_needs_another_library_is_there_too() -> None:
    pytest.importorskip("sb3_contrib")
    assert mpc_gym.TQCMPCPolicy.__name__ == "TQCMPCPolicy"


def test_a_type_checker_sees_the_names_that_are_there() -> None:
    tree = ast.parse(Path(mpc_gym.__file__).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mpc_gym")
        for alias in node.names
    }
    assert imported == set(mpc_gym.__all__) - {"__version__"} | {"TQCMPCPolicy"}


@pytest.mark.parametrize("package", ["mpc_gym", "mpc_gym.models", "mpc_gym.envs", "mpc_gym.mpc"])
def test_the_reference_has_every_public_name_and_no_other(package: str) -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    listed = [name.rpartition(".") for name in re.findall(r"^::: (\S+)$", pages, re.MULTILINE)]
    public = set(importlib.import_module(package).__all__) - {"__version__"}
    assert public - {name for _, _, name in listed} == set()
    for module, _, name in listed:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_a_name_that_does_not_exist_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'mpc_gym' has no attribute 'Pendulum'"):
        mpc_gym.Pendulum  # noqa: B018
    assert not hasattr(mpc_gym, "CostMap")  # there is one, which is not public


@pytest.mark.skipif(
    sys.platform == "win32" or not (ROOT / ".git").exists(), reason="only clones have the links"
)
@pytest.mark.parametrize("door", ["envs", "policies"])
def test_top_level_doors_lead_to_the_code_of_the_package(door: str) -> None:
    link = ROOT / door
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT / "mpc_gym" / door
    assert (link / "__init__.py").is_file()


def test_every_module_whose_shapes_are_to_be_checked_exists(shape_checked: tuple[str, ...]) -> None:
    # The import hook says nothing about a name that no module has.
    assert [name for name in shape_checked if importlib.util.find_spec(name) is None] == []
