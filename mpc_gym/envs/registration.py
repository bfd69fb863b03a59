"""The ids under which Gymnasium finds the environments."""

import gymnasium as gym

MAX_EPISODE_STEPS = 200
ENTRY_POINTS = {
    "DiffPendulum-v0": "mpc_gym.envs.pendulum:DiffPendulumEnv",
    "DiffPendulumWindy-v0": "mpc_gym.envs.pendulum_windy:DiffPendulumWindyEnv",
    "DiffCartPole-v0": "mpc_gym.envs.cartpole:DiffCartPoleEnv",
    "DiffCartpole-v0": "mpc_gym.envs.cartpole:DiffCartPoleEnv",
}


def register_environments() -> None:
    """Add the environments to Gymnasium's registry; `import mpc_gym` does it."""
    # An entry point is a string: with a class, `env.spec.to_json()` fails.
    for env_id, entry_point in ENTRY_POINTS.items():
        gym.register(env_id, entry_point, max_episode_steps=MAX_EPISODE_STEPS)
