"""A method learns from demonstrations: alone, by `train`, or in a comparison, where it is scored.

The runs of a comparison share what the expert did. It lies in files two levels above a run's
folder, and whichever run needs an episode first asks the expert for it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from mpc_gym.checks import check_names, check_number, check_path, check_seed, check_size
from mpc_gym.experiments.environments import check_env, find_system
from mpc_gym.experiments.expert import (
    LEARN,
    SCORES,
    UNSEEN,
    ExpertFiles,
    check_demonstrations,
    episode_seeds,
)
from mpc_gym.experiments.learnable import initial_values
from mpc_gym.experiments.methods import (
    InitialValue,
    Method,
    MethodOptions,
    find_method,
    without_convergence_warnings,
)
from mpc_gym.experiments.run import Run
from mpc_gym.experiments.runs import execute
from mpc_gym.imitation import (
    Demonstrations,
    Evaluation,
    Stateless,
    evaluate,
    imitation_loss,
)
from mpc_gym.imitation.training import CHECKPOINT
from mpc_gym.models.wrapped import WrappedCost
from mpc_gym.policies import PlanningPolicy, load_pretrained, save_pretrained

EXPERT = "expert"  # the folder of what runs share; no method may be called so
POLICY = "policy"  # the folder in a run's own that `load_pretrained` reads
MOST_EFFORT = 10_000.0


@dataclass(frozen=True)
class LearningOptions:
    """What `train` and `compare` are both told.

    Args:
        env: the environment's id.
        learn: what of the model is learned, see `initial_values`; empty: as in the paper.
        seed: of initial weights, of the order of learning, and of the expert's start states.
        horizon: of all plans; None: that of `environments.find_system`.
        starts: initial guesses of all plans.
        effort: by which each method's number of optimiser steps is multiplied.
    """

    env: str
    learn: Sequence[str] = field(default=(), kw_only=True)
    seed: int = field(default=0, kw_only=True)
    horizon: int | None = field(default=None, kw_only=True)
    starts: int = field(default=MethodOptions.starts, kw_only=True)
    effort: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        check_env(self.env)
        kept = self.__dict__  # Python's own numbers, which the file of a run can hold
        if self.horizon is None:
            kept["horizon"] = find_system(self.env).horizon
        for name in ("horizon", "starts"):
            kept[name] = check_size(name, getattr(self, name))
        kept["effort"] = check_number("effort", self.effort, above=0.0, most=MOST_EFFORT)
        kept["seed"] = check_seed("seed", self.seed)
        check_names("learn", self.learn)


@dataclass(frozen=True)
class TrainOptions(LearningOptions):
    """What to train, and on what; see `LearningOptions` for what is not said here.

    Args:
        method: a name of `METHODS`, or "package.module:function" of your own.
        folder: for `config.json`, log, checkpoint and, in `policy`, the policy. A training run that
            was stopped there is gone on with.
        demonstrations: a file that `Demonstrations.save` wrote, or how many episodes to ask the
            expert for.

    Raises:
        ValueError: an option is impossible, or the file cannot be used.
    """

    method: str = "mpc.dx"
    folder: Path = Path("trained")
    demonstrations: Path | int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_path("folder", self.folder)
        if isinstance(self.demonstrations, str | Path):
            check_path("the file of demonstrations", self.demonstrations)
        else:
            self.__dict__["demonstrations"] = check_size("demonstrations", self.demonstrations)
        self.run()  # which refuses what cannot be learned, or learned from

    def run(self) -> Run:
        """What is executed; its settings hold all that the policy depends on."""
        method = find_method(self.method, "method")
        settings = {
            **settings_of(method, self.env, tuple(self.learn), self.effort),
            "seed": self.seed,
            "horizon": self.horizon,
            "starts": self.starts,
        }
        if isinstance(self.demonstrations, int):
            settings["episodes"] = self.demonstrations
        else:
            path = Path(self.demonstrations).absolute()
            try:
                known = Demonstrations.load(path)
            except FileNotFoundError as error:
                raise ValueError(str(error)) from error
            check_demonstrations(known, self.env, path)
            settings |= {"file": str(path), "fingerprint": known.fingerprint()}
        return Run(Path(self.folder).absolute().name, f"{__name__}:run_training", settings)


def train(options: TrainOptions, progress: bool = False) -> BasePolicy:
    """Train, or go on with it.

    Args:
        options: what, and on what.
        progress: show it, where the output is a terminal.

    Returns:
        The policy, as `load_pretrained` reads it from the subfolder `policy`.

    Raises:
        ValueError: before anything is computed: the folder cannot be written to, is on a full disk
            or holds something else.
        FailedRunsError: the training failed.
    """
    folder = Path(options.folder).absolute()
    execute([options.run()], folder.parent, progress=progress)
    return load_pretrained(folder / POLICY)


def settings_of(method: Method, env: str, learn: tuple[str, ...], effort: float) -> dict[str, Any]:
    """The settings of a run that are the method's own.

    Raises:
        ValueError: something to learn is unknown.
    """
    return {
        "env": env,
        "method": method.name,
        "learn": initial_values(env, method, learn),
        "updates": method.scaled_updates(effort),
    }


def run_training(
    folder: Path,
    env: str,
    method: str,
    seed: int,
    learn: dict[str, InitialValue],
    horizon: int,
    starts: int,
    updates: int,
    episodes: int = 0,
    file: str = "",
    fingerprint: str = "",
) -> dict[str, Any]:
    """Let a method learn from a file, or from the expert.

    Args:
        folder: for log, checkpoint and policy.
        env: the environment's id.
        method: its name.
        seed: see `TrainOptions`.
        learn, horizon, starts, updates: see `MethodOptions`.
        episodes: to ask the expert for, where there is no file.
        file: of demonstrations.
        fingerprint: of the demonstrations in the file.

    Returns:
        The "parameters" that were learned, and the "seconds" it took (None where it was resumed).

    Raises:
        ValueError: the file holds other demonstrations than it did.
    """
    options = MethodOptions(learn, horizon, starts, updates)
    if file:
        demonstrations = Demonstrations.load(file)
        if demonstrations.fingerprint() != fingerprint:
            raise ValueError(f"{file} was changed since this training began. Choose another folder")
    else:
        demonstrations = ExpertFiles(folder, env, options, None).episodes(LEARN, episodes, seed)
    policy, seconds = _learn(method, demonstrations, env, seed, folder, options)
    return {"parameters": learned_parameters(policy, learn), "seconds": seconds}


def run(
    folder: Path,
    env: str,
    method: str,
    demonstrations: int,
    seed: int,
    learn: dict[str, InitialValue],
    horizon: int,
    starts: int,
    updates: int,
    hidden: int,
    episodes: int,
    unseen: int,
    max_steps: int | None,
) -> dict[str, Any]:
    """One run of a comparison: let a method learn, and score it.

    Args:
        folder: for log, checkpoint and policy.
        env: the environment's id.
        method: its name.
        demonstrations: episodes of the expert to learn from.
        seed: of the demonstrations' start states, of initial weights and of the order of learning.
        learn, horizon, starts, updates, hidden: see `MethodOptions`.
        episodes: start states to score the return from, alike for all seeds.
        unseen: further demonstrations to measure the imitation loss on, alike for all seeds.
        max_steps: an episode ends after so many steps at the latest.

    Returns:
        What was run; "returns" beside "expert_returns", "imitation_loss", "parameters" that were
        learned, "seconds" of learning (None of a run that was resumed) and
        "seconds_per_decision".
    """
    options = MethodOptions(learn, horizon, starts, updates, hidden)
    expert = ExpertFiles(folder.parents[2] / EXPERT, env, options, max_steps)
    examples = expert.episodes(LEARN, demonstrations, seed)
    policy, seconds = _learn(method, examples, env, seed, folder, options)
    seeds = episode_seeds(SCORES, episodes)
    score = score_policy(policy, env, seeds, expert.episodes(UNSEEN, unseen), max_steps)
    return {
        "env": env,
        "method": method,
        "demonstrations": demonstrations,
        "seed": seed,
        "returns": score.evaluation.returns.tolist(),
        "expert_returns": expert.episodes(SCORES, episodes).returns.tolist(),
        "imitation_loss": score.imitation_loss,
        "parameters": learned_parameters(policy, learn),
        "seconds": seconds,
        "seconds_per_decision": score.evaluation.seconds_per_decision,
    }


def _learn(
    method: str,
    demonstrations: Demonstrations,
    env: str,
    seed: int,
    folder: Path,
    options: MethodOptions,
) -> tuple[BasePolicy, float | None]:
    """A method's policy, which is saved, and the seconds it took; None where it was resumed."""
    resumed = (folder / CHECKPOINT).exists()
    began = time.perf_counter()
    with without_convergence_warnings():
        policy = find_method(method).train(demonstrations, env, seed, folder, options)
    seconds = None if resumed else time.perf_counter() - began
    text = f"Trained in {env} by `{method}` from {demonstrations.episodes} demonstrations."
    save_pretrained(policy, folder / POLICY, text)
    return policy, seconds


