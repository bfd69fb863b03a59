"""Gusts: a force whose statistics are those that its words say, the same for every agent."""

import gymnasium as gym
import numpy as np
import pytest

from benchmarks import gusts
from mpc_gym.imitation import RandomAgent, evaluate

NOMINAL = "DiffPlanarQuadrotor-v0"


def flown(source, steps=40, seed=3, **options):
    """The observations of an episode without any action."""
    env = gym.make(source, **options)
    seen = [env.reset(seed=seed)[0]]
    seen += [env.step(np.zeros(2))[0] for _ in range(steps)]
    return np.array(seen)


def test_without_a_force_it_is_the_nominal_quadrotor():
    np.testing.assert_array_equal(flown(gusts.SPEC, gust=0.0), flown(NOMINAL))


def test_the_same_seed_has_the_same_start_and_gusts_and_another_has_others():
    once, again = (flown(gusts.SPEC, gust=2.0) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    other = flown(gusts.SPEC, gust=2.0, seed=4)
    assert not np.allclose(once - once[0], other - other[0])
    np.testing.assert_array_equal(once[0], flown(NOMINAL, steps=0)[0])


def test_the_force_is_as_strong_and_lasts_as_long_as_it_says():
    env = gym.make(gusts.SPEC, gust=2.0).unwrapped
    env.reset(seed=0)
    forces = []
    for _ in range(20_000):
        env.step(np.zeros(2))
        forces.append(env._force)
    force = np.array(forces)
    lag = round(gusts.LASTING / env.time_step)
    assert force.std(0) == pytest.approx(2.0, rel=0.1)
    correlation = (force[:-lag] * force[lag:]).mean(0) / force.var(0)
    assert correlation == pytest.approx(np.exp(-1), abs=0.1)


def test_the_velocity_changes_by_force_over_mass():
    env = gym.make(gusts.SPEC, gust=2.0, mass=0.5, drag=0.0).unwrapped
    still = gym.make(NOMINAL, mass=0.5, drag=0.0).unwrapped
    env.reset(seed=1), still.reset(seed=1)
    change = env.step(np.zeros(2))[0] - still.step(np.zeros(2))[0]
    assert change[4:6] == pytest.approx(env.time_step * env._force / 0.5, abs=1e-5)


def test_an_agent_is_scored_in_gusts():
    env = gym.make(NOMINAL)
    calm, windy = (
        evaluate(RandomAgent(env, seed=0), each, range(2), max_steps=20).returns
        for each in (env, gym.make(gusts.SPEC, gust=3.0))
    )
    assert np.all(calm != windy)


def test_a_force_below_nothing_is_refused():
    with pytest.raises(ValueError, match="gust must be"):
        gym.make(gusts.SPEC, gust=-1.0)
