"""Episodes of an agent, played side by side: the one loop of collection, evaluation and videos.

There is one batched `predict` a time step: a planner solves a batch in little more time than a
single problem.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import SyncVectorEnv, VectorEnv
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.type_aliases import PolicyPredictor

from mpc_gym.checks import check_count, check_instance, check_seed, found
from mpc_gym.envs.registration import registered
from mpc_gym.envs.vector import DiffVectorEnv
from mpc_gym.imitation.progress import progress
from mpc_gym.mpc import MPC
from mpc_gym.policies import RecedingHorizon

Agent = PolicyPredictor | MPC
EnvSource = str | gym.Env[Any, Any]
Envs = VectorEnv[Any, Any, Any]

ENDLESS = 100_000  # steps, of an episode that nothing has ended
# Of the arguments of `gymnasium.make` and `make_vec`, those that are not the environment's own.
MAKE_ONLY = frozenset({"max_episode_steps", "disable_env_checker"})
NOT_OWN = MAKE_ONLY | {"render_mode", "num_envs", "vectorization_mode", "vector_kwargs", "wrappers"}


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


class RandomAgent:
    """Actions drawn from an environment's whole action space, to explore by.

    Args:
        env: whose spaces it acts in.
        seed: of its actions.
        hold: steps for which each action is repeated, so that it moves something.

    Raises:
        TypeError: `env` is no environment.
        ValueError: `seed` or `hold` is out of its range.
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int = 0, hold: int = 1) -> None:
        check_instance("env", env, gym.Env, "an environment")
        self._observations, self._actions = env.observation_space, copy.deepcopy(env.action_space)
        self._actions.seed(check_seed("seed", seed))
        self._hold, self._steps = check_count("hold", hold), 0
        self._held: NDArray[Any] = np.empty(0)

    def predict(
        self, observation: NDArray[Any] | dict[str, NDArray[Any]], *_: Any, **__: Any
    ) -> tuple[NDArray[Any], None]:
        """An action, of a batch of observations one for each, and no recurrent state."""
        space, entry = self._observations, observation
        if isinstance(space, gym.spaces.Dict):
            assert isinstance(entry, dict)
            name = next(iter(space))
            space, entry = space[name], entry[name]
        values = np.asarray(entry)
        single = values.ndim == len(space.shape or ())
        count = 1 if single else len(values)
        if self._steps % self._hold == 0 or len(self._held) != count:
            self._held = np.stack([self._actions.sample() for _ in range(count)])
        self._steps += 1
        return (self._held[0] if single else self._held), None


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
class Episodes:
    """What happened in each environment.

    Attributes:
        observations: time + 1 batches; the last is of after the last step.
        actions: [time, n_env, ...].
        rewards: [time, n_env].
        lengths: steps of each episode; what an environment did after them is not part of it.
        seconds_per_decision: wall-clock time in `predict` divided by the actions that it gave.
    """

    observations: list[Any]
    actions: NDArray[Any]
    rewards: Float[NDArray[np.floating], "time n_env"]
    lengths: Int[NDArray[np.integer], " n_env"]
    seconds_per_decision: float

    @property
    def returns(self) -> Float[NDArray[np.floating], " n_env"]:
        """The sum of each episode's rewards."""
        each = (np.ascontiguousarray(self.rewards[:n, i]) for i, n in enumerate(self.lengths))
        return np.array([rewards.sum() for rewards in each])


def in_sequence(steps: ArrayLike, lengths: Int[NDArray[np.integer], " n_env"]) -> NDArray[Any]:
    """Rows [time, n_env, ...], one episode after the other, each to its end."""
    array = np.asarray(steps)
    return np.concatenate([array[:length, i] for i, length in enumerate(lengths)])


def make_envs(
    env: EnvSource,
    count: int,
    env_kwargs: dict[str, Any] | None = None,
    *,
    native: bool = True,
) -> Envs:
    """`count` environments like `env`, by `gymnasium.make_vec`.

    Args:
        env: an id, or an environment made by `gymnasium.make`.
        count: how many.
        env_kwargs: further arguments of `gymnasium.make`.
        native: whether those of this package may be stepped in one native call, bit by bit as
            single ones; others are single ones (`SyncVectorEnv`), as their seeds ask for.

    Raises:
        TypeError: `env` is neither an id nor an environment.
        ValueError: there is no environment of that id, or `env` was not made by `gymnasium.make`,
            so that it cannot be made again.
    """
    check_source(env, env_kwargs)
    given = env_kwargs or {}
    source = env if isinstance(env, str) else env.spec
    if source is None:
        raise ValueError(
            f"env must be an id or made by gymnasium.make, got {env}, which has no spec to make "
            "more of it from. Register it and pass its id"
        )
    with registered("env", env):
        known = gym.registry.get(str(source).rpartition(":")[2])  # without its module
        spec = known if isinstance(source, str) else source
        one_call = native and spec is not None and _steps_as_single(spec, given)
        mode = "vector_entry_point" if one_call else "sync"
        return gym.make_vec(source, count, vectorization_mode=mode, **given)


