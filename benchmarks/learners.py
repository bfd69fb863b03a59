"""What `benchmarks.learning` trains: algorithms with their policies and settings."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise

from mpc_gym.policies import MPCPolicy, SACMPCPolicy, TD3MPCPolicy

SYSTEMS = {
    "pendulum": "DiffPendulum-v0",
    "cart-pole": "DiffCartPole-v0",
    "planar quadrotor": "DiffPlanarQuadrotor-v0",
}
WRONG = {"gravity": 15.0, "mass": 3.0, "length": 0.5}
TRANSITIONS, ALONE = "transitions + rewards", "rewards alone"


@dataclass(frozen=True)
class Learner:
    """An algorithm with its policy and settings, the same for all seeds and systems.

    Args:
        algorithm, policy, options: of Stable-Baselines3.
        n_envs: environments stepped side by side.
        kind: "transitions + rewards", "rewards alone" or "MLP".
        systems: on which it is run.
        critic_first: steps before the plan learns.
        reward_gamma: the discount by whose returns the rewards are scaled; None: they are not.
        steps: of a training at most.
        most_seeds: runs at most.
    """

    algorithm: type[BaseAlgorithm]
    policy: Any
    kind: str
    n_envs: int
    options: dict[str, Any] = field(default_factory=dict)
    systems: tuple[str, ...] = tuple(SYSTEMS)
    critic_first: int = 0
    reward_gamma: float | None = None
    steps: int = 20_000
    most_seeds: int = 10

    @property
    def name(self) -> str:
        """Of its row."""
        return f"{self.algorithm.__name__}, {self.kind}"


# The whole of what planning policies are told, on every system. They have converged after 1,000
# steps, and are trained for a quarter of the steps of the others.
SETTINGS = (
    Learner(PPO, MPCPolicy, TRANSITIONS, 16, {"n_steps": 64, "batch_size": 256}, steps=5_000),
    Learner(A2C, MPCPolicy, TRANSITIONS, 16, steps=5_000),
    Learner(SAC, SACMPCPolicy, TRANSITIONS, 16, {"batch_size": 64}, steps=5_000),
    Learner(TD3, TD3MPCPolicy, TRANSITIONS, 16, {"batch_size": 64}, steps=5_000),
)
# At twenty steps, models between the wrong and the true one do not swing up at all, and no gradient
# leads across; at eleven and twelve the return rises all the way. At twelve it rises higher, but
# from the edge of a cliff, which the noisy gradient of PPO goes over in half of the training runs.
PLAN: dict[str, Any] = {"starts": 8, "learn": WRONG, "net_arch": [64, 64]}
REWARDS = (
    Learner(
        PPO,
        MPCPolicy,
        ALONE,
        5,
        {
            "policy_kwargs": {**PLAN, "horizon": 11},
            "n_steps": 200,  # whole episodes
            "batch_size": 250,
            "learning_rate": 0.01,
            "gamma": 0.995,
            "gae_lambda": 1.0,
        },
        systems=("pendulum",),
        critic_first=4_000,
        reward_gamma=0.995,
    ),
    Learner(
        SAC,
        SACMPCPolicy,
        ALONE,
        8,
        {
            "policy_kwargs": {**PLAN, "horizon": 12},
            "train_freq": 1,
            "gradient_steps": 2,
            "learning_starts": 1_000,
            "learning_rate": 1e-3,
            "gamma": 0.98,
            "tau": 0.01,
            "ent_coef": "auto_0.1",
        },
        systems=("pendulum",),
        critic_first=6_000,
        most_seeds=3,
    ),
)
# RL Baselines3 Zoo's hyperparams/*.yml for Pendulum-v1; of A2C, which normalises observations too,
# without that.
ZOO = (
    Learner(
        PPO,
        "MlpPolicy",
        "MLP",
        4,
        {
            "n_steps": 1024,
            "gae_lambda": 0.95,
            "gamma": 0.9,
            "learning_rate": 1e-3,
            "clip_range": 0.2,
            "use_sde": True,
            "sde_sample_freq": 4,
        },
        most_seeds=5,
    ),
    Learner(
        A2C,
        "MlpPolicy",
        "MLP",
        8,
        {
            "n_steps": 8,
            "gae_lambda": 0.9,
            "vf_coef": 0.4,
            "gamma": 0.9,
            "learning_rate": lambda remaining: 7e-4 * remaining,
            "use_sde": True,
            "policy_kwargs": {"log_std_init": -2, "ortho_init": False},
        },
        reward_gamma=0.9,
        most_seeds=5,
    ),
    Learner(SAC, "MlpPolicy", "MLP", 1, {"learning_rate": 1e-3}, most_seeds=3),
    Learner(
        TD3,
        "MlpPolicy",
        "MLP",
        1,
        {
            "gamma": 0.98,
            "buffer_size": 200_000,
            "learning_starts": 10_000,
            "gradient_steps": 1,
            "train_freq": 1,
            "learning_rate": 1e-3,
            "action_noise": NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)),
            "policy_kwargs": {"net_arch": [400, 300]},
        },
        most_seeds=3,
    ),
)
LEARNERS = {each.name: each for each in (*SETTINGS, *REWARDS, *ZOO)}
