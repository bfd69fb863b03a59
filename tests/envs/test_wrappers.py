"""The environments in the company of Gymnasium's wrappers and of other processes."""

import gc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv
from torch import nn

from mpc_gym.envs import DiffEnv
from tests.envs.systems import IDS
from tests.killing import needs_fork


@pytest.fixture(params=IDS)
def env_id(request: pytest.FixtureRequest) -> str:
    return request.param


def actions(env_id: str, steps: int) -> np.ndarray:
    space = gym.make(env_id).action_space
    space.seed(0)
    return np.stack([space.sample() for _ in range(steps)])


def episode(env: gym.Env, sequence: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Observations and rewards."""
    observations, rewards = [env.reset(seed=seed)[0]], []
    for action in sequence:
        observation, reward, *_ = env.step(action)
        observations.append(observation)
        rewards.append(reward)
    return np.stack(observations), np.array(rewards)


def test_episode_statistics_are_the_sum_and_number_of_rewards(env_id: str) -> None:
    env = gym.wrappers.RecordEpisodeStatistics(gym.make(env_id, max_episode_steps=20))
    env.reset(seed=0)
    rewards = []
    for action in actions(env_id, 20):
        _, reward, _, truncated, info = env.step(action)
        rewards.append(reward)
    assert truncated
    assert info["episode"]["l"] == 20
    assert info["episode"]["r"] == pytest.approx(sum(rewards))


def test_observations_and_rewards_can_be_transformed(env_id: str) -> None:
    sequence = actions(env_id, 30)
    observations, rewards = episode(gym.make(env_id), sequence)
    doubled = gym.wrappers.TransformReward(gym.make(env_id), lambda reward: 2 * reward)
    np.testing.assert_array_equal(episode(doubled, sequence)[1], 2 * rewards)
    normalised = gym.wrappers.NormalizeObservation(gym.make(env_id))
    scaled, _ = episode(normalised, sequence)
    assert np.isfinite(scaled).all()
    assert scaled.shape == observations.shape


def test_actions_in_a_normalised_range_reach_the_limits(env_id: str) -> None:
    limit = gym.make(env_id).action_space.high
    rescaled = gym.wrappers.RescaleAction(gym.make(env_id), np.float32(-1), np.float32(1))
    _, expected = episode(gym.make(env_id), [limit])
    np.testing.assert_array_equal(episode(rescaled, [np.ones_like(limit)])[1], expected)


def test_other_processes_make_the_same_episodes(env_id: str) -> None:
    sequence = actions(env_id, 10)
    expected, _ = episode(gym.make(env_id), sequence, seed=1)  # compiled here, before the fork
    envs = gym.make_vec(env_id, num_envs=2, vectorization_mode="async")
    try:
        found = [envs.reset(seed=0)[0][1]]
        found += [envs.step(np.stack((action, action)))[0][1] for action in sequence]
    finally:
        envs.close()
    np.testing.assert_array_equal(found, expected)


def test_stable_baselines3s_processes_make_the_same_episodes() -> None:
    env_id = "DiffPendulum-v0"
    sequence = actions(env_id, 10)
    expected, _ = episode(gym.make(env_id), sequence, seed=1)
    envs = make_vec_env(
        env_id, n_envs=2, seed=0, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}
    )
    try:
        found = [envs.reset()[1]]
        found += [envs.step(np.stack((action, action)))[0][1] for action in sequence]
    finally:
        envs.close()
    np.testing.assert_array_equal(found, expected)


def test_threads_do_not_disturb_each_other(env_id: str) -> None:
    sequence = actions(env_id, 200)
    expected = [episode(gym.make(env_id), sequence, seed)[0] for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda seed: episode(gym.make(env_id), sequence, seed)[0], range(4))
    np.testing.assert_array_equal(list(found), expected)


def test_environments_leave_no_object_behind(env_id: str) -> None:
    def alive_after_using(count: int) -> int:
        for _ in range(count):
            env = gym.make(env_id)
            env.reset(seed=0)
            env.step(env.action_space.high)
            env.close()
        del env
        gc.collect()
        alive = Counter(map(type, gc.get_objects()))
        kinds = (DiffEnv, nn.Module, np.ndarray)
        return sum(count for kind, count in alive.items() if issubclass(kind, kinds))

    assert alive_after_using(30) == alive_after_using(3)


@needs_fork
@pytest.mark.slow
def test_ten_thousand_environments_leave_no_memory_behind() -> None:
    import resource

    def use(count: int) -> int:
        for _ in range(count):
            env = gym.make("DiffPendulum-v0")
            env.reset(seed=0)
            env.step(env.action_space.high)
            env.close()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = use(500)  # [kB]
    assert use(10_000) - before < 10_000
