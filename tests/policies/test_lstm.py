"""The network that gives a sequence of controls, and the policy that acts by the first of them."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from mpc_gym.policies import LSTMPolicy, load_pretrained
from mpc_gym.policies.lstm import LSTMPlanner


def make(seed: int = 0) -> LSTMPlanner:
    torch.manual_seed(seed)
    return LSTMPlanner(3, 2, horizon=4, hidden=8)


def test_the_controls_are_those_of_the_equations_written_out() -> None:
    planner = make()
    x_init = torch.randn(5, 3)
    cell = planner.cell
    h = c = torch.zeros(5, 8)
    y = planner.encode_state(x_init)
    for control in planner(x_init).unbind(1):
        gates = y @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        torch.testing.assert_close(control, planner.decode(c))
        y = planner.encode_control(control)


def test_its_parts_have_two_hidden_layers_of_the_papers_size() -> None:
    planner = LSTMPlanner(5, 1, horizon=20)
    for part in (planner.encode_state, planner.encode_control, planner.decode):
        linear = [layer for layer in part if isinstance(layer, nn.Linear)]
        assert [layer.in_features for layer in linear[1:]] == [256, 256]
    assert planner(torch.zeros(2, 5)).shape == (2, 20, 1)


def test_plans_come_in_the_dtype_of_the_start_states_with_a_gradient() -> None:
    planner = make()
    controls = planner(torch.randn(3, 3, dtype=torch.float64))
    assert controls.dtype == torch.float64
    controls.square().sum().backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in planner.parameters())


def test_each_start_state_has_a_plan_of_its_own() -> None:
    planner = make()
    x_init = torch.randn(6, 3)
    one_by_one = torch.cat([planner(x[None]) for x in x_init])
    torch.testing.assert_close(planner(x_init), one_by_one)


@pytest.mark.parametrize("size", ["n_state", "n_ctrl", "horizon", "hidden"])
def test_a_size_that_is_not_positive_is_refused(size: str) -> None:
    sizes = {"n_state": 3, "n_ctrl": 2, "horizon": 4, "hidden": 8, size: 0}
    with pytest.raises(ValueError, match="must be at least 1"):
        LSTMPlanner(**sizes)


def test_start_states_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x_init must be \[batch, n_state=3\], got \[5, 4\]"):
        make()(torch.zeros(5, 4))


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
