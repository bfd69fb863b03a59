"""Costs are minus the rewards where they say so, and what they ask for is the goal elsewhere."""

import os

os.environ.setdefault("MUJOCO_GL", "disabled")

import gymnasium as gym
import numpy as np
import pytest
import shimmy
import torch
from torch import Tensor

from mpc_gym.known.dm_control import cart_pole_state
from mpc_gym.known.mujoco import double_pendulum_state, reacher_state
from mpc_gym.models import (
    AcrobotDynamics,
    AcrobotRiseCost,
    AcrobotSwingUpCost,
    CartPoleSwingUpCost,
    DoublePendulumCost,
    MountainCarCost,
    MountainCarDynamics,
    ReacherCost,
)

gym.register_envs(shimmy)

COUNT = 20
NO_TORQUE = torch.zeros(1, 1, dtype=torch.float64)


def test_of_the_double_pendulum() -> None:
    env, rng = gym.make("InvertedDoublePendulum-v5").unwrapped, np.random.default_rng(0)
    cost = DoublePendulumCost(0.01, 0.001, 0.005)  # the weights of the reward
    env.reset()
    for _ in range(COUNT):
        env.set_state(rng.uniform(-0.5, 0.5, 3), rng.uniform(-3, 3, 3))
        across, _, height = env.data.site_xpos[0]
        reward, _ = env._get_rew(across, height, terminated=False)
        state = double_pendulum_state(torch.tensor(env._get_obs())[None])
        assert 10 - cost(state, NO_TORQUE).item() == pytest.approx(reward, abs=1e-9)


def test_of_the_reacher() -> None:
    env, rng = gym.make("Reacher-v5").unwrapped, np.random.default_rng(0)
    cost = ReacherCost(width=1e-9)
    env.reset()
    for _ in range(COUNT):
        env.set_state(
            rng.uniform([0.8, 1.8, -0.2, -0.2], [1.2, 2.2, 0.2, 0.2]), rng.uniform(-3, 3, 4)
        )
        action = rng.uniform(-1, 1, 2)
        reward, _ = env._get_rew(action)
        state, target = reacher_state(torch.tensor(env._get_obs())[None])
        found = cost(state, torch.tensor(action)[None], target).item()
        assert -found == pytest.approx(reward, abs=1e-7)


def test_of_the_cart_pole_that_swings_up() -> None:
    env, rng = gym.make("dm_control/cartpole-swingup-v0"), np.random.default_rng(0)
    cost = CartPoleSwingUpCost()
    env.reset()
    for _ in range(COUNT):
        physics = env.unwrapped._env.physics
        with physics.reset_context():
            physics.set_state(rng.uniform(-1, 1, 4) * [1.5, 3, 2, 4])
        action = rng.uniform(-1, 1, 1)
        observation, reward, *_ = env.step(action)
        batch = {name: torch.tensor(each)[None] for name, each in observation.items()}
        found = cost(cart_pole_state(batch), torch.tensor(action)[None]).item()
        assert 1 - found == pytest.approx(reward, abs=1e-9)


def acrobot_states(count: int) -> Tensor:
    values = torch.randn(count, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turned = torch.stack((torch.cos(values[:, :2]), torch.sin(values[:, :2])), -1).flatten(1)
    return torch.cat((turned, values[:, 2:]), 1)


def test_the_energy_of_an_acrobot_stays_where_nothing_drives_or_damps_it() -> None:
    dynamics = AcrobotDynamics(upper_mass=1.3, lower_centre=0.7, substeps=20)
    cost, state = AcrobotRiseCost(dynamics), acrobot_states(COUNT)
    start = cost.missing(state, 1.0)
    for _ in range(20):
        state = dynamics(state, NO_TORQUE.expand(COUNT, 1))
    torch.testing.assert_close(cost.missing(state, 1.0), start, rtol=1e-8, atol=1e-8)
    assert start.std() > 0.01


@pytest.mark.parametrize("kind", [AcrobotRiseCost, AcrobotSwingUpCost])
def test_an_acrobot_that_stands_costs_nothing(kind: type) -> None:
    cost = kind(AcrobotDynamics())
    hangs, stands = (
        torch.tensor([[cosine, 0.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
        for cosine in (1.0, -1.0)
    )
    assert cost(stands, NO_TORQUE).item() == pytest.approx(0, abs=1e-12)
    assert cost(hangs, NO_TORQUE).item() > 1


def test_a_car_that_lacks_no_energy_rolls_to_the_goal_but_for_a_few_percent() -> None:
    cost, dynamics = MountainCarCost(), MountainCarDynamics()
    coasting = torch.zeros(10, 1, dtype=torch.float64)
    position = torch.linspace(-0.5, 0.4, 10, dtype=torch.float64)
    low = torch.zeros_like(position)
    high = low + 0.07
    for _ in range(40):  # the least speed at which no energy is missing, by bisection
        middle = (low + high) / 2
        missing = cost(torch.stack((position, middle), -1), coasting) > 0
        low, high = torch.where(missing, middle, low), torch.where(missing, high, middle)
    farthest = []
    for share in (0.95, 1.05):
        state = torch.stack((position, high * share), -1)
        reached = position
        for _ in range(100):
            state = dynamics(state, coasting)
            reached = torch.maximum(reached, state[:, 0])
        farthest.append(reached)
    assert (farthest[0] < 0.45).all()
    assert (farthest[1] > 0.45).all()
