"""Where runs are executed: processes of this machine, or a cluster.

joblib hides the difference. What it leaves visible, the loss of a worker, is one exception here.
"""

import importlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import joblib

from mpc_gym.checks import check_count, check_instance, found
from mpc_gym.experiments.run import Outcome, Run, attempt

ENGINES = ("local", "dask", "ray")
MOST_JOBS = 1024
PATIENCE = 10  # seconds until a cluster must have answered
NOT_HERE = 2  # joblib takes one worker to be this process

# By default both listen to all the world and run what is sent; --host leaves their pages open.
SCHEDULER = "`dask scheduler --host 127.0.0.1 --dashboard-address 127.0.0.1:8787`"
WORKER = "--host 127.0.0.1 --dashboard-address 127.0.0.1:0"
OPEN = "Without --host it runs what anybody sends who reaches the machine"

Work = Callable[[Sequence[Run], Path, float], Generator[Outcome, None, None]]
# What joblib raises when a worker is lost, while there is a connection to the workers.
Losses = tuple[type[BaseException], ...]
Connection = AbstractContextManager[Losses]


class LostWorkerError(RuntimeError):
    """A process that was at work on a run, or so it seems, is gone."""


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

    When a worker is lost, either the outcome of the run that it was at is a `LostWorkerError`, or
    nobody knows which run that was: then it is raised, and the other runs are stopped as well.

    Args:
        engine: one of `ENGINES`.
        jobs: local processes, 1 for this very process; a cluster uses all the workers it has.
        address: of the cluster.

    Raises:
        ValueError: there is no such cluster, or its workers cannot be used.
    """
    with _connection(engine, jobs, address) as losses:

        def work(
            runs: Sequence[Run], folder: Path, patience: float
        ) -> Generator[Outcome, None, None]:
            parallel: Any = joblib.Parallel(
                return_as="generator_unordered", batch_size=1, pre_dispatch="all"
            )
            try:
                yield from parallel(joblib.delayed(attempt)(run, folder, patience) for run in runs)
            except losses as error:
                raise LostWorkerError(f"a worker was lost: {error}") from error

        yield work


def _connection(engine: str, jobs: int, address: str | None) -> Connection:
    if engine == "dask":
        assert address is not None
        return _dask(address)
    return _ray(address) if engine == "ray" else _local(jobs)


@contextmanager
def _local(jobs: int) -> Iterator[Losses]:
    # a library that asks the environment how many threads to use finds one
    with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
        yield (BrokenProcessPool,)


@contextmanager
def _dask(address: str) -> Iterator[Losses]:
    import distributed

    try:
        connect: Any = distributed.Client
        client = connect(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no Dask scheduler answers at address {address!r}: {error}. {SCHEDULER} starts one "
            f"and says its address. {OPEN}"
        ) from error
    with client, joblib.parallel_config(_dask_backend(client, address)):
        yield ()


def _check_dask_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
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


def _dask_backend(client: Any, address: str) -> Any:
    import distributed

    # not among joblib's public names, but there is no other way to the class
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        """joblib's (as of 1.6), which waits for ever for a call that Dask has given up."""

        def submit(self, func: Any, callback: Any = None) -> Any:
            future = super().submit(func, callback)
            ((_, (run, *_), _),) = func.items

            def failed(future: Any) -> None:
                error = future.exception()
                if isinstance(error, distributed.KilledWorker):  # the last of several
                    loss = LostWorkerError(f"a worker was lost: {error}")
                    callback([Outcome(run.name, failure=loss)])
                elif error is not None:
                    callback(error)

            future.add_done_callback(failed)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            if isinstance(out, CancelledError):
                raise ConnectionError(f"the Dask scheduler at {address!r} is gone") from out
            if isinstance(out, BaseException):
                raise out
            return super().retrieve_result_callback(out)

        def effective_n_jobs(self, _: int) -> int:
            _check_dask_workers(self.client, address)
            return NOT_HERE  # all calls are dispatched at once, so that more mean nothing

    return Backend(client=client)


@contextmanager
def _ray(address: str | None) -> Iterator[Losses]:
    import ray
    from ray.util.joblib.ray_backend import RayBackend

    class Backend(RayBackend):  # type: ignore[misc]
        """Ray's, which does not say that it can give back results one by one, but can."""

        supports_return_generator = True

        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(int(super().effective_n_jobs(n_jobs)), NOT_HERE)

    connected = ray.is_initialized()  # by the caller
    try:
        if not connected:
            ray.init(address=address)
    except ConnectionError as error:
        raise ValueError(f"no Ray cluster answers at address {address!r}: {error}") from error
    try:
        with joblib.parallel_config(Backend(), n_jobs=-1):
            yield (ray.exceptions.RayError,)
    finally:
        if not connected:
            ray.shutdown()
