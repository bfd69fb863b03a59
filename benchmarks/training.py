"""How fast PPO trains a planning policy, beside an MLP: environment steps per second.

    python -m benchmarks.training [--quick] [--envs 16] [--rounds 5]

Collection is the time between the first and the last step of PPO's rollouts, training all of it
with the updates. Both policies train in turns, on the same vectorised environment, in one process
with one thread; the medians over the rounds count.
"""

import argparse
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from mpc_gym import make_sb3_vec_env
from mpc_gym.policies import MPCPolicy

ENV_ID = "DiffPendulum-v0"
SETTINGS: dict[str, Any] = {"n_steps": 128, "batch_size": 256, "n_epochs": 10}
POLICIES: dict[str, Any] = {"MPCPolicy": MPCPolicy, "MlpPolicy": "MlpPolicy"}
ROLLOUTS = 2  # in a round


class Collection(BaseCallback):
    """The seconds spent in rollouts."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._began = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.seconds += time.perf_counter() - self._began


def rates(model: PPO) -> tuple[float, float]:
    """Environment steps per second of collection, and of training as a whole."""
    steps = ROLLOUTS * model.n_steps * model.n_envs
    collection = Collection()
    began = time.perf_counter()
    model.learn(steps, callback=collection)
    return steps / collection.seconds, steps / (time.perf_counter() - began)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short rollouts; no result")
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    settings = {**SETTINGS, "n_steps": 8, "batch_size": 8} if options.quick else SETTINGS
    torch.set_num_threads(1)
    models = {
        name: PPO(policy, make_sb3_vec_env(ENV_ID, options.envs, seed=0), seed=0, **settings)
        for name, policy in POLICIES.items()
    }
    for model in models.values():
        rates(model)  # compiles
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for _ in range(options.rounds):
        for name, model in models.items():
            found[name].append(rates(model))
    table = Table(title=f"Environment steps per second, {options.envs} environments, one thread")
    for column in ("policy", "collection", "with updates"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, pairs in found.items():
        table.add_row(name, *(f"{median(values):,.0f}" for values in zip(*pairs, strict=True)))
    Console().print(table)


if __name__ == "__main__":
    main()