@dataclass(frozen=True)
class Score:
    """How an agent did.

    Attributes:
        evaluation: on unseen start states.
        imitation_loss: on unseen demonstrations; None for the expert, who gave them.
    """

    evaluation: Evaluation
    imitation_loss: float | None = None


def score_policy(
    policy: BasePolicy,
    env: str,
    seeds: Sequence[int],
    unseen: Demonstrations,
    max_steps: int | None,
) -> Score:
    """Score a policy as it was trained, and as the expert acts: by the observation alone."""
    with without_convergence_warnings():
        evaluation = evaluate(Stateless(policy), env, seeds, max_steps=max_steps)
        return Score(evaluation, imitation_loss(policy, unseen))


def learned_parameters(policy: BasePolicy, learn: dict[str, InitialValue]) -> dict[str, Any]:
    """The values of what was learned, by the names in `learn`.

    Args:
        policy: which learned.
        learn: see `MethodOptions`; additions to the cost have the names of their tensors.
    """
    if not isinstance(policy, PlanningPolicy):
        return {}
    values: dict[str, Any] = {}
    cost: nn.Module = policy.mpc.cost
    while isinstance(cost, WrappedCost):
        own = cost.named_parameters(recurse=False)
        values |= {f"{type(cost).__name__}.{name}": value.tolist() for name, value in own}
        cost = cost.cost
    for full in learn:
        group, dot, name = full.partition(".")
        if dot:
            value = getattr(policy.mpc.dynamics if group == "dynamics" else cost, name)
            assert isinstance(value, Tensor)
            values[full] = value.tolist()
    return values
