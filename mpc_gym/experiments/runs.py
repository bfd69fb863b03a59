"""Many independent runs, executed in parallel, each once however often it is interrupted."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from mpc_gym.experiments.engines import LostWorkerError, Work, check_engine, workers
from mpc_gym.experiments.progress import counted
from mpc_gym.experiments.run import (
    CONFIG,
    RESULT,
    Outcome,
    Run,
    check_folder,
    finished,
    read_record,
)
from mpc_gym.files import check_space, make_writable_folder

__all__ = ["FailedRunsError", "Run", "execute", "results"]

LEAST_FREE = 100 * 2**20  # bytes; an experiment that takes more asks for more
LOSSES = 2  # a run that may have lost so many workers is tried alone


class FailedRunsError(RuntimeError):
    """Some runs failed; the others are done.

    Attributes:
        failures: the exception of each, by the run's name.
    """

    def __init__(self, failures: dict[str, Exception], runs: int) -> None:
        self.failures = failures
        lines = [f"{name}: {type(e).__name__}: {e}" for name, e in failures.items()]
        super().__init__(
            f"{len(failures)} of {runs} runs failed; the others are done, and are not repeated "
            "when the experiment is started again:\n" + "\n".join(lines)
        )


def execute(
    runs: Sequence[Run],
    folder: Path,
    *,
    jobs: int = 1,
    engine: str = "local",
    address: str | None = None,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Execute runs, all but those that are finished.

    Stopped at any moment and started again, it repeats no finished run, and goes on with the
    others from their checkpoints. The numbers do not depend on where the runs are executed: each
    has one thread. Several processes may execute the same runs in one folder: they share the work.

    Args:
        runs: with names that differ.
        folder: of the experiment; each run has a folder of its name in it, with `config.json`
            (function, settings, seed, versions, platform), what the function writes there, and at
            last `result.json`. The workers of a cluster must see it under the same path.
        jobs: processes on this machine, 1 for none but this. A cluster uses all its workers.
        engine: "local"; "dask" or "ray" for a cluster.
        address: of the cluster: tcp://... of the Dask scheduler, or what `ray.init` takes.
        progress: show how many are done and the time left, where the output is a terminal.

    Returns:
        What the functions returned, as JSON data, by the runs' names, in their order.

    Raises:
        ValueError: before anything is computed: an argument is impossible, the folder cannot be
            written to, has no space left or holds other runs, or no cluster answers.
        ModuleNotFoundError: the engine's library is not installed.
        ConnectionError: the Dask scheduler went away in the middle.
        FailedRunsError: some runs failed; raised when all the others are done.
    """
    folder = Path(folder).absolute()
    check_engine(engine, jobs, address)
    _check_names(runs)
    done = _done(runs, folder)
    pending = {run.name: run for run in runs if run.name not in done}
    failures: dict[str, Exception] = {}
    if pending:
        _prepare(pending, folder)
        console = Console() if progress else None
        with (
            counted("runs", len(runs), len(done), console) as advance,
            workers(engine, jobs, address) as work,
        ):
            for outcome in _outcomes(pending, folder, work):
                if outcome.result is not None:
                    done[outcome.name] = outcome.result
                if outcome.failure is not None:
                    if outcome.trace:
                        outcome.failure.__cause__ = _TraceError(outcome.trace)
                    failures[outcome.name] = outcome.failure
                advance()
    if failures:
        raise FailedRunsError(failures, len(runs)) from next(iter(failures.values()))
    return {run.name: done[run.name] for run in runs}


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of the runs that are finished in the folder of an experiment, by their names.

    Raises:
        ValueError: there is no such folder, or a file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"folder must be that of an experiment, got {str(folder)!r}")
    paths = (path.relative_to(folder) for path in sorted(folder.rglob(RESULT)))
    return {
        path.parent.as_posix(): read_record(folder / path)["result"]
        for path in paths
        # what earlier versions left that were killed while they wrote
        if not any(part.startswith(".") for part in path.parts)
    }


class _TraceError(Exception):
    """Where an exception was raised in another process."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def _check_names(runs: Sequence[Run]) -> None:
    names = Counter(run.name for run in runs)
    repeated = [name for name, count in names.items() if count > 1]
    if repeated:
        raise ValueError(f"the names of runs must differ, got {repeated[0]!r} more than once")
    for name in names:
        for parent in Path(name).parents:
            if parent.as_posix() in names:
                raise ValueError(
                    f"run {name!r} would lie in the folder of run {parent.as_posix()!r}"
                )


def _done(runs: Sequence[Run], folder: Path) -> dict[str, dict[str, Any]]:
    """The results there are already; refuses folders that hold anything but these runs."""
    done = {}
    for run in runs:
        check_folder(run, folder / run.name)
        result = finished(run, folder / run.name)
        if result is not None:
            done[run.name] = result
    return done


def _prepare(pending: dict[str, Run], folder: Path) -> None:
    """Make the folders, and see that they can be written to."""
    check_space(folder, LEAST_FREE)
    make_writable_folder(folder)
    for name in pending:
        make_writable_folder(folder / name)


def _outcomes(pending: dict[str, Run], folder: Path, work: Work) -> Iterator[Outcome]:
    """What comes of each run, in the order in which they end.

    A run that seems to have lost its worker, or was under way more than once when nobody knew which
    run had, is tried again alone when the others are done, and given up when that loses a worker.
    """
    losses: Counter[str] = Counter()
    timeout: float | None = 0.0
    while pending:
        together = [run for run in pending.values() if losses[run.name] < LOSSES]
        batch = together or [next(iter(pending.values()))]
        try:
            with closing(work(batch, folder, timeout)) as outcomes:
                for outcome in outcomes:
                    if together and isinstance(outcome.failure, LostWorkerError):
                        losses[outcome.name] = LOSSES
                    elif not outcome.busy:
                        del pending[outcome.name]
                        yield outcome
            timeout = None  # all that is left is what other processes are at
        except LostWorkerError as error:
            if not together:
                del pending[batch[0].name]
                yield Outcome(batch[0].name, failure=error)
            left = [run.name for run in batch if run.name in pending]
            begun = [name for name in left if (folder / name / CONFIG).exists()]
            losses.update(begun or left)
