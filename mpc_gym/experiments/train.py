"""One method learns from demonstrations of a file, or of the expert."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.policies import BasePolicy

from mpc_gym.checks import check_names, check_path, check_seed, check_size
from mpc_gym.experiments.compare import check_effort
from mpc_gym.experiments.learnable import check_env_id, starts
from mpc_gym.experiments.learner import (
    LEARN,
    POLICY,
    Expert,
    check_demonstrations,
    learn_by,
    learned_parameters,
)
from mpc_gym.experiments.methods import MethodOptions, Start, find_method
from mpc_gym.experiments.run import Run
from mpc_gym.experiments.runs import execute
from mpc_gym.imitation import Demonstrations
from mpc_gym.policies import load_pretrained, save_pretrained


@dataclass(frozen=True)
class TrainOptions:
    """What to train, and on what.

    Args:
        env: the environment's id.
        method: a name of `METHODS`, or "package.module:function" of your own.
        folder: for `config.json`, log, checkpoint and, in `policy`, the policy. A training run that
            was stopped there is gone on with.
        demonstrations: a file that `Demonstrations.save` wrote, or how many episodes to ask the
            expert for.
        learn: what of the model is learned, see `learnable.starts`; empty: as in the paper.
        seed: of initial weights, of the order of learning, and of the expert's start states.
        horizon: of plans.
        starts: initial guesses of plans.
        effort: by which the method's number of optimiser steps is multiplied.

    Raises:
        ValueError: an option is impossible, or the file cannot be used.
    """

    env: str
    method: str = "mpc.dx"
    folder: Path = Path("trained")
    demonstrations: Path | int = 10
    learn: tuple[str, ...] = ()
    seed: int = 0
    horizon: int = MethodOptions.horizon
    starts: int = MethodOptions.starts
    effort: float = 1.0

    def __post_init__(self) -> None:
        check_env_id(self.env)
        for name in ("horizon", "starts"):
            self.__dict__[name] = check_size(name, getattr(self, name))
        self.__dict__["effort"] = check_effort(self.effort)
        self.__dict__["seed"] = check_seed("seed", self.seed)
        check_path("folder", self.folder)
        check_names("learn", self.learn)
        if isinstance(self.demonstrations, str | Path):
            check_path("the file of demonstrations", self.demonstrations)
        else:
            self.__dict__["demonstrations"] = check_size("demonstrations", self.demonstrations)
        self.run()  # which refuses what cannot be learned, or learned from

    def run(self) -> Run:
        """What is executed; its settings hold all that the policy depends on."""
        method = find_method(self.method, "method")
        folder = Path(self.folder).absolute()
        settings: dict[str, Any] = {
            "env": self.env,
            "method": self.method,
            "seed": self.seed,
            "learn": starts(self.env, method, self.learn),
            "horizon": self.horizon,
            "starts": self.starts,
            "updates": max(1, round(self.effort * method.updates)),
        }
        if isinstance(self.demonstrations, int):
            return _run(folder, settings | {"episodes": self.demonstrations})
        path = Path(self.demonstrations).absolute()
        try:
            found = Demonstrations.load(path)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error
        check_demonstrations(found, self.env, path)
        file = {"file": str(path), "fingerprint": found.fingerprint()}
        return _run(folder, settings | file)


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
    run = options.run()
    folder = Path(options.folder).absolute()
    execute([run], folder.parent, progress=progress)
    return load_pretrained(folder / POLICY)


def run(
    folder: Path,
    env: str,
    method: str,
    seed: int,
    learn: dict[str, Start],
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
        seed: of initial weights, of the order of learning, and of the expert's start states.
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
        demonstrations = Expert(folder, env, options, None).episodes(LEARN, episodes, seed)
    policy, seconds = learn_by(method, demonstrations, env, seed, folder, options)
    text = f"Trained in {env} by `{method}` from {demonstrations.episodes} demonstrations."
    save_pretrained(policy, folder / POLICY, text)
    return {"parameters": learned_parameters(policy, learn), "seconds": seconds}


def _run(folder: Path, settings: dict[str, Any]) -> Run:
    return Run(folder.name, f"{__name__}:run", settings)
