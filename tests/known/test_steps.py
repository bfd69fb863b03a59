"""The written models take the steps of the simulators, from random states under random actions."""

import os

os.environ.setdefault("MUJOCO_GL", "disabled")

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import shimmy
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpc_gym.known import KNOWN, known_environment

gym.register_envs(shimmy)

STATES = 100
ERROR = 1e-9  # of a state after a step
# Of InvertedDoublePendulum the XML has gravity pull sideways with 1e-5 m/s^2, which is left out;
# MountainCarContinuous keeps its state in float32.
LARGER_ERRORS = {"InvertedDoublePendulum-v5": 1e-6, "MountainCarContinuous-v0": 1e-7}

Array = NDArray[np.float64]
Pair = tuple[Any, Any]  # what is observed before and after a step


def turned(angles: Array) -> list[float]:
    return [part(angle) for angle in angles for part in (np.cos, np.sin)]


def classic(spread: list[float], observed: Callable[[Array], Any]) -> Callable[..., Pair]:
    """Steps of an environment whose state can be set, and of which float32 is observed."""

    def step(env: gym.Env[Any, Any], rng: np.random.Generator, action: Any) -> Pair:
        before = rng.uniform(-1, 1, len(spread)) * spread
        env.reset()
        env.unwrapped.state = before.copy()
        env.unwrapped.step(action)
        return observed(before), observed(np.asarray(env.unwrapped.state, dtype=float))

    return step


def mujoco(spread: list[float]) -> Callable[..., Pair]:
    def step(env: gym.Env[Any, Any], rng: np.random.Generator, action: Any) -> Pair:
        env.reset()
        sim = env.unwrapped
        state = rng.uniform(-1, 1, sim.model.nq + sim.model.nv) * spread
        sim.set_state(state[: sim.model.nq], state[sim.model.nq :])
        before = sim._get_obs()
        return before, sim.step(action)[0]

    return step


def dm_control(spread: list[float]) -> Callable[..., Pair]:
    def step(env: gym.Env[Any, Any], rng: np.random.Generator, action: Any) -> Pair:
        env.reset()
        inner = env.unwrapped._env
        state = rng.uniform(-1, 1, len(spread)) * spread
        with inner.physics.reset_context():
            inner.physics.set_state(state)
        before = inner.task.get_observation(inner.physics)
        return before, env.unwrapped.step(action)[0]

    return step


STEPS = {
    "Acrobot-v1": classic([3, 3, 4, 6], lambda s: [*turned(s[:2]), *s[2:]]),
    "CartPole-v1": classic([2, 2, 3, 3], list),
    "MountainCarContinuous-v0": classic([1.1, 0.06], list),
    "Pendulum-v1": classic([3, 8], lambda s: [*turned(s[:1]), *s[1:]]),
    "InvertedDoublePendulum-v5": mujoco([0.5, 3, 3, 1, 5, 5]),
    "InvertedPendulum-v5": mujoco([0.5, 1, 1, 5]),
    "Reacher-v5": mujoco([3, 2.5, 0.2, 0.2, 5, 5, 0, 0]),
    "dm_control/acrobot-swingup-v0": dm_control([3, 3, 5, 5]),
    "dm_control/cartpole-swingup-v0": dm_control([1.5, 3, 3, 5]),
    "dm_control/pendulum-swingup-v0": dm_control([3, 5]),
}


def batch(observations: list[Any]) -> Any:
    first = observations[0]
    if not isinstance(first, dict):
        return torch.tensor(np.array(observations, dtype=float))
    return {name: batch([each[name] for each in observations]) for name in first}


@pytest.mark.parametrize("env_id", KNOWN)
def test_a_step_is_that_of_the_simulator(env_id: str) -> None:
    known = known_environment(env_id)
    assert known is not None
    rng = np.random.default_rng(0)
    env = gym.make(env_id)
    pairs, controls = [], []
    for _ in range(STATES):
        if known.controls is not None:
            action: Any = int(rng.integers(len(known.controls)))
            control = np.array([known.controls[action]])
        else:
            space = env.action_space
            assert isinstance(space, gym.spaces.Box)
            share = rng.uniform(0, 1, space.shape)
            action = space.low + share * (space.high - space.low)
            low, high = np.array(known.control_low), np.array(known.control_high)
            control = low + share * (high - low)
        pairs.append(STEPS[env_id](env, rng, action))
        controls.append(control)

    def state(observations: list[Any]) -> Tensor:
        given = batch(observations)
        found = given if known.state is None else known.state(given)
        return found[0] if isinstance(found, tuple) else found

    before, after = (state([pair[i] for pair in pairs]) for i in range(2))
    with torch.no_grad():
        predicted = known.dynamics(before, torch.tensor(np.array(controls)))
    error = (predicted - after).abs().max()
    assert error < LARGER_ERRORS.get(env_id, ERROR)
