"""The loop of agent and environments that collection and evaluation share.

All episodes are stepped side by side with one batched `predict` a time step: a planner solves a
batch in little more time than a single problem.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import PolicyPredictor

from mpc_gym.checks import check_count, check_instance, found
from mpc_gym.envs.registration import make_env
from mpc_gym.imitation.progress import progress
from mpc_gym.mpc import MPC
from mpc_gym.policies import RecedingHorizon

Agent = PolicyPredictor | MPC
EnvSource = str | gym.Env[Any, Any]

ENDLESS = 100_000  # steps, of an episode that nothing has ended


class Stateless:
    """An agent that forgets: each of its actions is a function of the observation alone.

    A planner that starts from its last plan stays in the local optimum it once chose, so what it
    does at one observation depends on how it came there. No policy without memory can learn that;
    as an expert for one, let the planner forget.
    """

    def __init__(self, agent: Agent) -> None:
        check_agent("agent", agent)
        self.predictor = as_predictor(agent)

    def predict(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,  # noqa: ARG002
        episode_start: NDArray[Any] | None = None,  # noqa: ARG002
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], None]:
        """The action, and no recurrent state."""
        actions, _ = self.predictor.predict(observation, deterministic=deterministic)
        return actions, None


def as_predictor(agent: Agent) -> PolicyPredictor:
    """The agent with SB3's `predict`."""
    return RecedingHorizon(agent) if isinstance(agent, MPC) else agent


def check_agent(name: str, agent: object) -> None:
    """Refuse what does not act.

    Raises:
        TypeError: it is neither an `MPC` nor has SB3's `predict`.
    """
    if isinstance(agent, type) or not (isinstance(agent, MPC) or hasattr(agent, "predict")):
        raise TypeError(
            f"{name} must be an MPC, or a policy or algorithm with SB3's predict, got "
            f"{found(agent)}"
        )


def check_source(env: object, env_kwargs: object) -> None:
    """Refuse what no environment can be made of.

    Raises:
        TypeError: it is neither an id nor an environment, or its arguments are no mapping.
    """
    check_instance("env", env, (str, gym.Env), "an environment, or the id of one")
    if env_kwargs is not None:
        check_instance("env_kwargs", env_kwargs, dict, "a dict from name to value, or None")


@dataclass(frozen=True)
class Start:
    """How an episode begins: by chance, or from a state of the model."""

    seed: int
    state: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Episode:
    """What happened: one row a time step, and the observation after the last."""

    observations: NDArray[np.floating]
    actions: NDArray[np.floating]
    rewards: NDArray[np.floating]
    final_observation: NDArray[np.floating]


@dataclass(frozen=True)
class Rollout:
    """Episodes, and the wall-clock time [s] spent in `predict` divided by the decisions made."""

    episodes: list[Episode]
    seconds_per_decision: float


def make_envs(
    env: EnvSource, env_kwargs: dict[str, Any] | None, count: int
) -> list[gym.Env[Any, Any]]:
    """`count` environments like `env`.

    Raises:
        TypeError: `env` is neither an id nor an environment.
        ValueError: there is no environment of that id, or `env` was not made by `gymnasium.make`,
            so that it cannot be made again.
    """
    check_source(env, env_kwargs)
    if isinstance(env, str):
        return [make_env("env", env, env_kwargs or {}) for _ in range(count)]
    source = env.spec
    if source is None:
        raise ValueError(
            f"env must be an id or made by gymnasium.make, got {env}, which has no spec to make "
            "more of it from. Register it and pass its id"
        )
    return [gym.make(source, **(env_kwargs or {})) for _ in range(count)]


