"""Who acts in an environment: the expert, chance, or a policy from disk; and its episodes."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import rich.table
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import PolicyPredictor

from mpc_gym.checks import check_count, check_names, check_path, check_seed, check_size, found
from mpc_gym.experiments.environments import check_env, find_system
from mpc_gym.experiments.methods import MethodOptions, without_convergence_warnings
from mpc_gym.experiments.runs import LEAST_FREE
from mpc_gym.files import (
    MAX_JSON_BYTES,
    check_space,
    holding,
    make_writable_folder,
    open_regular,
    parse_json,
)
from mpc_gym.imitation import (
    Demonstrations,
    Evaluation,
    RandomAgent,
    Stateless,
    collect,
    evaluate,
)
from mpc_gym.policies import load_pretrained, shipped_folder, shipped_policies

EXPERT, RANDOM = "expert", "random"
MAX_BYTES = 2**36  # of a file of Stable-Baselines3, which can hold a replay buffer
# What an algorithm keeps in its file and those further down do not. DDPG is a TD3.
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "clip_range": PPO,
    "gae_lambda": A2C,
    "target_entropy": SAC,
    "policy_delay": TD3,
}


def check_agent(name: str, policy: str) -> None:
    """Refuse an agent that is nowhere to be found.

    Args:
        name: of the argument.
        policy: what was given for it, see `load_agent`.

    Raises:
        ValueError: it is no name known here, and there is no such file or folder.
    """
    names = (EXPERT, RANDOM, *shipped_policies())
    if not isinstance(policy, str) or not (policy in names or _exists(policy)):
        raise ValueError(
            f"{name} must be one of {', '.join(names)}, or the path of a folder that "
            f"save_pretrained wrote or of a file that Stable-Baselines3 saved, got {found(policy)}"
        )


def _exists(policy: str) -> bool:
    try:
        return check_path("policy", policy).exists()
    except (ValueError, OSError):  # a name longer than those of files, for instance
        return False


def load_agent(
    policy: str,
    env: gym.Env[Any, Any],
    seed: int = 0,
    horizon: int = MethodOptions.horizon,
) -> PolicyPredictor:
    """The agent of a name.

    Args:
        policy: "expert", which plans with the true physics, by the observation alone, so that a
            policy without memory can learn what it does; "random"; one of `shipped_policies`;
            the folder of a policy that `save_pretrained` wrote; or the path of a `.zip` that
            Stable-Baselines3 saved (a pickle, which can run code when it is loaded: only load what
            you trust).
        env: where it acts.
        seed: of chance.
        horizon: of the expert's plans.

    Raises:
        ValueError: there is no such agent, it cannot be read, or it is of another environment.
    """
    check_agent("policy", policy)
    if policy == EXPERT:
        return Stateless(MethodOptions(horizon=horizon).expert(env))
    if policy == RANDOM:
        return RandomAgent(env, seed)
    folder = shipped_folder(policy) if policy in shipped_policies() else Path(policy)
    if folder.is_dir():
        try:
            return load_pretrained(folder, env=env, device="cpu")
        except ValueError as error:
            raise ValueError(f"policy {policy!r} cannot be used here: {error}") from error
    model = _algorithm(Path(policy)).load(policy, device="cpu")
    if model.observation_space != env.observation_space or model.action_space != env.action_space:
        raise ValueError(
            f"policy {policy!r} was trained on other spaces than those of "
            f"{env.spec.id if env.spec else env}: {model.observation_space} and "
            f"{model.action_space}"
        )
    return model


def _algorithm(path: Path) -> type[BaseAlgorithm]:
    """Which algorithm saved a file: the file itself does not say."""
    try:
        with open_regular(path, MAX_BYTES) as file, zipfile.ZipFile(file) as archive:
            if archive.getinfo("data").file_size > MAX_JSON_BYTES:
                raise ValueError("its description is too long")
            data = parse_json(archive.read("data"))
        return next(algorithm for key, algorithm in ALGORITHMS.items() if key in data)
    except Exception as error:  # whatever libraries say to bytes that anybody wrote
        raise ValueError(
            f"policy must be a file saved by PPO, A2C, SAC, TD3 or DDPG, got {str(path)!r}"
        ) from error


@dataclass(frozen=True)
class EpisodeOptions:
    """Episodes of agents in an environment.

    Args:
        env: the environment's id.
        policies: see `load_agent`.
        episodes: of each.
        seed: of the first episode; the others count on.
        horizon: of the expert's plans; None: that of `environments.find_system`.
        max_steps: an episode ends after so many steps at the latest; None: the environment's limit.

    Raises:
        ValueError: a value is impossible.
    """

    env: str
    policies: Sequence[str] = (EXPERT,)
    episodes: int = 10
    seed: int = 0
    horizon: int | None = None
    max_steps: int | None = None

    def __post_init__(self) -> None:
        check_env(self.env)
        check_size("episodes", self.episodes)
        given = self.horizon
        horizon = find_system(self.env).horizon if given is None else check_size("horizon", given)
        self.__dict__["horizon"] = horizon
        if self.max_steps is not None:
            check_count("max_steps", self.max_steps)
        check_seed("seed", self.seed)
        check_names("policies", self.policies)
        if not self.policies:
            raise ValueError("policies must name at least one agent, got none")
        for policy in self.policies:
            # in the singular too: that is the name of the commands' option
            check_agent("policies: each policy", policy)

    def agents(self) -> dict[str, PolicyPredictor]:
        """The agents by their names.

        Raises:
            ValueError: one cannot be read, or is of another environment.
        """
        env = gym.make(self.env)
        assert self.horizon is not None, "filled in by __post_init__"
        return {name: load_agent(name, env, self.seed, self.horizon) for name in self.policies}

    def agent(self) -> PolicyPredictor:
        """The one agent.

        Raises:
            ValueError: there are several, or it cannot be read.
        """
        if len(self.policies) != 1:
            raise ValueError(f"policies must be one agent, got {list(self.policies)}")
        (agent,) = self.agents().values()
        return agent


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
    path = check_path("file", path)
    folder = path.absolute().parent
    make_writable_folder(folder, "file")
    check_space(folder, LEAST_FREE)
    with holding(folder / f".{path.name}.lock", f"file {str(path)!r}"):
        if path.exists():
            raise ValueError(f"file must be a new file, and {str(path)!r} exists. Choose another")
        agent = options.agent()
        with without_convergence_warnings():
            collected = collect(
                agent, options.env, options.episodes, options.seed, max_steps=options.max_steps
            )
        collected.save(path)
    return collected


def score_agents(options: EpisodeOptions) -> dict[str, Evaluation]:
    """The returns of each agent, from the same start states.

    Args:
        options: which agents.

    Raises:
        ValueError: an agent cannot be read, or is of another environment.
    """
    seeds = range(options.seed, options.seed + options.episodes)
    with without_convergence_warnings():
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
    for name, score in scores.items():
        table.add_row(
            name,
            f"{score.mean:.1f} ± {score.standard_error:.1f}",
            f"{score.returns.min():.1f}",
            f"{score.returns.max():.1f}",
            f"{1e3 * score.seconds_per_decision:.3g} ms",
        )
    return table
