"""Dataset aggregation: the expert says what to do where the learner goes.

A clone's errors lead it to states that no demonstration shows. With N iterations

    for i = 0 .. N-1:  act by pi_i = beta_i expert + (1 - beta_i) learner_i, chosen at every step
                       D <- D + {(s, expert(s)) : s visited by pi_i};  fit learner_{i+1} to D

of Ross, Gordon & Bagnell, "A Reduction of Imitation Learning and Structured Prediction to No-Regret
Online Learning" (2011), algorithm 3.1, with beta_i = beta^i.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy

from mpc_gym.checks import (
    check_count,
    check_number,
    check_path,
    check_size,
)
from mpc_gym.imitation.checkpoint import alone_in, read_checkpoint, write_checkpoint
from mpc_gym.imitation.cloning import BehavioralCloning, check_trainable, imitation_loss
from mpc_gym.imitation.collect import collect
from mpc_gym.imitation.demonstrations import Demonstrations, concatenate
from mpc_gym.imitation.episodes import (
    Agent,
    EnvSource,
    Stateless,
    check_agent,
    check_source,
    in_sequence,
)
from mpc_gym.imitation.metrics import Row
from mpc_gym.imitation.progress import progress
from mpc_gym.imitation.training import TrainingOptions

RUN = "run.pt"
DEMONSTRATIONS = "demonstrations.npz"


class DAgger:
    """Train any SB3 policy on an expert's actions at the states that the policy itself visits.

    Observations and actions are a `Box` each.

    In each round a mixture of learner and expert acts in some episodes, the expert labels all their
    observations, and the learner goes on from its weights by behavioural cloning of all rounds'
    labels. In the first round, where beta^0 = 1, the expert acts alone.

    Only the loss "action" of `BehavioralCloning` is right here: what followed an observation is not
    what the expert's action leads to. Learn a wrong model's physics first, by cloning or
    `SystemIdentification`.

    Args:
        policy: the learner, trained in place.
        expert: an `MPC`, or anything with SB3's `predict`. It is asked about each observation on
            its own (see `Stateless`), as the learner is.
        env: an environment's id, or an environment made by `gymnasium.make`.
        episodes: of each round, at least 2, since one of the first round is held out.
        epochs: of behavioural cloning in each round.
        beta: the expert acts in round i with probability beta^i at each step, 0 <= beta <= 1.
        optimizer, learning_rate, batch_size, validation_fraction: see `BehavioralCloning`.
        seed: episode j of round i starts from `env.reset(seed=seed + i * episodes + j)`. The order
            of learning and the mixture's choices are drawn from it too.
        env_kwargs: further arguments of `gymnasium.make`.
        max_steps: an episode ends after so many steps at the latest.
        folder: for each round's labels and checkpoint; None to keep nothing. A run that was stopped
            goes on from there: finished episodes are not played again, and cloning resumes at its
            last epoch.

    Raises:
        TypeError: `policy` or `expert` does not act, or `env` is no environment.
        ValueError: an option is out of its range, or the folder holds another run. (Whether its
            labels are those of this expert is not checked.)
    """

    def __init__(
        self,
        policy: BasePolicy,
        expert: Agent,
        env: EnvSource,
        episodes: int = 5,
        epochs: int = 100,
        beta: float = 0.0,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        validation_fraction: float = 0.1,
        seed: int = 0,
        env_kwargs: dict[str, Any] | None = None,
        max_steps: int | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        check_trainable(policy)
        check_agent("expert", expert)
        check_source(env, env_kwargs)
        check_size("episodes", episodes, 2)
        check_count("epochs", epochs)
        check_number("beta", beta, least=0.0, most=1.0)
        check_number("validation_fraction", validation_fraction, above=0.0, below=1.0)
        if max_steps is not None:
            check_count("max_steps", max_steps)
        TrainingOptions(optimizer, learning_rate, batch_size, seed)  # checks them before any play
        self.policy = policy
        self.expert = expert
        self.history: list[Row] = []
        self._env, self._env_kwargs, self._max_steps = env, env_kwargs, max_steps
        self._episodes, self._epochs, self._beta, self._seed = episodes, epochs, beta, seed
        self._cloning: dict[str, Any] = {
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "validation_fraction": validation_fraction,
        }
        self._folder = None if folder is None else check_path("folder", folder)
        self._rounds: list[Demonstrations] = []
        self._keep_apart()

    @property
    def demonstrations(self) -> Demonstrations:
        """The labels of all rounds: the actions are the expert's, the rewards the mixture's.

        Raises:
            ValueError: no round is done.
        """
        return concatenate(self._rounds)

    def train(self, rounds: int, progress_bar: bool | None = None) -> BasePolicy:
        """Train until `rounds` rounds are done in all.

        `history` gets a row for each: its number, the mixture's `beta` and mean `return`, the
        number of `labels` so far, the learner's `imitation_loss` at this round's observations
        before it learns from them, and the `validation_loss` after it has.

        Args:
            rounds: how many, those of a resumed run included.
            progress_bar: whether to show one; None: in a terminal or a notebook, after two seconds.

        Returns:
            The policy.

        Raises:
            FloatingPointError: the loss is not finite.
            InUseError: another process trains in the folder.
            ValueError: the folder's files are damaged or those of another run.
        """
        check_count("rounds", rounds, 0)
        shown = progress("DAgger", rounds, progress_bar, "round")
        with alone_in(self._folder), shown as update:
            for number in range(len(self.history), rounds):
                self._round(number, progress_bar)
                update(number + 1, f"validation loss {self.history[-1]['validation_loss']:.2e}")
        return self.policy

    def _round(self, number: int, progress_bar: bool | None) -> None:
        folder = None if self._folder is None else self._folder / f"round_{number:03d}"
        labels = self._labels(number, folder, progress_bar)
        before = imitation_loss(self.policy, labels)
        whole = concatenate([*self._rounds, labels])
        cloning = BehavioralCloning(
            self.policy, whole, seed=self._seed + number, folder=folder, **self._cloning
        )
        cloning.train(self._epochs, progress_bar)
        self._rounds.append(labels)
        self.history.append(
            {
                "round": float(number),
                "beta": self._beta**number,
                "labels": float(len(whole)),
                "return": float(labels.returns.mean()),
                "imitation_loss": before,
                "validation_loss": cloning.history[-1]["validation/best_loss"],
            }
        )

    def _labels(
        self, number: int, folder: Path | None, progress_bar: bool | None
    ) -> Demonstrations:
        """This round's episodes with the expert's actions, played or read."""
        path = None if folder is None else folder / DEMONSTRATIONS
        if path is not None and path.exists():
            return Demonstrations.load(path)
        rng = np.random.default_rng([self._seed, number])
        mixture = _Mixture(self.policy, self.expert, self._beta**number, rng)
        played = collect(
            mixture,
            self._env,
            self._episodes,
            self._seed + number * self._episodes,
            self._env_kwargs,
            self._max_steps,
            progress_bar,
        )
        labels = dataclasses.replace(played, actions=mixture.labels(played.episode_lengths))
        if path is not None:
            labels.save(path)
        return labels

    def _keep_apart(self) -> None:
        """Refuse the folder of another run, and mark a new one."""
        if self._folder is None:
            return
        env = self._env if isinstance(self._env, str) else str(self._env.spec)
        identity = {
            "method": "DAgger",
            "env": env,
            "env_kwargs": self._env_kwargs or {},
            "max_steps": self._max_steps,
            "episodes": self._episodes,
            "epochs": self._epochs,
            "beta": self._beta,
            "seed": self._seed,
        }
        if (self._folder / RUN).exists():
            read_checkpoint(self._folder / RUN, identity)
        else:
            write_checkpoint(self._folder / RUN, identity, {})


class _Mixture:
    """Acts by chance as the expert or as the learner, and keeps what the expert would have done."""

    def __init__(
        self, learner: Agent, expert: Agent, beta: float, rng: np.random.Generator
    ) -> None:
        self._learner, self._expert = Stateless(learner), Stateless(expert)
        self._beta, self._rng = beta, rng
        self._labels: list[NDArray[np.floating]] = []

    def predict(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,  # noqa: ARG002
        episode_start: NDArray[Any] | None = None,  # noqa: ARG002
        deterministic: bool = False,  # noqa: ARG002
    ) -> tuple[NDArray[Any], None]:
        """The actions at a batch of observations, and no recurrent state."""
        wanted, _ = self._expert.predict(observation, deterministic=True)
        self._labels.append(wanted)
        if self._beta == 1:
            return wanted, None
        actions, _ = self._learner.predict(observation, deterministic=True)
        by_expert = self._rng.random(len(actions)) < self._beta
        return np.where(by_expert[:, None], wanted, actions), None

    def labels(self, episode_lengths: NDArray[np.integer]) -> NDArray[np.floating]:
        """The expert's actions, one episode after the other."""
        return in_sequence(self._labels, episode_lengths)
