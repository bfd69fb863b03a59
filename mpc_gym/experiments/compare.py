"""A person's own question: which method learns best from how many demonstrations?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mpc_gym.checks import (
    LARGEST_SEED,
    check_count,
    check_instance,
    check_names,
    check_path,
    check_size,
)
from mpc_gym.experiments.engines import check_engine
from mpc_gym.experiments.environments import can_draw
from mpc_gym.experiments.expert import SCORES, episode_seeds
from mpc_gym.experiments.film import film
from mpc_gym.experiments.learner import EXPERT, POLICY, LearningOptions, run, settings_of
from mpc_gym.experiments.methods import METHODS, MethodOptions, find_method
from mpc_gym.experiments.progress import Stages
from mpc_gym.experiments.run import Run, check_folder, versions_text
from mpc_gym.experiments.runs import LEAST_FREE, execute
from mpc_gym.experiments.summary import method_table, parameter_table, plot, score_table
from mpc_gym.experiments.tables import picture
from mpc_gym.files import claim, write
from mpc_gym.imitation import Stateless
from mpc_gym.policies import load_pretrained

MOST_SEEDS = 10_000
MARK = "comparison.json"
RUNS = "runs"
REPORT = "report.md"
IMAGES = "images"
PLOT = "data-efficiency.png"
VIDEOS = ("comparison.mp4", "comparison.gif")
COLUMNS = 4  # of the video
ABOUT = (
    "Each run's folder holds its settings, versions, metrics, TensorBoard events, checkpoint and "
    "policy."
)
NOTE = """\
Not every method is told the same. Those that see the next observations can fit the physics to them;
those that see the actions alone must infer it from what the expert does, which is nothing where its
control sits at a limit. The MLP and the LSTM have no model to begin with. One demonstration serves
for learning and for validation; of more, a fifth of the episodes (at least one) is held out to
choose the best weights by."""

DEFAULT_METHODS = tuple(name for name in METHODS if name != "mpc.dx.actions")


@dataclass(frozen=True)
class CompareOptions(LearningOptions):
    """What to compare, and where; see `LearningOptions` for what is not said here.

    Args:
        methods: names of `METHODS`, or "package.module:function" of your own.
        demonstrations: numbers of episodes of the expert to learn from.
        seeds: how many, from `seed` on; the same methods learn from other demonstrations.
        folder: for runs and report. A comparison that is there already is gone on with; it can
            have other methods, numbers of demonstrations and seeds, but is alike in the rest.
        episodes: start states that the return is measured from.
        unseen: further demonstrations that the imitation loss is measured on.
        max_steps: an episode ends after so many steps at the latest; None: the environment's limit.
        film: number of demonstrations of the policies in the video; None: the largest; 0: no video.
        jobs: processes.
        engine: "local", "dask" or "ray", see `experiments.runs.execute`.
        address: of the cluster.

    Raises:
        ValueError: an option is impossible.
    """

    methods: Sequence[str] = DEFAULT_METHODS
    demonstrations: Sequence[int] = (1, 5, 10)
    seeds: int = 4
    folder: Path = Path("comparison")
    episodes: int = 25
    unseen: int = 10
    max_steps: int | None = None
    film: int | None = None
    jobs: int = 1
    engine: str = "local"
    address: str | None = None
    runs: list[Run] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        kept = self.__dict__
        for name in ("episodes", "unseen"):
            kept[name] = check_size(name, getattr(self, name))
        kept["seeds"] = check_count("seeds", self.seeds, 1, MOST_SEEDS)
        check_count("seed", self.seed, 0, LARGEST_SEED - MOST_SEEDS)
        if self.max_steps is not None:
            kept["max_steps"] = check_count("max_steps", self.max_steps)
        check_names("methods", self.methods)
        check_instance("demonstrations", self.demonstrations, (list, tuple), "a list of numbers")
        kept["demonstrations"] = tuple(
            check_size("demonstrations", number) for number in self.demonstrations
        )
        for name, values in (("methods", self.methods), ("demonstrations", self.demonstrations)):
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must be given, each once, got {list(values)}")
        check_path("folder", self.folder)
        check_engine(self.engine, self.jobs, self.address)
        if self.film is not None:
            check_count("film", self.film, 0)
        if self.film not in (None, 0, *self.demonstrations):
            raise ValueError(
                f"film must be one of the numbers of demonstrations, "
                f"{', '.join(map(str, self.demonstrations))}, or 0 for no video, got {self.film}"
            )
        if EXPERT in self.methods:
            raise ValueError(f"methods must not hold {EXPERT!r}: it is in every comparison")
        kept["runs"] = self._runs()

    def _runs(self) -> list[Run]:
        return grid(
            RUNS,
            self.env,
            self.methods,
            self.demonstrations,
            range(self.seed, self.seed + self.seeds),
            self.planning,
            learn=tuple(self.learn),
            effort=self.effort,
            episodes=self.episodes,
            unseen=self.unseen,
            max_steps=self.max_steps,
        )

    @property
    def planning(self) -> MethodOptions:
        """How the expert and the learners plan."""
        assert self.horizon is not None, "filled in by LearningOptions"
        return MethodOptions(horizon=self.horizon, starts=self.starts)

    @property
    def filmed(self) -> int:
        """The number of demonstrations of the policies in the video; 0 for no video."""
        return max(self.demonstrations) if self.film is None else self.film

    @property
    def identity(self) -> dict[str, Any]:
        """What all runs in a folder have in common."""
        shared = ("env", "learn", "horizon", "starts", "effort", "episodes", "unseen", "max_steps")
        data = {name: getattr(self, name) for name in shared}
        identity: dict[str, Any] = json.loads(json.dumps({"experiment": "compare", **data}))
        return identity


def grid(
    prefix: str,
    env: str,
    methods: Sequence[str],
    demonstrations: Sequence[int],
    seeds: Sequence[int],
    options: MethodOptions,
    *,
    learn: tuple[str, ...] = (),
    effort: float = 1.0,
    **settings: Any,
) -> list[Run]:
    """One run for every method, number of demonstrations and seed.

    Args:
        prefix: of the runs' names; those that share it share what the expert did.
        env: the environment's id.
        methods, demonstrations, seeds: what is combined.
        options: of all methods; what they learn and their updates are each method's own.
        learn: see `initial_values`.
        effort: by which each method's number of updates is multiplied.
        **settings: further ones of `learner.run`.

    Raises:
        ValueError: a method, or something to learn, is unknown.
    """
    shared = {
        "horizon": options.horizon,
        "starts": options.starts,
        "hidden": options.hidden,
        **settings,
    }
    runs = []
    for name in methods:
        own = settings_of(find_method(name), env, learn, effort)
        for number in demonstrations:
            place = f"{prefix}/{name.replace(':', '.')}/{number:03d}-demonstrations"
            runs += [
                Run(
                    f"{place}/seed-{seed}",
                    f"{run.__module__}:{run.__name__}",
                    {**own, "demonstrations": number, "seed": seed, **shared},
                )
                for seed in seeds
            ]
    return runs


def compare(options: CompareOptions, console: Console | None = None) -> dict[str, dict[str, Any]]:
    """Run what is not finished yet of a comparison, and write its report.

    Args:
        options: what to compare, and where.
        console: where the progress is shown; None for nowhere.

    Returns:
        The results of the runs, see `learner.run`, by their names.

    Raises:
        ValueError: before anything is computed: the folder holds something else, or `execute`
            refuses it.
        FailedRunsError: some runs failed; the others are done.
    """
    claim(options.folder, MARK, options.identity, "comparison", LEAST_FREE)
    for each in options.runs:
        check_folder(each, options.folder / each.name)
    results = execute(
        options.runs,
        options.folder,
        jobs=options.jobs,
        engine=options.engine,
        address=options.address,
        progress=console is not None,
    )
    with Stages(console) as stages:
        write_report(options, results, stages)
    return results


def write_report(
    options: CompareOptions, results: Mapping[str, dict[str, Any]], stages: Stages
) -> list[Path]:
    """Write the report: Markdown with a plot and a video, and tables as CSV.

    Args:
        options: of the comparison.
        results: of the runs, by their names.
        stages: where the progress is shown.

    Returns:
        The files, the report first.
    """
    folder, rows = options.folder, list(results.values())
    methods = list(dict.fromkeys(result["method"] for result in rows))
    plot(rows, folder / IMAGES / PLOT)
    videos = _film(options, results, methods, stages)
    scores = score_table("scores", "Scores", rows)
    learned = parameter_table("parameters", "Learned parameters", rows)
    tables = [scores, *([learned] if learned.rows else [])]
    for table in tables:
        write(folder / f"{table.name}.csv", table.csv())
    parts = [
        f"# Learning from demonstrations in {options.env}",
        _introduction(options, rows),
        picture(folder / IMAGES / PLOT, "Return and imitation loss over the demonstrations"),
        *([_video(options)] if videos else []),
        method_table(methods).markdown(),
        NOTE,
        *(table.markdown() for table in tables),
        f"---\n\n{versions_text([folder / name for name in results])} {ABOUT}",
    ]
    write(folder / REPORT, "\n\n".join(parts) + "\n")
    pictures = [folder / IMAGES / PLOT, *videos]
    return [folder / REPORT, *pictures, *(folder / f"{table.name}.csv" for table in tables)]


def _introduction(options: CompareOptions, rows: list[dict[str, Any]]) -> str:
    seeds = len({result["seed"] for result in rows})
    return f"""\
