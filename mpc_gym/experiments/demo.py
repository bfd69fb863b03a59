"""The demo: a comparison of two methods, small and with one seed, whose settings are fixed.

The expert plans with the true physics. Two policies clone it by its demonstrations: an `MPCPolicy`
whose physics is wrong at first, and an `MlpPolicy`. All are then scored on start states that none
of them has seen. A quadrotor that has to fly round an obstacle is the demo's second part.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from rich import box
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.policies import ActorCriticPolicy

from mpc_gym.checks import check_flag, check_path, check_seed, check_size
from mpc_gym.experiments import obstacle
from mpc_gym.experiments.environments import Physics, System, can_draw, check_env, find_system
from mpc_gym.experiments.film import Reel, shoot, show
from mpc_gym.experiments.learner import Score, score_policy
from mpc_gym.experiments.methods import (
    CLONE_DYNAMICS,
    CLONE_NETWORK,
    MethodOptions,
    clone_by_epochs,
    make_policy,
    without_convergence_warnings,
)
from mpc_gym.experiments.obstacle import Flights, fly
from mpc_gym.experiments.plots import save_figure
from mpc_gym.experiments.progress import Stages
from mpc_gym.files import make_writable_folder, write
from mpc_gym.imitation import Demonstrations, Stateless, collect, evaluate
from mpc_gym.models import current_values
from mpc_gym.mpc import MPC
from mpc_gym.policies import MPCPolicy
from mpc_gym.rendering.palette import LINES

VIDEOS = ("demo.mp4", "demo.gif")
LEARNING_CURVE = "learning_curve.png"
METRICS = "metrics.json"
FILES = (*VIDEOS, LEARNING_CURVE, METRICS)

COLUMNS = {
    "expert": "Expert",
    "mpc_before": "MPC\nbefore",
    "mpc": "MPC\ncloned",
    "mlp": "MLP\ncloned",
}
NOTHING = "-"


class Size(NamedTuple):
    """How long to learn and to measure.

    Args:
        mpc_epochs: of the policy that plans.
        mlp_epochs: of the policy that does not.
        unseen: episodes of the expert to measure the imitation loss on.
        episodes: start states to measure the return on.
        max_steps: an episode ends after so many steps at the latest.
    """

    mpc_epochs: int
    mlp_epochs: int
    unseen: int
    episodes: int
    max_steps: int | None


FULL = Size(mpc_epochs=25, mlp_epochs=300, unseen=10, episodes=50, max_steps=None)
QUICK = Size(mpc_epochs=20, mlp_epochs=5, unseen=1, episodes=4, max_steps=40)


@dataclass(frozen=True)
class DemoOptions:
    """What to run.

    Args:
        env: the environment's id.
        demonstrations: episodes of the expert to learn from, at least 2: one is held out.
        seed: of start states, initial weights and the order of learning.
        folder: for the videos, the plot and the numbers.
        quick: a run of seconds that shows that everything works; its numbers mean nothing.

    Raises:
        ValueError: an option is out of its range, or the folder cannot be written to.
    """

    env: str = "DiffPendulum-v0"
    demonstrations: int = 10
    seed: int = 0
    folder: Path = Path("videos")
    quick: bool = False

    def __post_init__(self) -> None:
        check_env(self.env)
        # one is held out to choose the best weights by
        check_size("demonstrations", self.demonstrations, 2)
        check_seed("seed", self.seed)
        check_flag("quick", self.quick)
        make_writable_folder(check_path("folder", self.folder))

    @property
    def system(self) -> System:
        """What is to be learned."""
        return find_system(self.env)

    @property
    def files(self) -> tuple[str, ...]:
        """Which of `FILES` are written: of an environment that does not draw, no videos."""
        return FILES if can_draw(self.env) else FILES[len(VIDEOS) :]

    @property
    def flies(self) -> bool:
        """Whether the quadrotor is part of it: of the demo of one's own environment it is not."""
        return self.env == DemoOptions.env

    @property
    def size(self) -> Size:
        """How long to learn and to measure."""
        return QUICK if self.quick else FULL


@dataclass(frozen=True)
class Demo:
    """What came out.

    Attributes:
        options: what was run.
        scores: of the agents "expert", "mpc_before" (with wrong physics), "mpc" and "mlp".
        physics: the parameters to be learned, of "true", "mpc_before" and "mpc".
        histories: what `BehavioralCloning` logged for "mpc" and "mlp", a row an epoch.
        flights: of the quadrotor, where the environment is the default one; else None.
    """

    options: DemoOptions
    scores: dict[str, Score]
    physics: dict[str, Physics]
    histories: dict[str, list[dict[str, float]]]
    flights: Flights | None

    def quantities(self) -> dict[str, dict[str, float]]:
        """What the motion determines, by the true, the wrong and the learned physics."""
        return {
            quantity.name: {name: quantity.of(physics) for name, physics in self.physics.items()}
            for quantity in self.options.system.quantities
        }


