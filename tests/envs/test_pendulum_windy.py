import gymnasium as gym
import numpy as np
import pytest
import torch

from mpc_gym import make_mpc
from mpc_gym.models import PendulumDynamics

WINDY = "DiffPendulumWindy-v0"


def test_it_moves_by_the_papers_expert_parameters() -> None:
    env = gym.make(WINDY)
    expert = PendulumDynamics(10.0, 1.0, 1.0, damping=1.0, wind=0.1)
    env.reset(seed=0)
    for _ in range(50):
        state = torch.tensor(env.unwrapped.state)
        action = env.action_space.sample()
        observation, *_ = env.step(action)
        expected = expert(state, torch.tensor(action).double()).detach()
        np.testing.assert_allclose(observation, expected, atol=1e-6)


def test_without_wind_and_damping_it_is_the_plain_pendulum() -> None:
    windless, plain = gym.make(WINDY, damping=0.0, wind=0.0), gym.make("DiffPendulum-v0")
    for env in (windless, plain):
        env.reset(seed=0)
    for _ in range(50):
        action = plain.action_space.sample()
        np.testing.assert_array_equal(windless.step(action)[0], plain.step(action)[0])


@pytest.mark.parametrize("source", [WINDY, gym.make(WINDY), gym.make(WINDY).observation_space])
def test_a_controller_plans_with_the_plain_pendulum_unless_told_the_truth(source) -> None:
    nominal, expert = make_mpc(source).dynamics, make_mpc(source, model="true").dynamics
    assert (nominal.damping.item(), nominal.wind.item()) == (0.0, 0.0)
    assert (expert.damping.item(), expert.wind.item()) == (1.0, 0.1)
    assert nominal.gravity.item() == expert.gravity.item() == 10.0


def test_the_plain_model_keeps_the_rest_of_the_physics() -> None:
    dynamics = make_mpc(gym.make(WINDY, length=1.3, wind=0.4)).dynamics
    assert (dynamics.length.item(), dynamics.wind.item()) == (1.3, 0.0)


def test_elsewhere_both_models_are_the_environments_own() -> None:
    env = gym.make("DiffPendulum-v0", damping=0.5)
    for model in ("nominal", "true"):
        assert make_mpc(env, model=model).dynamics.damping.item() == 0.5


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model must be one of .*'perfect'"):
        make_mpc(WINDY, model="perfect")


def test_knowing_the_truth_pays() -> None:
    env = gym.make(WINDY)

    def score(model: str) -> float:
        mpc = make_mpc(env, horizon=15, model=model)
        observation, _ = env.reset(options={"state": [np.cos(0.5), np.sin(0.5), 0.0]})
        total, warm_start = 0.0, None
        for _ in range(60):
            with torch.no_grad():
                plan = mpc(torch.tensor(observation)[None].double(), warm_start)
            warm_start = plan.shift()
            observation, reward, *_ = env.step(plan.controls[0, 0].numpy())
            total += float(reward)
        return total

    assert score("true") > score("nominal") + 0.1
