import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, preprocess_obs

from mpc_gym.envs import EnvBox


@pytest.fixture
def space() -> EnvBox:
    limit = np.array([1.0, 1.0, 8.0], dtype=np.float32)
    return EnvBox(-limit, limit, "DiffPendulum-v0", {"length": 1.2})


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda space: pickle.loads(pickle.dumps(space))]
)
def test_copies_keep_the_name(space: EnvBox, duplicate) -> None:
    other = duplicate(space)
    assert other == space
    assert (other.env_id, other.env_kwargs) == ("DiffPendulum-v0", {"length": 1.2})
    assert other.sample() in space


def test_it_equals_a_plain_box_of_the_same_limits(space: EnvBox) -> None:
    box = gym.spaces.Box(space.low, space.high)
    assert space == box
    assert box == space
    assert space != gym.spaces.Box(2 * space.low, space.high)


def test_it_batches_as_a_box(space: EnvBox) -> None:
    batch = batch_space(space, 4)
    assert batch.shape == (4, 3)
    assert batch == batch_space(gym.spaces.Box(space.low, space.high), 4)


def test_stable_baselines3_preprocesses_it_as_a_box(space: EnvBox) -> None:
    observation = torch.tensor(space.sample())[None]
    assert get_flattened_obs_dim(space) == 3
    assert torch.equal(preprocess_obs(observation, space), observation)


def test_changing_the_arguments_given_does_not_change_the_space() -> None:
    limit = np.ones(3, dtype=np.float32)
    kwargs = {"length": 1.2}
    space = EnvBox(-limit, limit, "DiffPendulum-v0", kwargs)
    kwargs["length"] = 7.0
    assert space.env_kwargs == {"length": 1.2}
