import gymnasium as gym
import numpy as np
import pytest

import mpc_gym  # noqa: F401

RANGES = {"mass": (0.5, 2.0), "length": (0.8, 1.2)}


@pytest.fixture
def env() -> gym.Env:
    return gym.make("DiffPendulum-v0")


def test_parameters_are_drawn_from_their_ranges_and_reported(env: gym.Env) -> None:
    drawn = []
    for seed in range(200):
        _, info = env.reset(seed=seed, options={"parameters": RANGES})
        assert {n: env.unwrapped.physics[n] for n in RANGES} == info["parameters"]
        assert all(type(value) is float for value in info["parameters"].values())
        drawn.append([info["parameters"][name] for name in RANGES])
    low, high = np.min(drawn, 0), np.max(drawn, 0)
    np.testing.assert_allclose(low, [0.5, 0.8], atol=0.05)
    np.testing.assert_allclose(high, [2.0, 1.2], atol=0.05)
    assert (low >= [0.5, 0.8]).all()
    assert (high <= [2.0, 1.2]).all()


def test_the_motion_is_that_of_the_drawn_parameters(env: gym.Env) -> None:
    _, info = env.reset(seed=3, options={"parameters": RANGES})
    fixed = gym.make("DiffPendulum-v0", **info["parameters"])
    fixed.reset(seed=3)
    for _ in range(50):
        action = env.action_space.sample()
        np.testing.assert_array_equal(env.step(action)[0], fixed.step(action)[0])


def test_the_same_seed_draws_the_same_parameters_whatever_their_order(env: gym.Env) -> None:
    first = env.reset(seed=1, options={"parameters": RANGES})[1]
    reordered = dict(reversed(RANGES.items()))
    again = gym.make("DiffPendulum-v0").reset(seed=1, options={"parameters": reordered})[1]
    assert first == again


def test_ranges_do_not_change_the_start_state_of_a_seed(env: gym.Env) -> None:
    plain = env.reset(seed=1)[0]
    np.testing.assert_array_equal(plain, env.reset(seed=1, options={"parameters": RANGES})[0])


def test_ranges_hold_for_later_resets_until_others_are_given(env: gym.Env) -> None:
    env.reset(seed=0, options={"parameters": RANGES})
    drawn = [env.reset()[1]["parameters"]["mass"] for _ in range(5)]
    assert len(set(drawn)) == 5
    _, info = env.reset(options={"parameters": {"gravity": (3.0, 4.0)}})
    assert list(info["parameters"]) == ["gravity"]
    assert env.unwrapped.physics["mass"] == env.unwrapped.physics["length"] == 1.0
    assert env.reset(options={"parameters": {}})[1] == {}
    assert env.unwrapped.physics["gravity"] == 10.0


def test_a_number_fixes_a_parameter(env: gym.Env) -> None:
    _, info = env.reset(seed=0, options={"parameters": {"damping": 0.5}})
    assert info == {"parameters": {"damping": 0.5}}


def test_without_ranges_what_a_user_set_stays(env: gym.Env) -> None:
    env.unwrapped.dynamics.mass.data.fill_(2.0)
    assert env.reset(seed=0)[1] == {}
    assert env.unwrapped.physics["mass"] == 2.0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"inertia": (1.0, 2.0)}, r"no parameter \['inertia'\]; there are \['gravity'"),
        ({"mass": (-1.0, 2.0)}, "mass must be a positive number"),
        ({"mass": (1.0, np.inf)}, "mass must be a positive number"),
        ({"mass": (2.0, 1.0)}, "low <= high"),
        ({"mass": (1.0, np.nan)}, "low <= high"),
        ({"mass": (1.0, 2.0, 3.0)}, r"\['mass'\] must be \(low, high\)"),
        ({"mass": "heavy"}, r"\['mass'\] must be \(low, high\)"),
        ([1.0, 2.0], "must be a mapping"),
    ],
)
def test_an_impossible_range_is_refused_and_changes_nothing(env, parameters, message) -> None:
    env.reset(seed=0)
    before = env.unwrapped.physics
    with pytest.raises(ValueError, match=r"options\['parameters'\].*" + message):
        env.reset(options={"parameters": parameters})
    assert env.unwrapped.physics == before


def test_gymnasiums_vector_environments_draw_anew_at_each_automatic_reset() -> None:
    envs = gym.make_vec(
        "DiffPendulum-v0", num_envs=2, vectorization_mode="sync", max_episode_steps=2
    )
    _, first = envs.reset(seed=0, options={"parameters": RANGES})
    for _ in range(3):
        *_, infos = envs.step(envs.action_space.sample())
    assert (infos["parameters"]["mass"] != first["parameters"]["mass"]).all()
