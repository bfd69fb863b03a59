"""Policies that plan in an environment of another library, with the model that is beside it."""

from collections.abc import Iterator
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC

from mpc_gym.policies import MPCPolicy, SACMPCPolicy, load_pretrained, save_pretrained
from tests import theirs
from tests.policies.planners import SHORT


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    theirs.register()
    yield
    gym.registry.pop(theirs.THEIRS, None)


def states() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype(np.float32)


@pytest.fixture(params=[(PPO, MPCPolicy), (SAC, SACMPCPolicy)], ids=["PPO", "SAC"])
def model(request: pytest.FixtureRequest):
    algorithm, policy = request.param
    options = {"n_steps": 8, "batch_size": 8} if algorithm is PPO else {"learning_starts": 4}
    policy_kwargs = {**SHORT, "mpc": theirs.THEIRS}
    made = algorithm(policy, theirs.THEIRS, policy_kwargs=policy_kwargs, seed=0, **options)
    return made.learn(8)


def test_it_plans_learns_saves_and_loads(model, tmp_path) -> None:
    expected, _ = model.predict(states(), deterministic=True)
    model.save(tmp_path / "model.zip")
    again = type(model).load(tmp_path / "model.zip", env=gym.make(theirs.THEIRS))
    np.testing.assert_array_equal(again.predict(states(), deterministic=True)[0], expected)
    save_pretrained(model.policy, tmp_path / "folder")
    shared = load_pretrained(tmp_path / "folder", env=theirs.THEIRS)
    np.testing.assert_array_equal(shared.predict(states(), deterministic=True)[0], expected)


def test_it_plans_with_what_a_controller_is_meant_to_know() -> None:
    env = gym.make(theirs.THEIRS)
    policy = MPCPolicy(
        env.observation_space, env.action_space, lambda _: 1e-3, mpc=theirs.THEIRS, **SHORT
    )
    expected = env.unwrapped.nominal_dynamics().A.detach()
    torch.testing.assert_close(policy.mpc.dynamics.A.detach(), expected)


def test_a_folder_cannot_name_what_nobody_has_registered(tmp_path) -> None:
    policy = PPO(MPCPolicy, theirs.THEIRS, policy_kwargs={**SHORT, "mpc": theirs.THEIRS}).policy
    save_pretrained(policy, tmp_path / "folder")
    del gym.registry[theirs.THEIRS]
    with pytest.raises(ValueError, match="mpc must be the id of a registered environment"):
        load_pretrained(tmp_path / "folder")


def test_nor_a_function_that_makes_one(tmp_path) -> None:
    policy = PPO(MPCPolicy, theirs.THEIRS, policy_kwargs={**SHORT, "mpc": theirs.THEIRS}).policy
    save_pretrained(policy, tmp_path / "folder")
    del gym.registry[theirs.THEIRS]
    gym.register(theirs.THEIRS, partial(theirs.TheirEnv, drag=0.2))
    with pytest.raises(ValueError, match="mpc must be an environment with a differentiable model"):
        load_pretrained(tmp_path / "folder")
