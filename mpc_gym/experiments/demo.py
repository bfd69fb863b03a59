"""The demo: a policy that plans and one that does not learn from the same expert.

The expert plans with the true physics. Two policies clone it by its demonstrations: an `MPCPolicy`
whose physics is wrong at first, and an `MlpPolicy`. All are then scored on start states that none
of them has seen.
"""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PolicyPredictor

from mpc_gym.experiments.film import Actor, film, lowest_start
from mpc_gym.experiments.problems import Physics, Problem
from mpc_gym.experiments.progress import Stages
from mpc_gym.experiments.report import write_learning_curve, write_metrics
from mpc_gym.experiments.result import Demo, DemoOptions, Score
from mpc_gym.imitation import (
    BehavioralCloning,
    Evaluation,
    Stateless,
    collect,
    evaluate,
    imitation_loss,
)
from mpc_gym.make_mpc import make_mpc
from mpc_gym.models import current_values
from mpc_gym.mpc import MPC
from mpc_gym.policies import MPCPolicy

# Of the expert and of the policy that plans: where both have the same physics, they act alike.
# Plans that take more iterations rest on the kink where the pendulum's speed is clipped, and
# never converge; their cost has settled long before.
PLANNING: dict[str, Any] = {"horizon": 20, "starts": 8, "max_iterations": 50}

# The prediction of the next state finds the physics from afar, where most plans begin at a bound
# and the action has no gradient; the action then agrees with it. See `BehavioralCloning`.
MPC_CLONING: dict[str, Any] = {"prediction_weight": 10.0, "learning_rate": 0.1}
MLP_CLONING: dict[str, Any] = {"learning_rate": 3e-3}
CLONING: dict[str, Any] = {"loss": "action", "batch_size": 256, "validation_fraction": 0.2}

VIDEOS = ("demo.mp4", "demo.gif")
LEARNING_CURVE = "learning_curve.png"
METRICS = "metrics.json"
FILES = (*VIDEOS, LEARNING_CURVE, METRICS)


def run_demo(options: DemoOptions, console: Console | None = None) -> Demo:
    """Run the demo, and write its `FILES` to the output folder.

    Args:
        options: what to run.
        console: where to show the progress; None for nowhere.
    """
    stages = Stages(console)
    with stages.shown(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # With wrong physics some plans do not converge; the learning curve's rows count them.
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ control problems did not converge")
        torch.manual_seed(options.seed)
        demo = _run(options, stages)
    write_learning_curve(demo, options.output / LEARNING_CURVE)
    write_metrics(demo, options.output / METRICS)
    return demo


def _run(options: DemoOptions, stages: Stages) -> Demo:
    problem, effort = options.problem, options.effort
    learn_seeds, unseen_seeds, score_seeds = _episode_seeds(options)
    planner = make_mpc(options.env, learn=(), **PLANNING)
    expert = Stateless(planner)
    with stages.stage("The expert gives demonstrations"):
        demonstrations, unseen = (
            collect(
                expert,
                options.env,
                len(seeds),
                seeds[0],
                max_steps=effort.max_steps,
                progress_bar=False,
            )
            for seeds in (learn_seeds, unseen_seeds)
        )

    def score(agent: PolicyPredictor) -> Evaluation:
        return evaluate(agent, options.env, score_seeds, max_steps=effort.max_steps)

    def score_policy(policy: ActorCriticPolicy) -> Score:
        # as it was trained, and as the expert acts: by the observation alone
        return Score(score(Stateless(policy)), imitation_loss(policy, unseen))

    def clone(
        name: str, policy: ActorCriticPolicy, epochs: int, cloning_options: dict[str, Any]
    ) -> list[dict[str, float]]:
        cloning = BehavioralCloning(
            policy, demonstrations, seed=options.seed, **CLONING, **cloning_options
        )
        with stages.stage(f"The {name} policy learns", epochs) as advance:
            for epoch in range(1, epochs + 1):
                cloning.train(epoch, progress_bar=False)
                advance()
        return cloning.history

    mpc, mlp = make_policies(problem)
    physics = {"true": _physics(planner, problem), "mpc_before": _physics(mpc.mpc, problem)}
    with stages.stage("Expert and wrong physics are scored"):
        scores = {"expert": Score(score(expert)), "mpc_before": score_policy(mpc)}
    mpc_history = clone("MPC", mpc, effort.mpc_epochs, MPC_CLONING)
    mlp_history = clone("MLP", mlp, effort.mlp_epochs, MLP_CLONING)
    physics["mpc"] = _physics(mpc.mpc, problem)
    with stages.stage("The cloned policies are scored"):
        scores |= {"mpc": score_policy(mpc), "mlp": score_policy(mlp)}
    actors = (
        Actor("Expert", expert, planner),
        Actor("Cloned MPC", Stateless(mpc), mpc.mpc),
        Actor("Cloned MLP", Stateless(mlp)),
    )
    paths = [options.output / name for name in VIDEOS]
    with stages.stage("The video is drawn", len(actors) + len(paths)) as advance:
        seed = lowest_start(options.env, score_seeds)
        film(actors, options.env, seed, effort.max_steps, paths, advance)
    return Demo(options, scores, physics, {"mpc": mpc_history, "mlp": mlp_history})


def make_policies(problem: Problem) -> tuple[MPCPolicy, ActorCriticPolicy]:
    """The two learners: one that plans with wrong physics, and SB3's `MlpPolicy`."""
    with gym.make(problem.env_id) as env:
        spaces = (env.observation_space, env.action_space)
    mpc = MPCPolicy(*spaces, _no_schedule, learn=dict(problem.wrong_physics), **PLANNING)
    return mpc, ActorCriticPolicy(*spaces, _no_schedule)


def _no_schedule(_: float) -> float:
    """The learning rate of SB3's optimiser, which is not used: cloning brings its own."""
    return 0.0


def _episode_seeds(options: DemoOptions) -> tuple[range, range, range]:
    """Of the episodes to learn from, of unseen demonstrations and of scores; none is shared."""
    effort = options.effort
    counts = (options.demonstrations, effort.unseen, effort.evaluations)
    first = np.random.SeedSequence(options.seed).generate_state(1)[0]
    ends = (int(first) + np.cumsum(counts)).tolist()
    learn, unseen, score = (
        range(end - count, end) for end, count in zip(ends, counts, strict=True)
    )
    return learn, unseen, score


def _physics(mpc: MPC, problem: Problem) -> Physics:
    parameters = current_values(mpc.dynamics)
    return {name: parameters[name].item() for name in problem.wrong_physics}