def rollout(
    agent: Agent,
    envs: Sequence[gym.Env[Any, Any]],
    starts: Sequence[Start],
    max_steps: int | None = None,
    progress_bar: bool | None = False,
) -> Rollout:
    """One episode in each environment, until it ends or `max_steps` have passed.

    The agent's recurrent state is passed back to it (see SB3's `predict`); its actions are
    deterministic.

    Raises:
        ValueError: `max_steps` is no positive integer, or it is None and an episode has not ended
            after 100,000 steps.
    """
    if max_steps is not None:
        check_count("max_steps", max_steps)
    predictor = as_predictor(agent)
    recorders = [
        _Recorder(env, observation)
        for env, observation in zip(envs, _begin(envs, starts), strict=True)
    ]
    state, begins = None, np.ones(len(envs), dtype=bool)
    seconds, decisions, steps = 0.0, 0, 0
    with progress("acting", _longest(envs, max_steps), progress_bar, "step") as update:
        while alive := [i for i, r in enumerate(recorders) if not r.ended]:
            if max_steps is None and steps == ENDLESS:
                raise ValueError(
                    f"max_steps must be given: {envs[alive[0]]} has not ended after {steps} steps"
                )
            # Those that have ended stay in the batch, since a recurrent state need not have the
            # environments in its first dimension.
            batch = np.stack([recorder.observations[-1] for recorder in recorders])
            began = time.perf_counter()
            actions, state = predictor.predict(batch, state, begins, deterministic=True)
            seconds += time.perf_counter() - began
            decisions += len(batch)
            begins = np.zeros_like(begins)
            for i in alive:
                recorders[i].step(actions[i], max_steps)
            steps += 1
            update(steps, f"{len(alive)} of {len(envs)} episodes going on")
    return Rollout([recorder.episode() for recorder in recorders], seconds / max(decisions, 1))


def _begin(
    envs: Sequence[gym.Env[Any, Any]], starts: Sequence[Start]
) -> list[NDArray[np.floating]]:
    """The first observation of each episode.

    Raises:
        ValueError: a state is refused, or none of them makes a difference.
    """
    by_chance = [env.reset(seed=start.seed)[0] for env, start in zip(envs, starts, strict=True)]
    if all(start.state is None for start in starts):
        return by_chance
    observations = []
    for i, (env, start) in enumerate(zip(envs, starts, strict=True)):
        try:
            first, _ = env.reset(seed=start.seed, options={"state": start.state})
        except ValueError as error:
            raise ValueError(f"states[{i}] must be one that {env} starts from: {error}") from error
        observations.append(first)
    if all(map(np.array_equal, observations, by_chance)):
        # Gymnasium's own environments take any options, and do not look at this one
        raise ValueError(
            "env must start from the state that reset(options={'state': ...}) is given, and "
            f"{envs[0]} starts as it does without: evaluate there from seeds, by evaluate(...)"
        )
    return observations


def _longest(envs: Sequence[gym.Env[Any, Any]], max_steps: int | None) -> int | None:
    """An upper limit of the steps of an episode, where each has one."""
    limits = [env.spec.max_episode_steps if env.spec else None for env in envs]
    known = [limit for limit in limits if limit is not None]
    longest = max(known) if len(known) == len(limits) else None
    return min((limit for limit in (longest, max_steps) if limit is not None), default=None)


class _Recorder:
    """One environment and what has happened in it."""

    def __init__(self, env: gym.Env[Any, Any], observation: NDArray[np.floating]) -> None:
        self.env = env
        self.observations = [observation]
        self.actions: list[NDArray[np.floating]] = []
        self.rewards: list[float] = []
        self.ended = False

    def step(self, action: NDArray[np.floating], max_steps: int | None) -> None:
        observation, reward, terminated, truncated, _ = self.env.step(action)
        self.observations.append(observation)
        self.actions.append(np.array(action))
        self.rewards.append(float(reward))
        self.ended = terminated or truncated or len(self.rewards) == max_steps

    def episode(self) -> Episode:
        return Episode(
            observations=np.stack(self.observations[:-1]),
            actions=np.stack(self.actions),
            rewards=np.array(self.rewards),
            final_observation=self.observations[-1],
        )
