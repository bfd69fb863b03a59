"""Demonstrations for a file, and the scores of agents, as the commands `collect` and `evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import rich.table

from mpc_gym.checks import check_count, check_names, check_path, check_seed, check_size
from mpc_gym.experiments.agents import EXPERT, check_agent, load_agent
from mpc_gym.experiments.learnable import check_env_id
from mpc_gym.experiments.learner import Expert, quiet
from mpc_gym.experiments.methods import MethodOptions
from mpc_gym.experiments.runs import LEAST_FREE
from mpc_gym.files import check_space, holding, make_writable_folder
from mpc_gym.imitation import Demonstrations, Evaluation, Stateless, collect, evaluate
from mpc_gym.imitation.episodes import Agent


@dataclass(frozen=True)
class EpisodeOptions:
    """Episodes of agents in an environment.

    Args:
        env: the environment's id.
        policies: see `load_agent`. "expert" here plans by the observation alone, so that a policy
            without memory can learn what it does.
        episodes: of each.
        seed: of the first episode; the others count on.
        horizon: of the expert's plans.
        max_steps: an episode ends after so many steps at the latest; None: the environment's limit.

    Raises:
        ValueError: a value is impossible.
    """

    env: str
    policies: Sequence[str] = (EXPERT,)
    episodes: int = 10
    seed: int = 0
    horizon: int = MethodOptions.horizon
    max_steps: int | None = None

    def __post_init__(self) -> None:
        check_env_id(self.env)
        check_size("episodes", self.episodes)
        check_size("horizon", self.horizon)
        if self.max_steps is not None:
            check_count("max_steps", self.max_steps)
        check_seed("seed", self.seed)
        check_names("policies", self.policies)
        if not self.policies:
            raise ValueError("policies must name at least one agent, got none")
        for policy in self.policies:
            # in the singular too: that is the name of the commands' option
            check_agent("policies: each policy", policy)

    def agents(self) -> dict[str, Agent]:
        """The agents by their names.

        Raises:
            ValueError: one cannot be read, or is of another environment.
        """
        env = gym.make(self.env)
        return {
            name: self._expert() if name == EXPERT else load_agent(name, env, self.seed)
            for name in self.policies
        }

    def _expert(self) -> Stateless:
        options = MethodOptions(horizon=self.horizon)
        return Stateless(Expert(Path(), self.env, options, self.max_steps).planner())


def collect_to(options: EpisodeOptions, path: Path) -> Demonstrations:
    """Write episodes of the one agent to a new file.

    Args:
        options: whose episodes.
        path: of the file, see `Demonstrations`.

    Raises:
        ValueError: before anything is computed: the file is there already, another process is
            about to write it, or it cannot be written; the disk is full, or the agent cannot be
            read.
    """
    path = check_path("output", path)
    if len(options.policies) != 1:
        raise ValueError(f"policies must be one agent, got {list(options.policies)}")
    folder = path.absolute().parent
    make_writable_folder(folder, "output")
    check_space(folder, LEAST_FREE)
    with holding(folder / f".{path.name}.lock", f"output {str(path)!r}"):
        if path.exists():
            raise ValueError(f"output must be a new file, and {str(path)!r} exists. Choose another")
        (agent,) = options.agents().values()
        with quiet():
            found = collect(
                agent, options.env, options.episodes, options.seed, max_steps=options.max_steps
            )
        found.save(path)
    return found


def score(options: EpisodeOptions) -> dict[str, Evaluation]:
    """The returns of each agent, from the same start states.

    Args:
        options: which agents.

    Raises:
        ValueError: an agent cannot be read, or is of another environment.
    """
    seeds = range(options.seed, options.seed + options.episodes)
    with quiet():
        return {
            name: evaluate(agent, options.env, seeds, max_steps=options.max_steps)
            for name, agent in options.agents().items()
        }


def score_table(options: EpisodeOptions, scores: dict[str, Evaluation]) -> rich.table.Table:
    """The scores for a terminal."""
    table = rich.table.Table(
        title=f"{options.env}: {options.episodes} episodes from seed {options.seed}",
        caption="return: mean ± standard error; time: of one decision among all episodes at once",
    )
    table.add_column("policy", overflow="fold")
    for heading in ("return", "lowest", "highest", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, found in scores.items():
        table.add_row(
            name,
            f"{found.mean:.1f} ± {found.standard_error:.1f}",
            f"{found.returns.min():.1f}",
            f"{found.returns.max():.1f}",
            f"{1e3 * found.seconds_per_decision:.3g} ms",
        )
    return table
