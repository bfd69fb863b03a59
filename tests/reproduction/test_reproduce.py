import json
import random
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from mpc_gym.experiments.runs import FailedRunsError
from reproduction import lqr, runtime
from reproduction.__main__ import app
from reproduction.reproduce import ReproduceOptions, report, reproduce
from tests.killing import at_random, needs_fork

runner = CliRunner()


def test_the_command_leaves_a_report_whose_pictures_are_there(reproduction: Path) -> None:
    text = (reproduction / "report.md").read_text()
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert sorted(pictures) == ["images/lqr-ours.png", "images/lqr-paper.png", "images/runtime.png"]
    for name in pictures:
        with Image.open(reproduction / name) as picture:
            picture.verify()
    assert "quick run" in text


def test_the_findings_agree_with_the_runs(reproduction: Path) -> None:
    findings = json.loads((reproduction / "findings.json").read_text())["findings"]
    found = [(finding["name"], finding["learner"]) for finding in findings]
    assert found == [("a", "paper"), ("a", "ours"), ("e", "paper"), ("e", "ours")]
    for finding in findings[:2]:
        losses = []
        for seed in (0, 1):
            path = reproduction / f"lqr/{finding['learner']}/seed-{seed}/result.json"
            losses.append(json.loads(path.read_text())["result"]["imitation_loss"][-1])
        assert finding["numbers"]["imitation losses"] == losses
        assert finding["holds"] is (max(losses) < 1e-6)


def test_every_run_has_its_folder(reproduction: Path) -> None:
    for run in (*lqr.runs(quick=True), *runtime.runs(quick=True)):
        names = {path.name for path in (reproduction / run.name).iterdir()}
        assert {"config.json", "metrics.csv", "result.json"} <= names
        assert any(name.startswith("events.out.tfevents") for name in names)


def test_finished_runs_are_not_repeated_and_the_report_is_made_anew(
    reproduction: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, **settings: object) -> None:
        raise AssertionError(f"repeated {folder}")

    for module in (lqr, runtime):
        monkeypatch.setattr(module, "run", refuse)
    before = {name: (reproduction / name).read_text() for name in ("report.md", "findings.json")}
    for name in before:
        (reproduction / name).unlink()
    sections = reproduce(ReproduceOptions(reproduction, ["lqr"], quick=True), progress=False)
    # what else is finished in the folder is in the report too
    assert list(sections) == ["lqr", "runtime"]
    assert {name: (reproduction / name).read_text() for name in before} == before


def test_an_experiment_of_which_a_run_is_missing_is_left_out_of_the_report(
    reproduction: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(reproduction, folder)
    (folder / "lqr/paper/seed-1/result.json").unlink()
    assert list(report(folder, quick=True, seed=0)) == ["runtime"]


def test_what_is_done_is_reported_though_a_run_fails(
    reproduction: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(reproduction, folder)
    (folder / "lqr/paper/seed-1/result.json").unlink()
    (folder / "report.md").unlink()

    def fail(folder: Path, **settings: object) -> None:
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(lqr, "run", fail)
    with pytest.raises(FailedRunsError, match=r"(?s)1 of \d+ runs failed.*the loss is nan"):
        reproduce(ReproduceOptions(folder, ["lqr", "runtime"], quick=True), progress=False)
    text = (folder / "report.md").read_text()
    assert "Solver runtime" in text
    assert "LQR imitation" not in text


def test_a_full_disk_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=500 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match="is full: 500 MiB are free, and 1024 MiB"):
        reproduce(ReproduceOptions(tmp_path / "new", ["lqr"]), progress=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "lqg"], "only must be of lqr"),
        (["--all", "--only", "lqr"], "--all and --only exclude each other"),
        (["--seed", "-1"], "seed must not be negative"),
        (["--jobs", "0"], "jobs must be at least 1"),
        (["--engine", "spark"], "engine must be one of local"),
        (["--engine", "dask"], "needs the address of a scheduler"),
        (["--folder", "/dev/null/x"], "folder"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_what_a_user_gets_wrong_is_said_before_anything_is_computed(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    options = ["--folder", str(tmp_path / "new"), *arguments]
    result = runner.invoke(app, options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.rglob("metrics.csv"))


def test_the_folder_of_another_reproduction_is_refused_and_kept(reproduction: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in reproduction.rglob("*")}
    for options in (["--quick", "--seed", "1"], []):
        arguments = [*options, "--only", "lqr", "--folder", str(reproduction)]
        result = runner.invoke(app, arguments)
        assert result.exit_code == 2
        assert "holds another experiment" in " ".join(result.output.replace("│", " ").split())
    assert {path: path.stat().st_mtime_ns for path in reproduction.rglob("*")} == before


@pytest.mark.parametrize("name", ["report.md", "images"])
def test_a_folder_with_the_files_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"holds '{name}' of something else"):
        reproduce(ReproduceOptions(tmp_path, ["lqr"], quick=True))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_the_seed_gives_the_same_numbers_with_one_process_and_with_two(tmp_path: Path) -> None:
    for jobs in (1, 2):
        options = ReproduceOptions(tmp_path / str(jobs), ["lqr"], quick=True, jobs=jobs)
        reproduce(options, progress=False)
    for run in lqr.runs(quick=True):
        one, two = (
            json.loads((tmp_path / jobs / run.name / "result.json").read_text()) for jobs in "12"
        )
        assert one == two


def losses(folder: Path) -> dict[str, list[float]]:
    return {
        run.name: json.loads((folder / run.name / "result.json").read_text())["result"][
            "imitation_loss"
        ]
        for run in lqr.runs(quick=True)
    }


@needs_fork
@pytest.mark.slow
def test_fifty_kills_of_a_reproduction_lose_nothing_and_leave_nothing(
    reproduction: Path, tmp_path: Path
) -> None:
    folder, rng = tmp_path / "new", random.Random(0)
    options = ReproduceOptions(folder, ["lqr"], quick=True)
    for _ in range(50):
        at_random(lambda: reproduce(options, progress=False), 1.5, rng)
    reproduce(options, progress=False)
    assert losses(folder) == losses(reproduction)
    assert (folder / "report.md").is_file()
    assert [path for path in folder.rglob("*") if path.name.startswith(".")] == []
