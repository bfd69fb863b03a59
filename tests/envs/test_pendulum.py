import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_match import check_environments_match

import mpc_gym  # noqa: F401


@pytest.fixture
def pair() -> tuple[gym.Env, gym.Env]:
    return gym.make("DiffPendulum-v0"), gym.make("Pendulum-v1")


def test_spaces_are_those_of_pendulum_v1(pair) -> None:
    ours, theirs = pair
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.spec.max_episode_steps == theirs.spec.max_episode_steps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
def test_1000_random_steps_agree_with_pendulum_v1(pair, seed: int, dtype: type) -> None:
    ours, theirs = pair
    rng = np.random.default_rng(seed)
    np.testing.assert_allclose(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0], atol=1e-5)
    for _ in range(1000):
        action = rng.uniform(-2.5, 2.5, 1).astype(dtype)
        observation, reward, *_, truncated, _ = ours.step(action)
        expected, expected_reward, *_, expected_truncated, _ = theirs.step(action)
        np.testing.assert_allclose(observation, expected, atol=1e-5)
        assert reward == pytest.approx(expected_reward, abs=1e-5)
        assert truncated == expected_truncated
        if truncated:
            np.testing.assert_allclose(ours.reset()[0], theirs.reset()[0], atol=1e-5)


def test_gymnasium_finds_it_to_match_pendulum_v1(pair) -> None:
    check_environments_match(*pair, num_steps=1000, seed=0, skip_rew=True, info_comparison="skip")


@pytest.mark.parametrize("gravity", [3.7, 9.81])
def test_gravity_is_pendulum_v1s_g(gravity: float) -> None:
    ours, theirs = gym.make("DiffPendulum-v0", gravity=gravity), gym.make("Pendulum-v1", g=gravity)
    for env in (ours, theirs):
        env.reset(seed=0)
    for _ in range(100):
        action = ours.action_space.sample()
        np.testing.assert_allclose(ours.step(action)[0], theirs.step(action)[0], atol=1e-5)


def test_start_states_cover_the_circle_and_low_speeds() -> None:
    env = gym.make("DiffPendulum-v0")
    env.reset(seed=0)
    states = np.stack([env.reset()[0] for _ in range(500)])
    quadrants = np.unique(np.sign(states[:, :2]), axis=0)
    assert len(quadrants) == 4
    assert 0.9 < np.abs(states[:, 2]).max() <= 1.0


def test_a_start_beyond_the_speed_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must lie between .*8\.0"):
        gym.make("DiffPendulum-v0").reset(options={"state": [1.0, 0.0, 8.5]})
