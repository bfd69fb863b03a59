"""Physical parameters are attributes that can be set, and the environment moves by them."""

import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import SubprocVecEnv

from mpc_gym import make_mpc, make_sb3_vec_env

PARAMETERS = {
    "DiffPendulum-v0": ["gravity", "mass", "length", "damping", "wind"],
    "DiffPendulumWindy-v0": ["gravity", "mass", "length", "damping", "wind"],
    "DiffCartPole-v0": ["gravity", "cart_mass", "pole_mass", "pole_length"],
    "DiffAcrobot-v0": [
        "gravity",
        "upper_mass",
        "lower_mass",
        "upper_length",
        "upper_centre",
        "lower_centre",
        "upper_inertia",
        "lower_inertia",
        "shoulder_damping",
        "elbow_damping",
    ],
    "DiffPlanarQuadrotor-v0": ["gravity", "mass", "inertia", "arm", "drag"],
    "DiffCar-v0": ["front", "rear", "drag"],
}
EACH = [(env_id, name) for env_id, names in PARAMETERS.items() for name in names]
IDS = [*PARAMETERS]
VALUE = 0.37
STEPS = 12


def actions(env_id: str) -> np.ndarray:
    space = gym.make(env_id).action_space
    apart = space.high / np.arange(1, len(space.high) + 1, dtype=np.float32)  # rotors turn a body
    return np.linspace(-1, 1, STEPS, dtype=np.float32)[:, None] * apart


def fresh(env_id: str, seed: int, **physics: float) -> np.ndarray:
    """What an environment made with these parameters observes."""
    env = gym.make(env_id, **physics)
    return np.stack([env.reset(seed=seed)[0], *(env.step(a)[0] for a in actions(env_id))])


def seen(envs: Any, env_id: str) -> np.ndarray:
    """The observations [time, 2, n_obs] of vectorised environments of either library."""
    first = envs.reset(seed=5)[0] if isinstance(envs, gym.vector.VectorEnv) else envs.reset()
    return np.stack([first, *(envs.step(np.stack((a, a)))[0] for a in actions(env_id))])


def vectors() -> dict[str, Callable[[str], Any]]:
    fork = {"vec_env_cls": SubprocVecEnv, "vec_env_kwargs": {"start_method": "fork"}}
    return {
        "make_vec": lambda env_id: gym.make_vec(env_id, num_envs=2),
        "sync": lambda env_id: gym.make_vec(env_id, num_envs=2, vectorization_mode="sync"),
        "async": lambda env_id: gym.make_vec(env_id, num_envs=2, vectorization_mode="async"),
        "make_sb3_vec_env": lambda env_id: make_sb3_vec_env(env_id, 2, seed=5),
        "dummy": lambda env_id: make_vec_env(env_id, 2, seed=5),
        "subprocess": lambda env_id: make_vec_env(env_id, 2, seed=5, **fork),
    }


@pytest.mark.parametrize(("env_id", "name"), EACH)
def test_a_parameter_that_is_set_is_that_of_an_environment_made_with_it(env_id, name) -> None:
    expected = fresh(env_id, 3, **{name: VALUE})
    by_attribute, by_wrapper = gym.make(env_id), gym.make(env_id)
    setattr(by_attribute.unwrapped, name, VALUE)
    by_wrapper.set_wrapper_attr(name, VALUE)
    for env in (by_attribute, by_wrapper):
        assert env.get_wrapper_attr(name) == env.unwrapped.physics[name] == VALUE
        found = [env.reset(seed=3)[0], *(env.step(a)[0] for a in actions(env_id))]
        np.testing.assert_array_equal(found, expected)
    assert (expected != fresh(env_id, 3)).any()


@pytest.mark.parametrize("kind", vectors())
@pytest.mark.parametrize("env_id", IDS)
def test_a_parameter_can_be_set_in_every_vector_environment(env_id: str, kind: str) -> None:
    gym.make(env_id).reset()  # compiled here, before the fork
    envs = vectors()[kind](env_id)
    try:
        for name in PARAMETERS[env_id]:
            before = list(envs.get_attr(name))
            envs.set_attr(name, VALUE)
            assert list(envs.get_attr(name)) == [VALUE] * 2
            if kind not in {"make_vec", "sync", "async"}:
                envs.seed(5)
            expected = [fresh(env_id, seed, **{name: VALUE}) for seed in (5, 6)]
            np.testing.assert_array_equal(seen(envs, env_id), np.stack(expected, 1))
            assert [p[name] for p in envs.get_attr("physics")] == [VALUE] * 2
            envs.set_attr(name, before[0])
    finally:
        envs.close()


