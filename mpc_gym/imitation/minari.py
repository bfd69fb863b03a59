"""Demonstrations from and to Minari data sets (the extra `minari`).

Minari keeps data sets by name, in `~/.minari/datasets` or where `MINARI_DATASETS_PATH` says. Its
files are HDF5 and JSON. Of the environment that made a data set it keeps what `gymnasium.make`
would need, which may name any function of any module: here that is read, and nothing made of it.
"""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete, Space

from mpc_gym.checks import check_instance
from mpc_gym.files import parse_json, read_json
from mpc_gym.imitation.demonstrations import Demonstrations, check_demonstrations

METADATA = "metadata.json"


def write_minari(demonstrations: Demonstrations, dataset_id: str, **metadata: Any) -> None:
    """Make a data set of demonstrations.

    Each episode ends as one that was truncated, since demonstrations do not say why they end.
    Observations and actions are those of spaces without limits.

    Args:
        demonstrations: the episodes.
        dataset_id: the name, such as "pendulum/expert-v0".
        metadata: more that `minari.create_dataset_from_buffers` takes: author, author_email,
            algorithm_name, code_permalink, description.

    Raises:
        ImportError: minari is not installed.
        TypeError: `demonstrations` are none, or the name is no text.
        ValueError: there is a data set of that name, or it is no name for one.
    """
    check_demonstrations("demonstrations", demonstrations)
    minari = _library("write_minari")
    path = _path(dataset_id)
    if path.exists():
        raise ValueError(
            f"dataset_id must be a new one, and there is {path}: choose another name, or remove it "
            f"with `minari delete {dataset_id}`"
        )
    from minari.data_collector import EpisodeBuffer

    buffers = []
    for i in range(demonstrations.episodes):
        episode = demonstrations.select([i])
        ends = np.arange(len(episode)) == len(episode) - 1
        buffers.append(
            EpisodeBuffer(
                id=i,
                observations=np.concatenate((episode.observations, episode.final_observations)),
                actions=episode.actions,
                rewards=episode.rewards,
                terminations=np.zeros_like(ends),
                truncations=ends,
            )
        )
    with warnings.catch_warnings():  # about each entry of the metadata that is left out
        warnings.simplefilter("ignore", UserWarning)
        minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            _Recorded(demonstrations),
            **metadata,
        )


def read_minari(dataset_id: str) -> Demonstrations:
    """The episodes of a data set on this computer, where `minari download` puts it.

    Nothing that it names is run.

    Raises:
        FileNotFoundError: there is none of that name.
        ImportError: minari is not installed.
        TypeError: the name is no text.
        ValueError: its observations or actions are no vectors of numbers, it does not say what
            they are, or it holds no episode.
    """
    minari = _library("read_minari")
    metadata_path = _path(dataset_id) / "data" / METADATA
    if not metadata_path.exists():
        raise FileNotFoundError(
            f"there is no data set {dataset_id} at {metadata_path.parents[1]}: fetch it with "
            f"`minari download {dataset_id}`, or say where it is with MINARI_DATASETS_PATH"
        )
    metadata = read_json(metadata_path)
    if not isinstance(metadata, dict) or not {"observation_space", "action_space"} <= set(metadata):
        # minari would make the environment that the file names, to ask it
        raise ValueError(
            f"{dataset_id} must say what its observations and actions are to be read here: there "
            f"is no observation_space or no action_space in {metadata_path}"
        )
    dataset = minari.load_dataset(dataset_id)
    for name in ("observation_space", "action_space"):
        _check_space(dataset_id, name, getattr(dataset, name))
    episodes = list(dataset.iterate_episodes())
    if not episodes:
        raise ValueError(f"{dataset_id} holds no episode")
    spec = parse_json(metadata.get("env_spec") or "{}")
    return Demonstrations(
        observations=np.concatenate([_rows(each.observations)[:-1] for each in episodes]),
        actions=np.concatenate([_rows(each.actions) for each in episodes]),
        rewards=np.concatenate([each.rewards for each in episodes]),
        episode_lengths=np.array([len(each.rewards) for each in episodes]),
        final_observations=np.stack([_rows(each.observations)[-1] for each in episodes]),
        env_id=str(spec.get("id", "")),
        env_kwargs=dict(spec.get("kwargs") or {}),
    )


class _Recorded(gym.Env[Any, Any]):
    """What Minari asks of the environment that was recorded, none of which is made."""

    def __init__(self, demonstrations: Demonstrations) -> None:
        for name, rows in (
            ("observation_space", demonstrations.observations),
            ("action_space", demonstrations.actions),
        ):
            space = Box(-np.inf, np.inf, rows.shape[1:], rows.dtype)
            setattr(self, name, space)
        self.spec: EnvSpec | None = None
        if not demonstrations.env_id:
            return
        registered = gym.registry.get(demonstrations.env_id)
        entry = None if registered is None else registered.entry_point
        self.spec = EnvSpec(
            demonstrations.env_id,
            entry if isinstance(entry, str) else None,  # a function cannot be written down
            max_episode_steps=None if registered is None else registered.max_episode_steps,
            kwargs=demonstrations.env_kwargs,
        )


def _library(purpose: str) -> Any:
    try:
        import minari
    except ImportError as error:
        raise ImportError(f"{purpose} needs minari: pip install 'mpc-gym[minari]'") from error
    return minari


def _path(dataset_id: object) -> Any:
    """Where Minari keeps the data set of this name."""
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage.datasets_root_dir import get_dataset_path

    check_instance("dataset_id", dataset_id, str, "the name of a data set")
    try:
        parse_dataset_id(dataset_id)
    except (TypeError, ValueError) as error:
        reason = "it has no version" if isinstance(error, TypeError) else error
        raise ValueError(
            f"dataset_id must be such as 'pendulum/expert-v0', got {dataset_id!r}: {reason}"
        ) from error
    return get_dataset_path(dataset_id)


def _check_space(dataset_id: str, name: str, space: Space[Any]) -> None:
    vector = isinstance(space, Box) and len(space.shape) <= 1
    if not (vector or (isinstance(space, Discrete) and name == "action_space")):
        raise ValueError(
            f"{dataset_id} must have a {name} of vectors of numbers (a Box of one dimension; "
            f"actions may be Discrete) to be demonstrations, got {space}: make these from its "
            "episodes yourself, with Demonstrations(...)"
        )


def _rows(values: Any) -> Any:
    array = np.asarray(values)
    return array.reshape(len(array), -1)
