import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mpc_gym.policies import LSTMPolicy, load_pretrained


@pytest.fixture
def policy() -> LSTMPolicy:
    torch.manual_seed(3)
    env = gym.make("DiffCartPole-v0")
    return LSTMPolicy(env.observation_space, env.action_space, lambda _: 1e-3, 4, hidden=8)


def observations(policy: LSTMPolicy, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (count, *policy.observation_space.shape)
    return rng.normal(size=shape).astype(np.float32)


def test_it_acts_by_the_first_control_of_its_sequence_in_units_of_the_action(policy) -> None:
    batch = observations(policy, 5)
    sequence = policy.controls(torch.from_numpy(batch)).detach().numpy()
    raw = policy.lstm(torch.from_numpy(batch)).detach().numpy()
    np.testing.assert_allclose(sequence, raw * policy.action_space.high, rtol=1e-6)
    actions, _ = policy.predict(batch, deterministic=True)
    np.testing.assert_allclose(actions, sequence[:, 0], rtol=1e-6)
    single, _ = policy.predict(batch[2], deterministic=True)
    np.testing.assert_allclose(single, actions[2], rtol=1e-5)


def test_what_it_does_is_within_the_limits_however_large_its_weights_are(policy) -> None:
    with torch.no_grad():
        for parameter in policy.lstm.decode.parameters():
            parameter.mul_(1e3)
    actions, _ = policy.predict(observations(policy, 50))
    assert np.abs(actions).max() == policy.action_space.high


def test_it_acts_alike_when_it_is_saved_and_loaded(policy, tmp_path) -> None:
    policy.save_pretrained(tmp_path / "policy")
    again = load_pretrained(tmp_path / "policy", env="DiffCartPole-v0")
    assert isinstance(again, LSTMPolicy)
    assert (again.horizon, again.hidden) == (4, 8)
    batch = observations(policy, 5)
    np.testing.assert_array_equal(again.predict(batch)[0], policy.predict(batch)[0])


def test_sb3s_own_file_holds_all_of_it(policy, tmp_path) -> None:
    policy.save(tmp_path / "policy.zip")
    again = LSTMPolicy.load(tmp_path / "policy.zip")
    batch = observations(policy, 5)
    np.testing.assert_array_equal(again.predict(batch)[0], policy.predict(batch)[0])


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (spaces.Discrete(3), spaces.Box(-1, 1, (1,)), "observation_space must be a Box"),
        (spaces.Box(-1, 1, (3,)), spaces.Discrete(3), "action_space must be a Box with finite"),
        (spaces.Box(-1, 1, (3,)), spaces.Box(-1, np.inf, (1,)), "action_space must be a Box with"),
    ],
)
def test_spaces_that_it_cannot_act_in_are_refused(observation_space, action_space, message) -> None:
    with pytest.raises(ValueError, match=message):
        LSTMPolicy(observation_space, action_space, lambda _: 0.0)
