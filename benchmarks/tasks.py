"""Planners on tasks of Gymnasium, MuJoCo and the DeepMind Control Suite, beside published agents.

    python -m benchmarks.tasks [--quick] [--episodes 20] [--tasks Reacher-v5 ...] [--seed 0]

Each task is planned with the model that is written for it (`mpc_gym.known`), untrained, and with
models that are identified: every parameter of the dynamics begins off by a factor of its own, from
1/2 to 2, and is fitted to the transitions of 1, 5 and 10 episodes of random actions. The published
agents knew nothing of the model; their numbers, with sources, stand in `known_tasks.py`. A further
kind of contender, such as a network that has learned the dynamics, is a function in `CONTENDERS`.

Horizons, starts and costs were chosen on episodes of the seeds 1000 to 1099, those of
InvertedDoublePendulum-v5 after one that fell among those of `--seed 0`; the published table is of
`--seed 1000`. In the costs of MountainCarContinuous-v0 and of both acrobots stands the true energy,
for identified models, too. Times are those of the processor, for planning and for the simulator, of
one thread.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.known_tasks import TASKS, Task
from mpc_gym.files import write
from mpc_gym.imitation import FallingRate, RandomAgent, SystemIdentification, collect, evaluate
from mpc_gym.known import known_environment
from mpc_gym.policies import DiscreteMPCPolicy, MPCPolicy

RANDOM_EPISODES = (1, 5, 10)
HOLD = 5  # steps for which a random action is held, so that it moves something
FACTOR = 2.0  # by which a parameter is off at most
UPDATES = 1_500  # of the parameters that are identified
BATCH = 256
RATES = (0.05, 1e-4)  # of learning, at first and at last
EVALUATED, COLLECTED = 20_000, 50_000  # seeds of the first episodes
QUICK = ("CartPole-v1", "InvertedPendulum-v5")
FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """A line of the table; None: not known."""

    task: str
    agent: str
    value: float  # mean return
    error: float | None  # its standard error
    episodes: int | None
    steps: int  # of the environment, learned from
    seconds: float | None  # of the processor, an episode
    source: str


@dataclass(frozen=True)
class Contender:
    """What is evaluated: a policy, and the steps of the environment that it has learned from."""

    agent: str
    policy: MPCPolicy
    steps: int


class Gentle(RandomAgent):
    """Random actions from a share of their range, about zero."""

    def __init__(self, env: gym.Env[Any, Any], share: float, seed: int) -> None:
        super().__init__(env, seed, HOLD)
        self._share = share

    def predict(self, observation: Any, *_: Any, **__: Any) -> tuple[NDArray[Any], None]:
        """A batch of actions."""
        actions = super().predict(observation)[0]
        return (actions if self._share == 1 else actions * self._share), None


def policy(task: Task, **options: Any) -> MPCPolicy:
    """A planner that is told nothing but the id."""
    env = gym.make(task.place)
    discrete = isinstance(env.action_space, gym.spaces.Discrete)
    kind = DiscreteMPCPolicy if discrete else MPCPolicy
    spaces = env.observation_space, env.action_space
    return kind(*spaces, lambda _: 0.0, mpc=task.env_id, **options)


def written(task: Task, quick: bool, seed: int) -> Iterator[Contender]:  # noqa: ARG001
    """The model as it is written."""
    yield Contender("written model", policy(task), 0)


def identified(task: Task, quick: bool, seed: int) -> Iterator[Contender]:
    """A model that is wrong, and the same fitted to random episodes."""
    yield Contender("wrong model", policy(task, learn=wrong(task, np.random.default_rng(seed))), 0)
    for episodes in RANDOM_EPISODES[:1] if quick else RANDOM_EPISODES:
        planner = policy(task, learn=wrong(task, np.random.default_rng(seed)))
        actions = Gentle(gym.make(task.place), task.share, seed)
        transitions = collect(actions, task.place, episodes, COLLECTED + seed)
        rows = int(transitions.episode_lengths.sum())
        epochs = max(1, math.ceil((30 if quick else UPDATES) / math.ceil(rows / BATCH)))
        rate = FallingRate(*RATES, constant=epochs // 2, falling=epochs - epochs // 2)
        SystemIdentification(planner, transitions, learning_rate=rate, batch_size=BATCH).train(
            epochs, progress_bar=False
        )
        yield Contender(f"identified, {episodes} random episodes", planner, rows)


CONTENDERS = (written, identified)


def wrong(task: Task, rng: np.random.Generator) -> dict[str, Any]:
    """Initial values of all parameters of the dynamics, each off by a factor."""
    known = known_environment(task.env_id)
    assert known is not None
    spread = math.log(FACTOR)
    return {
        f"dynamics.{name}": (
            value.detach().numpy() * np.exp(rng.uniform(-spread, spread, value.shape))
        ).tolist()
        for name, value in known.nominal_dynamics().named_parameters()
    }


def rows_of(task: Task, episodes: int, quick: bool, seed: int) -> Iterator[Row]:
    """The lines of a task: ours, then those of others."""
    seeds = range(EVALUATED + seed, EVALUATED + seed + episodes)
    for contenders in CONTENDERS:
        for each in contenders(task, quick, seed):
            evaluate(each.policy, task.place, seeds[:1], max_steps=2)  # compiles
            began = time.process_time()
            found = evaluate(each.policy, task.place, seeds)
            seconds = (time.process_time() - began) / episodes
            error = found.standard_error
            yield Row(
                task.env_id,
                each.agent,
                found.mean,
                None if math.isnan(error) else error,
                episodes,
                each.steps,
                seconds,
                "here",
            )
    for other in task.published:
        yield Row(
            task.env_id,
            other.agent,
            other.value,
            other.error,
            None,
            other.steps,
            None,
            other.source,
        )


def shown(row: Row) -> list[str]:
    """The cells of a line."""
    error = "" if row.error is None else f" ± {row.error:.2f}"
    seconds = "" if row.seconds is None else f"{row.seconds:.2f}"
    episodes = "" if row.episodes is None else str(row.episodes)
    return [
        row.task,
        row.agent,
        f"{row.value:,.2f}{error}",
        episodes,
        f"{row.steps:,}",
        seconds,
        row.source,
    ]


COLUMNS = (
    "task",
    "agent",
    "return",
    "episodes",
    "steps learned from",
    "CPU s an episode",
    "source",
)


def printed(rows: Sequence[Row]) -> Table:
    """For the terminal, without the sources."""
    table = Table(title="Mean return ± standard error")
    for column in COLUMNS[:-1]:
        left = column in ("task", "agent")
        table.add_column(column, justify="left" if left else "right", no_wrap=left)
    for row in rows:
        table.add_row(*shown(row)[:-1])
    return table


def markdown(rows: Sequence[Row]) -> str:
    """For a page."""
    lines = [COLUMNS, ["---", "---", "---:", "---:", "---:", "---:", "---"], *map(shown, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def kept(file: Path, tasks: Sequence[str]) -> list[Row]:
    """The lines of other tasks that an earlier run has written."""
    if not file.exists():
        return []
    rows = [Row(**each) for each in json.loads(file.read_text())]
    return [row for row in rows if row.task not in tasks]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two tasks, one episode; no result")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS], help="all, unless some are named")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = options.tasks or ([*QUICK] if options.quick else [*TASKS])
    file = options.folder / "tasks.json"
    rows = kept(file, names)
    for name in names:
        episodes = 1 if options.quick else options.episodes
        for row in rows_of(TASKS[name], episodes, options.quick, options.seed):
            rows.append(row)
            rows.sort(key=lambda each: [*TASKS].index(each.task))  # stable
            # after each, since they take long
            write(file, json.dumps([asdict(each) for each in rows], indent=1) + "\n")
            write(options.folder / "tasks.md", markdown(rows))
    Console().print(printed([row for row in rows if row.task in names]))


if __name__ == "__main__":
    main()
