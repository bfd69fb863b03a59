"""Planning policies know the track of their environment, wherever they are made again."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO, SAC

from mpc_gym import make_sb3_vec_env
from mpc_gym.imitation import evaluate
from mpc_gym.models import CartPoleTrack
from mpc_gym.policies import MPCPolicy, load_pretrained, save_pretrained
from tests.policies.planners import STEPS, make_model, weights

ENV = "DiffCartPole-v0"
TRACK = 0.6
KWARGS = {"track": TRACK}


def limit_of(policy) -> float | None:
    constraints = policy.planner.mpc.constraints
    assert constraints is None or isinstance(constraints, CartPoleTrack)
    return None if constraints is None else constraints.limit.item()


def make_policy(**kwargs) -> MPCPolicy:
    env = gym.make(ENV, **kwargs)
    return MPCPolicy(env.observation_space, env.action_space, lambda _: 0.0)


def test_a_policy_stays_on_the_track_of_its_environment() -> None:
    bound, free = make_policy(**KWARGS), make_policy()
    assert (limit_of(bound), limit_of(free)) == (TRACK, None)
    lengths = [evaluate(each, ENV, range(8), KWARGS, 80).lengths for each in (bound, free)]
    assert (lengths[0] == 80).all()
    assert (lengths[1] < 80).any()


def test_the_track_survives_saving(tmp_path) -> None:
    env = gym.make(ENV, **KWARGS)
    model = PPO(MPCPolicy, env, policy_kwargs={"horizon": 12}, device="cpu")
    observation, _ = env.reset(options={"state": [0.5, 0.9, -0.8, 0.6, 0.0]})
    expected, _ = model.predict(observation, deterministic=True)
    unbound = make_policy().predict(observation, deterministic=True)[0]
    assert abs(expected - unbound) > 1.0
    model.save(tmp_path / "model")
    save_pretrained(model.policy, tmp_path / "folder")
    assert '"track": 0.6' in (tmp_path / "folder" / "README.md").read_text()
    for policy in (PPO.load(tmp_path / "model").policy, load_pretrained(tmp_path / "folder")):
        assert limit_of(policy) == TRACK
        found, _ = policy.predict(observation, deterministic=True)
        np.testing.assert_array_equal(found, expected)


def test_weights_learned_without_a_track_serve_with_one() -> None:
    bound, free = make_policy(**KWARGS), make_policy()
    bound.load_state_dict(free.state_dict())
    assert limit_of(bound) == TRACK


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_reinforcement_learning_trains_where_episodes_end(algorithm) -> None:
    env = make_sb3_vec_env(ENV, n_envs=2, seed=0, **KWARGS)
    model = make_model(algorithm, env)
    before = weights(model)
    env.set_attr("state", np.array([0.6, 2.0, -1.0, 0.0, 0.0]))
    model.learn(2 * STEPS)
    after = weights(model)
    assert any(not np.array_equal(before[name], after[name]) for name in before if "mpc" in name)
    assert all(value.isfinite().all() for value in after.values())
    assert limit_of(model.policy if algorithm is PPO else model.actor) == TRACK
