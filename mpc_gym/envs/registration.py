"""The ids under which Gymnasium finds the environments."""

import gymnasium as gym

MAX_EPISODE_STEPS = 200
ENTRY_POINTS = {
    "DiffPendulum-v0": "pendulum:DiffPendulum",
    "DiffPendulumWindy-v0": "pendulum_windy:DiffPendulumWindy",
    "DiffCartPole-v0": "cartpole:DiffCartPole",
    "DiffCartpole-v0": "cartpole:DiffCartPole",
}


def register_environments() -> None:
    """Add the environments to Gymnasium's registry; `import mpc_gym` does it."""
    # An entry point is a string: with a class, `env.spec.to_json()` fails.
    for env_id, entry_point in ENTRY_POINTS.items():
        name = entry_point.partition(":")[2]
        gym.register(
            env_id,
            entry_point=f"mpc_gym.envs.{entry_point}Env",
            vector_entry_point=f"mpc_gym.envs.vector:{name}VectorEnv",
            max_episode_steps=MAX_EPISODE_STEPS,
        )