def _steps_as_single(spec: EnvSpec, env_kwargs: dict[str, Any]) -> bool:
    """Whether its vector environments do as many single ones do, whatever `gymnasium.make` adds."""
    entry = spec.vector_entry_point
    creator: Any = load_env_creator(entry) if isinstance(entry, str) else entry
    ours = isinstance(creator, type) and issubclass(creator, DiffVectorEnv)
    render_mode = {**spec.kwargs, **env_kwargs}.get("render_mode")
    plain = not spec.additional_wrappers and not MAKE_ONLY & env_kwargs.keys()
    return ours and plain and render_mode in (None, "rgb_array")


def own_kwargs(envs: Envs) -> dict[str, Any]:
    """The arguments of the environments, without those of `gymnasium.make`."""
    assert envs.spec is not None, "gymnasium.make_vec gives every environment its spec"
    return {name: value for name, value in envs.spec.kwargs.items() if name not in NOT_OWN}


def play(
    agent: Agent,
    envs: Envs,
    seeds: Sequence[int],
    states: ArrayLike | None = None,
    max_steps: int | None = None,
    progress_bar: bool | None = False,
) -> Episodes:
    """One episode in each environment, until it ends or `max_steps` have passed.

    Args:
        agent: acts; its actions are deterministic, and its recurrent state is passed back to it
            (see SB3's `predict`).
        envs: of `make_envs`.
        seeds: of the episodes, one for each environment.
        states: where they start instead, in single environments that take `options={"state": ...}`.
        max_steps: an episode ends after so many steps at the latest.
        progress_bar: see `collect`.

    Raises:
        ValueError: `max_steps` is no positive integer, or it is None and an episode has not ended
            after 100,000 steps; or a state is refused, or makes no difference.
    """
    if max_steps is not None:
        check_count("max_steps", max_steps)
    if isinstance(agent, MPC) and not isinstance(envs.single_action_space, gym.spaces.Box):
        raise ValueError(
            f"agent must choose among the actions of {envs.single_action_space}, and an MPC plans "
            "continuous controls: take a DiscreteMPCPolicy"
        )
    predictor = as_predictor(agent)
    observations = [_begin(envs, list(seeds), states)]
    actions: list[NDArray[Any]] = []
    rewards: list[NDArray[Any]] = []
    lengths, alive = np.zeros(envs.num_envs, dtype=int), np.ones(envs.num_envs, dtype=bool)
    state, begins, seconds = None, np.ones(envs.num_envs, dtype=bool), 0.0
    with progress("acting", _longest(envs, max_steps), progress_bar, "step") as update:
        while alive.any():
            if max_steps is None and len(actions) == ENDLESS:
                raise ValueError(
                    f"max_steps must be given: {envs} has not ended after {ENDLESS} steps"
                )
            # Those that have ended stay in the batch, since a recurrent state need not have the
            # environments in its first dimension.
            began = time.perf_counter()
            chosen, state = predictor.predict(observations[-1], state, begins, deterministic=True)
            seconds += time.perf_counter() - began
            begins = np.zeros_like(begins)
            following, earned, terminated, truncated, _ = envs.step(chosen)
            observations.append(following)
            actions.append(np.array(chosen))
            rewards.append(np.array(earned))
            lengths += alive
            alive = alive & ~(terminated | truncated) & (len(actions) != max_steps)
            update(len(actions), f"{alive.sum()} of {len(alive)} episodes going on")
    decisions = len(actions) * envs.num_envs
    return Episodes(
        observations, np.stack(actions), np.stack(rewards), lengths, seconds / decisions
    )


def _begin(envs: Envs, seeds: Any, states: ArrayLike | None) -> Any:
    """The first observation of each episode."""
    by_chance, _ = envs.reset(seed=seeds)
    if states is None:
        return by_chance
    assert isinstance(envs, SyncVectorEnv)
    observations = []
    for i, (env, seed, state) in enumerate(zip(envs.envs, seeds, np.asarray(states), strict=True)):
        try:
            first, _ = env.reset(seed=seed, options={"state": state})
        except ValueError as error:
            raise ValueError(f"states[{i}] must be one that {env} starts from: {error}") from error
        observations.append(first)
    if np.array_equal(observations, by_chance):
        # Gymnasium's own environments take any options, and do not look at this one
        raise ValueError(
            "env must start from the state that reset(options={'state': ...}) is given, and "
            f"{envs.envs[0]} starts as it does without: evaluate there from seeds, by evaluate(...)"
        )
    return np.stack(observations)


def _longest(envs: Envs, max_steps: int | None) -> int | None:
    """An upper limit of the steps of an episode, where there is one."""
    limits = [max_steps]
    if envs.spec is not None:
        kept = envs.spec.max_episode_steps
        limits.append(envs.spec.kwargs.get("max_episode_steps", kept))
    return min((limit for limit in limits if limit is not None and limit > 0), default=None)
