"""The environments, and what of each the tests of all of them need."""

import gymnasium as gym
import numpy as np

IDS = [
    "DiffPendulum-v0",
    "DiffPendulumWindy-v0",
    "DiffCartPole-v0",
    "DiffAcrobot-v0",
    "DiffPlanarQuadrotor-v0",
    "DiffCar-v0",
]
SPELLINGS = [*IDS, "DiffCartpole-v0"]
COSINE, SINE = np.cos(2.0), np.sin(2.0)
STATES = {
    "DiffPendulum-v0": [COSINE, SINE, -3.0],
    "DiffPendulumWindy-v0": [COSINE, SINE, -3.0],
    "DiffCartPole-v0": [0.5, -1.0, COSINE, SINE, -3.0],
    "DiffCartpole-v0": [0.5, -1.0, COSINE, SINE, -3.0],
    "DiffAcrobot-v0": [COSINE, SINE, SINE, COSINE, -3.0, 2.0],
    "DiffPlanarQuadrotor-v0": [0.5, -1.0, COSINE, SINE, 0.2, -0.3, -3.0],
    "DiffCar-v0": [0.5, -1.0, COSINE, SINE, -3.0],
}


def parameter(env_id: str) -> str:
    """A physical parameter that may be any number."""
    return "drag" if env_id == "DiffCar-v0" else "gravity"


def ranges(env_id: str) -> dict[str, tuple[float, float]]:
    """What it may be drawn from."""
    return {parameter(env_id): (0.1, 0.3) if env_id == "DiffCar-v0" else (8.0, 12.0)}


def n_ctrl(env_id: str) -> int:
    """How many controls there are."""
    return len(gym.make(env_id).action_space.low)