def run_demo(options: DemoOptions, console: Console | None = None) -> Demo:
    """Run the demo, and write its `FILES` to the folder.

    Args:
        options: what to run.
        console: where to show the progress; None for nowhere.
    """
    with (
        Stages(console) as stages,
        torch.random.fork_rng(devices=[]),
        without_convergence_warnings(),
    ):
        torch.manual_seed(options.seed)
        demo = _run(options, stages)
    save_figure(learning_curve(demo), options.folder / LEARNING_CURVE)
    write_metrics(demo, options.folder / METRICS)
    return demo


def _run(options: DemoOptions, stages: Stages) -> Demo:
    env, system, size = options.env, options.system, options.size
    learn_seeds, unseen_seeds, score_seeds = _episode_seeds(options)
    planner = MethodOptions(horizon=system.horizon).expert(env)
    expert = Stateless(planner)

    def demonstrate(seeds: range) -> Demonstrations:
        return collect(
            expert, env, len(seeds), seeds[0], max_steps=size.max_steps, progress_bar=False
        )

    def score(policy: ActorCriticPolicy) -> Score:
        return score_policy(policy, env, score_seeds, unseen, size.max_steps)

    def clone(
        name: str, policy: ActorCriticPolicy, epochs: int, recipe: dict[str, Any]
    ) -> list[dict[str, float]]:
        with stages.stage(f"The {name} policy learns", epochs) as advance:
            return clone_by_epochs(policy, demonstrations, epochs, options.seed, recipe, advance)

    with stages.stage("The expert gives demonstrations"):
        demonstrations, unseen = demonstrate(learn_seeds), demonstrate(unseen_seeds)
    mpc, mlp = make_policies(env)
    before, _ = make_policies(env)
    physics = {"true": _physics(planner, system), "mpc_before": _physics(mpc.mpc, system)}
    with stages.stage("Expert and wrong physics are scored"):
        returns = evaluate(expert, env, score_seeds, max_steps=size.max_steps)
        scores = {"expert": Score(returns), "mpc_before": score(mpc)}
    histories = {
        "mpc": clone("MPC", mpc, size.mpc_epochs, CLONE_DYNAMICS),
        "mlp": clone("MLP", mlp, size.mlp_epochs, CLONE_NETWORK),
    }
    physics["mpc"] = _physics(mpc.mpc, system)
    with stages.stage("The cloned policies are scored"):
        scores |= {"mpc": score(mpc), "mlp": score(mlp)}
    flights = None
    if options.flies:
        sizes = obstacle.QUICK if options.quick else obstacle.FULL
        flights = fly(options.demonstrations, learn_seeds[0], sizes, stages)
    agents = {
        "Wrong physics": Stateless(before),
        "Cloned MPC": Stateless(mpc),
        "Cloned MLP": Stateless(mlp),
    }
    paths = [options.folder / name for name in VIDEOS if name in options.files]
    with stages.stage("The video is drawn", len(agents) + len(paths)) as advance:
        # where the expert earns least there is the most to see
        seed = score_seeds[int(np.argmin(returns.returns))]
        if paths:
            first = shoot(agents, env, seed, size.max_steps, advance)
            rows: list[Reel] = [first] if flights is None else [first, flights.reel]
            show(rows, paths, advance)
    return Demo(options, scores, physics, histories, flights)


def make_policies(env: str) -> tuple[MPCPolicy, ActorCriticPolicy]:
    """The two learners: one that plans with wrong physics, and SB3's `MlpPolicy`."""
    system = find_system(env)
    planning = MethodOptions(horizon=system.horizon).planning
    policies = (
        make_policy(MPCPolicy, env, learn=dict(system.wrong_physics), **planning),
        make_policy(ActorCriticPolicy, env),
    )
    return cast("tuple[MPCPolicy, ActorCriticPolicy]", policies)


def _episode_seeds(options: DemoOptions) -> tuple[range, range, range]:
    """Of the episodes to learn from, of unseen demonstrations and of scores; none is shared."""
    counts = (options.demonstrations, options.size.unseen, options.size.episodes)
    first = np.random.SeedSequence(options.seed).generate_state(1)[0]
    ends = (int(first) + np.cumsum(counts)).tolist()
    learn, unseen, score = (
        range(end - count, end) for end, count in zip(ends, counts, strict=True)
    )
    return learn, unseen, score


def _physics(mpc: MPC, system: System) -> Physics:
    values = current_values(mpc.dynamics)
    return {name: values[name].item() for name in system.wrong_physics if values[name].ndim == 0}


