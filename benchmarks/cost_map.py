"""Does a network that writes the cost learn faster, or stand more: PPO on the planar quadrotor.

    python -m benchmarks.cost_map [--quick] [--seeds 3] [--only MLP ...] [--folder somewhere]

Romero et al. (2023, arXiv 2306.09852) let a network write the stage costs of a plan from the
observation, and find that PPO learns it faster than an MLP and that it stands disturbances better.
Here PPO trains on the nominal dynamics, and its deterministic actions are scored on these, on
dynamics that change at test time, and in gusts. No policy is told of them: plans go on with the
nominal model.

Plans begin with the environment's own cost, where the untrained policy is good, or with one whose
weights on the position are ten times too small, which a learned cost has to repair. Beside the
cost map are trained what is simpler: the value of the last state, and one set of weights and linear
terms for all states. The physics is not learned. The settings of the cost map are the best of five
on seed 100, which is none of those that are reported; the others' were looked at once, there, with
less exploration. Each run is kept in a file, and is not made again.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks import gusts
from benchmarks.learners import SYSTEMS
from benchmarks.learning import UNSEEN, Scores
from benchmarks.learning_report import bar
from mpc_gym import MPC, make_mpc, make_sb3_vec_env
from mpc_gym.files import write
from mpc_gym.imitation import Stateless, evaluate
from mpc_gym.policies import MPCPolicy, RecedingHorizon

SYSTEM = "planar quadrotor"
ENV_ID = SYSTEMS[SYSTEM]
N_ENVS = 16
TOO_SMALL = 0.1  # by which the weights on the position are multiplied
CHANGES: dict[str, tuple[str | EnvSpec, dict[str, Any]]] = {  # environments and their arguments
    "nominal": (ENV_ID, {}),
    "mass x 1.3": (ENV_ID, {"mass": 1.3}),
    "mass x 0.7": (ENV_ID, {"mass": 0.7}),
    "drag x 3": (ENV_ID, {"drag": 0.3}),
    "inertia x 1.5": (ENV_ID, {"inertia": 0.03}),
    "gusts of 1 N": (gusts.SPEC, {"gust": 1.0}),
    "gusts of 3 N": (gusts.SPEC, {"gust": 3.0}),
}
EARLY = (2_500, 5_000)  # steps after which the score on the nominal dynamics is in the table
RESULTS = Path(__file__).parent / "results" / "cost_map"


def own_cost(horizon: int | None = None, **options: Any) -> MPC:
    """Plans with the environment's model and cost."""
    return make_mpc(ENV_ID, horizon, **{"learn": (), "max_iterations": 50, **options})


def wrong_cost(horizon: int | None = None, **options: Any) -> MPC:
    """Plans with the environment's model, and a cost that hardly minds where the quadrotor is."""
    mpc = own_cost(horizon, **options)
    with torch.no_grad():
        mpc.cost.get_parameter("C")[:2] *= (
            TOO_SMALL  # the goal is the origin: there is no linear term
        )
    return mpc


COSTS = {"own cost": own_cost, "wrong cost": wrong_cost}


@dataclass(frozen=True)
class Trained:
    """A policy and its settings.

    Args:
        policy, options: of PPO.
        steps: in multiples of those of a training.
        most_seeds: runs at most.
    """

    policy: Any
    options: dict[str, Any]
    steps: int = 1
    most_seeds: int = 10


def planning(cost: str, learn: str) -> Trained:
    """PPO with plans by a cost, of which `learn` is learned."""
    options = {"n_steps": 64, "batch_size": 256, "learning_rate": RATES[learn]}
    return Trained(MPCPolicy, {**options, "policy_kwargs": {"mpc": COSTS[cost], "learn": learn}})


# RL Baselines3 Zoo's for Pendulum-v1, with as many steps in a rollout
PENDULUM = {
    "n_steps": 256,
    "batch_size": 64,
    "gae_lambda": 0.95,
    "gamma": 0.9,
    "learning_rate": 1e-3,
    "use_sde": True,
    "sde_sample_freq": 4,
}
# RL Baselines3 Zoo's for LunarLanderContinuous-v2, of its tasks the most like this one
LUNAR_LANDER = {
    "n_steps": 1024,
    "batch_size": 64,
    "gae_lambda": 0.98,
    "gamma": 0.999,
    "n_epochs": 4,
    "ent_coef": 0.01,
}
RATES = {"terminal": 3e-3, "cost": 1e-2, "cost_map": 3e-4}
TRAINED = {
    "MLP": Trained("MlpPolicy", PENDULUM),
    "MLP, 1,000,000 steps": Trained("MlpPolicy", LUNAR_LANDER, steps=50, most_seeds=1),
    "own cost, cost_map": planning("own cost", "cost_map"),
    **{f"wrong cost, {learn}": planning("wrong cost", learn) for learn in RATES},
}


