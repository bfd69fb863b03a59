"""Learning where plans sit at their limits: what a policy's gradient is taken of, at equal steps.

    python -m benchmarks.limits [--quick] [--seeds 6] [--first 0] [--steps N] [--folder F]
                                [--only PPO SAC cloning] [--methods plan unclamped mu=0.1]

A pendulum's swing-up holds its torque at the limit nearly always, and there the plan's first
control does not depend on the model. Learners of gravity, mass and length take their gradient of

- `plan`: the plan's control as it is;
- `unclamped`: the control as it would be without its own bounds (`Plan.unclamped`);
- `mu=...`: plans that are smoothed by so much throughout;
- `annealed`: plans whose smoothing falls in the first 60 % of the steps (in cloning, as
  `BehavioralCloning` lets it fall).

All else is the same: seeds, steps, learning rates, start. Scored are the plain plans of what was
learned, on unseen start states. PPO and SAC are those of `benchmarks.learning` with fewer steps,
SAC with smaller batches, from its wrong physics; cloning compares the action alone, from physics
that each seed draws. All of it takes one thread more than an hour.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from benchmarks.learners import ALONE, LEARNERS, SYSTEMS, WRONG
from benchmarks.learning import UNSEEN
from mpc_gym import make_mpc, make_sb3_vec_env
from mpc_gym.experiments.methods import make_policy, without_convergence_warnings
from mpc_gym.files import write
from mpc_gym.imitation import (
    BehavioralCloning,
    Demonstrations,
    FallingRate,
    Stateless,
    Training,
    TrainingOptions,
    collect,
    concatenate,
    evaluate,
    imitation_loss,
)
from mpc_gym.imitation.losses import ActionLoss
from mpc_gym.models import current_values
from mpc_gym.mpc import Plan
from mpc_gym.policies import (
    CriticFirst,
    MPCPolicy,
    PlanningPolicy,
    RecedingHorizon,
    SACMPCPolicy,
    TD3MPCPolicy,
)
from mpc_gym.policies.off_policy import SACMPCActor

ENV_ID = SYSTEMS["pendulum"]
PLAN, UNCLAMPED = "plan", "unclamped"
SMOOTHED: dict[str, tuple[float, float]] = {  # first and last mu
    "mu=0.1": (0.1, 0.1),
    "mu=0.01": (0.01, 0.01),
    "mu=0.001": (0.001, 0.001),
    "annealed": (0.1, 1e-4),
}
METHODS = (PLAN, UNCLAMPED, *SMOOTHED)
FALLING = 0.6  # of the steps of PPO and SAC
SCORES = 4  # before and while a policy learns by rewards; one more is at the end
CRITIC_FIRST = {"PPO": 4_000, "SAC": 6_000}  # steps before the plan learns

CLONING = "cloning"
SMALLER: dict[str, dict[str, Any]] = {"PPO": {}, "SAC": {"batch_size": 64}}
STEPS = {"PPO": 12_000, "SAC": 15_000, CLONING: 40}  # of the environment; epochs
CLONED: dict[str, Any] = {"horizon": 20, "max_iterations": 50}
EPISODES, EPISODE_STEPS = 20, 50  # of a demonstration: the swing-up, and little balancing
FACTOR = 2.0  # by which a cloned physical parameter is too large or too small at most
RATE = 0.03


def _held(plan: Plan) -> Plan:
    """The plan as if its first control had nothing beyond its bounds."""
    return replace(plan, unclamped=plan.controls[:, 0])


class HeldMPCPolicy(MPCPolicy):
    """With the plan's own gradient."""

    def _plan(self, obs: PyTorchObs) -> Plan:
        return _held(super()._plan(obs))


class HeldSACMPCActor(SACMPCActor):
    """With the plan's own gradient."""

    def _plan(self, obs: PyTorchObs) -> Plan:
        return _held(super()._plan(obs))


class HeldSACMPCPolicy(SACMPCPolicy):
    """With the plan's own gradient."""

    actor_class = HeldSACMPCActor


HELD: dict[Any, Any] = {MPCPolicy: HeldMPCPolicy, SACMPCPolicy: HeldSACMPCPolicy}


class Smoothing(BaseCallback):
    """Sets mu before each rollout, and scores the plain plans at equal distances.

    Args:
        method: of `METHODS`.
        steps: of the whole training.
        episodes: by which a policy is scored.
    """

    def __init__(self, method: str, steps: int, episodes: int) -> None:
        super().__init__()
        self.steps, self.episodes = steps, episodes
        mu = SMOOTHED.get(method)
        self.mu = mu and FallingRate(*mu, constant=0, falling=round(FALLING * steps))
        self.curve: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= len(self.curve) * self.steps / SCORES:
            self.score()
        if self.mu is not None:
            self._smoothing.fill_(self.mu.at(self.num_timesteps))

    def score(self) -> None:
        """One more value of the curve."""
        own = float(self._smoothing)
        self._smoothing.fill_(0.0)
        self.curve.append(self.as_it_acts())
        self._smoothing.fill_(own)

    def as_it_acts(self) -> float:
        """The return by plans that are smoothed as they are in training."""
        return score(self.model.policy, self.episodes)

    @property
    def _smoothing(self) -> torch.Tensor:
        policy = self.model.policy
        assert isinstance(policy, PlanningPolicy)
        return policy.mpc.smoothing


def score(policy: Any, episodes: int) -> float:
    """The mean return of its deterministic actions."""
    return evaluate(Stateless(policy), ENV_ID, range(UNSEEN, UNSEEN + episodes)).mean


