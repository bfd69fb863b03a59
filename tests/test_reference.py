"""The reference lists every public name, and no other."""

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("mpc", "models", "compiled", "envs", "policies", "imitation", "experiments")
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
LISTED = [
    name for page in PAGES for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("room", ["mpc_gym", *(f"mpc_gym.{room}" for room in ROOMS)])
def test_every_public_name_of_a_room_is_in_the_reference(room: str) -> None:
    listed = {name.rpartition(".")[2] for name in LISTED}
    public = {name for name in import_module(room).__all__ if not name.startswith("__")}
    assert public - listed == set()


@pytest.mark.parametrize("name", LISTED)
def test_a_name_in_the_reference_is_there_and_described(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert getattr(import_module(module), attribute).__doc__
