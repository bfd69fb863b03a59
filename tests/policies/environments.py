"""Environments in which an observation is not the state, or an action not the control."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.wrappers import RescaleAction
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn

from mpc_gym.make_mpc import make_mpc
from mpc_gym.models import LinearDynamics
from mpc_gym.mpc import MPC
from tests.policies.planners import ENV

STEPS = 8  # of an episode
LIMIT = 2.0


class Slide(gym.Env):
    """A puck on ice, with (position, speed) as its state, that is to come to rest at a goal."""

    def __init__(self) -> None:
        one = spaces.Box(-10.0, 10.0, (1,))
        self.observation_space = spaces.Dict(
            observation=spaces.Box(-10.0, 10.0, (2,)), achieved_goal=one, desired_goal=one
        )
        self.action_space = spaces.Box(-LIMIT, LIMIT, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.state = self.np_random.uniform(-1, 1, 2)
        self.goal, self.time = self.np_random.uniform(-2, 2, 1), 0
        return self._observation(), {}

    def step(self, action):
        force = np.clip(action, -LIMIT, LIMIT)[0]
        self.state = np.array([self.state[0] + 0.3 * self.state[1], self.state[1] + 0.3 * force])
        self.time += 1
        reward = float(self.compute_reward(self.state[:1], self.goal, {}))
        return self._observation(), reward, False, self.time >= STEPS, {}

    def compute_reward(self, achieved_goal, desired_goal, info):  # noqa: ARG002
        return -np.square(achieved_goal - desired_goal).sum(-1)

    def _observation(self):
        return {
            "observation": self.state.astype(np.float32),
            "achieved_goal": self.state[:1].astype(np.float32),
            "desired_goal": self.goal.astype(np.float32),
        }


class Distance(nn.Module):
    """The squared distance from the goal, which is the context."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        far = (state[..., :1] - context).square().sum(-1)
        return self.weight * far + 0.1 * state[..., 1].square() + 0.01 * control.square().sum(-1)


def slide_mpc(horizon: int = 6, max_iterations: int = 30) -> MPC:
    A = torch.tensor([[1.0, 0.3], [0.0, 1.0]], dtype=torch.float64)
    B = torch.tensor([[0.0], [0.3]], dtype=torch.float64)
    return MPC(
        LinearDynamics(A, B), Distance(), horizon, -LIMIT, LIMIT, max_iterations=max_iterations
    )


def state_and_goal(observation: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return observation["observation"], observation["desired_goal"]


def state_alone(observation: dict[str, Tensor]) -> Tensor:
    return observation["observation"]


def pendulum_mpc(**options) -> MPC:
    return make_mpc(ENV, **options)


def rescaled(low: float = -4.0, high: float = 4.0) -> gym.Env:
    return RescaleAction(gym.make(ENV), np.float32(low), np.float32(high))


def normalized(env_id=ENV, **options) -> VecNormalize:
    return VecNormalize(make_vec_env(env_id, seed=0), **options)


def actions(model, observation) -> np.ndarray:
    return model.predict(observation, deterministic=True)[0]
