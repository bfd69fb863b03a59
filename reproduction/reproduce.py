"""Every experiment of the paper, in one go."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from mpc_gym.checks import LARGEST_SEED, check_count, check_flag, check_names, check_path
from mpc_gym.experiments.engines import check_engine
from mpc_gym.experiments.run import check_folder, finished, versions_text
from mpc_gym.experiments.runs import FailedRunsError, Run, execute
from mpc_gym.files import claim
from reproduction.report import IMAGES, Result, Section, write_report

# the modules beside this one, with a hyphen for an underscore
EXPERIMENTS = ("lqr", "nonconvex", "nonrealizable", "closed-loop", "runtime")
ALONE = ("runtime",)  # it measures times: nothing may run beside it
MOST_SEEDS = 1000  # of an experiment, with room to spare
MARK = "reproduction.json"
LEAST_FREE = 2**30  # bytes: checkpoints of networks take half of that


class Experiment(Protocol):
    """What the module of an experiment offers, see the package."""

    def runs(self, quick: bool, seed: int) -> list[Run]:
        """What to run."""

    def section(self, results: dict[str, Result], images: Path) -> Section:
        """What the results say."""


@dataclass(frozen=True)
class ReproduceOptions:
    """What to run, and where.

    Args:
        folder: for the runs, the report, its plots and tables.
        only: some of `EXPERIMENTS`; none for all.
        quick: fewer seeds and steps, which show that everything works; no result.
        seed: the first of the seeds of every experiment.
        jobs: processes.
        engine: "local", "dask" or "ray", see `experiments.runs.execute`.
        address: of the cluster.

    Raises:
        ValueError: an option is out of its range.
    """

    folder: Path
    only: Sequence[str] = ()
    quick: bool = False
    seed: int = 0
    jobs: int = 1
    engine: str = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        check_path("folder", self.folder)
        check_names("only", self.only)
        for name in self.only:
            if name not in EXPERIMENTS:
                raise ValueError(f"only must be of {', '.join(EXPERIMENTS)}, got {name!r}")
        check_flag("quick", self.quick)
        check_engine(self.engine, self.jobs, self.address)
        self.__dict__["seed"] = check_count("seed", self.seed, 0, LARGEST_SEED - MOST_SEEDS)


def reproduce(options: ReproduceOptions, progress: bool = True) -> dict[str, Section]:
    """Run what is not finished yet in the folder, and write the report of all that is.

    Args:
        options: what to run, and where.
        progress: whether to show it.

    Returns:
        The sections of the report, by the names of the experiments.

    Raises:
        ValueError: before anything is computed: see `execute`; or the folder holds something else.
        FailedRunsError: some runs failed; raised when all else is done and in the report.
    """
    together: list[Run] = []
    alone: list[Run] = []
    for name in EXPERIMENTS:
        if not options.only or name in options.only:
            runs = _load(name).runs(options.quick, options.seed)
            (alone if name in ALONE else together).extend(runs)
    identity = {"experiment": "reproduce", "quick": options.quick, "seed": options.seed}
    claim(options.folder, MARK, identity, "experiment", LEAST_FREE)
    for run in (*together, *alone):
        check_folder(run, options.folder / run.name)
    place = {"jobs": options.jobs, "engine": options.engine, "address": options.address}
    failures = _execute(together, options.folder, progress, **place)
    failures |= _execute(alone, options.folder, progress)
    sections = report(options.folder, options.quick, options.seed)
    if failures:
        count = len(together) + len(alone)
        raise FailedRunsError(failures, count) from next(iter(failures.values()))
    return sections


def _execute(
    runs: Sequence[Run], folder: Path, progress: bool, **place: Any
) -> dict[str, Exception]:
    """Execute runs as `runs.execute` does; returns what failed, by the runs' names."""
    try:
        execute(runs, folder, progress=progress, **place)
    except FailedRunsError as error:
        return error.failures
    return {}


def report(folder: Path, quick: bool, seed: int) -> dict[str, Section]:
    """Write the report of the experiments in a folder of which all runs are finished.

    Args:
        folder: of `reproduce`.
        quick, seed: as they were given to it.

    Returns:
        The sections, by the names of the experiments.
    """
    sections, places = {}, []
    for name in EXPERIMENTS:
        experiment = _load(name)
        results = {
            run.name: finished(run, folder / run.name) for run in experiment.runs(quick, seed)
        }
        done = {key: result for key, result in results.items() if result is not None}
        if len(done) == len(results):
            sections[name] = experiment.section(done, folder / IMAGES)
            places += [folder / name for name in done]
    write_report(folder, sections, quick, versions_text(places))
    return sections


def _load(name: str) -> Experiment:
    module = importlib.import_module(f"reproduction.{name.replace('-', '_')}")
    return cast("Experiment", module)