Each method learned from the same demonstrations of an expert that plans with the true model, by the
observation alone. Every learner that plans looks {options.horizon} steps ahead, as the
expert does. Returns are means over {len(rows[0]["returns"])} start states that no method has seen,
the same for all; the imitation loss is the mean squared error of actions on unseen demonstrations,
in units of half the action range. Seeds: {seeds}; they change the demonstrations, initial weights
and the order of learning. Lines in the plot are medians over the seeds, bands reach from the lowest
to the highest; the grey band is the standard error of the expert's return."""


def _video(options: CompareOptions) -> str:
    mp4, gif = VIDEOS
    number = options.filmed
    return (
        f"From one start state, after {number} demonstration{'s' if number > 1 else ''} "
        f"([as a video]({mp4})):\n\n![The expert and the methods side by side]({gif})"
    )


def _film(
    options: CompareOptions,
    results: Mapping[str, dict[str, Any]],
    methods: list[str],
    stages: Stages,
) -> list[Path]:
    if not options.filmed or not can_draw(options.env):
        return []
    agents: dict[str, Any] = {"expert": Stateless(options.planning.expert(options.env))}
    for method in methods:
        name = next(
            name
            for name, result in results.items()
            if (result["method"], result["demonstrations"]) == (method, options.filmed)
        )
        agents[method] = Stateless(load_pretrained(options.folder / name / POLICY))
    paths = [options.folder / name for name in VIDEOS]
    # where the expert earns least there is the most to see
    returns = next(iter(results.values()))["expert_returns"]
    seed = episode_seeds(SCORES, len(returns))[int(np.argmin(returns))]
    with stages.stage("The video is drawn", len(agents) + len(paths)) as advance:
        film(agents, options.env, seed, options.max_steps, paths, advance, columns=COLUMNS)
    return paths
