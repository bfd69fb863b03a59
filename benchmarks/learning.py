"""Reinforcement learning from wrong physics: planning policies beside MLPs, at equal steps.

    python -m benchmarks.learning [--quick] [--seeds 3] [--jobs 2] [--folder docs/images]

Gravity, mass and length of the planning policies' pendulum start at 15, 3 and 0.5, where the true
ones are 10, 1 and 1; these are all that they learn besides critic and exploration. Every policy is
scored on the same unseen start states by its deterministic actions, each a function of the
observation alone, beside a controller with the true model that plans twenty steps ahead. The
training runs themselves are repeated with other seeds, those of PPO with twice as many.

The learners plan eleven steps ahead (PPO) or twelve (SAC). At twenty steps, models between the
wrong and the true one do not swing up at all, and no gradient leads across; at eleven and twelve
the return rises all the way. At twelve it rises higher, but from the edge of a cliff, which the
noisy gradient of PPO goes over in half of the training runs.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from mpc_gym import MPC, make_mpc, make_sb3_vec_env
from mpc_gym.files import replacing, write
from mpc_gym.imitation import Stateless, evaluate
from mpc_gym.models import current_values
from mpc_gym.policies import CriticFirst, MPCPolicy, RecedingHorizon, SACMPCPolicy
from mpc_gym.rendering.palette import LINES

ENV_ID = "DiffPendulum-v0"
WRONG = {"gravity": 15.0, "mass": 3.0, "length": 0.5}
PLAN: dict[str, Any] = {"starts": 8, "learn": WRONG, "net_arch": [64, 64]}
PPO_HORIZON, SAC_HORIZON = 11, 12
TRUE = "true model, horizon 20"
UNSEEN = 10_000  # seed of the first start state that policies are scored on
EVERY = 2_000  # steps from one score to the next


@dataclass(frozen=True)
class Learner:
    """An algorithm with its policy and settings, the same for all seeds.

    Args:
        algorithm, policy, options: of Stable-Baselines3.
        n_envs: environments stepped side by side.
        critic_first: steps before the plan learns.
        reward_gamma: the discount by whose returns the rewards are scaled; None: they are not.
        repeats: by which the number of seeds is multiplied.
    """

    algorithm: type[BaseAlgorithm]
    policy: Any
    n_envs: int
    options: dict[str, Any]
    critic_first: int = 0
    reward_gamma: float | None = None
    repeats: int = 1


LEARNERS = {
    "PPO, MPC": Learner(
        PPO,
        MPCPolicy,
        5,
        {
            "policy_kwargs": {**PLAN, "horizon": PPO_HORIZON},
            "n_steps": 200,  # whole episodes
            "batch_size": 250,
            "learning_rate": 0.01,
            "gamma": 0.995,
            "gae_lambda": 1.0,
        },
        critic_first=4_000,
        reward_gamma=0.995,
        repeats=2,
    ),
    "SAC, MPC": Learner(
        SAC,
        SACMPCPolicy,
        8,
        {
            "policy_kwargs": {**PLAN, "horizon": SAC_HORIZON},
            "train_freq": 1,
            "gradient_steps": 2,
            "learning_starts": 1_000,
            "learning_rate": 1e-3,
            "gamma": 0.98,
            "tau": 0.01,
            "ent_coef": "auto_0.1",
        },
        critic_first=6_000,
    ),
    # RL Baselines3 Zoo's tuned settings for Pendulum-v1, without its state-dependent exploration.
    "PPO, MLP": Learner(
        PPO,
        "MlpPolicy",
        4,
        {
            "n_steps": 1024,
            "gae_lambda": 0.95,
            "gamma": 0.9,
            "learning_rate": 1e-3,
            "clip_range": 0.2,
        },
    ),
    "SAC, MLP": Learner(SAC, "MlpPolicy", 1, {"learning_rate": 1e-3}),
}


class Scores(BaseCallback):
    """Score the policy between rollouts, every so many steps."""

    def __init__(self, episodes: int) -> None:
        super().__init__()
        self.episodes = episodes
        self.rows: list[dict[str, float]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if not self.rows or self.num_timesteps - self.rows[-1]["step"] >= EVERY:
            self._score()

    def _on_training_end(self) -> None:
        self._score()

    def _score(self) -> None:
        policy = self.model.policy
        found = evaluate(Stateless(policy), ENV_ID, range(UNSEEN, UNSEEN + self.episodes))
        row = {"step": self.num_timesteps, "return": found.mean, "error": found.standard_error}
        mpc = getattr(policy, "mpc", None)
        if isinstance(mpc, MPC):
            values = current_values(mpc.dynamics)
            row |= {name: values[name].item() for name in WRONG}
        self.rows.append(row)


def learn(name: str, seed: int, steps: int, episodes: int) -> list[dict[str, float]]:
    """One curve."""
    torch.set_num_threads(1)
    learner = LEARNERS[name]
    env: VecEnv = make_sb3_vec_env(ENV_ID, learner.n_envs, seed=seed)
    if learner.reward_gamma is not None:
        env = VecNormalize(env, norm_obs=False, gamma=learner.reward_gamma)
    model = learner.algorithm(learner.policy, env, seed=seed, **learner.options)
    scores = Scores(episodes)
    callbacks: list[BaseCallback] = [scores]
    if learner.critic_first:
        callbacks.append(CriticFirst(learner.critic_first))
    model.learn(steps, callback=CallbackList(callbacks))
    return scores.rows


def reference(
    horizon: int, starts: int, learn: dict[str, float] | None, episodes: int
) -> dict[str, float]:
    """The return of a controller without any learning."""
    mpc = make_mpc(ENV_ID, horizon=horizon, starts=starts, learn=learn, max_iterations=50)
    agent = Stateless(RecedingHorizon(mpc))
    found = evaluate(agent, ENV_ID, range(UNSEEN, UNSEEN + episodes))
    return {"return": found.mean, "error": found.standard_error}


@dataclass
class Results:
    """All curves, by learner and seed, and the references."""

    references: dict[str, dict[str, float]]
    curves: dict[str, list[list[dict[str, float]]]] = field(default_factory=dict)


def run(seeds: int, steps: int, episodes: int, jobs: int) -> Results:
    results = Results({TRUE: reference(20, 1, None, episodes)})
    for horizon in (PPO_HORIZON, SAC_HORIZON):
        for name, physics in (("true", None), ("wrong", WRONG)):
            found = reference(horizon, PLAN["starts"], physics, episodes)
            results.references[f"{name} model, horizon {horizon}"] = found
    tasks = [
        (name, seed)
        for name, learner in LEARNERS.items()
        for seed in range(seeds * learner.repeats)
    ]
    curves = Parallel(n_jobs=jobs)(delayed(learn)(*task, steps, episodes) for task in tasks)
    for (name, _), curve in zip(tasks, curves, strict=True):
        results.curves.setdefault(name, []).append(curve)
    return results


def plot(results: Results, path: Path) -> None:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    # minus the return, for the logarithm
    true = -results.references[TRUE]["return"]
    axes.axhline(true, color="black", linewidth=1)
    axes.axhline(1.1 * true, color="black", linewidth=1, linestyle=":")
    colours = (LINES[0], LINES[2], LINES[1], LINES[3])
    for (name, curves), colour in zip(results.curves.items(), colours, strict=False):
        for i, curve in enumerate(curves):
            axes.plot(
                [row["step"] for row in curve],
                [-row["return"] for row in curve],
                color=colour,
                linewidth=1.5,
                alpha=0.8,
                label=name if i == 0 else None,
            )
    axes.set_yscale("log")
    axes.set_yticks(
        [100, 150, 200, 300, 500, 1000, 1500],
        ["-100", "-150", "-200", "-300", "-500", "-1,000", "-1,500"],
    )
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.set(xlabel="environment steps", ylabel="return")
    axes.set_title(
        "Every seed. Black: the true model; dotted: within 10 % of it", fontsize="medium"
    )
    axes.legend(frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.4))
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps; no result")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    options = parser.parse_args(arguments)
    if options.quick:
        options.seeds, options.steps, options.episodes = 1, 10, 2
    results = run(options.seeds, options.steps, options.episodes, options.jobs)
    text = json.dumps({"references": results.references, "curves": results.curves}, indent=1)
    write(options.folder / "learning.json", text + "\n")
    plot(results, options.folder / "learning.png")
    for name, value in results.references.items():
        print(f"{name:34} {value['return']:8.1f} ± {value['error']:.1f}")
    for name, curves in results.curves.items():
        ends = "  ".join(f"{c[-1]['return']:8.1f} ± {c[-1]['error']:.1f}" for c in curves)
        print(f"{name:34} {ends}")


if __name__ == "__main__":
    main()
