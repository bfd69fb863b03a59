from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reproduction import lqr, runtime
from reproduction.__main__ import app


@pytest.fixture(scope="package")
def reproduction(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a quick reproduction of the LQR and of the runtime, made by the command."""
    folder: Path = tmp_path_factory.mktemp("reproduction") / "new"
    arguments = ["--quick", "--only", "lqr", "runtime", "--jobs", "1"]
    with pytest.MonkeyPatch.context() as patch:  # quicker still
        patch.setattr(lqr, "QUICK_STEPS", {"paper": (50, 0), "ours": (50, 40)})
        patch.setattr(lqr, "QUICK_DECAY_STEPS", 50)
        patch.setattr(runtime, "LEAST", 1)
        patch.setattr(runtime, "MOST", 1)
        result = CliRunner().invoke(app, [*arguments, "--folder", str(folder)])
        assert result.exit_code == 0, result.output
        assert f"wrote {folder / 'report.md'}" in result.output
        yield folder
