"""An MPC in closed loop: the plan is returned and passed back."""

import numpy as np
import pytest
import torch

from mpc_gym.make_mpc import make_mpc
from mpc_gym.policies import RecedingHorizon


@pytest.fixture
def controller() -> RecedingHorizon:
    return RecedingHorizon(make_mpc("DiffPendulum-v0", horizon=6, max_iterations=30))


def test_acts_with_the_first_control_of_its_plan(controller):
    obs = np.array([[1.0, 0.0, 0.3], [0.0, 1.0, -0.2]], dtype=np.float32)
    actions, _ = controller.predict(obs)
    plan = controller.mpc(torch.tensor(obs))
    np.testing.assert_array_equal(actions, plan.controls[:, 0].detach().numpy())


def test_takes_one_observation_or_a_batch(controller):
    obs = np.array([[1.0, 0.0, 0.3], [0.0, 1.0, -0.2]], dtype=np.float32)
    batch, _ = controller.predict(obs)
    single, state = controller.predict(obs[1])
    assert single.shape == (1,)
    assert state[0].shape == (1, 6, 1)
    np.testing.assert_allclose(single, batch[1], atol=1e-6)


def test_refuses_an_observation_with_nan(controller):
    with pytest.raises(ValueError, match="observation must be finite"):
        controller.predict(np.array([1.0, np.nan, 0.0], dtype=np.float32))


def test_refuses_an_observation_that_is_a_dict(controller):
    with pytest.raises(TypeError, match=r"observation must be an array, .*\['speed'\]"):
        controller.predict({"speed": np.zeros(1)})
