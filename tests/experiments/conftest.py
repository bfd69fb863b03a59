from pathlib import Path

import pytest

from mpc_gym.experiments import Demo, DemoOptions, run_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A short run of the demo on the pendulum."""
    folder: Path = tmp_path_factory.mktemp("demo") / "videos"
    return run_demo(DemoOptions(folder=folder, quick=True))
