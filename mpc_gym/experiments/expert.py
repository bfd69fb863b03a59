"""What the expert did, in files: it plans with the true model, by the observation alone."""

from functools import cached_property
from pathlib import Path

import gymnasium as gym
import numpy as np

from mpc_gym.experiments.methods import MethodOptions
from mpc_gym.files import holding
from mpc_gym.imitation import Demonstrations, Stateless, collect, concatenate
from mpc_gym.imitation.episodes import NOT_OWN

# Streams of start states: of a seed's demonstrations, of unseen ones, and of scores.
LEARN, UNSEEN, SCORES = "seed", "unseen", "scores"
STREAMS = (LEARN, UNSEEN, SCORES)


class ExpertFiles:
    """The expert's episodes in an environment, collected when they are first asked for.

    Args:
        folder: of the files.
        env: the environment's id.
        options: of its plans, those of the learners.
        max_steps: an episode ends after so many steps at the latest.
    """

    def __init__(
        self, folder: Path, env: str, options: MethodOptions, max_steps: int | None
    ) -> None:
        self.folder, self.env, self.options, self.max_steps = folder, env, options, max_steps

    def episodes(self, stream: str, count: int, seed: int = 0) -> Demonstrations:
        """The first episodes of a stream; those that no run has asked for yet are collected.

        Args:
            stream: one of `STREAMS`.
            count: how many.
            seed: of the stream.

        Raises:
            ValueError: the file is damaged, or of another environment.
        """
        name = f"{stream}-{seed}"
        path = self.folder / f"{name}.npz"
        self.folder.mkdir(parents=True, exist_ok=True)
        with holding(self.folder / f".{name}.lock", str(path), timeout=None):
            known = [Demonstrations.load(path)] if path.exists() else []
            for each in known:
                check_demonstrations(each, self.env, path)
            have = sum(each.episodes for each in known)
            if have < count:
                seeds = episode_seeds(stream, count, seed)[have:]
                known.append(self._collected(seeds))
                concatenate(known).save(path)
        return concatenate(known).select(range(count))

    def _collected(self, seeds: range) -> Demonstrations:
        return collect(
            self._agent,
            self.env,
            len(seeds),
            seeds[0],
            max_steps=self.max_steps,
            progress_bar=False,
        )

    @cached_property
    def _agent(self) -> Stateless:
        return Stateless(self.options.expert(self.env))


def episode_seeds(stream: str, count: int, seed: int = 0) -> range:
    """The seeds of the first episodes of a stream; no two streams share any, in all odds.

    Args:
        stream: one of `STREAMS`.
        count: of episodes.
        seed: of the stream.
    """
    words = (seed, STREAMS.index(stream))
    first = int(np.random.SeedSequence(words).generate_state(1)[0])
    return range(first, first + count)


def check_demonstrations(demonstrations: Demonstrations, env: str, path: Path) -> None:
    """Refuse demonstrations of another environment.

    Raises:
        ValueError: they are.
    """
    registered = env.rpartition(":")[2]  # without the module that registers it
    kwargs = {k: v for k, v in gym.registry[registered].kwargs.items() if k not in NOT_OWN}
    if (demonstrations.env_id, demonstrations.env_kwargs) != (registered, kwargs):
        known = " ".join(map(str, (demonstrations.env_id, demonstrations.env_kwargs or "")))
        raise ValueError(
            f"{path} holds demonstrations of {known.strip()}, expected {env}. Choose another file, "
            "or that environment"
        )
