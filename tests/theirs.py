"""An environment of another library, with a model beside it: it knows nothing of `DiffEnv`."""

import copy

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from mpc_gym.models import LinearDynamics, QuadraticCost

THEIRS = "Theirs-v0"
LIMIT = 1.5  # of the force


class TheirEnv(gym.Env):
    """A sledge on ice, to be brought to rest at the origin; it drags a little, its model does not.

    State (position, speed), control (force,); the observation is the state.
    """

    def __init__(self, drag: float = 0.1) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-LIMIT, LIMIT, (1,), np.float32)
        A = torch.tensor([[1.0, 0.1], [0.0, 1.0 - drag]], dtype=torch.float64)
        B = torch.tensor([[0.0], [0.1]], dtype=torch.float64)
        self.dynamics = LinearDynamics(A, B)
        self.cost = QuadraticCost(torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64))

    def nominal_dynamics(self) -> LinearDynamics:
        dynamics = copy.deepcopy(self.dynamics)
        dynamics.A.data[1, 1] = 1.0
        return dynamics

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.state = torch.from_numpy(self.np_random.uniform(-1.0, 1.0, 2))
        return self.state.numpy().astype(np.float32), {}

    def step(self, action):
        control = torch.as_tensor(action).double().clamp(-LIMIT, LIMIT)
        with torch.no_grad():
            reward = -self.cost(self.state, control).item()
            self.state = self.dynamics(self.state, control)
        return self.state.numpy().astype(np.float32), reward, False, False, {}


def register() -> None:
    gym.register(THEIRS, TheirEnv, max_episode_steps=50)
