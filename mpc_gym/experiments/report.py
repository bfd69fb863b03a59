"""The report of a comparison: Markdown with a plot and a video, and tables as CSV."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpc_gym.experiments.environments import can_draw
from mpc_gym.experiments.film import film
from mpc_gym.experiments.learner import POLICY, SCORES, episode_seeds
from mpc_gym.experiments.methods import MethodOptions
from mpc_gym.experiments.progress import Stages
from mpc_gym.experiments.run import versions_text
from mpc_gym.experiments.summary import method_table, parameter_table, plot, score_table
from mpc_gym.experiments.tables import picture
from mpc_gym.files import write
from mpc_gym.imitation import Stateless
from mpc_gym.policies import load_pretrained

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


@dataclass(frozen=True)
class ReportOptions:
    """What the report is of.

    Args:
        folder: of the comparison.
        env: the environment's id.
        filmed: number of demonstrations of the policies in the video; 0 for no video.
        planning: how the expert plans.
        max_steps: an episode of the video ends after so many steps at the latest.
    """

    folder: Path
    env: str
    filmed: int
    planning: MethodOptions
    max_steps: int | None


def write_report(
    options: ReportOptions, results: Mapping[str, dict[str, Any]], stages: Stages
) -> list[Path]:
    """Write the report.

    Args:
        options: what it is of.
        results: of the runs, by their names.
        stages: where the progress is shown.

    Returns:
        The files, the report first.
    """
    folder, found = options.folder, list(results.values())
    methods = list(dict.fromkeys(result["method"] for result in found))
    plot(found, folder / IMAGES / PLOT)
    videos = _film(options, results, methods, stages)
    scores = score_table("scores", "Scores", found)
    learned = parameter_table("parameters", "Learned parameters", found)
    tables = [scores, *([learned] if learned.rows else [])]
    for table in tables:
        write(folder / f"{table.name}.csv", table.csv())
    parts = [
        f"# Learning from demonstrations in {options.env}",
        _introduction(options, found),
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


def _introduction(options: ReportOptions, found: list[dict[str, Any]]) -> str:
    seeds = len({result["seed"] for result in found})
    return f"""\
Each method learned from the same demonstrations of an expert that plans with the true model, by the
observation alone. Every learner that plans looks {options.planning.horizon} steps ahead, as the
expert does. Returns are means over {len(found[0]["returns"])} start states that no method has seen,
the same for all; the imitation loss is the mean squared error of actions on unseen demonstrations,
in units of half the action range. Seeds: {seeds}; they change the demonstrations, initial weights
and the order of learning. Lines in the plot are medians over the seeds, bands reach from the lowest
to the highest; the grey band is the standard error of the expert's return."""


def _video(options: ReportOptions) -> str:
    mp4, gif = VIDEOS
    number = options.filmed
    return (
        f"From one start state, after {number} demonstration{'s' if number > 1 else ''} "
        f"([as a video]({mp4})):\n\n![The expert and the methods side by side]({gif})"
    )


def _film(
    options: ReportOptions,
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
