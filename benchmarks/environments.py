"""How fast the environments step, beside Gymnasium's own, in one run on one thread.

    python -m benchmarks.environments [--quick] [--seconds 20]

Every line is one call of `step`, made in turns with those it is compared with; medians. The time
of the resets that come with it is contained.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Timing, interleaved
from mpc_gym import make_sb3_vec_env

COUNT = 1024
REPEATS = 200  # steps a run, a whole episode


def single(env_id: str) -> Callable[[], None]:
    env = gym.make(env_id)
    env.reset(seed=0)
    action = env.action_space.sample()

    def run() -> None:
        for _ in range(REPEATS):
            if env.step(action)[3]:
                env.reset()

    return run


def vector(env_id: str, **kwargs: Any) -> Callable[[], None]:
    envs = gym.make_vec(env_id, num_envs=COUNT, **kwargs)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    actions = envs.action_space.sample()

    def run() -> None:
        for _ in range(REPEATS):
            envs.step(actions)

    return run


def sb3(env_id: str) -> Callable[[], None]:
    envs = make_sb3_vec_env(env_id, COUNT, seed=0)
    actions = envs.reset()[:, :1]

    def run() -> None:
        for _ in range(REPEATS):
            envs.step(actions)

    return run


def table(title: str, timings: dict[str, Timing], count: int, references: list[str]) -> Table:
    """Times of one step of `count` environments, and how many times faster than the references."""
    result = Table("", "us a step", "steps/s", *(f"over {r}" for r in references), title=title)
    for name, timing in timings.items():
        seconds = timing.median / REPEATS
        ratios = (f"{timings[r].median / timing.median:.2f}" for r in references)
        result.add_row(name, f"{1e6 * seconds:.1f}", f"{count / seconds:,.0f}", *ratios)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the fewest runs; no result")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each of the two tables")
    options = parser.parse_args(arguments)
    seconds = 0.0 if options.quick else options.seconds
    torch.set_num_threads(1)
    console = Console(width=120)

    ids = ("Pendulum-v1", "DiffPendulum-v0", "DiffPendulumWindy-v0", "DiffCartPole-v0")
    singles = interleaved({env_id: single(env_id) for env_id in ids}, seconds)
    console.print(table("one environment", singles, 1, ["Pendulum-v1"]))

    sync, cartpole = "Pendulum-v1, SyncVectorEnv", "CartPole-v1, make_vec"
    tasks = {
        sync: vector("Pendulum-v1", vectorization_mode="sync"),
        cartpole: vector("CartPole-v1", vectorization_mode="vector_entry_point"),
        **{f"{env_id}, make_vec": vector(env_id) for env_id in ids[1:]},
        **{f"{env_id}, make_sb3_vec_env": sb3(env_id) for env_id in ids[1:]},
    }
    console.print(
        table(f"{COUNT} environments", interleaved(tasks, seconds), COUNT, [sync, cartpole])
    )


if __name__ == "__main__":
    main()
