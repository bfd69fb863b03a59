"""The environments as Gymnasium's vector environments: all of them step in one native call."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray
from torch import nn

from mpc_gym.checks import check_count, found
from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.batch import Batch, Mask
from mpc_gym.envs.checks import (
    LARGEST_SEED,
    check_render_mode,
    check_seed,
    checked_options,
    numbers,
)
from mpc_gym.envs.member import SHARED, Member

Step = tuple[
    NDArray[np.float32],
    NDArray[np.float64],
    NDArray[np.bool_],
    NDArray[np.bool_],
    dict[str, Any],
]


class DiffVectorEnv(VectorEnv[NDArray[np.float32], ArrayLike, NDArray[Any]]):
    """Many copies of an environment, stepped in one native call.

    `gymnasium.make_vec(id, num_envs=...)` makes it. Each copy goes bit by bit through the steps of
    the single environment. `reset(seed=s)` seeds copy i with s + i, as `SyncVectorEnv` does, and it
    then starts its episodes where a single environment does that was once reset with that seed;
    without a seed, the first reset takes one from the operating system.

    An environment whose episode ends is reset by the next call of `step`, which ignores its action
    and gives it a reward of 0 (`AutoresetMode.NEXT_STEP`, as in `metadata`).

    `get_attr`, `set_attr` and `call` see each copy as one environment, as `SyncVectorEnv` does (see
    `Member`), and each physical parameter is also an attribute, an array: `envs.mass = 2.0`.

    Render modes: "rgb_array" is a tuple with a frame of each copy, as Gymnasium's vector wrappers
    expect; "rgb_array_grid" one picture, at most `width` x `height`, of all in a grid.

    Args:
        num_envs: how many copies.
        max_episode_steps: after which an episode is truncated; None: never. `make_vec` gives what
            is registered.
        render_mode: None, "rgb_array" or "rgb_array_grid".
        kwargs: those of the single environment.

    Raises:
        ValueError: an argument is impossible.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array", "rgb_array_grid"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    env_class: ClassVar[type[DiffEnv]]

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_render_mode(render_mode, self.metadata["render_modes"])
        single = self.env_class(render_mode=render_mode and "rgb_array", **kwargs)
        self._batch = Batch(single, num_envs, max_episode_steps)
        self._members = [Member(self._batch, i) for i in range(num_envs)]
        self.num_envs = num_envs = self._batch.num_envs
        self._ended: Mask = np.zeros(num_envs, dtype=bool)
        self.render_mode = render_mode
        self.single_observation_space = single.observation_space
        self.single_action_space = single.action_space
        self.observation_space = batch_space(single.observation_space, num_envs)
        self.action_space = batch_space(single.action_space, num_envs)

    @property
    def dynamics(self) -> nn.Module:
        """Of all copies; a copy's own physical parameters come before those of this module."""
        return self._batch.env.dynamics

    @property
    def cost(self) -> nn.Module:
        """Of all copies."""
        return self._batch.env.cost

    @property
    def states(self) -> NDArray[np.float64]:
        """The model's states [num_envs, n_state], a copy."""
        states: NDArray[np.float64] = self._batch.states.copy()
        return states

    @property  # type: ignore[misc]  # as in SyncVectorEnv
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The random numbers of each environment, which are drawn ahead."""
        return tuple(self._batch.streams.generators)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]  # as in SyncVectorEnv
        """The seed of each environment; -1 where it came from the operating system."""
        return tuple(self._batch.streams.seeds)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode in each environment.

        Args:
            seed: environment i gets seed + i, or the i-th of a sequence.
            options: as of the single environment; `"state"` may also be [num_envs, n_state], and
                `"reset_mask"` [num_envs] says which environments are reset.

        Returns:
            Observations, and with ranges what was drawn: `{"parameters": {name: [num_envs]}}`.

        Raises:
            ValueError: an option is unknown or impossible, or there is not one seed for each.
        """
        given = checked_options(options, ("state", "parameters", "reset_mask"))
        which = _checked_mask(given.get("reset_mask"), self.num_envs)
        seeds = _checked_seeds(seed, self.num_envs)
        if "parameters" in given:
            self._batch.set_ranges(given["parameters"])
        self._batch.streams.seed(
            [each if reset else None for each, reset in zip(seeds, which, strict=True)]
        )
        infos = self._batch.restart(which, given.get("state"))
        self._batch.env.retrace()
        self._ended &= ~which
        return self._batch.observations(), infos

    def step(self, actions: ArrayLike) -> Step:
        """Apply actions [num_envs, n_ctrl]; out of their limits they are clipped.

        Returns:
            Observations, rewards, terminated, truncated, and what was drawn for the environments
            that were reset.

        Raises:
            ValueError: the actions have the wrong shape, or contain NaN.
            ResetNeeded: the environments have not been reset yet.
        """
        controls = self._batch.checked_actions(actions)
        ended, infos = self._ended, {}
        some_ended = np.count_nonzero(ended) > 0  # far faster than `any` for few environments
        if some_ended:
            controls[ended] = 0.0
        rewards, terminated, truncated = self._batch.step(controls)
        if some_ended:
            infos = self._batch.restart(ended)
            rewards[ended] = 0.0
            terminated, truncated = terminated & ~ended, truncated & ~ended
        self._ended = terminated | truncated
        return self._batch.observations(), rewards, terminated, truncated, infos

    def show_plan(self, plan: Any) -> None:
        """Draw predicted states [num_envs, time, n_state], or none, in each frame.

        Raises:
            ValueError: there are not as many plans as environments, or they have another shape.
        """
        states: Any = [None] * self.num_envs
        if plan is not None:
            states = numbers("plan", getattr(plan, "states", plan))
        count = len(states) if np.ndim(states) else 0
        if count != self.num_envs:
            raise ValueError(
                f"plan must hold the states of {self.num_envs} environments, got {count} in "
                f"{list(np.shape(states))}, which should be [num_envs, time, n_state]"
            )
        for i in range(self.num_envs):
            self._batch.show_plan(i, states[i])

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of each environment; see `Member`."""
        return tuple(getattr(member, name) for member in self._members)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each environment, such as `"mass"`; see `Member`.

        Args:
            name: of the attribute.
            values: a list or tuple with one value for each environment, or one value for all.

        Raises:
            AttributeError: there is no such attribute that can be set.
            ValueError: there is not one value for each, or a value is impossible.
        """
        each = values if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(each) != self.num_envs:
            raise ValueError(
                f"values must be one, or one for each of the {self.num_envs} environments, "
                f"got {len(each)}"
            )
        if not self._members[0].owns(name) and any(value is not each[0] for value in each):
            raise ValueError(f"set_attr: {name!r} is shared by all environments; give one value")
        for member, value in zip(self._members, each, strict=True):
            setattr(member, name, value)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of each environment, or get an attribute; see `Member`."""
        attributes = self.get_attr(name)
        return tuple(each(*args, **kwargs) if callable(each) else each for each in attributes)

    def __getattr__(self, name: str) -> Any:
        batch = self.__dict__.get("_batch")  # absent while a copy is made
        if batch is not None and name in batch.env.given_physics:
            return np.array(self.get_attr(name))
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        batch = self.__dict__.get("_batch")
        if batch is not None and name in (*batch.env.given_physics, *SHARED):
            self.set_attr(name, value.tolist() if isinstance(value, np.ndarray) else value)
        else:
            super().__setattr__(name, value)

    def render(self) -> Any:
        """A frame [height, width, 3] of each, or one picture of all; see the class."""
        width, height = self._batch.env.width, self._batch.env.height
        if self.render_mode is None:
            gym.logger.warn(
                "render() draws nothing without a render mode; give one: "
                f'gym.make_vec("{self._batch.env.env_id}", render_mode="rgb_array")'
            )
            return None
        if self.render_mode == "rgb_array":
            return tuple(self._batch.frame(i, width, height) for i in range(self.num_envs))
        from mpc_gym.rendering import tile

        columns = math.ceil(math.sqrt(self.num_envs))
        rows = math.ceil(self.num_envs / columns)
        cell = (max(width // columns, 1), max(height // rows, 1))
        return tile([self._batch.frame(i, *cell) for i in range(self.num_envs)], columns)


def _checked_mask(mask: Any, num_envs: int) -> Mask:
    if mask is None:
        return np.ones(num_envs, dtype=bool)
    array: Mask | None = np.array(mask) if _is_row(mask, num_envs) else None
    if array is None or array.ndim != 1 or array.dtype != np.bool_ or not array.any():
        raise ValueError(
            f"options['reset_mask'] must be {num_envs} booleans, at least one of them true, "
            f"got {found(mask)}"
        )
    return array


def _checked_seeds(seed: Any, num_envs: int) -> Sequence[int | None]:
    """One seed for each environment; None where its generator goes on as it is."""
    if seed is None:
        return [None] * num_envs
    if not isinstance(seed, list | tuple | np.ndarray):
        first = check_count("seed", seed, 0, LARGEST_SEED - num_envs)
        return [first + i for i in range(num_envs)]
    if not _is_row(seed, num_envs):
        raise ValueError(
            f"seed must be one number, or one for each of the {num_envs} environments, got "
            f"{found(seed)}"
        )
    return [check_seed(each) for each in seed]


def _is_row(value: Any, count: int) -> bool:
    """Whether it is a sequence of so many entries."""
    sized = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)
    return sized and len(value) == count