def scores(agent: Any, episodes: int) -> dict[str, float]:
    """Mean return on each dynamics, over the same start states and gusts."""
    seeds = range(UNSEEN, UNSEEN + episodes)
    return {
        name: round(evaluate(Stateless(agent), gym.make(source, **changed), seeds).mean, 2)
        for name, (source, changed) in CHANGES.items()
    }


def train(trained: Trained, seed: int, steps: int, episodes: int) -> dict[str, Any]:
    """One training: its scores on the nominal dynamics, and the last ones on all."""
    options = dict(trained.options)
    gamma = options.setdefault("gamma", 0.99)
    options["n_steps"] = min(options["n_steps"], math.ceil(steps / N_ENVS))
    options["batch_size"] = min(options["batch_size"], options["n_steps"] * N_ENVS)
    # without that, the critic's error is large beside the policy's gradient, and clips it
    env = VecNormalize(make_sb3_vec_env(ENV_ID, N_ENVS, seed=seed), norm_obs=False, gamma=gamma)
    model = PPO(trained.policy, env, seed=seed, device="cpu", **options)
    curve = Scores(SYSTEM, episodes)
    model.learn(steps * trained.steps, callback=curve)
    return {"rows": curve.rows, "scores": scores(model.policy, episodes)}


def kept(file: Path, name: str, seed: int, options: Any) -> dict[str, Any]:
    """A training that was made before, or is made now."""
    if not file.exists():
        run = train(TRAINED[name], seed, options.steps, options.episodes)
        write(file, json.dumps(run, indent=1) + "\n")
        print(f"{name}, seed {seed}: {run['scores']}, {run['rows'][-1]['cpu']} s", flush=True)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def at(run: Mapping[str, Any], step: int) -> float:
    """The first score that a run has after so many steps, or its last."""
    later = [row["return"] for row in run["rows"] if row["step"] >= step]
    return float((later or [run["rows"][-1]["return"]])[0])


def steps_to(runs: Sequence[Mapping[str, Any]], level: float) -> str:
    """After how many steps runs first scored so much: the median, and how many ever did."""
    firsts = [
        next((row["step"] for row in run["rows"] if row["return"] >= level), None) for run in runs
    ]
    found = [first for first in firsts if first is not None]
    if not found:
        return "never"
    share = f" ({len(found)} of {len(runs)})" if None in firsts else ""
    return f"{np.median(found):,.0f}{share}"


def shown(returns: Sequence[float]) -> str:
    """Median, lowest and highest, where there are several."""
    median, low, high = (_short(pick(returns)) for pick in (np.median, np.min, np.max))
    return median if len(returns) == 1 else f"{median} ({low} to {high})"


def _short(value: float) -> str:
    if value > -1_000:
        return f"{value:.1f}"
    return f"{value:,.0f}" if value > -1e5 else f"{value / 1e6:.1f}e6"


def table(untrained: Mapping[str, Any], runs: Mapping[str, Sequence[Any]]) -> str:
    """In Markdown: a line for each policy, a column for each score.

    Beside these, when a policy was first within 10 % of plans with the right model and cost.
    """
    level = bar(untrained["own cost"]["nominal"])
    early = [f"after {step:,}" for step in EARLY]
    columns = ["", *early, f"steps to {level:.1f}", *CHANGES, "CPU s a run"]
    lines = [columns, ["---", *(len(columns) - 1) * ["---:"]]]
    for name, found in untrained.items():
        lines.append(
            [f"{name}, untrained", "", "", "", *(shown([each]) for each in found.values()), ""]
        )
    for name, each in runs.items():
        early = [shown([at(run, step) for run in each]) for step in EARLY]
        ends = [shown([run["scores"][change] for run in each]) for change in CHANGES]
        seconds = np.median([run["rows"][-1]["cpu"] for run in each])
        lines.append([name, *early, steps_to(each, level), *ends, f"{seconds:.0f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps; no result")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=[*TRAINED], default=[*TRAINED])
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where each run is kept")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.quick:
        options.seeds, options.steps, options.episodes = 1, 10, 2
    untrained = {
        name: scores(RecedingHorizon(cost()), options.episodes) for name, cost in COSTS.items()
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.only:
            if len(runs[name]) == TRAINED[name].most_seeds:
                continue
            file = options.folder / f"{name} {seed}.json".replace(" ", "_").replace(",", "")
            runs[name].append(kept(file, name, seed, options))
    print(table(untrained, runs))


if __name__ == "__main__":
    main()
