"""The environments as a Stable-Baselines3 `VecEnv`: all of them step in one native call."""

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from mpc_gym.checks import found
from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.batch import Batch, Mask
from mpc_gym.envs.checks import checked_options
from mpc_gym.envs.member import Member


class DiffVecEnv(VecEnv):
    """Many copies of an environment, for Stable-Baselines3. `make_sb3_vec_env` makes it.

    As in SB3's own: an episode that ends is followed by the next in the same step, whose info holds
    `terminal_observation`, `TimeLimit.truncated` and, as under SB3's `Monitor`, the `episode`'s
    return, length and time; `seed` and `set_options` count at the next
    `reset`; environment i gets seed + i, and its start states are those of a single one.

    `get_attr`, `set_attr` and `env_method` see each copy as one environment (see `Member`).

    Args:
        env: one of the copies.
        n_envs: how many.
        max_episode_steps: after which an episode is truncated; None: never.
    """

    actions: NDArray[np.float64]

    def __init__(self, env: DiffEnv, n_envs: int, max_episode_steps: int | None) -> None:
        self.batch = Batch(env, n_envs, max_episode_steps)
        self.members = [Member(self.batch, i) for i in range(n_envs)]
        self._returns = np.zeros(n_envs)
        self._began = time.time()
        super().__init__(n_envs, env.observation_space, env.action_space)
        self.metadata = env.metadata

    def reset(self) -> NDArray[np.float32]:
        """Start an episode in each environment; see `seed` and `set_options`.

        The options are those of the single environment; ranges of parameters are one for all.

        Raises:
            ValueError: an option is unknown or impossible.
        """
        given = [checked_options(options, ("state", "parameters")) for options in self._options]
        ranges = [options.get("parameters") for options in given]
        for other in ranges:
            if other is not ranges[0] and repr(other) != repr(ranges[0]):
                raise ValueError(
                    "set_options: 'parameters' must be the same for all environments, got "
                    f"{found(ranges[0])} and {found(other)}"
                )
        if ranges[0] is not None:
            self.batch.set_ranges(ranges[0])
        self.batch.streams.seed(self._seeds)
        self.batch.env.retrace()
        placed = np.array(["state" in options for options in given])
        for i in np.flatnonzero(placed):
            self._restart(np.arange(self.num_envs) == i, given[i]["state"])
        if not placed.all():
            self._restart(~placed)
        self._reset_seeds()
        self._reset_options()
        return self.batch.observations()

    def _restart(self, which: Mask, states: ArrayLike | None = None) -> None:
        infos = self.batch.restart(which, states)
        self._returns[which] = 0.0
        for i in np.flatnonzero(which).tolist():
            self.reset_infos[i] = _info_of(infos, i)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions [n_envs, n_ctrl] of the next step."""
        self.actions = self.batch.checked_actions(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Step with them; out of their limits they are clipped."""
        rewards, terminated, truncated = self.batch.step(self.actions)
        dones = terminated | truncated
        self._returns += rewards
        observations = self.batch.observations()
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in self.members]
        if not np.count_nonzero(dones):  # far faster than `any` for few environments
            return observations, rewards.astype(np.float32), dones, infos
        elapsed = round(time.time() - self._began, 6)
        for i in np.flatnonzero(dones).tolist():
            infos[i] = {
                "TimeLimit.truncated": not terminated[i],
                "terminal_observation": observations[i].copy(),
                "episode": {
                    "r": round(self._returns[i].item(), 6),
                    "l": self.batch.elapsed[i].item(),
                    "t": elapsed,
                },
            }
        self._restart(dones)
        return self.batch.observations(), rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Nothing is open."""

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """A frame of each environment."""
        return [member.render() for member in self.members]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of each environment; see `Member`."""
        return [getattr(self.members[i], attr_name) for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each environment; see `Member`.

        Raises:
            AttributeError: there is no such attribute that can be set.
            ValueError: the value is impossible, or the attribute is shared by all environments and
                `indices` names only some.
        """
        chosen = list(self._get_indices(indices))
        if not self.members[0].owns(attr_name) and len(set(chosen)) < self.num_envs:
            raise ValueError(
                f"set_attr: {attr_name!r} is shared by all {self.num_envs} environments and cannot "
                f"be set for {chosen} alone"
            )
        for i in chosen:
            setattr(self.members[i], attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method of each environment; see `Member`."""
        members = [self.members[i] for i in self._get_indices(indices)]
        return [getattr(m, method_name)(*method_args, **method_kwargs) for m in members]

    def env_is_wrapped(
        self,
        wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]],
        indices: VecEnvIndices = None,
    ) -> list[bool]:
        """A copy has no wrapper, but does what `Monitor` does."""
        return [issubclass(Monitor, wrapper_class) for _ in self._get_indices(indices)]


def _info_of(infos: dict[str, Any], index: int) -> dict[str, Any]:
    """One environment's part of Gymnasium's vector info."""
    if not infos:
        return {}
    drawn = infos["parameters"]
    return {"parameters": {k: v[index].item() for k, v in drawn.items() if k[0] != "_"}}
