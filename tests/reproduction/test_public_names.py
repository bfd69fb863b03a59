"""The experiments take of the package what a user could take."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import reproduction

FOLDER = Path(reproduction.__file__).parent
# Of these, whose `__init__` is their whole public surface, only that; of the others modules.
ROOMS = ("mpc_gym", *(f"mpc_gym.{name}" for name in ("envs", "imitation", "models", "policies")))
MODULES = ("mpc_gym.checks", "mpc_gym.cli", "mpc_gym.experiments", "mpc_gym.files")


def imports() -> Iterator[tuple[str, str, str]]:
    """Where a name of the package is imported, from which module, and the name."""
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mpc_gym"):
                for alias in node.names:
                    yield path.stem, str(node.module), alias.name
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("mpc_gym.") for alias in node.names), path


@pytest.mark.parametrize(("where", "module", "name"), list(imports()))
def test_a_name_that_is_imported_is_public(where: str, module: str, name: str) -> None:
    if module in ROOMS:
        assert name in importlib.import_module(module).__all__
    else:
        assert module.startswith(MODULES)
        assert not any(part.startswith("_") for part in (*module.split("."), name))


def test_no_private_attribute_is_used_but_an_experiments_own() -> None:
    for path in FOLDER.glob("*.py"):
        private = [
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
            and ast.unparse(node.value) != "self"
        ]
        assert not private, path.name
