"""What counts as a state of an environment, by whatever way it is given."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from mpc_gym.envs import DiffEnv, EnvBox, make_sb3_vec_env
from mpc_gym.envs.checks import checked_state
from mpc_gym.models import LinearDynamics, QuadraticCost

GOOD = [0.6, -0.8, 1.5]
BAD = {
    "another size": [0.6, -0.8],
    "a batch": [GOOD],
    "not finite": [0.6, -0.8, np.nan],
    "beyond a limit": [0.6, -0.8, 9.0],
    "of no angle": [0.6, 0.7, 1.5],
    "no numbers": ["a", "b", "c"],
}


@pytest.mark.parametrize("state", [GOOD, np.array(GOOD), torch.tensor(GOOD).double()])
def test_a_state_is_known_in_any_form(state) -> None:
    assert gym.make("DiffPendulum-v0").unwrapped.is_state(state)


@pytest.mark.parametrize("state", BAD.values(), ids=BAD)
def test_what_is_no_state_is_refused_wherever_it_is_given(state) -> None:
    env = gym.make("DiffPendulum-v0")
    assert not env.unwrapped.is_state(state)
    with pytest.raises(ValueError, match=r"options\['state'\]"):
        env.reset(options={"state": state})
    envs = make_sb3_vec_env("DiffPendulum-v0", n_envs=2)
    with pytest.raises(ValueError, match="state must"):
        envs.set_attr("state", state)


def test_each_unit_pair_is_checked() -> None:
    space = EnvBox(np.full(5, -2.0), np.full(5, 2.0), "Double-v0", {})
    pairs = ((0, 1), (4, 3))
    right = [0.0, 1.0, 2.0, 0.8, -0.6]
    np.testing.assert_array_equal(checked_state("state", right, space, pairs), right)
    for wrong, entries in (([1.0, 1.0, *right[2:]], "0 and 1"), ([*right[:4], 0.6001], "4 and 3")):
        with pytest.raises(ValueError, match=f"of one angle at entries {entries}"):
            checked_state("state", wrong, space, pairs)


class Slider(DiffEnv):
    """A mass on a rail: a system without an angle, with a wall at two metres."""

    env_id = "Slider-v0"
    start_limit = (1.0, 1.0)

    def __init__(self) -> None:
        super().__init__(
            physics={},
            cost=QuadraticCost(torch.ones(3, dtype=torch.float64)),
            state_limit=np.array([5.0, 5.0]),
            control_limit=np.array([1.0]),
        )

    @staticmethod
    def make_dynamics():
        A, B = torch.tensor([[1.0, 0.1], [0.0, 1.0]]).double(), torch.tensor([[0.0], [0.1]])
        return LinearDynamics(A, B.double())

    @staticmethod
    def states_from(coordinates):
        return coordinates

    def checked_state(self, name, state):
        state = super().checked_state(name, state)
        if state[0] > 2.0:
            raise ValueError(f"{name} must be on this side of the wall, got {state.tolist()}")
        return state


def test_a_system_without_an_angle_has_states_too_and_may_refuse_some() -> None:
    env = Slider()
    observation, _ = env.reset(options={"state": [1.5, 0.0]})
    np.testing.assert_array_equal(observation, [1.5, 0.0])
    assert not env.is_state([2.5, 0.0])
    with pytest.raises(ValueError, match="this side of the wall"):
        env.reset(options={"state": [2.5, 0.0]})
