"""Actions in other units than the model's control: what is planned is what arrives."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC, TD3

from mpc_gym.policies import MPCPolicy
from tests.policies.environments import actions, pendulum_mpc, rescaled
from tests.policies.planners import ENV
from tests.policies.planners import make_model as make


@pytest.mark.parametrize(
    ("algorithm", "mpc", "limits"),
    [
        (PPO, None, (-4.0, 4.0)),
        (PPO, pendulum_mpc, (-4.0, 4.0)),
        (PPO, pendulum_mpc, (0.0, 1.0)),
        (SAC, None, (0.0, 1.0)),
        (TD3, None, (-4.0, 4.0)),
    ],
)
def test_the_control_arrives_that_was_planned(algorithm, mpc, limits):
    model = make(algorithm, rescaled(*limits), policy_kwargs={"mpc": mpc})
    states = []
    for env, policy in ((gym.make(ENV), make(algorithm)), (rescaled(*limits), model)):
        for seed in range(3):
            observation, _ = env.reset(seed=seed)
            env.step(actions(policy, observation))
            states.append(env.unwrapped.state)
    np.testing.assert_allclose(states[3:], states[:3], atol=1e-5)


def test_a_random_action_is_the_plain_one_in_other_units():
    observation = gym.make(ENV).reset(seed=1)[0]
    for algorithm in (PPO, SAC):
        plain, scaled = make(algorithm), make(algorithm, rescaled(0.0, 4.0))
        scaled.policy.load_state_dict(plain.policy.state_dict())
        drawn = []
        for model in (plain, scaled):
            torch.manual_seed(0)
            drawn.append(model.predict(observation)[0])
        if algorithm is SAC:  # PPO's spread is in the units of the action
            np.testing.assert_allclose(drawn[1], drawn[0] + 2.0, atol=1e-5)
        assert scaled.action_space.contains(drawn[1])


def test_it_can_be_said_where_it_is_not_seen():
    env = rescaled(-1.0, 1.0)
    spaces = env.observation_space, env.action_space
    with pytest.raises(ValueError, match=r"control_scale=\(low, high\)"):
        MPCPolicy(*spaces, lambda _: 1e-3, mpc=ENV)
    observation, _ = env.reset(seed=3)
    plain = actions(make(PPO), observation)
    for scale in ((-2.0, 2.0), ([-2.0], np.array([2.0]))):
        policy = MPCPolicy(*spaces, lambda _: 1e-3, mpc=ENV, horizon=3, control_scale=scale)
        np.testing.assert_allclose(actions(policy, observation), plain / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ((-1.0, 1.0), "control_scale must hold the MPC's control bounds"),
        ((2.0, -2.0), "control_scale must be .*low < high"),
        (([-2.0, -2.0], [2.0, 2.0]), "control_scale must be .*1 of them"),
        ((-np.inf, 2.0), "control_scale must be .*finite"),
        ((1.0,), "control_scale must be a pair"),
    ],
)
def test_what_is_no_scale_is_refused(scale, message):
    env = rescaled(-1.0, 1.0)
    with pytest.raises(ValueError, match=message):
        make(PPO, env, policy_kwargs={"control_scale": scale})


def test_a_space_without_limits_has_none():
    env = gym.wrappers.ClipAction(gym.make(ENV))
    with pytest.raises(ValueError, match=r"control_scale.*has none"):
        MPCPolicy(
            env.observation_space,
            env.action_space,
            lambda _: 1e-3,
            mpc=ENV,
            control_scale=(-2.0, 2.0),
        )
