import importlib.metadata
import json
import multiprocessing
import os
import shutil
import signal
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import pytest
import torch

from mpc_gym.experiments.run import check_folder
from mpc_gym.experiments.runs import FailedRunsError, Run, execute, results
from tests.experiments.toy_runs import (
    STEPS,
    WALK,
    execute_together,
    notes,
    walks,
)
from tests.killing import needs_fork

ALL_STEPS = [f"step {step + 1}" for step in range(STEPS)]
WHOLE = ["begun at 0", *ALL_STEPS]
RESUMED = ["begun at 0", *ALL_STEPS[:3], "begun at 3", *ALL_STEPS[3:]]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of four walks without any trouble."""
    return execute(walks(4), tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module")
def context() -> Any:
    """Makes processes by forking one that has imported everything, which takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.experiments.toy_runs"])
    ensure_running()
    return context


@contextmanager
def dask_cluster(workers: int, deaths: int) -> Iterator[str]:
    """The address of a Dask scheduler that gives a task up after more deaths than so many."""
    dask, distributed = map(pytest.importorskip, ("dask", "distributed"))
    config = {
        "distributed.scheduler.allowed-failures": deaths,
        "distributed.worker.multiprocessing-method": "forkserver",
    }
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "memory_limit": 0}
    with dask.config.set(config), distributed.LocalCluster(workers, **options) as started:
        yield started.scheduler_address


@pytest.fixture
def start(tmp_path: Path, context: Any) -> Iterator[Callable[..., list[Any]]]:
    """Starts so many processes at once that execute the same runs in the test's folder."""
    processes: list[Any] = []
    barriers = []  # a process forgets what it was started with

    def begin(runs: list[Run], count: int) -> list[Any]:
        barriers.append(context.Barrier(count))
        arguments = (barriers[-1], runs, tmp_path)
        processes.extend(
            context.Process(target=execute_together, args=arguments) for _ in range(count)
        )
        for process in processes:
            process.start()
        return processes

    yield begin
    for process in processes:
        process.kill()
        process.join()


def exit_codes(processes: list[Any]) -> list[int | None]:
    for process in processes:
        process.join(timeout=60)
    return [process.exitcode for process in processes]


# ---- what a run leaves


def test_a_run_leaves_its_settings_versions_and_result(
    tmp_path: Path, reference: dict[str, Any]
) -> None:
    assert execute(walks(1), tmp_path) == {"walk/0": reference["walk/0"]}
    config = json.loads((tmp_path / "walk" / "0" / "config.json").read_text())
    assert config["function"] == WALK
    assert config["settings"] == {"seed": 0}
    assert config["seed"] == 0
    assert config["versions"]["torch"] == importlib.metadata.version("torch")
    assert config["versions"].keys() >= {"python", "numpy", "mpc-gym", "stable-baselines3"}
    assert results(tmp_path) == {"walk/0": reference["walk/0"]}


def test_a_finished_run_is_not_repeated_and_others_are_added(
    tmp_path: Path, reference: dict[str, Any]
) -> None:
    execute(walks(2), tmp_path)
    assert execute(walks(4), tmp_path) == reference
    assert [notes(tmp_path / name) for name in reference] == [WHOLE] * 4


def test_results_are_read_without_those_of_runs_that_are_not_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute([*walks(1), Run("other", WALK, {"seed": 1, "trouble": "interrupt"})], tmp_path)
    half_written = tmp_path / "other" / ".half" / "result.json"
    half_written.parent.mkdir()
    half_written.write_text("{")
    assert list(results(tmp_path)) == ["walk/0"]


