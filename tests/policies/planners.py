"""Algorithms with a planning policy each, small enough for tests."""

import importlib.util
from typing import Any

import numpy as np
import torch
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm

from mpc_gym.models import LinearDynamics, QuadraticCost
from mpc_gym.mpc import MPC
from mpc_gym.policies import MPCPolicy, SACMPCPolicy, TD3MPCPolicy

SHORT = {"horizon": 3, "max_iterations": 30}
ENV = "DiffPendulum-v0"

POLICIES: dict[type[BaseAlgorithm], Any] = {
    PPO: MPCPolicy,
    A2C: MPCPolicy,
    SAC: SACMPCPolicy,
    TD3: TD3MPCPolicy,
    DDPG: TD3MPCPolicy,
}
if importlib.util.find_spec("sb3_contrib"):
    from sb3_contrib import TQC

    from mpc_gym.policies import TQCMPCPolicy

    POLICIES[TQC] = TQCMPCPolicy

ON_POLICY = [PPO, A2C]
OFF_POLICY = [algorithm for algorithm in POLICIES if algorithm not in ON_POLICY]
STEPS = 16  # after which `make_model` has updated the policy


def make_model(algorithm: Any, env: Any = ENV, learning_rate: float = 1e-3, **options: Any) -> Any:
    """A model that begins to learn within `STEPS` steps; `policy_kwargs` are added to `SHORT`."""
    policy_kwargs = {**SHORT, "net_arch": [8], **options.pop("policy_kwargs", {})}
    if algorithm is PPO:
        options = {"n_steps": 8, "batch_size": 4, "n_epochs": 1, **options}
    elif algorithm is A2C:
        options = {"n_steps": 8, **options}
    else:
        options = {"learning_starts": 8, "batch_size": 4, "buffer_size": 200, **options}
    return algorithm(
        POLICIES[algorithm],
        env,
        learning_rate=learning_rate,
        policy_kwargs=policy_kwargs,
        **{"seed": 0, "device": "cpu", **options},
    )


def observations(count: int = 6, seed: int = 0) -> np.ndarray:
    """States of the pendulum; hanging ones, of which the torque is at its limit, among them."""
    rng = np.random.default_rng(seed)
    angle, speed = rng.uniform(-np.pi, np.pi, count), rng.uniform(-1, 1, count)
    return np.stack((np.cos(angle), np.sin(angle), speed), 1).astype(np.float32)


def weights(model: Any) -> dict[str, torch.Tensor]:
    """A copy of all that the policy has learned."""
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compare two state dicts to the last bit."""
    assert found.keys() == expected.keys()
    differ = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert not differ


def two_masses(horizon: int = 3, starts: int = 1) -> MPC:
    """A controller of two states by two controls, the second between -0.5 and 0.5."""
    limit = torch.tensor([1.0, 0.5], dtype=torch.float64)
    return MPC(
        LinearDynamics(0.9 * torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)),
        QuadraticCost(torch.tensor([1.0, 1.0, 0.1, 0.1], dtype=torch.float64)),
        horizon,
        -limit,
        limit,
        backend="torch",
        starts=starts,
    )
