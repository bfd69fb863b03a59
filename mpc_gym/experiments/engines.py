"""Where runs are executed: processes of this machine (joblib), or a cluster of Dask or Ray.

A cluster is asked through its library's futures: joblib's backend for Dask waits without end for a
call that Dask has given up, and the one for Ray gives back no result before the last.
"""

import importlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import joblib

from mpc_gym.checks import check_count, check_instance, found
from mpc_gym.experiments.run import Outcome, Run, attempt

ENGINES = ("local", "dask", "ray")
MOST_JOBS = 1024
CONNECT_TIMEOUT = 10  # seconds

# By default both listen to all the world and run what is sent; --host leaves their pages open.
SCHEDULER = "`dask scheduler --host 127.0.0.1 --dashboard-address 127.0.0.1:8787`"
WORKER = "--host 127.0.0.1 --dashboard-address 127.0.0.1:0"
OPEN = "Without --host it runs what anybody sends who reaches the machine"

Work = Callable[[Sequence[Run], Path, float | None], Generator[Outcome, None, None]]


class LostWorkerError(RuntimeError):
    """A process that was at work on a run is gone."""


def check_engine(engine: str, jobs: int, address: str | None) -> None:
    """Refuse an engine that cannot be used.

    Raises:
        ValueError: an argument is out of its range, or does not go with the others.
        ModuleNotFoundError: the engine's library is not installed.
    """
    if not isinstance(engine, str) or engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {found(engine)}")
    check_count("jobs", jobs, 1, MOST_JOBS)
    if address is not None:
        check_instance("address", address, str, "the text of a cluster's address, or None")
    if engine == "local" and address is not None:
        raise ValueError(
            f"address is that of a cluster, got {address!r} with engine 'local'; choose 'dask' or "
            "'ray'"
        )
    if engine == "dask" and address is None:
        raise ValueError(
            "engine 'dask' needs the address of a scheduler, such as tcp://127.0.0.1:8786; "
            f"{SCHEDULER} starts one and says its address. {OPEN}"
        )
    library = {"local": "joblib", "dask": "distributed", "ray": "ray"}[engine]
    try:
        importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"engine {engine!r} needs the package {library!r}, which is not installed: "
            "pip install 'mpc-gym[cluster]'"
        ) from error


@contextmanager
def workers(engine: str, jobs: int, address: str | None) -> Iterator[Work]:
    """Calls `attempt` for each of several runs, and yields the outcomes as they come.

    When a worker is lost, a cluster says which run it was at: its outcome is a `LostWorkerError`.
    On this machine nobody knows: then it is raised, and the other runs are stopped as well.

    Args:
        engine: one of `ENGINES`.
        jobs: local processes, 1 for this very process; a cluster uses all the workers it has.
        address: of the cluster.

    Raises:
        ValueError: there is no such cluster, or its workers cannot be used.
    """
    if engine == "local":
        # a library that asks the environment how many threads to use finds one
        with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
            yield _locally
    elif engine == "dask":
        assert address is not None
        with _dask_client(address) as client:
            yield partial(_on_dask, client, address)
    else:
        with _ray_cluster(address):
            yield _on_ray


def _locally(
    runs: Sequence[Run], folder: Path, timeout: float | None
) -> Generator[Outcome, None, None]:
    parallel: Any = joblib.Parallel(
        return_as="generator_unordered", batch_size=1, pre_dispatch="all"
    )
    try:
        yield from parallel(joblib.delayed(attempt)(run, folder, timeout) for run in runs)
    except BrokenProcessPool as error:
        raise LostWorkerError(f"a worker was lost: {error}") from error


def _lost(run: Run, error: BaseException) -> Outcome:
    return Outcome(run.name, failure=LostWorkerError(f"a worker was lost: {error}"))


@contextmanager
def _dask_client(address: str) -> Iterator[Any]:
    import distributed

    try:
        connect: Any = distributed.Client
        client = connect(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no Dask scheduler answers at address {address!r}: {error}. {SCHEDULER} starts one "
            f"and says its address. {OPEN}"
        ) from error
    with client:
        _check_dask_workers(client, address)
        yield client


def _check_dask_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=CONNECT_TIMEOUT)
    except TimeoutError as error:
        raise ValueError(
            f"the Dask scheduler at {address!r} has no workers; `dask worker {address} "
            f"{WORKER} --nthreads 1` starts one on this machine. {OPEN}"
        ) from error
    threads = max(client.nthreads().values())
    if threads > 1:
        raise ValueError(
            f"a Dask worker of {address!r} has {threads} threads, of which a run can use one. "
            f"Start more workers instead: `dask worker {address} {WORKER} --nworkers "
            f"{threads} --nthreads 1` on this machine"
        )


def _on_dask(
    client: Any, address: str, runs: Sequence[Run], folder: Path, timeout: float | None
) -> Generator[Outcome, None, None]:
    import distributed

    futures = {client.submit(attempt, run, folder, timeout, pure=False): run for run in runs}
    completed: Any = distributed.as_completed
    try:
        for future in completed(futures, loop=client.loop):
            loss = future.exception()
            if isinstance(loss, distributed.KilledWorker):  # the last of several
                yield _lost(futures[future], loss)
            else:
                yield future.result()
    except CancelledError as error:
        raise ConnectionError(f"the Dask scheduler at {address!r} is gone") from error
    finally:
        client.cancel(list(futures))


@contextmanager
def _ray_cluster(address: str | None) -> Iterator[None]:
    import ray

    connected = ray.is_initialized()  # by the caller
    try:
        if not connected:
            ray.init(address=address)
    except ConnectionError as error:
        raise ValueError(f"no Ray cluster answers at address {address!r}: {error}") from error
    try:
        yield
    finally:
        if not connected:
            ray.shutdown()


def _on_ray(
    runs: Sequence[Run], folder: Path, timeout: float | None
) -> Generator[Outcome, None, None]:
    import ray

    remote = ray.remote(max_retries=0, num_cpus=1)(attempt)
    pending = {remote.remote(run, folder, timeout): run for run in runs}
    try:
        while pending:
            (first, *_), _ = ray.wait(list(pending))
            run = pending.pop(first)
            try:
                yield ray.get(first)
            except ray.exceptions.RayError as error:
                yield _lost(run, error)
    finally:
        for reference in pending:
            ray.cancel(reference)
