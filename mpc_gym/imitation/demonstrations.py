"""What an expert did: episodes of observations, actions and rewards, kept in one file."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray
from torch import Tensor

from mpc_gym.checks import (
    check_instance,
    check_number,
    check_path,
    check_seed,
    check_size,
    found,
)
from mpc_gym.files import open_regular, parse_json
from mpc_gym.imitation.npz import MAX_BYTES, read_npz, write_npz

FORMAT = "mpc_gym.demonstrations"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Demonstrations:
    """Episodes, one after the other, N time steps in E episodes.

    Arrays may be given as lists or tensors; they are kept as arrays, integers in floating point.

    Args:
        observations: [N, n_obs], what the expert saw before each action.
        actions: [N, n_act], in the units of the environment.
        rewards: [N].
        episode_lengths: [E], positive, with sum N.
        final_observations: [E, n_obs], what followed the last action of each episode.
        env_id: the environment's id.
        env_kwargs: the arguments it was made with, as JSON can hold them.

    Raises:
        TypeError: the environment's id is no text, or its arguments are no mapping.
        ValueError: the shapes do not fit each other, a number is not finite, or what should be
            numbers is not.
    """

    observations: Float[NDArray[np.floating], "steps n_obs"]
    actions: Float[NDArray[np.floating], "steps n_act"]
    rewards: Float[NDArray[np.floating], " steps"]
    episode_lengths: Int[NDArray[np.integer], " episodes"]
    final_observations: Float[NDArray[np.floating], "episodes n_obs"]
    env_id: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            self.__dict__[name] = _as_array(name, getattr(self, name))
        steps, n_obs = _rows_columns("observations", self.observations)
        _, n_act = _rows_columns("actions", self.actions)
        _check_lengths(self.episode_lengths, steps)
        expected = {
            "actions": (steps, n_act),
            "rewards": (steps,),
            "final_observations": (self.episodes, n_obs),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(
                    f"{name} must have shape {list(shape)} to fit observations "
                    f"{list(self.observations.shape)} and {self.episodes} episodes, got "
                    f"{list(found)}"
                )
        for name in _NUMBERS:
            self.__dict__[name] = _as_floating(name, getattr(self, name))
        # NumPy counts with no unsigned integers of 64 bits
        self.__dict__["episode_lengths"] = self.episode_lengths.astype(np.int64)
        check_instance("env_id", self.env_id, str, "the id of an environment")
        check_instance("env_kwargs", self.env_kwargs, dict, "a dict from name to value")

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{name}={list(array.shape)} {array.dtype}"
            for name, array in (("observations", self.observations), ("actions", self.actions))
        )
        return (
            f"Demonstrations(env_id={self.env_id!r}, env_kwargs={self.env_kwargs!r}, "
            f"episodes={self.episodes}, steps={len(self)}, "
            f"mean return={self.returns.mean():.6g}, {sizes})"
        )

    @property
    def episodes(self) -> int:
        """Number of episodes E."""
        return len(self.episode_lengths)

    def __len__(self) -> int:
        """Number of time steps N."""
        return len(self.observations)

    @property
    def returns(self) -> Float[NDArray[np.floating], " episodes"]:
        """The sum of rewards of each episode."""
        return np.add.reduceat(self.rewards, self._starts)

    @property
    def next_observations(self) -> Float[NDArray[np.floating], "steps n_obs"]:
        """What was observed after each action."""
        following = np.empty_like(self.observations)
        following[:-1] = self.observations[1:]
        following[np.cumsum(self.episode_lengths) - 1] = self.final_observations
        return following

    @property
    def _starts(self) -> Int[NDArray[np.integer], " episodes"]:
        starts: NDArray[np.integer] = np.cumsum(self.episode_lengths) - self.episode_lengths
        return starts

    def action_windows(
        self, horizon: int
    ) -> tuple[
        Float[NDArray[np.floating], "steps horizon n_act"],
        Bool[NDArray[np.bool_], "steps horizon"],
    ]:
        """The next `horizon` actions from each time step, and where they exist.

        Past the end of an episode the mask is false and the action zero.

        Raises:
            ValueError: `horizon` is no positive integer.
        """
        check_size("horizon", horizon)
        ends = np.repeat(np.cumsum(self.episode_lengths), self.episode_lengths)
        index = np.arange(len(self))[:, None] + np.arange(horizon)
        mask = index < ends[:, None]
        windows = self.actions[np.where(mask, index, 0)]
        return windows * mask[..., None].astype(windows.dtype), mask

    def select(self, episodes: Sequence[int] | NDArray[np.integer]) -> "Demonstrations":
        """Some of the episodes, in the order given (negative numbers count from the end).

        Raises:
            ValueError: `episodes` are no numbers of episodes, or there is none of such a number.
        """
        numbers = np.asarray(episodes if isinstance(episodes, np.ndarray) else [*episodes])
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise ValueError(f"episodes must be a list of integers, got {found(episodes)}")
        if np.any((numbers < -self.episodes) | (numbers >= self.episodes)):
            raise ValueError(
                f"episodes must be numbers of the {self.episodes} episodes, got {found(episodes)}"
            )
        chosen = np.arange(self.episodes)[numbers.astype(int)]
        starts = self._starts
        steps = np.concatenate(
            [np.arange(starts[e], starts[e] + self.episode_lengths[e]) for e in chosen]
            or [np.empty(0, dtype=int)]
        )
        return Demonstrations(
            observations=self.observations[steps],
            actions=self.actions[steps],
            rewards=self.rewards[steps],
            episode_lengths=self.episode_lengths[chosen],
            final_observations=self.final_observations[chosen],
            env_id=self.env_id,
            env_kwargs=self.env_kwargs,
        )

    def split(self, fraction: float, seed: int) -> tuple["Demonstrations", "Demonstrations"]:
        """Whole episodes at random: the rest, and `fraction` of them (at least one) held out.

        A single episode is cut: `fraction` of its steps (at least one), the last, are held out.

        Raises:
            ValueError: `fraction` is not between 0 and 1, or there is only one step.
        """
        check_number("fraction", fraction, above=0.0, below=1.0)
        check_seed("seed", seed)
        if self.episodes == 1:
            return self._cut(len(self) - max(1, round(fraction * len(self))))
        held_out = min(max(1, round(fraction * self.episodes)), self.episodes - 1)
        order = np.random.default_rng(seed).permutation(self.episodes)
        return self.select(np.sort(order[held_out:])), self.select(np.sort(order[:held_out]))

    def _cut(self, step: int) -> tuple["Demonstrations", "Demonstrations"]:
        """A single episode as two, the second of which begins with this step."""
        if len(self) < 2:
            raise ValueError("demonstrations must have at least 2 steps to be split, got 1")
        step = max(1, step)
        ends = (self.observations[step : step + 1], self.final_observations)
        parts = [
            Demonstrations(
                observations=self.observations[part],
                actions=self.actions[part],
                rewards=self.rewards[part],
                episode_lengths=np.array([len(self.rewards[part])]),
                final_observations=end,
                env_id=self.env_id,
                env_kwargs=self.env_kwargs,
            )
            for part, end in zip((slice(step), slice(step, None)), ends, strict=True)
        ]
        return parts[0], parts[1]

    def fingerprint(self) -> str:
        """A hash of the content: equal for equal demonstrations."""
        digest = hashlib.sha256(_metadata(self).encode())
        for name in _ARRAYS:
            array = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one `.npz` file, whole or not at all.

        Raises:
            OSError: the file cannot be written; the disk is full, for instance.
            TypeError: `env_kwargs` is not JSON.
            ValueError: the file would be larger than 4 GiB.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        write_npz(check_path("path", path), {"metadata": np.array(_metadata(self)), **arrays})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Demonstrations":
        """Read what `save` wrote. Nothing in the file is run.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, something else, or of a newer version.
        """
        path = check_path("path", path)
        content = _read(path)
        metadata = _parse_metadata(path, content)
        missing = [name for name in _ARRAYS if name not in content]
        if missing:
            raise ValueError(f"{path} is damaged: it holds no {', '.join(missing)}")
        arrays = {name: content[name] for name in _ARRAYS}
        try:
            return cls(**arrays, env_id=metadata["env_id"], env_kwargs=metadata["env_kwargs"])
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error


def check_demonstrations(name: str, value: object) -> None:
    """Refuse what is no `Demonstrations`.

    Raises:
        TypeError: it is none.
    """
    check_instance(
        name, value, Demonstrations, "a Demonstrations, as collect and Demonstrations.load give it"
    )


def concatenate(parts: Sequence[Demonstrations]) -> Demonstrations:
    """All episodes of several demonstrations of one environment.

    Raises:
        ValueError: there are none, or their environments or shapes differ.
    """
    check_instance("parts", parts, (list, tuple), "a list of Demonstrations")
    if not parts:
        raise ValueError("parts must hold at least one Demonstrations, got none")
    for i, part in enumerate(parts):
        check_demonstrations(f"parts[{i}]", part)
    first = parts[0]
    for part in parts[1:]:
        if _metadata(part) != _metadata(first):
            raise ValueError(
                "demonstrations of different environments cannot be put together: "
                f"{first.env_id} {first.env_kwargs} and {part.env_id} {part.env_kwargs}"
            )
    arrays = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _ARRAYS}
    return Demonstrations(**arrays, env_id=first.env_id, env_kwargs=first.env_kwargs)


_ARRAYS = ("observations", "actions", "rewards", "episode_lengths", "final_observations")


_NUMBERS = ("observations", "actions", "rewards", "final_observations")


def _as_floating(name: str, array: NDArray[Any]) -> NDArray[np.floating]:
    """Finite numbers of a kind that PyTorch has too."""
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be real numbers, got {array.dtype}")
    known = array.dtype.kind == "f" and array.dtype.itemsize <= np.dtype(np.float64).itemsize
    kind = array.dtype.newbyteorder("=") if known else np.dtype(np.float64)
    floating: NDArray[np.floating] = array.astype(kind, copy=False)
    if not np.isfinite(floating).all():
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in row "
            f"{int(np.argwhere(~np.isfinite(floating))[0, 0])}"
        )
    return floating


def _check_lengths(lengths: NDArray[Any], steps: int) -> None:
    """Refuse lengths that do not part the steps; none is summed that could make the sum wrap."""
    fit = lengths.ndim == 1 and lengths.dtype.kind in "iu" and len(lengths) <= steps
    if not (fit and np.all(lengths >= 1) and np.all(lengths <= steps) and lengths.sum() == steps):
        raise ValueError(
            f"episode_lengths must be positive integers and sum to the {steps} observations, got "
            f"{np.array2string(lengths, threshold=20, separator=', ')}"
        )


def _as_array(name: str, value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    except (RuntimeError, TypeError, ValueError) as error:  # rows of different lengths
        raise ValueError(f"{name} must be an array, or lists that make one: {error}") from error


def _rows_columns(name: str, array: NDArray[Any]) -> tuple[int, int]:
    if array.ndim != 2 or len(array) == 0:
        raise ValueError(
            f"{name} must be [steps, columns] with at least one step, got {list(array.shape)}"
        )
    return array.shape[0], array.shape[1]


def _metadata(demonstrations: Demonstrations) -> str:
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "env_id": demonstrations.env_id,
        "env_kwargs": demonstrations.env_kwargs,
    }
    return json.dumps(content, sort_keys=True)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    if not path.exists():
        raise FileNotFoundError(f"there is no file of demonstrations at {path}")
    with open_regular(path, MAX_BYTES) as file:
        if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
            raise ValueError(f"{path} holds no demonstrations: it is a single array")
    return read_npz(path)


def _parse_metadata(path: Path, content: dict[str, NDArray[Any]]) -> dict[str, Any]:
    try:
        metadata = parse_json(str(content["metadata"]))
        if metadata["format"] != FORMAT:
            raise KeyError(FORMAT)
        version = int(metadata["version"])
        known = isinstance(metadata["env_id"], str) and isinstance(metadata["env_kwargs"], dict)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} holds no demonstrations of this project") from error
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, this version of mpc_gym reads up to "
            f"{FORMAT_VERSION}. Update mpc_gym"
        )
    if not known:
        raise ValueError(f"{path} is damaged: it names no environment")
    return dict(metadata)