def table(demo: Demo) -> Table:
    """One column for each agent."""
    options = demo.options
    episodes = len(demo.scores["expert"].evaluation.returns)
    explained = (
        f"return: mean ± standard error over {episodes} unseen start states\n"
        "imitation loss: mean squared error of actions on unseen demonstrations,\n"
        "in units of half the action range"
    )
    if demo.flights is not None:
        explained += "\nhits an obstacle: a quadrotor that learned from as many flights"
    result = Table(
        title=f"{options.env}: {options.demonstrations} demonstrations, seed {options.seed}",
        caption=explained,
        box=box.SIMPLE_HEAD,
    )
    result.add_column(no_wrap=True)
    for title in COLUMNS.values():
        result.add_column(title, justify="right", no_wrap=True)
    scores = [demo.scores[agent] for agent in COLUMNS]
    losses = [score.imitation_loss for score in scores]
    seconds = [score.evaluation.seconds_per_decision for score in scores]
    result.add_row("return", *map(_return, scores))
    result.add_row("imitation loss", *(NOTHING if x is None else f"{x:.1e}" for x in losses))
    result.add_row("seconds per decision", *(f"{x:.1e}" for x in seconds), end_section=True)
    for name, values in demo.quantities().items():
        cells = (f"{values[agent]:.4g}" for agent in ("true", "mpc_before", "mpc"))
        result.add_row(name, *cells, NOTHING)
    if demo.flights is not None:
        flown = len(demo.flights.scores["expert"].returns)
        counts = (f"{demo.flights.crashes(agent)} of {flown}" for agent in COLUMNS)
        result.add_section()
        result.add_row("hits an obstacle", *counts)
    return result


def _return(score: Score) -> str:
    mean, error = score.evaluation.mean, score.evaluation.standard_error
    # two digits of the error, and as many of the mean as it makes sense of
    decimals = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 1
    return f"{mean:.{decimals}f} ± {error:.{decimals}f}"


def metrics(demo: Demo) -> dict[str, Any]:
    """All results, as JSON can hold them."""
    options = demo.options
    return {
        "environment": options.env,
        "demonstrations": options.demonstrations,
        "seed": options.seed,
        "quick": options.quick,
        "agents": {
            agent: {
                "return_mean": score.evaluation.mean,
                "return_standard_error": score.evaluation.standard_error,
                "returns": score.evaluation.returns.tolist(),
                "imitation_loss": score.imitation_loss,
                "seconds_per_decision": score.evaluation.seconds_per_decision,
            }
            for agent, score in demo.scores.items()
        },
        "parameters": demo.physics,
        "quantities": {
            name: {**values, "relative_error": abs(values["mpc"] / values["true"] - 1)}
            for name, values in demo.quantities().items()
        },
        "flights": None if demo.flights is None else _flights(demo.flights),
        # None for a mean of nothing, for which JSON has no number
        "learning": {
            agent: [
                {key: x if math.isfinite(x) else None for key, x in row.items()} for row in rows
            ]
            for agent, rows in demo.histories.items()
        },
    }


def _flights(flights: Flights) -> dict[str, Any]:
    return {
        agent: {"crashes": flights.crashes(agent), "returns": score.returns.tolist()}
        for agent, score in flights.scores.items()
    }


def write_metrics(demo: Demo, path: Path) -> None:
    """Write `metrics` as JSON, whole or not at all."""
    write(path, json.dumps(metrics(demo), indent=2, allow_nan=False) + "\n")


def learning_curve(demo: Demo) -> Figure:
    """Left, how the policies come to act as the expert; right, how the MPC comes to its physics."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, physics = figure.subplots(1, 2)
    for (agent, history), colour in zip(demo.histories.items(), LINES, strict=False):
        losses = [row["validation/action_loss"] for row in history]
        loss.plot([row["epoch"] for row in history], losses, colour, label=agent.upper())
    loss.set_xscale("symlog", linthresh=1)  # of hundreds of epochs, the first few matter most
    loss.xaxis.set_major_formatter(ScalarFormatter())
    loss.set(title="Actions on held-out demonstrations", xlabel="epoch", ylabel="imitation loss")
    _plot_physics(physics, demo)
    for axes in (loss, physics):
        if axes.lines:
            axes.legend(frameon=False)
        axes.set_yscale("log", nonpositive="mask")  # a guess may be exactly right
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _plot_physics(axes: Axes, demo: Demo) -> None:
    true, history = demo.physics["true"], demo.histories["mpc"]
    key = "parameters/planner.mpc.dynamics."
    guesses = [{name: row[key + name] for name in true} for row in history]
    colours = [colour for colour in LINES if colour != LINES[1]]  # which is the MLP's
    for i, quantity in enumerate(demo.options.system.quantities):
        errors = [abs(quantity.of(guess) / quantity.of(true) - 1) for guess in guesses]
        colour = colours[i % len(colours)]
        axes.plot([row["epoch"] for row in history], errors, color=colour, label=quantity.name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title="Physics of the MPC policy", xlabel="epoch", ylabel="relative error")
