"""An environment whose episodes end: single, vectorised and Stable-Baselines3's agree."""

from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from mpc_gym.envs import DiffCartPoleEnv, DiffVectorEnv, make_sb3_vec_env

SHORT_TRACK = "ShortTrack-v0"
N = 3
STEPS = 60


class ShortTrackEnv(DiffCartPoleEnv):
    """A cart-pole on a track that ends 0.7 m from its middle."""

    env_id = SHORT_TRACK

    def terminated(self, states):
        return np.abs(states[:, 0]) > 0.7


class ShortTrackVectorEnv(DiffVectorEnv):
    env_class = ShortTrackEnv


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gym.register(SHORT_TRACK, ShortTrackEnv, vector_entry_point=ShortTrackVectorEnv)
    yield
    del gym.registry[SHORT_TRACK]


def actions() -> np.ndarray:
    return np.random.default_rng(0).uniform(-30, 30, (STEPS, N, 1)).astype(np.float32)


def stage_cost(env: gym.Env, state: np.ndarray, action: np.ndarray) -> float:
    return env.unwrapped.cost(torch.tensor(state), torch.tensor(action).double()).item()


LIMITS = pytest.mark.parametrize("max_episode_steps", [5, 7, 1000])


@LIMITS
def test_vector_environments_end_as_single_ones_do(max_episode_steps: int) -> None:
    limit = {"max_episode_steps": max_episode_steps}
    envs = gym.make_vec(SHORT_TRACK, num_envs=N, **limit)
    singles = [gym.make(SHORT_TRACK, **limit) for _ in range(N)]
    envs.reset(seed=3)
    for i, single in enumerate(singles):
        single.reset(seed=3 + i)
    ended = [False] * N
    seen = set()
    for each in actions():
        observations, rewards, terminated, truncated, _ = envs.step(each)
        for i, single in enumerate(singles):
            if ended[i]:
                expected = (single.reset()[0], 0.0, False, False)
            else:
                before = single.unwrapped.state
                expected = single.step(each[i])[:4]
                assert expected[1] == pytest.approx(-stage_cost(single, before, each[i]))
                assert expected[2] == (abs(single.unwrapped.state[0]) > 0.7)
            np.testing.assert_array_equal(observations[i], expected[0])
            assert (rewards[i], terminated[i], truncated[i]) == expected[1:]
            ended[i] = expected[2] or expected[3]
            seen.add(expected[2:])
    assert (True, False) in seen
    assert ((False, True) in seen) == (max_episode_steps < 1000)


@LIMITS
def test_so_do_those_of_stable_baselines3(max_episode_steps: int) -> None:
    limit = {"max_episode_steps": max_episode_steps}
    envs = make_sb3_vec_env(SHORT_TRACK, n_envs=N, seed=3, **limit)
    singles = [gym.make(SHORT_TRACK, **limit) for _ in range(N)]
    envs.reset()
    returns, lengths = np.zeros(N), np.zeros(N, dtype=int)
    for i, single in enumerate(singles):
        single.reset(seed=3 + i)
    for each in actions():
        observations, rewards, dones, infos = envs.step(each)
        for i, single in enumerate(singles):
            observation, reward, terminated, truncated, _ = single.step(each[i])
            returns[i] += reward
            lengths[i] += 1
            assert rewards[i] == np.float32(reward)
            assert dones[i] == (terminated or truncated)
            assert infos[i]["TimeLimit.truncated"] == (truncated and not terminated)
            if dones[i]:
                np.testing.assert_array_equal(infos[i]["terminal_observation"], observation)
                episode = infos[i]["episode"]
                assert episode["r"] == round(returns[i], 6)  # as SB3's Monitor rounds
                assert episode["l"] == lengths[i]
                returns[i] = lengths[i] = 0
                observation, _ = single.reset()
            np.testing.assert_array_equal(observations[i], observation)


def test_reset_of_some_forgets_that_their_episodes_have_ended() -> None:
    envs = gym.make_vec(SHORT_TRACK, num_envs=2)
    envs.reset(seed=0)
    over = np.array([2.0, 0.0, 1.0, 0.0, 0.0])
    envs.set_attr("state", [over, over])
    assert envs.step(np.zeros((2, 1)))[2].all()
    envs.reset(options={"reset_mask": np.array([True, False])})
    _, rewards, terminated, _, _ = envs.step(np.zeros((2, 1)))
    assert rewards[0] != 0.0
    assert rewards[1] == 0.0
    assert not terminated.any()


def test_an_environment_that_never_ends_does_not_terminate() -> None:
    env = gym.make("DiffCartPole-v0").unwrapped
    assert not env.terminated(np.full((4, 5), 1e6)).any()


def test_ppo_trains_where_episodes_end() -> None:
    envs = make_sb3_vec_env(SHORT_TRACK, n_envs=2, seed=0)
    model = PPO("MlpPolicy", envs, n_steps=256, batch_size=256).learn(512)
    assert len(model.ep_info_buffer) > 0
    assert all(episode["l"] < 256 for episode in model.ep_info_buffer)
