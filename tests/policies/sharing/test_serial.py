"""Constructor arguments and spaces as strict JSON."""

import json
import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim

from mpc_gym.envs.spaces import EnvBox
from mpc_gym.policies.sharing.serial import (
    CLASSES,
    check_env_id,
    decode,
    decode_arguments,
    decode_space,
    encode,
    encode_arguments,
    encode_space,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
numbers = st.booleans() | st.integers() | st.floats(allow_nan=False)
plain_data = st.recursive(
    st.none() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts.filter(lambda key: not key.startswith("$")), inner, max_size=3)
    ),
    max_leaves=10,
)


def kinds(value):
    """The value with its types, which `==` does not tell apart (1 == 1.0 == True)."""
    if isinstance(value, dict):
        return {key: kinds(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [kinds(item) for item in value]
    return type(value), value


@given(plain_data)
def test_plain_data_come_back_through_strict_json(value):
    text = json.dumps(encode("value", value), allow_nan=False)
    assert kinds(decode(json.loads(text))) == kinds(value)


def test_nan_comes_back():
    assert math.isnan(decode(json.loads(json.dumps(encode("value", math.nan), allow_nan=False))))


@pytest.mark.parametrize(
    "value", [np.zeros(2), {1: 2}, {"$float": "inf"}, [nn.Tanh], {"a": {2.0}}, lambda: 1]
)
def test_what_is_no_plain_data_is_refused(value):
    with pytest.raises(TypeError, match="value"):
        encode("value", value)


@pytest.mark.parametrize(
    "data", [{"$float": "1"}, {"$float": "inf", "a": 1}, {"$tuple": 1}, [{"$eval": "1"}]]
)
def test_a_marked_object_that_is_never_written_is_refused(data):
    with pytest.raises(ValueError, match="no value is written as"):
        decode(data)


@pytest.mark.parametrize(
    ("argument", "known"), [(name, each) for name, all_ in CLASSES.items() for each in all_]
)
def test_each_class_of_the_table_comes_back(argument, known):
    assert decode_arguments(encode_arguments({argument: known})) == {argument: known}


def test_a_class_is_known_only_for_the_argument_that_takes_it():
    with pytest.raises(TypeError, match="activation_fn must be one of ELU"):
        encode_arguments({"activation_fn": optim.Adam})
    with pytest.raises(ValueError, match="optimizer_class must be one of Adagrad"):
        decode_arguments({"optimizer_class": "Tanh"})


@pytest.mark.parametrize("env_id", ["DiffPendulum-v0", "DiffCartPole-v0", "DiffPendulumWindy-v0"])
def test_an_environment_with_a_model_is_known_by_its_id(env_id):
    check_env_id("mpc", env_id)


@pytest.mark.parametrize(
    "env_id", ["DiffPendulum", "mpc_gym:DiffPendulum-v0", "os:system", "Pendulum-v1", None, [], 1]
)
def test_anything_else_is_no_environment_to_plan_with(env_id):
    with pytest.raises(ValueError, match="mpc must be"):
        check_env_id("mpc", env_id)


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


def test_a_space_of_several_boxes_is_read_as_written():
    box = Box(-1.0, np.inf, (2,), np.float32)
    space = gym.spaces.Dict(state=box, goal=box)
    data = json.loads(json.dumps(encode_space("space", space), allow_nan=False))
    assert decode_space("space", data) == space


@pytest.mark.parametrize(
    "data",
    [
        {"type": "Dict"},
        {"type": "Dict", "spaces": [1]},
        {"type": "Dict", "spaces": {"a": {"type": "Dict", "spaces": {}}}},
        {"type": "Dict", "spaces": {"a": {"type": "Box"}}},
    ],
)
def test_what_describes_no_such_space_is_refused(data):
    with pytest.raises(ValueError, match="space must describe"):
        decode_space("space", data)


def test_a_picture_is_not_saved_as_no_bound_is_known_of_its_network():
    picture = Box(0, 255, (36, 36, 3), np.uint8)
    with pytest.raises(TypeError, match="must hold no pictures"):
        encode_space("space", gym.spaces.Dict(picture=picture))
    data = {"type": "Dict", "spaces": {"picture": encode_space("space", picture)}}
    with pytest.raises(ValueError, match="space must describe"):
        decode_space("space", data)


def test_a_space_that_is_no_box_is_not_saved():
    with pytest.raises(TypeError, match="space must be a Box"):
        encode_space("space", gym.spaces.Discrete(2))
