"""Demonstrations from an expert, and the score of an agent."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray

from mpc_gym.checks import check_instance, check_seed, check_size
from mpc_gym.envs.checks import numbers
from mpc_gym.imitation.demonstrations import Demonstrations
from mpc_gym.imitation.episodes import (
    Agent,
    EnvSource,
    Episodes,
    check_agent,
    in_sequence,
    make_envs,
    own_kwargs,
    play,
)
from mpc_gym.imitation.transitions import flattened


def collect(
    expert: Agent,
    env: EnvSource,
    episodes: int,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    max_steps: int | None = None,
    progress_bar: bool | None = None,
) -> Demonstrations:
    """Let an expert act, and write down what it sees, does and earns.

    Episode i starts from `env.reset(seed=seed + i)`. The episodes are stepped side by side; they
    are the same as one after the other, up to the rounding of a batched `predict`. Observations are
    kept flat, those of a `Dict` space in the order of `gymnasium.spaces.flatten`, and discrete
    actions as their numbers.

    Args:
        expert: an `MPC` (each plan starts from the last one), or anything with SB3's `predict`: a
            policy or an algorithm. Its recurrent state is passed back to it.
        env: an environment's id, or an environment made by `gymnasium.make`.
        episodes: how many, at least 1.
        seed: of the first episode.
        env_kwargs: further arguments of `gymnasium.make`.
        max_steps: an episode ends after so many steps at the latest.
        progress_bar: whether to show one; None: in a terminal or a notebook, after two seconds.

    Raises:
        ValueError: `episodes` is less than 1, `max_steps` is no positive integer, the environment
            cannot be made, its spaces are of another kind, or an episode has no end.
    """
    check_agent("expert", expert)
    check_size("episodes", episodes)
    check_seed("seed", seed)
    with closing(make_envs(env, episodes, env_kwargs)) as envs:
        seen, done = envs.single_observation_space, envs.single_action_space
        parts = seen.spaces.values() if isinstance(seen, Dict) else [seen]
        if not all(isinstance(part, Box) for part in parts) or not isinstance(done, Box | Discrete):
            raise ValueError(
                "env must have continuous observations (a Box, or a Dict of such), and actions "
                f"that are a Box or Discrete, to be demonstrated in, got {seen} and {done} in {env}"
            )
        seeds = range(seed, seed + episodes)
        played = play(expert, envs, seeds, max_steps=max_steps, progress_bar=progress_bar)
        kwargs, spec = own_kwargs(envs), envs.spec
    assert spec is not None
    lengths = played.lengths
    observations = [flattened(seen, each) for each in played.observations]
    return Demonstrations(
        observations=in_sequence(observations[:-1], lengths),
        actions=in_sequence(played.actions, lengths).reshape(lengths.sum(), -1),
        rewards=in_sequence(played.rewards, lengths),
        episode_lengths=lengths,
        final_observations=np.stack([observations[n][i] for i, n in enumerate(lengths)]),
        env_id=spec.id,
        env_kwargs=kwargs,
    )


@dataclass(frozen=True)
class Evaluation:
    """How an agent fared, one entry an episode.

    Attributes:
        returns: sums of rewards.
        lengths: numbers of time steps.
        seconds_per_decision: wall-clock time of the batched `predict` calls, divided by the
            number of actions they gave. A single decision on its own takes longer.
    """

    returns: Float[NDArray[np.floating], " episodes"]
    lengths: Int[NDArray[np.integer], " episodes"]
    seconds_per_decision: float

    def __repr__(self) -> str:
        return (
            f"Evaluation(episodes={len(self.returns)}, mean={self.mean:.6g}, "
            f"standard_error={self.standard_error:.2g}, "
            f"seconds_per_decision={self.seconds_per_decision:.2g})"
        )

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean return; NaN for a single episode."""
        if len(self.returns) < 2:
            return float("nan")
        return float(self.returns.std(ddof=1) / np.sqrt(len(self.returns)))


def evaluate(
    agent: Agent,
    env: EnvSource,
    seeds: Sequence[int],
    env_kwargs: dict[str, Any] | None = None,
    max_steps: int | None = None,
) -> Evaluation:
    """The returns of an agent's deterministic actions, one episode for each seed of `env.reset`.

    Args: as in `collect`.
    """
    check_agent("agent", agent)
    check_instance("seeds", seeds, (list, tuple, range, np.ndarray), "a list of integers")
    checked = [check_seed(f"seeds[{i}]", seed) for i, seed in enumerate(seeds)]
    if not checked:
        raise ValueError("seeds must ask for at least one episode, got none")
    with closing(make_envs(env, len(checked), env_kwargs)) as envs:
        return _evaluation(play(agent, envs, checked, max_steps=max_steps))


def evaluate_from(
    agent: Agent,
    env: EnvSource,
    states: Sequence[ArrayLike],
    env_kwargs: dict[str, Any] | None = None,
    max_steps: int | None = None,
) -> Evaluation:
    """The same from given start states, in an environment that takes `options={"state": ...}`.

    Raises:
        ValueError: the environment refuses a state, or starts elsewhere.
    """
    check_agent("agent", agent)
    given = numbers("states", states)
    if given.ndim != 2:
        raise ValueError(f"states must be [episodes, n_state], got {list(given.shape)}")
    if not len(given):
        raise ValueError("states must ask for at least one episode, got none")
    with closing(make_envs(env, len(given), env_kwargs, native=False)) as envs:
        return _evaluation(play(agent, envs, range(len(given)), given, max_steps))


def _evaluation(played: Episodes) -> Evaluation:
    return Evaluation(played.returns, played.lengths, played.seconds_per_decision)