@pytest.mark.parametrize("kind", ["make_vec", "sync", "async", "make_sb3_vec_env", "dummy"])
def test_each_environment_can_have_a_value_of_its_own(kind: str) -> None:
    env_id = "DiffPendulum-v0"
    envs = vectors()[kind](env_id)
    try:
        if kind in {"make_vec", "sync", "async"}:
            envs.set_attr("mass", [1.0, 3.0])
        else:
            envs.set_attr("mass", 3.0, indices=[1])
        found = seen(envs, env_id)
        expected = [fresh(env_id, 5), fresh(env_id, 6, mass=3.0)]
        np.testing.assert_array_equal(found, np.stack(expected, 1))
        assert list(envs.get_attr("mass")) == [1.0, 3.0]
        assert [physics["mass"] for physics in envs.get_attr("physics")] == [1.0, 3.0]
    finally:
        envs.close()


@pytest.mark.parametrize("kind", ["dummy", "make_sb3_vec_env", "make_vec"])
def test_it_counts_from_the_next_step_on(kind: str) -> None:
    env_id = "DiffPendulum-v0"
    envs = vectors()[kind](env_id)
    envs.reset()
    envs.set_attr("mass", 0.5)
    state = envs.get_attr("state")[0]
    found = envs.step(np.ones((2, 1)))[0][0]
    env = gym.make(env_id, mass=0.5)
    env.reset(options={"state": state})
    np.testing.assert_array_equal(found, env.step(np.ones(1))[0])


def test_our_vector_environment_has_the_parameters_as_arrays() -> None:
    envs = gym.make_vec("DiffPendulum-v0", num_envs=2)
    envs.mass = 3.0
    envs.length = np.array([0.5, 2.0])
    assert envs.mass.tolist() == [3.0, 3.0]
    assert envs.length.tolist() == [0.5, 2.0]
    expected = [fresh("DiffPendulum-v0", 5 + i, mass=3.0, length=(0.5, 2.0)[i]) for i in range(2)]
    np.testing.assert_array_equal(seen(envs, "DiffPendulum-v0"), np.stack(expected, 1))
    assert pickle.loads(pickle.dumps(envs)).length.tolist() == [0.5, 2.0]


@pytest.mark.parametrize("value", [-1.0, 0.0, np.nan, np.inf, "heavy", None, [1.0, 2.0]])
def test_an_impossible_value_is_refused_by_name_and_changes_nothing(value) -> None:
    env = gym.make("DiffPendulum-v0").unwrapped
    sb3, vector = make_sb3_vec_env("DiffPendulum-v0", 2), gym.make_vec("DiffPendulum-v0", 2)
    for assign in (
        lambda: setattr(env, "mass", value),
        lambda: env.set_physics({"mass": value}),
        lambda: sb3.set_attr("mass", value),
        lambda: vector.set_attr("mass", [value, value]),
    ):
        with pytest.raises(ValueError, match="mass must be a"):
            assign()
    assert env.mass == 1.0
    assert sb3.get_attr("mass") == [1.0, 1.0]
    assert vector.get_attr("mass") == (1.0, 1.0)


def test_an_impossible_value_left_on_stable_baselines3s_monitor_is_refused_at_the_next_step() -> (
    None
):
    envs = make_vec_env("DiffPendulum-v0", 1)
    envs.reset()
    envs.set_attr("mass", -1.0)
    with pytest.raises(ValueError, match="mass must be a positive number"):
        envs.step(np.zeros((1, 1)))


def outermost() -> dict[str, gym.Env]:
    """An environment in one, two and three wrappers of other people's."""
    env = gym.make("DiffPendulum-v0")
    return {
        "gymnasium.make": env,
        "Monitor": Monitor(env),
        "a wrapper about the Monitor": gym.wrappers.TimeLimit(Monitor(env), 7),
    }


