import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from mpc_gym.cli import app
from mpc_gym.experiments import FILES
from reproduction.__main__ import app as reproduce
from tests.killing import largest_file

runner = CliRunner()


def test_the_version_is_that_of_the_package() -> None:
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.split() == ["mpc-gym", version("mpc-gym")]


# the demo of the pendulum runs in `experiments/test_demo.py` too
@pytest.mark.parametrize(
    "env", [pytest.param("DiffPendulum-v0", marks=pytest.mark.slow), "DiffCartPole-v0"]
)
def test_demo_prints_its_table_and_writes_its_files(env: str, tmp_path: Path) -> None:
    output = tmp_path / "videos"
    arguments = ["demo", "--quick", "--env", env, "--seed", "3", "--demonstrations", "2"]
    result = runner.invoke(app, [*arguments, "--folder", str(output)])
    assert result.exit_code == 0, result.output
    assert f"{env}: 2 demonstrations, seed 3" in result.output
    assert "The video is drawn" in result.output
    for name in FILES:
        assert (output / name).stat().st_size > 0
        assert name in result.output
    found = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert (found["environment"], found["demonstrations"], found["seed"]) == (env, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "Pendulum-v1"], "env must be one of DiffPendulum-v0"),
        (["--demonstrations", "0"], "demonstrations must be at least 2"),
        (["--seed", "-1"], "seed must not be negative"),
        (["--folder", "/dev/null/videos"], "folder must be a folder that can be written to"),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, list) else "",
)
def test_what_a_user_gets_wrong_is_said_in_words(arguments: list[str], message: str) -> None:
    result = runner.invoke(app, ["demo", *arguments])
    assert result.exit_code == 2
    # the message stands in a frame, broken into lines
    text = " ".join(result.output.replace("│", " ").split())
    assert message in text
    assert "Traceback" not in result.output


def test_help_lists_the_commands_without_importing_stable_baselines3() -> None:
    script = (
        "import sys\n"
        "from mpc_gym.cli import app\n"
        "try:\n"
        "    app(['--help'])\n"
        "finally:\n"
        "    sys.exit(3 if 'stable_baselines3' in sys.modules else 0)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "demo" in process.stdout


def test_envs_lists_the_environments() -> None:
    result = runner.invoke(app, ["envs"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "DiffPendulumWindy-v0" in result.output
    assert "pole_length 0.5" in result.output


def test_record_writes_videos_and_says_where(tmp_path: Path) -> None:
    arguments = ["record", "--env", "DiffPendulum-v0", "--policy", "random", "--episodes", "2"]
    result = runner.invoke(app, [*arguments, "--max-steps", "3", "--folder", str(tmp_path)])
    assert result.exit_code == 0, result.output
    for path in sorted(tmp_path.iterdir()):
        assert f"wrote {path}: return " in result.output
    assert len(list(tmp_path.glob("*.mp4"))) == 2


def test_record_on_a_full_disk_says_so_and_keeps_the_old_video(tmp_path: Path) -> None:
    arguments = ["record", "--env", "DiffPendulum-v0", "--policy", "random", "--max-steps", "30"]
    arguments += ["--folder", str(tmp_path)]
    assert runner.invoke(app, arguments).exit_code == 0
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    with largest_file(len(before) // 2):
        result = runner.invoke(app, arguments)
    assert result.exit_code == 1, result.output
    assert f"{path.name}' cannot be written: ffmpeg failed" in result.output.replace("\n", "")
    assert "wrote" not in result.output
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_record_says_in_words_what_is_wrong() -> None:
    result = runner.invoke(app, ["record", "--env", "Pendulum-v1"])
    assert result.exit_code == 2
    assert "env must be one of" in " ".join(result.output.replace("│", " ").split())


def test_a_second_value_is_refused_where_there_can_be_one_only() -> None:
    result = runner.invoke(app, ["compare", "--env", "DiffPendulum-v0", "--seeds", "4", "8"])
    assert result.exit_code == 2
    assert "unexpected extra argument" in " ".join(result.output.replace("│", " ").split())


SHARED = (
    "address",
    "effort",
    "engine",
    "env",
    "episodes",
    "folder",
    "learn",
    "max_steps",
    "quick",
    "seed",
)


@pytest.mark.parametrize("name", SHARED)
def test_an_option_means_the_same_in_every_command(name: str) -> None:
    commands = [*get_command(app).commands.values(), get_command(reproduce)]
    options = [each for command in commands for each in command.params if each.name == name]
    assert len(options) > 1
    spellings = {(*each.opts, each.multiple) for each in options}
    assert len(spellings) == 1
    # in which folder the paper's experiments are by default depends on another option
    texts = {each.help for each in options if "reproduced" not in each.help}
    assert len(texts) == 1


def test_what_fails_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("mpc_gym.experiments.environments.environments_table", fail)
    result = runner.invoke(app, ["envs"])
    assert (result.exit_code, result.output) == (1, "the disk is gone\n")
