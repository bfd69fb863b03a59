import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

import mpc_gym  # noqa: F401


def test_a_push_moves_it_as_gymnasiums_cartpole() -> None:
    """Gymnasium's equations, with our time step and force; its force is always at full strength."""
    theirs = CartPoleEnv()
    theirs.tau = 0.05
    ours = gym.make("DiffCartPole-v0").unwrapped
    rng = np.random.default_rng(0)
    for _ in range(200):
        x, x_dot, speed = rng.uniform(-3, 3, 3)
        theta = rng.uniform(-np.pi, np.pi)
        force = rng.uniform(-100, 100)
        theirs.reset()
        theirs.state = (x, x_dot, theta, speed)
        theirs.force_mag = abs(force)
        expected = theirs.step(int(force > 0))[0]
        ours.reset(options={"state": [x, x_dot, np.cos(theta), np.sin(theta), speed]})
        observation = ours.step(np.array([force]))[0]
        np.testing.assert_allclose(observation[[0, 1, 4]], expected[[0, 1, 3]], rtol=1e-5)
        np.testing.assert_allclose(
            observation[2:4], [np.cos(expected[2]), np.sin(expected[2])], atol=1e-6
        )


def test_the_reward_is_the_documented_formula() -> None:
    env = gym.make("DiffCartPole-v0").unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for force in rng.uniform(-150, 150, 50):
        x, x_dot, cosine, _, speed = env.state
        reward = env.step(np.array([force]))[1]
        applied = np.clip(force, -100, 100)
        moving = 0.05 * (x**2 + x_dot**2 + speed**2)
        assert reward == pytest.approx(cosine - 0.5 - moving - 0.0005 * applied**2)


def test_the_best_reward_is_a_half_upright_and_at_rest() -> None:
    env = gym.make("DiffCartPole-v0")
    env.reset(options={"state": [0.0, 0.0, 1.0, 0.0, 0.0]})
    assert env.step(np.zeros(1))[1] == pytest.approx(0.5)


def test_start_states_are_drawn_as_in_the_paper() -> None:
    env = gym.make("DiffCartPole-v0")
    env.reset(seed=0)
    states = np.stack([env.reset()[0] for _ in range(1000)])
    for column, limit in [(0, 0.5), (1, 0.5), (4, 1.0)]:
        assert 0.95 * limit < np.abs(states[:, column]).max() <= limit
        assert abs(states[:, column].mean()) < 0.1 * limit
    angles = np.arctan2(states[:, 3], states[:, 2])
    counts, _ = np.histogram(angles, bins=8, range=(-np.pi, np.pi))
    assert counts.min() > 90


def test_both_spellings_are_one_environment() -> None:
    one, other = gym.make("DiffCartPole-v0"), gym.make("DiffCartpole-v0")
    assert type(one.unwrapped) is type(other.unwrapped)
    assert one.observation_space.env_id == other.observation_space.env_id


def test_the_hardest_pushes_do_not_blow_it_up() -> None:
    env = gym.make("DiffCartPole-v0").unwrapped
    env.reset(seed=0)
    for _ in range(1000):
        _, _, cosine, _, speed = env.state
        observation, *_ = env.step(np.array([-100.0 * np.sign(cosine * speed)]))
    assert np.isfinite(observation).all()
    assert observation in env.observation_space
