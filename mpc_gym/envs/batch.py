"""Many environments of one kind, stepped together; what all vectorised environments are made of."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.error import ResetNeeded
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray

from mpc_gym.checks import check_count, check_size
from mpc_gym.envs.base import RESET_NEEDED, DiffEnv
from mpc_gym.envs.checks import as_array, checked_physics, numbers, plan_states
from mpc_gym.envs.randomisation import Ranges, parameter_ranges
from mpc_gym.envs.streams import Streams

if TYPE_CHECKING:
    from mpc_gym.rendering import Memory

Mask = Bool[NDArray[np.bool_], " num_envs"]


class Batch:
    """Environments that share modules and limits; each has its state, random numbers and physics.

    Environment i, seeded with s, goes through the episodes of a single environment seeded with s.

    Args:
        env: one of them, for its modules, limits and pictures; it is never stepped.
        num_envs: how many.
        max_episode_steps: after which an episode is truncated; None: never.

    Raises:
        ValueError: a number is less than 1.
    """

    def __init__(self, env: DiffEnv, num_envs: int, max_episode_steps: int | None) -> None:
        self.env = env
        self.num_envs = num_envs = check_size("num_envs", num_envs)
        self.max_episode_steps = (
            None
            if max_episode_steps is None
            else check_count("max_episode_steps", max_episode_steps)
        )
        self.states = np.full((num_envs, len(env.observation_space.low)), np.nan)
        self.elapsed = np.zeros(num_envs, dtype=np.int64)
        self.streams = Streams(num_envs)
        self._ranges: Ranges = {}
        # Physical parameters that environments have of their own; NaN: that of the modules.
        self._own: dict[str, NDArray[np.float64]] = {}
        self._memories: list[Memory | None] = [None] * num_envs
        self._started = False
        self._oldest = 0
        self._action_shape = (num_envs, *env.action_space.low.shape)

    def set_ranges(self, given: Any) -> None:
        """From now on, draw physical parameters from these ranges; see `DiffEnv.reset`."""
        env = self.env
        ranges = parameter_ranges(given, env.given_physics, env.make_dynamics)
        for name in self._ranges:
            self._own.pop(name, None)
        self._ranges = ranges

    def restart(self, which: Mask, states: ArrayLike | None = None) -> dict[str, Any]:
        """Start episodes, from these states [num_envs, n_state] or [n_state] or from drawn ones.

        Returns:
            Gymnasium's vector info: what was drawn, with masks that say for which environments.
        """
        self._started = True
        rows = np.flatnonzero(which)
        count = len(self.env.start_limit) if states is None else 0
        drawn = self.streams.draw(rows, count + len(self._ranges))
        if states is None:
            self.states[rows] = self.env.start_states(drawn[:, :count])
        else:
            self.states[rows] = self._checked_states(states)[rows]
        self.elapsed[rows] = 0
        self._oldest = int(self.elapsed.max())
        if self.env.render_mode is not None:
            from mpc_gym.rendering import Memory  # which imports Pillow

            for i in rows:
                self._memories[i] = Memory(self.states[i].copy())
        return self._set_drawn(which, drawn[:, count:])

    def step(
        self, actions: Float[NDArray[np.float64], "num_envs n_ctrl"]
    ) -> tuple[Float[NDArray[np.float64], " num_envs"], Mask, Mask]:
        """Rewards, and which episodes are terminated and which truncated.

        Raises:
            ResetNeeded: the environments have not been reset yet.
            ValueError: an action is NaN.
        """
        if not self._started:
            raise ResetNeeded(RESET_NEEDED)
        self.states, costs, controls = self.env.transition(
            self.states, actions, self._parameters() if self._own else None
        )
        terminated = self.env.terminated(self.states)
        rewards = -costs - self.env.end_cost * terminated
        self.elapsed += 1
        if self.env.render_mode is not None:
            for memory, *step in zip(self._memories, controls, rewards, self.states, strict=True):
                assert memory is not None
                memory.add(step[0], float(step[1]), step[2].copy())
        self._oldest += 1
        if self.max_episode_steps is None or self._oldest < self.max_episode_steps:
            truncated = np.zeros(self.num_envs, dtype=bool)
        else:
            truncated = self.elapsed >= self.max_episode_steps
        return rewards, terminated, truncated

    def checked_actions(self, actions: ArrayLike) -> Float[NDArray[np.float64], "num_envs n_ctrl"]:
        """Actions [num_envs, n_ctrl] as a copy.

        Raises:
            ValueError: they have another shape.
        """
        return as_array("actions", actions, self._action_shape)

    def observations(self) -> Float[NDArray[np.float32], "num_envs n_state"]:
        """The present ones."""
        return self.states.astype(np.float32)

    def physics(self, index: int) -> dict[str, float]:
        """The present value of each physical parameter of one environment."""
        own = {name: values[index].item() for name, values in self._own.items()}
        return {**self.env.physics, **{k: v for k, v in own.items() if not math.isnan(v)}}

    def set_physics(self, index: int, values: Mapping[str, float]) -> None:
        """Give one environment physical parameters of its own.

        Raises:
            ValueError: there is no such parameter, or its value is impossible.
        """
        checked = checked_physics(values, self.physics(index), self.env.make_dynamics)
        for name, value in checked.items():
            self._own_values(name)[index] = value

    def set_state(self, index: int, state: ArrayLike) -> None:
        """Put one environment into a state, in the midst of its episode."""
        self.states[index] = self.env.checked_state("state", state)

    def show_plan(self, index: int, plan: Any) -> None:
        """See `DiffEnv.show_plan`."""
        states = plan_states(plan, self.states.shape[1])
        memory = self._memories[index]
        if memory is not None:
            memory.plan_states = states

    def frame(self, index: int, width: int, height: int) -> NDArray[np.uint8]:
        """A picture of one environment.

        Raises:
            ResetNeeded: the environments have not been reset yet.
        """
        memory = self._memories[index]
        if memory is None:
            raise ResetNeeded(RESET_NEEDED)
        scene = memory.scene(self.env.time_step)
        return self.env.draw(scene, {**self.env.settings, **self.physics(index)}, width, height)

    def _checked_states(self, states: ArrayLike) -> Float[NDArray[np.float64], "num_envs n_state"]:
        given = numbers("options['state']", states)
        if given.ndim == 2 and len(given) != self.num_envs:
            raise ValueError(
                f"options['state'] must be one state, or one for each of the {self.num_envs} "
                f"environments, got shape {given.shape}"
            )
        rows = given if given.ndim == 2 else [given]
        checked = [self.env.checked_state("options['state']", row) for row in rows]
        return np.broadcast_to(np.stack(checked), self.states.shape)

    def _set_drawn(
        self, which: Mask, fractions: Float[NDArray[np.float64], "rows ranges"]
    ) -> dict[str, Any]:
        info: dict[str, Any] = {}
        for (name, (low, high)), column in zip(self._ranges.items(), fractions.T, strict=True):
            self._own_values(name)[which] = low + (high - low) * column
            info[name] = np.where(which, self._own[name], 0.0)
            info[f"_{name}"] = which.copy()
        return {"parameters": info, "_parameters": which.copy()} if info else {}

    def _own_values(self, name: str) -> NDArray[np.float64]:
        return self._own.setdefault(name, np.full(self.num_envs, np.nan))

    def _parameters(self) -> Float[NDArray[np.float64], "num_envs n_parameters"]:
        transition = self.env.transition
        parameters = np.tile(transition.parameters(), (self.num_envs, 1))
        names = transition.parameter_names
        for name, values in self._own.items():
            column = parameters[:, names.index(f"dynamics.{name}")]
            np.copyto(column, values, where=~np.isnan(values))
        return parameters
