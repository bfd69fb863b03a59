"""What environments there are, as a table."""

import gymnasium as gym
from rich.table import Table

from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.registration import ENTRY_POINTS

FLOAT32_MAX = 3.4e38


def environments_table() -> Table:
    """The ids, with spaces, limits, time limit and physical parameters with their defaults."""
    table = Table(show_lines=True)
    table.add_column("id", no_wrap=True)
    for heading in ("observations", "actions", "steps", "parameters"):
        table.add_column(heading)
    for ids in _spellings():
        with gym.make(ids[0]) as env:
            model = env.unwrapped
            assert isinstance(model, DiffEnv)
            assert env.spec is not None
            table.add_row(
                "\n".join(ids),
                _limits(model.observation_space),
                _limits(model.action_space),
                str(env.spec.max_episode_steps),
                "\n".join(f"{name} {value:g}" for name, value in model.physics.items()),
            )
    return table


def _spellings() -> list[list[str]]:
    """The ids of each environment."""
    by_entry_point: dict[str, list[str]] = {}
    for env_id, entry_point in ENTRY_POINTS.items():
        by_entry_point.setdefault(entry_point, []).append(env_id)
    return list(by_entry_point.values())


def _limits(space: gym.spaces.Box) -> str:
    """One line for each entry of a vector."""
    return "\n".join(
        "no limit" if high > FLOAT32_MAX else f"{low:g} to {high:g}"
        for low, high in zip(space.low.tolist(), space.high.tolist(), strict=True)
    )
