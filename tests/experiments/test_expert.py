"""The expert's episodes are collected once, and kept."""

from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest

from mpc_gym.experiments.expert import LEARN, ExpertFiles
from mpc_gym.experiments.methods import MethodOptions
from mpc_gym.imitation import Demonstrations

TRACKED = "Tracked-v0"


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    entry = "mpc_gym.envs.cartpole:DiffCartPole"
    gym.register(
        TRACKED,
        f"{entry}Env",
        vector_entry_point=f"{entry}VectorEnv",
        kwargs={"track": 0.6},
        max_episode_steps=40,
    )
    yield
    del gym.registry[TRACKED]


def test_the_file_of_an_environment_registered_with_arguments_is_read_again(tmp_path) -> None:
    files = ExpertFiles(tmp_path, TRACKED, MethodOptions(horizon=12), None)
    first = files.episodes(LEARN, 2)
    again = files.episodes(LEARN, 3)
    np.testing.assert_array_equal(again.select(range(2)).observations, first.observations)
    assert again.env_kwargs == {"track": 0.6}
    assert (again.episode_lengths == 40).all()  # it keeps to the track
    assert np.abs(again.observations[:, 0]).max() < 0.6 + 1e-6


def test_the_file_of_another_track_is_refused(tmp_path) -> None:
    files = ExpertFiles(tmp_path, TRACKED, MethodOptions(horizon=12), None)
    files.episodes(LEARN, 1)
    (path,) = tmp_path.glob("*.npz")
    content = Demonstrations.load(path)
    content.env_kwargs["track"] = 2.4
    content.save(path)
    with pytest.raises(ValueError, match=r"holds demonstrations of Tracked-v0 \{'track': 2.4\}"):
        files.episodes(LEARN, 1)
