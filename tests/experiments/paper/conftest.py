from pathlib import Path

import pytest
from typer.testing import CliRunner

from mpc_gym.cli import app


@pytest.fixture(scope="session")
def reproduction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a quick reproduction of the LQR and of the runtime, made by the command."""
    folder: Path = tmp_path_factory.mktemp("reproduction") / "new"
    arguments = ["reproduce", "--quick", "--only", "lqr", "--only", "runtime", "--jobs", "1"]
    result = CliRunner().invoke(app, [*arguments, "--folder", str(folder)])
    assert result.exit_code == 0, result.output
    assert f"wrote {folder / 'report.md'}" in result.output
    return folder
