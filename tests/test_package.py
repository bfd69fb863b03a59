import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_importing_the_package_does_not_import_stable_baselines3() -> None:
    # In a fresh interpreter, since other tests have imported it into this one.
    script = "import sys, mpc_gym; sys.exit('stable_baselines3' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr or "mpc_gym imported stable_baselines3"


@pytest.mark.parametrize("door", ["envs", "policies"])
def test_top_level_doors_lead_to_the_code_of_the_package(door: str) -> None:
    link = ROOT / door
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT / "mpc_gym" / door
    assert (link / "__init__.py").is_file()


def test_every_module_whose_shapes_are_to_be_checked_exists(shape_checked: tuple[str, ...]) -> None:
    # The import hook says nothing about a name that no module has.
    assert [name for name in shape_checked if find_spec(name) is None] == []