def learn(name: str, method: str, seed: int, steps: int, episodes: int) -> dict[str, Any]:
    """By rewards: the returns before, while and after it learned."""
    learner = LEARNERS[f"{name}, {ALONE}"]
    env: VecEnv = make_sb3_vec_env(ENV_ID, learner.n_envs, seed=seed)
    if learner.reward_gamma is not None:
        env = VecNormalize(env, norm_obs=False, gamma=learner.reward_gamma)
    policy = HELD[learner.policy] if method == PLAN else learner.policy
    model = learner.algorithm(policy, env, seed=seed, **learner.options, **SMALLER[name])
    scores = Smoothing(method, steps, episodes)
    model.learn(steps, callback=CallbackList([scores, CriticFirst(CRITIC_FIRST[name])]))
    scores.score()
    return {
        "score": scores.curve[-1],
        "curve": scores.curve,
        "as it acts": scores.as_it_acts(),
        **_physics(model.policy),
    }


def clone(method: str, seed: int, epochs: int, episodes: int) -> dict[str, Any]:
    """From demonstrations of the true model: the error of the actions in other episodes."""
    rng = np.random.default_rng(seed)
    start = {name: _true()[name] * FACTOR ** rng.uniform(-1, 1) for name in WRONG}
    expert = Stateless(RecedingHorizon(make_mpc(ENV_ID, **CLONED)))
    shown, unseen = (
        collect(expert, ENV_ID, EPISODES, seed=first + EPISODES * seed, max_steps=EPISODE_STEPS)
        for first in (0, UNSEEN)
    )
    kind = TD3MPCPolicy if method == UNCLAMPED else MPCPolicy
    policy = make_policy(kind, ENV_ID, seed, learn=start, **CLONED)
    before = imitation_loss(policy, unseen)
    if method == UNCLAMPED:
        _clone_unclamped(policy, shown, seed, epochs)
    else:
        cloning = BehavioralCloning(
            policy, shown, learning_rate=RATE, smoothing=SMOOTHED.get(method), seed=seed
        )
        cloning.train(epochs, progress_bar=False)
    after = imitation_loss(policy, unseen)
    return {
        "score": after,
        "before": before,
        "return": score(policy, episodes),
        **_physics(policy),
    }


def _clone_unclamped(policy: Any, shown: Demonstrations, seed: int, epochs: int) -> None:
    """As `BehavioralCloning`, by the action of TD3's actor, which has the unclamped gradient."""
    training, validation = shown.split(0.1, seed)
    rows = torch.arange(len(shown))
    loop = Training(
        policy.actor,
        ActionLoss(policy, concatenate([training, validation])),
        rows[: len(training)],
        rows[len(training) :],
        TrainingOptions(learning_rate=RATE, seed=seed),
        {},
        None,
    )
    loop.run(epochs, progress_bar=False)


def _true() -> dict[str, float]:
    values = current_values(make_mpc(ENV_ID).dynamics)
    return {name: values[name].item() for name in WRONG}


def _physics(policy: Any) -> dict[str, float]:
    values = current_values(policy.mpc.dynamics)
    return {name: values[name].item() for name in WRONG}


def train(name: str, method: str, seed: int, steps: int, episodes: int) -> dict[str, Any]:
    """One training run, whose result the seed decides."""
    torch.set_num_threads(1)
    with without_convergence_warnings():
        if name == CLONING:
            found = clone(method, seed, steps, episodes)
        else:
            found = learn(name, method, seed, steps, episodes)
    return {"algorithm": name, "method": method, "seed": seed, **found}


def tables(runs: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """A table for each algorithm: each seed's score, their median, and how many were the best."""
    for name in STEPS:
        mine = [run for run in runs if run["algorithm"] == name]
        if not mine:
            continue
        lower = name == CLONING
        table = Table(title=f"{name}: {'error of the actions' if lower else 'return'} at the end")
        for column in ("gradient of", "median", "mean of the curve", "best", "each seed"):
            table.add_column(column, justify="left" if column == "gradient of" else "right")
        best = {
            run["seed"]: (min if lower else max)(
                other["score"] for other in mine if other["seed"] == run["seed"]
            )
            for run in mine
        }
        for method in dict.fromkeys(run["method"] for run in mine):
            own = [run for run in mine if run["method"] == method]
            values = [run["score"] for run in own]
            form = "{:.1e}" if lower else "{:.0f}"
            table.add_row(
                method,
                form.format(median(values)),
                "" if lower else f"{mean(mean(run['curve'][1:]) for run in own):.0f}",
                str(sum(run["score"] == best[run["seed"]] for run in own)),
                " ".join(form.format(value) for value in values),
            )
        yield table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps; no result")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, help="or epochs, in the place of each one's own")
    parser.add_argument("--episodes", type=int, default=40, help="by which a policy is scored")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + (1 if options.quick else options.seeds))
    episodes = 2 if options.quick else options.episodes
    steps = 10 if options.quick else options.steps
    tasks = [
        (name, method, seed, steps or STEPS[name], episodes)
        for name in options.only
        for seed in seeds
        for method in options.methods
    ]
    runs = []
    for run in Parallel(n_jobs=options.jobs, return_as="generator")(
        delayed(train)(*task) for task in tasks
    ):
        print(json.dumps(run), flush=True)
        runs.append(run)
    write(options.folder / "limits.json", json.dumps(runs, indent=1) + "\n")
    for table in tables(runs):
        Console().print(table)


if __name__ == "__main__":
    main()
