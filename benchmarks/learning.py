"""Reinforcement learning from wrong physics: planning policies beside MLPs, at equal steps.

    python -m benchmarks.learning [--quick] [--seeds 10] [--only PPO ...] [--folder docs/images]

On the pendulum, the cart-pole and the planar quadrotor, PPO, A2C, SAC and TD3 train a policy whose
physics is wrong: each seed draws a factor between 1/3 and 3 for each parameter (one that is zero
starts at a random number up to 0.3), again until the untrained policy fails. Rows "transitions +
rewards" have the callback `LearnDynamics()` and the settings of `learners.SETTINGS`, one for all
systems, which are Stable-Baselines3's defaults but for environments side by side, PPO's shorter
rollouts, and other batch sizes, for the time of it. Rows "rewards alone" do without the next
states; their settings were found by a long search on the pendulum, where their physics always
starts at the same values. MLPs have RL Baselines3 Zoo's settings for Pendulum-v1.

Every policy is scored on the same unseen start states by its deterministic actions, each a function
of the observation alone, beside the same planner with the true physics. A training has failed if
its last score is more than 10 % of the true model's return below that. Seconds are those of the
training, without the scores; each run is kept in a file, and is not made again.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from benchmarks.learners import LEARNERS, SYSTEMS, TRANSITIONS, Learner
from benchmarks.learning_report import bar, plot, summarised, table
from mpc_gym import make_mpc, make_sb3_vec_env
from mpc_gym.files import write
from mpc_gym.imitation import LearnDynamics, Stateless, evaluate
from mpc_gym.models import current_values
from mpc_gym.policies import (
    CriticFirst,
    PlanningPolicy,
    RecedingHorizon,
)

FACTOR = 3.0  # by which a parameter is off at most
OF_NOTHING = 0.3  # at which a parameter starts at most that is truly zero
UNSEEN = 10_000  # seed of the first start state that policies are scored on
EPISODES = 50
SCORED = (0, 1_000, 2_500, 5_000, 10_000, 15_000, 20_000)  # steps
RESULTS = Path(__file__).parent / "results" / "learning"


class Scores(BaseCallback):
    """Score the policy between rollouts, and tell the time without that."""

    def __init__(self, system: str, episodes: int) -> None:
        super().__init__()
        self.system, self.episodes = system, episodes
        self.rows: list[dict[str, float]] = []
        self._clocks = (time.perf_counter, time.process_time)
        self._spent = [0.0, 0.0]

    def _on_step(self) -> bool:
        return True

    def _on_training_start(self) -> None:
        self._began = [clock() for clock in self._clocks]

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= SCORED[min(len(self.rows), len(SCORED) - 1)]:
            self._score()

    def _on_training_end(self) -> None:
        self._score()

    def _score(self) -> None:
        now = [clock() for clock in self._clocks]
        wall, cpu = (
            at - start - spent
            for at, start, spent in zip(now, self._began, self._spent, strict=True)
        )
        score, error = scored(self.model.policy, self.system, self.episodes)
        self.rows.append(
            {
                "step": self.num_timesteps,
                "return": round(score, 2),
                "error": round(error, 2),
                "wall": round(wall, 2),
                "cpu": round(cpu, 2),
            }
        )
        after = [clock() for clock in self._clocks]
        self._spent = [
            spent + end - start for spent, end, start in zip(self._spent, after, now, strict=True)
        ]


def scored(agent: Any, system: str, episodes: int) -> tuple[float, float]:
    """Mean return and its standard error."""
    seeds = range(UNSEEN, UNSEEN + episodes)
    found = evaluate(Stateless(agent), SYSTEMS[system], seeds)
    return found.mean, found.standard_error


def wrong_physics(system: str, seed: int, episodes: int, bar: float) -> dict[str, float]:
    """Initial values of all physical parameters, each off by a factor, that do not act well.

    Args:
        system, seed: that they are drawn for.
        episodes: to score them in.
        bar: the return that they come short of.
    """
    rng = np.random.default_rng(1_000 + seed)
    true = current_values(make_mpc(SYSTEMS[system]).dynamics)
    while True:
        values: dict[str, float] = {}
        for name, value in true.items():
            factor = math.exp(rng.uniform(-1.0, 1.0) * math.log(FACTOR))
            of_nothing = rng.uniform(0.0, OF_NOTHING)
            values[name] = value.item() * factor if value.item() else of_nothing
        if scored(planner(system, values), system, episodes)[0] < bar:
            return values


def planner(system: str, learned: dict[str, float] | None = None) -> RecedingHorizon:
    """What plans as the untrained policy does."""
    return RecedingHorizon(make_mpc(SYSTEMS[system], learn=learned, max_iterations=50))


def learn(
    learner: Learner, system: str, seed: int, steps: int, episodes: int, bar: float
) -> dict[str, Any]:
    """One training: its scores, and the physics before and after; `bar` is of `wrong_physics`."""
    env: VecEnv = make_sb3_vec_env(SYSTEMS[system], learner.n_envs, seed=seed)
    if learner.reward_gamma is not None:
        env = VecNormalize(env, norm_obs=False, gamma=learner.reward_gamma)
    options = dict(learner.options)
    if learner.kind == TRANSITIONS:
        options["policy_kwargs"] = {"learn": wrong_physics(system, seed, episodes, bar)}
    if "action_noise" in options:  # of this system's actions
        size = env.action_space.shape
        assert size is not None
        options["action_noise"] = NormalActionNoise(np.zeros(size), 0.1 * np.ones(size))
    model = learner.algorithm(learner.policy, env, seed=seed, device="cpu", **options)
    scores = Scores(system, episodes)
    callbacks: list[BaseCallback] = [scores]
    if learner.kind == TRANSITIONS:
        callbacks.insert(0, LearnDynamics())  # before the score of what it has learned
    if learner.critic_first:
        callbacks.append(CriticFirst(learner.critic_first))
    before = physics(model.policy)
    model.learn(steps, callback=CallbackList(callbacks))
    return {"rows": scores.rows, "before": before, "after": physics(model.policy)}


def physics(policy: Any) -> dict[str, float]:
    """The parameters of the model that a policy plans with."""
    if not isinstance(policy, PlanningPolicy):
        return {}
    return {name: value.item() for name, value in current_values(policy.mpc.dynamics).items()}


def kept(
    file: Path, learner: Learner, system: str, seed: int, options: Any, bar: float
) -> dict[str, Any]:
    """A training that was made before, or is made now."""
    if not file.exists():
        steps = min(options.steps, learner.steps)
        run = learn(learner, system, seed, steps, options.episodes, bar)
        write(file, json.dumps(run, indent=1) + "\n")
        last = run["rows"][-1]
        print(f"{learner.name}, {system}, seed {seed}: {last}", flush=True)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps; no result")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--only", nargs="+", choices=[*LEARNERS], default=[*LEARNERS])
    parser.add_argument("--runs", type=Path, default=RESULTS, help="where each training is kept")
    parser.add_argument("--finished", action="store_true", help="only what was trained before")
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.quick:
        options.seeds, options.steps, options.episodes = 1, 10, 2
    true: dict[str, tuple[float, float]] = {}
    for system in SYSTEMS:
        true[system] = scored(planner(system), system, options.episodes)
    curves: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.seeds):  # so that what is unfinished has as many seeds everywhere
        for name in options.only:
            learner = LEARNERS[name]
            for system in learner.systems if seed < learner.most_seeds else ():
                file = options.runs / f"{name} {system} {seed}.json".replace(" ", "_")
                if options.finished and not file.exists():
                    continue
                run = kept(file, learner, system, seed, options, bar(true[system][0]))
                curves.setdefault(f"{name}, {system}", []).append(run)
    results = summarised(true, curves)
    write(options.folder / "learning.json", json.dumps(results) + "\n")
    plot(results, options.folder / "learning.png")
    print(table(results))


if __name__ == "__main__":
    main()
