"""Spaces as strict JSON."""

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box

from mpc_gym.envs.spaces import EnvBox
from mpc_gym.policies.sharing.spaces import decode_space, encode_space


def round_trip(space: Box) -> Box:
    text = json.dumps(encode_space("space", space), allow_nan=False)
    return decode_space("space", json.loads(text))


@pytest.mark.parametrize(
    "space",
    [
        Box(-np.inf, np.inf, (3,), np.float32),
        Box(np.array([-np.inf, -0.1, 1e-45]), np.array([1 / 3, np.inf, 1.0]), dtype=np.float64),
        Box(np.float32([-0.1, -8.0]), np.float32([0.1, 8.0])),
        Box(0, 255, (2, 3, 1), np.uint8),
        Box(-1.0, 1.0, (), np.float32),
        gym.make("Pendulum-v1").observation_space,
    ],
)
def test_a_box_comes_back_to_the_last_bit(space):
    back = round_trip(space)
    assert type(back) is Box
    assert (back.shape, back.dtype) == (space.shape, space.dtype)
    np.testing.assert_array_equal(back.low, space.low)
    np.testing.assert_array_equal(back.high, space.high)
    assert back.is_bounded() == space.is_bounded()


def test_the_observation_space_of_our_environments_keeps_its_name_and_physics():
    space = gym.make("DiffPendulum-v0", gravity=9.81, mass=1 / 3).observation_space
    back = round_trip(space)
    assert isinstance(back, EnvBox)
    assert back == space
    assert (back.env_id, back.env_kwargs) == (space.env_id, space.env_kwargs)


@pytest.mark.parametrize(
    "change",
    [
        {"low": ["a", "b"]},
        {"low": [2.0, 2.0]},
        {"low": [{"$float": "nan"}, 0.0]},
        {"low": [0.0]},
        {"low": None},
        {"high": [[1.0], [1.0, 2.0]]},
        {"shape": "two"},
        {"shape": [3]},
        {"dtype": "object"},
        {"dtype": ["float32"]},
        {"type": ["Box"]},
        {"type": "EnvBox"},
        {"type": "EnvBox", "env_id": "DiffPendulum-v0", "env_kwargs": []},
    ],
)
def test_what_describes_no_box_is_refused(change):
    data = encode_space("space", Box(-1.0, 1.0, (2,), np.float32))
    assert decode_space("space", data) == Box(-1.0, 1.0, (2,), np.float32)
    with pytest.raises(ValueError, match="space must describe a Box or an EnvBox"):
        decode_space("space", {**data, **change})


@pytest.mark.parametrize("data", [None, [], "Box", {}, {"type": "Box"}])
def test_what_is_no_description_at_all_is_refused(data):
    with pytest.raises(ValueError, match="space must describe a Box or an EnvBox"):
        decode_space("space", data)


def test_a_space_that_is_no_box_is_not_saved():
    with pytest.raises(TypeError, match="space must be a Box"):
        encode_space("space", gym.spaces.Discrete(2))