def test_a_run_has_one_thread_and_the_caller_gets_his_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert execute(walks(1), tmp_path)["walk/0"]["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_nothing_is_printed_where_the_output_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(walks(1), tmp_path)
    assert capsys.readouterr() == ("", "")


# ---- where runs are executed


def test_two_local_processes_give_the_numbers_of_one(
    tmp_path: Path, reference: dict[str, Any]
) -> None:
    assert execute(walks(4), tmp_path, jobs=2) == reference
    assert [notes(tmp_path / name) for name in reference] == [WHOLE] * 4


def test_a_dask_cluster_gives_the_same_numbers_and_a_killed_worker_loses_nothing(
    tmp_path: Path, reference: dict[str, Any], context: Any
) -> None:
    runs = [*walks(3), Run("walk/3", WALK, {"seed": 3, "trouble": "die"})]
    with dask_cluster(workers=2, deaths=3) as address:
        assert execute(runs, tmp_path, engine="dask", address=address) == reference
    logs = [notes(tmp_path / name) for name in reference]
    assert logs[3] == RESUMED
    # the runs that the killed worker had not begun, or had finished, are done once
    assert [[line for line in log if line != "begun at 0"] for log in logs[:3]] == [ALL_STEPS] * 3


@pytest.mark.slow
def test_a_killed_local_worker_loses_nothing(tmp_path: Path, reference: dict[str, Any]) -> None:
    runs = [Run("walk/0", WALK, {"seed": 0, "trouble": "die"}), *walks(4)[1:]]
    assert execute(runs, tmp_path, jobs=2) == reference
    assert notes(tmp_path / "walk" / "0") == RESUMED


@pytest.mark.slow
def test_a_run_that_always_kills_its_local_worker_fails_and_does_not_stop_the_others(
    tmp_path: Path, reference: dict[str, Any]
) -> None:
    runs = [Run("walk/0", WALK, {"seed": 0, "trouble": "die again"}), *walks(4)[1:]]
    with pytest.raises(FailedRunsError, match="1 of 4 runs failed") as error:
        execute(runs, tmp_path, jobs=2)
    assert "a worker was lost" in str(error.value.failures["walk/0"])
    assert results(tmp_path) == {name: reference[name] for name in list(reference)[1:]}


def test_a_run_that_always_kills_its_dask_worker_fails_and_does_not_stop_the_others(
    tmp_path: Path, context: Any
) -> None:
    runs = [
        Run("bad", WALK, {"seed": 0, "trouble": "die again"}),
        Run("good", "tests.experiments.toy_runs:where", {}),
    ]
    with (
        dask_cluster(workers=1, deaths=0) as address,
        pytest.raises(FailedRunsError, match="1 of 2 runs failed") as error,
    ):
        execute(runs, tmp_path, engine="dask", address=address)
    assert "a worker was lost" in str(error.value.failures["bad"])
    assert results(tmp_path)["good"]["process"] != os.getpid()


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_numbers_and_a_killed_worker_loses_nothing(
    tmp_path: Path, reference: dict[str, Any]
) -> None:
    pytest.importorskip("ray")
    runs = [*walks(3), Run("walk/3", WALK, {"seed": 3, "trouble": "die"})]
    assert execute(runs, tmp_path, engine="ray") == reference
    assert notes(tmp_path / "walk" / "3") == RESUMED


# ---- interruptions


@needs_fork
def test_a_killed_process_is_gone_on_with_from_its_checkpoint(
    tmp_path: Path, reference: dict[str, Any], start: Callable[..., list[Any]]
) -> None:
    runs = [*walks(1), Run("walk/1", WALK, {"seed": 1, "trouble": "die"}), *walks(4)[2:]]
    assert exit_codes(start(runs, 1)) == [-signal.SIGKILL]
    assert list(results(tmp_path)) == ["walk/0"]

    assert execute(runs, tmp_path) == reference
    logs = [notes(tmp_path / name) for name in reference]
    assert logs == [WHOLE, RESUMED, WHOLE, WHOLE]


def test_an_interrupted_experiment_is_gone_on_with(
    tmp_path: Path, reference: dict[str, Any]
) -> None:
    runs = [*walks(1), Run("walk/1", WALK, {"seed": 1, "trouble": "interrupt"}), *walks(4)[2:]]
    with pytest.raises(KeyboardInterrupt):
        execute(runs, tmp_path)
    assert execute(runs, tmp_path) == reference
    assert notes(tmp_path / "walk" / "1") == RESUMED


def test_two_processes_in_one_folder_do_each_run_once(
    tmp_path: Path, reference: dict[str, Any], start: Callable[..., list[Any]]
) -> None:
    assert exit_codes(start(walks(4), 2)) == [0, 0]
    assert results(tmp_path) == reference
    assert [notes(tmp_path / name) for name in reference] == [WHOLE] * 4


@pytest.mark.parametrize("look", [1, 2])
def test_a_run_that_another_process_begins_between_two_looks_is_not_taken_for_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    (run,) = walks(1)
    place = tmp_path / "walk" / "0"
    place.mkdir(parents=True)
    exists, looks = Path.exists, []

    def another_begins(path: Path) -> bool:
        seen = exists(path)
        looks.append(path)
        if len(looks) == look:
            execute([run], tmp_path)
        return seen

    monkeypatch.setattr(Path, "exists", another_begins)
    check_folder(run, place)
    assert (place / "config.json").is_file()


def test_a_run_that_another_process_is_at_is_left_to_it_and_waited_for(
    tmp_path: Path, reference: dict[str, Any], start: Callable[..., list[Any]]
) -> None:
    first = Run("walk/0", WALK, {"seed": 0, "trouble": "wait"})
    (other,) = start([first], 1)
    while not (tmp_path / "walk" / "0" / "troubled").exists():
        assert other.is_alive()
    # the last of ours lets the other go on: were its run waited for at once, nobody would
    ours = [first, Run("walk/1", "tests.experiments.toy_runs:release", {"seed": 1})]
    assert execute(ours, tmp_path)["walk/0"] == reference["walk/0"]
    assert exit_codes([other]) == [0]
    assert notes(tmp_path / "walk" / "0") == WHOLE


# ---- failures


def test_one_failing_run_does_not_stop_the_others(
    tmp_path: Path, reference: dict[str, Any]
) -> None:
    runs = [Run("bad", WALK, {"seed": 9, "trouble": "full disk"}), *walks(4)]
    with pytest.raises(FailedRunsError, match=r"bad: OSError: .*No space left") as error:
        execute(runs, tmp_path)
    assert isinstance(error.value.failures["bad"], OSError)
    assert "in fill_disk" in str(error.value.failures["bad"].__cause__)
    assert results(tmp_path) == reference
    assert "bad" in execute(runs, tmp_path)  # its trouble is over
    assert notes(tmp_path / "bad") == RESUMED


def test_a_disk_that_fills_up_leaves_no_half_written_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: dict[str, Any]
) -> None:
    write_bytes = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if b'"result":' in data:
            write_bytes(path, data[:20])
            raise OSError(28, os.strerror(28))
        return write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(FailedRunsError, match=r"result\.json.*No space left on device"):
            execute(walks(1), tmp_path)
    assert results(tmp_path) == {}
    assert execute(walks(1), tmp_path)["walk/0"] == reference["walk/0"]
    assert notes(tmp_path / "walk" / "0") == [*WHOLE, f"begun at {STEPS}"]


