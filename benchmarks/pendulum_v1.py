"""An untrained planning policy on Gymnasium's own Pendulum-v1, beside trained agents.

    python -m benchmarks.pendulum_v1 [--quick] [--episodes 750] [--rivals 0] [--seed 0]

The policy plans 40 steps ahead with this project's model of the pendulum, from eight initial
guesses where it begins an episode, and from its last plan after that. Published returns are of
other start states, so that only standard errors say what a difference means. `--rivals 3` trains
the best of the published agents here, with three seeds: it takes minutes a seed, and is measured on
the same episodes as the planner, whose difference to it is paired.

The time for a decision is measured beside `MlpPolicy.predict` at the same observations, one
environment, one thread, in turns.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from statistics import mean

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import ArrayLike
from rich.console import Console
from rich.table import Table
from sb3_contrib import TQC
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from benchmarks.measure import Timing, timed
from mpc_gym.policies import MPCPolicy

HORIZON, STARTS = 40, 8
# Mean and standard deviation of the return, and steps of training: RL Baselines3 Zoo, benchmark.md,
# one run each, 750 episodes; of TQC the run whose files the Hugging Face Hub has.
PUBLISHED = {
    "TQC": (-151.3, 87.6, 20_000),
    "TD3": (-151.855, 90.227, 20_000),
    "DDPG": (-152.099, 94.282, 20_000),
    "SAC": (-156.995, 88.714, 20_000),
    "A2C": (-162.965, 103.210, 1_000_000),
    "PPO": (-172.225, 104.159, 100_000),
}
PUBLISHED_EPISODES = 750
RIVAL_STEPS = 20_000


def planner() -> PPO:
    options = {"mpc": "DiffPendulum-v0", "horizon": HORIZON, "starts": STARTS}
    return PPO(MPCPolicy, "Pendulum-v1", policy_kwargs=options)


def returns(model: BaseAlgorithm, episodes: int, seed: int) -> list[float]:
    """Returns of episodes whose recurrent state `evaluate_policy` passes on."""
    env = make_vec_env("Pendulum-v1", n_envs=min(10, episodes), seed=seed)
    found, _ = evaluate_policy(
        model, env, n_eval_episodes=episodes, return_episode_rewards=True, warn=False
    )
    assert isinstance(found, list)  # as was asked for
    return found


def rival(seed: int, steps: int) -> TQC:
    """TQC, with the settings of RL Baselines3 Zoo's hyperparams/tqc.yml for this environment."""
    model = TQC(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=1e-3,
        use_sde=True,
        gradient_steps=64,
        train_freq=64,
        policy_kwargs={"log_std_init": -2, "net_arch": [64, 64]},
        seed=seed,
    )
    return model.learn(steps)


def decision_times(planning: BaseAlgorithm, mlp: BaseAlgorithm, episodes: int) -> list[Timing]:
    """Times of `predict` along the planner's episodes, of both models in turns."""
    env = gym.make("Pendulum-v1")
    timings = [Timing(), Timing()]
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        state, begins, ended = None, True, False
        while not ended:
            starts = np.array([begins])
            timed(partial(planning.predict, observation, state, starts, True), timings[0])
            timed(partial(mlp.predict, observation, deterministic=True), timings[1])
            action, state = timings[0].result
            observation, _, _, ended, _ = env.step(action)
            begins = False
    return timings


def returns_table(found: list[float], rivals: list[list[float]], steps: int) -> Table:
    table = Table(title="Return on Gymnasium's Pendulum-v1, mean ± standard error")
    for column in ("agent", "return", "episodes", "steps of training", "planner minus agent"):
        table.add_column(column, justify="left" if column == "agent" else "right", no_wrap=True)
    ours, error = _mean_and_error(found)
    name = f"MPCPolicy, horizon {HORIZON}, starts {STARTS}"
    table.add_row(name, f"{ours:.1f} ± {error:.1f}", str(len(found)), "0", "")
    for number, each in enumerate(rivals):
        value, spread = _mean_and_error(each)
        difference = _mean_and_error(np.subtract(found, each))
        table.add_row(
            f"TQC, trained here, seed {number}",
            f"{value:.1f} ± {spread:.1f}",
            str(len(each)),
            f"{steps:,}",
            "{:+.1f} ± {:.1f}, paired".format(*difference),
        )
    for name, (value, deviation, trained) in PUBLISHED.items():
        spread = deviation / PUBLISHED_EPISODES**0.5
        table.add_row(
            f"{name} (published)",
            f"{value:.1f} ± {spread:.1f}",
            str(PUBLISHED_EPISODES),
            f"{trained:,}",
            f"{ours - value:+.1f} ± {np.hypot(error, spread):.1f}",
        )
    return table


def _mean_and_error(values: ArrayLike) -> tuple[float, float]:
    array = np.asarray(values)
    return float(array.mean()), float(array.std(ddof=1) / np.sqrt(len(array)))


def times_table(planning: Timing, mlp: Timing) -> Table:
    table = Table(title="Time of one decision, one environment, one thread")
    for column in ("policy", "median", "mean", "ratio of medians", "ratio of means"):
        table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    for name, timing in (("MPCPolicy, from the last plan", planning), ("MlpPolicy", mlp)):
        table.add_row(
            name,
            f"{1e6 * timing.median:.0f} us",
            f"{1e6 * mean(timing.samples):.0f} us",
            f"{timing.median / mlp.median:.2f}",
            f"{mean(timing.samples) / mean(mlp.samples):.2f}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two episodes; no result")
    parser.add_argument("--episodes", type=int, default=PUBLISHED_EPISODES)
    parser.add_argument("--rivals", type=int, default=0, help="agents to be trained")
    parser.add_argument("--timed-episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    episodes, measured = (2, 1) if options.quick else (options.episodes, options.timed_episodes)
    steps = 128 if options.quick else RIVAL_STEPS
    torch.set_num_threads(1)
    planning, mlp = planner(), PPO("MlpPolicy", "Pendulum-v1")
    console = Console()
    found = returns(planning, episodes, options.seed)
    rivals = [
        returns(rival(number, steps), episodes, options.seed) for number in range(options.rivals)
    ]
    console.print(returns_table(found, rivals, steps))
    decision_times(planning, mlp, 1)  # compiles, and loads what is compiled
    console.print(times_table(*decision_times(planning, mlp, measured)))


if __name__ == "__main__":
    main()
