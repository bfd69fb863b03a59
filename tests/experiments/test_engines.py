import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mpc_gym.experiments import engines
from mpc_gym.experiments.runs import execute
from tests.experiments.toy_runs import walks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"engine": "slurm"}, "engine must be one of local, dask, ray"),
        ({"address": "tcp://localhost:1"}, "address is that of a cluster"),
        ({"engine": "dask"}, "needs the address of a scheduler"),
    ],
)
def test_an_engine_that_cannot_be_used_is_refused(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        execute(walks(1), tmp_path, **arguments)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("engine", "library"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_library_is_named_with_what_to_install(
    tmp_path: Path, engine: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{library}.*pip install 'mpc-gym\[cluster\]'"):
        execute(walks(1), tmp_path, engine=engine, address="tcp://localhost:8786")


def test_an_address_where_nobody_answers_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("mpc_gym.experiments.engines.CONNECT_TIMEOUT", 0.2)
    with pytest.raises(
        ValueError, match="no Dask scheduler answers at address 'tcp://localhost:1'"
    ):
        execute(walks(1), tmp_path, engine="dask", address="tcp://localhost:1")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


COMMANDS = re.findall(
    r"^dask (?:scheduler|worker).*$",
    (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def test_every_dask_command_that_is_recommended_keeps_to_this_machine() -> None:
    assert [command.split()[1] for command in COMMANDS] == ["scheduler", "worker"]
    for command in (*COMMANDS, engines.SCHEDULER, engines.WORKER):
        assert "--host 127.0.0.1" in command
        assert "--dashboard-address 127.0.0.1:" in command


@pytest.mark.slow
def test_the_dask_commands_in_the_documentation_listen_on_this_machine_alone() -> None:
    psutil, _ = map(pytest.importorskip, ("psutil", "distributed"))
    scripts = Path(sys.executable).parent
    started = [
        subprocess.Popen(
            [scripts / "dask", *command.split()[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for command in COMMANDS
    ]
    try:
        seen: set[str] = set()
        roots = [psutil.Process(process.pid) for process in started]
        while len(seen) < 6:  # scheduler and its pages, four workers' nannies at the least
            assert all(process.poll() is None for process in started)
            for root in roots:
                for each in (root, *root.children(recursive=True)):
                    for connection in each.net_connections(kind="inet"):
                        if connection.status == psutil.CONN_LISTEN:
                            assert connection.laddr.ip == "127.0.0.1"
                            seen.add(connection.laddr.port)
    finally:
        for process in started[::-1]:
            process.terminate()
            process.communicate()


def test_workers_of_several_threads_are_refused(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=3,
            processes=False,
            dashboard_address=":0",
            protocol="tcp",
        ) as started,
        pytest.raises(ValueError, match=r"has 3 threads.*--nworkers 3 --nthreads 1"),
    ):
        execute(walks(1), tmp_path, engine="dask", address=started.scheduler_address)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_a_scheduler_that_goes_away_in_the_middle_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    dask = Path(sys.executable).parent / "dask"
    here = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    file = tmp_path / "scheduler.json"
    find = ["--scheduler-file", str(file)]
    kwargs = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    scheduler = subprocess.Popen([dask, "scheduler", *here, *find, "--port", "0"], **kwargs)
    worker = subprocess.Popen([dask, "worker", *here, *find, "--nthreads", "1"], **kwargs)

    def kill() -> None:
        while not list(tmp_path.rglob("troubled")):
            time.sleep(0.1)
        scheduler.kill()

    try:
        while not file.exists():
            assert scheduler.poll() is None
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        threading.Thread(target=kill, daemon=True).start()
        with pytest.raises(ConnectionError, match=r"the Dask scheduler at 'tcp:.*' is gone"):
            execute(walks(1, trouble="wait"), tmp_path / "new", engine="dask", address=address)
    finally:
        (tmp_path / "new/walk/go").touch()
        for process in (worker, scheduler):
            process.terminate()
            process.communicate()
