"""Environments with walls and obstacles: what ends an episode, and what plans keep clear of."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from mpc_gym import make_mpc, make_sb3_vec_env
from mpc_gym.imitation import Stateless, collect

OBSTACLE, ROAD = 0.7, 0.5
N = 8


def obstacle_depth(states: np.ndarray) -> np.ndarray:
    """How deep the quadrotor is inside the obstacle."""
    return OBSTACLE - np.hypot(states[..., 0] + 1.5, states[..., 1])


def wall_depth(states: np.ndarray) -> np.ndarray:
    """How far the car's farthest corner is beyond the wall."""
    sideways = 0.25 * np.abs(states[..., 3]) + 0.12 * np.abs(states[..., 2])
    return np.abs(states[..., 1]) + sideways - ROAD


CASES = {
    "DiffPlanarQuadrotor-v0": ({"obstacle": OBSTACLE}, obstacle_depth, 30),
    "DiffCar-v0": ({"road": ROAD}, wall_depth, 40),
}
TOWARDS = {
    "DiffPlanarQuadrotor-v0": [-2.6, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0],
    "DiffCar-v0": [0.0, -0.1, 0.0, 1.0, 0.4],
}
INSIDE = {
    "DiffPlanarQuadrotor-v0": [-1.4, 0.1, 1.0, 0.0, 0.0, 0.0, 0.0],
    "DiffCar-v0": [0.3, 0.4, 1.0, 0.0, 0.0],
}


@pytest.fixture(params=CASES)
def env_id(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("check", [gymnasium_check_env, sb3_check_env])
def test_checkers_pass(env_id: str, check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # the window is tried too
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(gym.make(env_id, render_mode="rgb_array", **CASES[env_id][0]).unwrapped)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 1, messages  # on the range of the action
    assert "normalized" in messages[0]


def test_no_episode_starts_where_a_constraint_is_violated(env_id: str) -> None:
    kwargs, depth, _ = CASES[env_id]
    envs = gym.make_vec(env_id, num_envs=2000, **kwargs)
    envs.reset(seed=0)
    assert depth(envs.states).max() < 0.0
    assert np.abs(envs.states[:, 1]).max() > 0.1
    with pytest.raises(ValueError, match=r"options\['state'\] must be o.* the .*, got \["):
        envs.reset(options={"state": INSIDE[env_id]})


def test_an_episode_ends_with_a_step_into_it_which_costs_2000_more(env_id: str) -> None:
    kwargs, depth, _ = CASES[env_id]
    env = gym.make(env_id, **kwargs)
    env.action_space.seed(0)
    hit = 0
    for seed in range(20):
        env.reset(seed=seed, options={"state": TOWARDS[env_id]} if seed % 2 else None)
        action, terminated, truncated = env.action_space.sample(), False, False
        while not (terminated or truncated):
            state = torch.tensor(env.unwrapped.state)
            _, reward, terminated, truncated, _ = env.step(action)
            assert terminated == (depth(env.unwrapped.state) > 2e-6)
            cost = env.unwrapped.cost(state, torch.tensor(action).double()).item()
            assert reward == pytest.approx(-cost - 2000.0 * terminated)
            action = action if env.np_random.random() < 0.9 else env.action_space.sample()
        hit += terminated
    assert 5 <= hit


def test_vector_environments_make_the_episodes_of_single_ones(env_id: str) -> None:
    kwargs, _, _ = CASES[env_id]
    envs = gym.make_vec(env_id, num_envs=N, **kwargs)
    theirs = make_sb3_vec_env(env_id, N, seed=3, **kwargs)
    singles = [gym.make(env_id, **kwargs) for _ in range(N)]
    first, _ = envs.reset(seed=3)
    np.testing.assert_array_equal(first, theirs.reset())
    np.testing.assert_array_equal(first, [s.reset(seed=3 + i)[0] for i, s in enumerate(singles)])
    start = {"state": TOWARDS[env_id]}
    envs.reset(options=start)
    theirs.set_options(start)
    theirs.reset()
    for single in singles:
        single.reset(options=start)
    envs.action_space.seed(0)
    actions = envs.action_space.sample()
    running, ended = np.ones(N, bool), 0
    for _ in range(200):
        found, rewards, terminated, truncated, _ = envs.step(actions)
        _, sb3_rewards, dones, infos = theirs.step(actions)
        for i in np.flatnonzero(running):
            observation, reward, end, cut, _ = singles[i].step(actions[i])
            np.testing.assert_array_equal(found[i], observation)
            assert (rewards[i], terminated[i], truncated[i]) == (reward, end, cut)
            assert dones[i] == (end or cut)
            assert sb3_rewards[i] == pytest.approx(reward, rel=1e-6)
            if end:
                np.testing.assert_array_equal(infos[i]["terminal_observation"], observation)
                assert infos[i]["TimeLimit.truncated"] is False
            ended += end
            running[i] = not (end or cut)
    assert ended >= 2


def test_plans_of_the_expert_keep_clear_of_it_and_reach_the_goal(env_id: str) -> None:
    kwargs, depth, horizon = CASES[env_id]
    env = gym.make(env_id, **kwargs)
    mpc = make_mpc(env, horizon, learn=(), starts=8)
    without = make_mpc(env_id, horizon, learn=(), starts=8)
    envs = gym.make_vec(env_id, num_envs=12, **kwargs)
    observations, _ = envs.reset(seed=0)
    free = without(torch.tensor(observations).double())
    assert depth(free.states.detach().numpy()).max() > 0.05  # it is in the way
    for _ in range(100):
        plan = mpc(torch.tensor(observations).double())
        assert depth(plan.states[plan.converged].detach().numpy()).max() < 1e-5
        observations, _, terminated, *_ = envs.step(plan.controls[:, 0].detach().numpy())
        assert not terminated.any()
    assert np.linalg.norm(envs.states[:, :2], axis=-1).max() < 0.1


def test_policies_and_experts_know_of_it_by_the_observation_space(env_id: str) -> None:
    kwargs, depth, horizon = CASES[env_id]
    env = gym.make(env_id, **kwargs)
    ((name, value),) = kwargs.items()
    assert env.observation_space.env_kwargs[name] == value
    mpc = make_mpc(env.observation_space, horizon, learn=(), starts=8, max_iterations=50)
    assert str(mpc.constraints) == str(env.unwrapped.constraints)
    found = collect(Stateless(mpc), gym.make(env_id, **kwargs), 3, 0, progress_bar=False)
    assert depth(found.observations).max() < 1e-5


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("DiffPlanarQuadrotor-v0", {"obstacle": 0.91}, "obstacle must"),
        ("DiffCar-v0", {"road": 0.39}, "road must be at least 0.4 m"),
    ],
)
def test_what_leaves_no_room_is_refused(env_id: str, kwargs, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make(env_id, **kwargs)
