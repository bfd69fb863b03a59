"""What undoes SB3's `VecNormalize(norm_obs=True)`.

It hands a policy (o - mean) / sqrt(variance + epsilon), clipped, with statistics that run on. The
state is found with those that the observation was normalised with: of a step of an environment and
of a batch from a replay buffer, which keeps what the environment gave, these are the present ones.
A rollout buffer keeps what the policy was given; `MPCPolicy` brings that up to date before it
learns from it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn

from mpc_gym.messages import warn


class Normalization(nn.Module):
    """The statistics of `VecNormalize`, which are saved with the policy.

    They follow those of the environment that `follow` was called with, for as long as it runs.

    Args:
        space: of the observations, `Box` or `Dict`.

    Attributes:
        mean, std: [n] of the flattened observation, in the order of the space; 0 and 1 for entries
            that are not normalised.
    """

    mean: Float[Tensor, " n"]
    std: Float[Tensor, " n"]

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        self._shapes = {name: part.shape or () for name, part in parts.items()}
        size = sum(int(np.prod(shape)) for shape in self._shapes.values())
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("std", torch.ones(size, dtype=torch.float64))
        self._statistics: dict[str, Any] = {}
        self._epsilon, self._clip = 0.0, np.inf
        self._warned = False

    def follow(self, envs: VecNormalize) -> None:
        """Undo what these environments do from here on."""
        running = envs.obs_rms
        # Box: one of them, under no name. They are kept, and not the environments, which go into
        # no pickle
        self._statistics = dict(running) if isinstance(running, Mapping) else {"": running}
        self._epsilon, self._clip = envs.epsilon, envs.clip_obs
        self._update()

    def forward(self, observation: PyTorchObs) -> PyTorchObs:
        """The observations in the units of the environment, in their own dtype."""
        self._update()
        if isinstance(observation, Tensor):
            return self._undone("", observation, 0)
        start, undone = 0, {}
        for name, shape in self._shapes.items():
            undone[name] = self._undone(name, observation[name], start)
            start += int(np.prod(shape))
        return undone

    def _undone(self, name: str, value: Tensor, start: int) -> Tensor:
        shape = self._shapes[name]
        if self._statistics and name not in self._statistics:
            return value
        end = start + int(np.prod(shape))
        if not self._warned and bool((value.abs() >= self._clip).any()):
            self._warned = True
            warn(
                f"VecNormalize has clipped an observation (clip_obs={self._clip}), so that plans "
                "start from another state than the environment's: let it clip at more, "
                "VecNormalize(env, clip_obs=1e3)"
            )
        mean, std = (part[start:end].reshape(shape) for part in (self.mean, self.std))
        kind = value.dtype if value.is_floating_point() else mean.dtype
        return (value * std + mean).to(kind)

    def _update(self) -> None:
        start = 0
        for name, shape in self._shapes.items():
            end = start + int(np.prod(shape))
            if name in self._statistics:
                running = self._statistics[name]
                self.mean[start:end] = torch.as_tensor(running.mean).ravel()
                std = np.sqrt(running.var + self._epsilon)
                self.std[start:end] = torch.as_tensor(std).ravel()
            start = end

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        if f"{prefix}mean" not in state_dict:
            errors = args[-1]
            errors.append(
                "the policy that is loaded was made for observations as the environment gives "
                "them, and VecNormalize normalises those of this one: pass it norm_obs=False"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._update()  # a step of the environment may have followed the last plan
        super()._save_to_state_dict(*args, **kwargs)


def renormalize(buffer: RolloutBuffer, given: Mapping[int, PyTorchObs], envs: VecNormalize) -> None:
    """Write the observations of a rollout anew, normalised by the statistics of its end.

    Args:
        buffer: of the rollout.
        given: to each of its positions, the observations in the units of the environment.
        envs: that have normalised them.
    """
    observations: Any = buffer.observations  # an array, or a dict of them
    for position, observation in given.items():
        if isinstance(observation, Tensor):
            slot, values = observations[position], envs.normalize_obs(observation.cpu().numpy())
            slot[...] = np.asarray(values).reshape(slot.shape)
            continue
        arrays = {name: each.cpu().numpy() for name, each in observation.items()}
        normalized: Any = envs.normalize_obs(arrays)
        for name in arrays:
            slot = observations[name][position]
            slot[...] = normalized[name].reshape(slot.shape)