# ---- mistakes, each found before anything is computed or written


def test_names_that_repeat_or_lie_in_one_another_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'walk/0' more than once"):
        execute([*walks(1), *walks(1)], tmp_path)
    with pytest.raises(ValueError, match="'walk/0' would lie in the folder of run 'walk'"):
        execute([*walks(1), Run("walk", WALK, {"seed": 0})], tmp_path)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("state", ["finished", "half"])
def test_a_folder_of_other_settings_is_refused_and_left_as_it_was(
    tmp_path: Path, state: str
) -> None:
    settings = {"trouble": "interrupt"} if state == "half" else {}
    if state == "half":
        with pytest.raises(KeyboardInterrupt):
            execute(walks(1, **settings), tmp_path)
    else:
        execute(walks(1), tmp_path)
    before = files(tmp_path)
    with pytest.raises(ValueError, match="holds another run: steps was None and is 7"):
        execute([Run("first", WALK, {"seed": 1}), *walks(1, steps=7, **settings)], tmp_path)
    assert files(tmp_path) == before


def test_a_folder_with_other_files_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "walk" / "0").mkdir(parents=True)
    (tmp_path / "walk" / "0" / "holiday.jpg").write_bytes(b"us")
    with pytest.raises(ValueError, match=r"files that are not of a run, such as 'holiday\.jpg'"):
        execute(walks(1), tmp_path)
    assert list(files(tmp_path)) == ["walk/0/holiday.jpg"]


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    execute(walks(1), tmp_path)
    (tmp_path / "walk" / "0" / name).write_text("{")
    with pytest.raises(ValueError, match=rf"{name}.* is damaged"):
        execute(walks(1), tmp_path)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder must be a folder that can be written to"):
        execute(walks(1), tmp_path / "file")
    with pytest.raises(ValueError, match="must be that of an experiment"):
        results(tmp_path / "file")
    with pytest.raises(ValueError, match="must be a folder"):
        execute([Run("file", WALK, {"seed": 0})], tmp_path)


def test_a_folder_that_cannot_be_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match="Permission denied"):
        execute(walks(1), tmp_path)
    assert files(tmp_path) == {}


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(2**30, 2**30, 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match="is full: 1 MiB are free"):
        execute(walks(1), tmp_path)
    assert files(tmp_path) == {}
