"""Planning policies go wherever objects go: into pickles, copies and other processes."""

import copy
import io
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import cloudpickle
import joblib
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from mpc_gym.envs.pendulum import DiffPendulumEnv
from tests.covering import covering_product
from tests.policies.planners import ENV, STEPS, assert_same, make_model, observations


def through_joblib(policy):
    file = io.BytesIO()
    joblib.dump(policy, file)
    file.seek(0)
    return joblib.load(file)


WAYS = {
    "pickle": lambda policy: pickle.loads(pickle.dumps(policy)),
    "cloudpickle": lambda policy: pickle.loads(cloudpickle.dumps(policy)),
    "deepcopy": copy.deepcopy,
    "joblib": through_joblib,
}


def act(policy) -> np.ndarray:
    return policy.predict(observations(), deterministic=True)[0]


@pytest.mark.parametrize(("algorithm", "way"), covering_product([PPO, SAC, TD3], WAYS))
def test_a_trained_policy_acts_as_before_and_owns_what_its_optimiser_moves(algorithm, way):
    learn = ("mass", "angle_weight", "cost_map", "terminal")
    policy = make_model(algorithm, policy_kwargs={"learn": learn}).learn(STEPS).policy
    twin = WAYS[way](policy)
    assert_same(twin.state_dict(), policy.state_dict())
    np.testing.assert_array_equal(act(twin), act(policy))
    own = {id(parameter) for parameter in twin.parameters()}
    optimizer = twin.optimizer if algorithm is PPO else twin.actor.optimizer
    assert {id(each) for group in optimizer.param_groups for each in group["params"]} <= own
    assert own.isdisjoint(id(parameter) for parameter in policy.parameters())


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_copy_goes_on_training_exactly_as_the_original_does(way):
    policy = make_model(PPO).learn(STEPS).policy
    twin = way(policy)
    for each in (policy, twin):
        each.set_training_mode(True)
        for _ in range(3):
            values, log_prob, _ = each.evaluate_actions(
                torch.tensor(observations()), torch.zeros(6, 1)
            )
            each.optimizer.zero_grad()
            (values.sum() - log_prob.sum()).backward()
            each.optimizer.step()
    assert_same(twin.state_dict(), policy.state_dict())


def test_a_process_that_is_spawned_gets_the_policy():
    policy = make_model(PPO).policy
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        np.testing.assert_array_equal(pool.submit(act, policy).result(), act(policy))


def test_environments_in_other_processes_may_hold_a_policy():
    """As an opponent, or an expert to compare with: the closure is pickled by cloudpickle."""
    policy = make_model(PPO).policy

    def make():
        env = DiffPendulumEnv()
        env.expert = policy
        return env

    envs = SubprocVecEnv([make], start_method="spawn")
    try:
        (held,) = envs.get_attr("expert")
        np.testing.assert_array_equal(act(held), act(policy))
    finally:
        envs.close()


def test_an_algorithm_is_pickled_whole():
    model = make_model(SAC, make_vec_env(ENV, n_envs=1)).learn(STEPS)
    twin = pickle.loads(cloudpickle.dumps(model))
    assert_same(twin.policy.state_dict(), model.policy.state_dict())
    twin.learn(STEPS, reset_num_timesteps=False)
    assert twin.num_timesteps == 2 * STEPS