@pytest.mark.parametrize("kind", [*outermost()])
@pytest.mark.parametrize("before_reset", [True, False])
def test_what_is_set_on_the_outermost_wrapper_counts_and_is_read_back(kind, before_reset) -> None:
    env = outermost()[kind]
    if not before_reset:
        env.reset()
    env.mass = 3.0
    assert make_mpc(env).dynamics.mass == 3.0
    env.mass = 2.0
    assert env.get_wrapper_attr("physics")["mass"] == 2.0
    assert env.get_wrapper_attr("mass") == env.unwrapped.mass == 2.0
    env.mass = 3.0
    env.reset(options={"state": [1.0, 0.0, 0.0]})
    (_, _, speed), *_ = env.step([1.0])
    assert speed == pytest.approx(3 / 3.0 * 0.05)


def test_the_attributes_of_a_users_own_wrapper_are_the_users_own() -> None:
    class Longer(gym.Wrapper):
        length = 2.0

    env = Longer(gym.make("DiffPendulum-v0"))
    env.length = 3.0
    env.reset()
    assert env.length == 3.0
    assert env.unwrapped.length == 1.0


@pytest.mark.parametrize("name", ["mas", "np_random", "render_mode", "observation_space"])
def test_what_nobody_would_read_cannot_be_set(name: str) -> None:
    for envs in (make_sb3_vec_env("DiffPendulum-v0", 2), gym.make_vec("DiffPendulum-v0", 2)):
        with pytest.raises(AttributeError, match=f"'{name}' cannot be set; these can: state, grav"):
            envs.set_attr(name, 1.0)
    with pytest.raises(ValueError, match=r"no physical parameter \['mas'\]; there are \['gravity"):
        gym.make("DiffPendulum-v0").unwrapped.set_physics({"mas": 1.0})


def test_our_vector_environment_refuses_the_wrong_number_of_values() -> None:
    envs = gym.make_vec("DiffPendulum-v0", num_envs=2)
    with pytest.raises(ValueError, match="one for each of the 2 environments, got 3"):
        envs.set_attr("mass", [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="'cost' is shared by all environments"):
        envs.set_attr("cost", [envs.cost, envs.dynamics])


def test_modules_of_the_vector_environment_can_be_exchanged() -> None:
    envs = gym.make_vec("DiffPendulum-v0", num_envs=2)
    heavy = gym.make("DiffPendulum-v0", mass=3.0).unwrapped.dynamics
    envs.dynamics = heavy
    assert envs.dynamics is heavy
    expected = [fresh("DiffPendulum-v0", seed, mass=3.0) for seed in (5, 6)]
    np.testing.assert_array_equal(seen(envs, "DiffPendulum-v0"), np.stack(expected, 1))


@pytest.mark.parametrize("env_id", IDS)
def test_a_controllers_model_of_one_environment_has_its_parameters(env_id: str) -> None:
    name = PARAMETERS[env_id][1]
    envs = make_sb3_vec_env(env_id, 2)
    envs.set_attr(name, VALUE, indices=[1])
    models = envs.env_method("nominal_dynamics")
    default = gym.make(env_id).unwrapped.physics[name]
    assert [getattr(model, name).item() for model in models] == [default, VALUE]
    assert envs.get_attr("dynamics")[0].state_dict()[name] == default


def test_a_copy_has_the_parameters_that_were_set() -> None:
    env = gym.make("DiffPendulum-v0")
    env.unwrapped.mass = 3.0
    assert pickle.loads(pickle.dumps(env)).unwrapped.mass == 3.0
    with pytest.raises(AttributeError, match="no attribute 'temperature'"):
        _ = env.unwrapped.temperature


def test_an_environment_does_not_keep_its_monitor_alive() -> None:
    envs = make_vec_env("DiffPendulum-v0", 1)
    envs.reset()
    env, monitor = envs.envs[0].unwrapped, weakref.ref(envs.envs[0])
    del envs
    gc.collect()
    assert monitor() is None
    env.reset(seed=0)
    env.step(np.zeros(1))
    pickle.dumps(env)
