"""How the trained policies that come with the package are made.

    python -m mpc_gym.experiments.make_pretrained

For each environment an `MPCPolicy`, cloned from ten demonstrations from wrong start physics, and an
`MlpPolicy`, trained by DAgger. Their expert plans with the true physics.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from mpc_gym.experiments.environments import (
    ACROBOT,
    CAR,
    CARTPOLE,
    PENDULUM,
    PLANAR_QUADROTOR,
)
from mpc_gym.experiments.methods import (
    CLONE_NETWORK,
    METHODS,
    MethodOptions,
    make_policy,
    without_convergence_warnings,
)
from mpc_gym.imitation import DAgger, Stateless, collect, evaluate
from mpc_gym.policies import save_pretrained
from mpc_gym.policies.sharing.pretrained import SHIPPED

SCORED_FROM = 1_000_000  # seeds of the episodes for the scores; learning uses lower ones
# Of each environment: the MPC's first guess of what it learns, and how it and its expert plan. The
# nominal model of the windy pendulum knows no wind and no damping. Far from upright it needs
# several swings, and so a longer plan.
RECIPES = {
    "DiffPendulum-v0": MethodOptions(PENDULUM.wrong_physics),
    "DiffPendulumWindy-v0": MethodOptions(
        {**PENDULUM.wrong_physics, "damping": 0.0, "wind": 0.0}, horizon=40
    ),
    "DiffCartPole-v0": MethodOptions(CARTPOLE.wrong_physics),
    "DiffAcrobot-v0": MethodOptions(ACROBOT.wrong_physics, horizon=ACROBOT.horizon),
    "DiffPlanarQuadrotor-v0": MethodOptions(PLANAR_QUADROTOR.wrong_physics),
    "DiffCar-v0": MethodOptions(CAR.wrong_physics, horizon=CAR.horizon),
}


class Size(NamedTuple):
    """How long to learn and to measure.

    Args:
        demonstrations, updates: episodes to clone the MPC from, and steps of its optimiser.
        rounds, episodes, epochs: of the MLP's DAgger; the latter two of each round.
        evaluations: episodes of each score.
        max_steps: an episode ends after so many steps at the latest.
    """

    demonstrations: int = 10
    updates: int = 210  # 30 epochs
    rounds: int = 10
    episodes: int = 10
    epochs: int = 100
    evaluations: int = 100
    max_steps: int | None = None


def make_pretrained(
    env_id: str, folder: Path, size: Size, seed: int, report: Callable[[str], None]
) -> None:
    """Train and score both policies of an environment, and write them to `folder`/env_id.

    Args:
        env_id: one of `RECIPES`.
        folder: of all policies.
        size: how long.
        seed: of start states, initial weights and the order of learning.
        report: called with the text of each policy's scores.
    """
    expert = RECIPES[env_id].expert(env_id)
    seeds = range(SCORED_FROM, SCORED_FROM + size.evaluations)
    scored = evaluate(expert, env_id, seeds, max_steps=size.max_steps)
    for kind, train in (("mpc", _train_mpc), ("mlp", _train_mlp)):
        policy, how = train(env_id, size, seed)
        score = evaluate(policy, env_id, seeds, max_steps=size.max_steps)
        result = (
            f"Return {score.mean:.1f} ± {score.standard_error:.1f} (mean and standard error over "
            f"{size.evaluations} episodes, `env.reset(seed=...)` from {SCORED_FROM}), beside "
            f"{scored.mean:.1f} ± {scored.standard_error:.1f} of its expert."
        )
        origin = f"Made by `python -m mpc_gym.experiments.make_pretrained --seed {seed}`."
        save_pretrained(policy, folder / env_id / kind, f"{result}\n\n{how} {origin}")
        report(f"{env_id}/{kind}: {result}")


def _train_mpc(env_id: str, size: Size, seed: int) -> tuple[BasePolicy, str]:
    options = replace(RECIPES[env_id], updates=size.updates)
    expert = Stateless(options.expert(env_id))
    examples = collect(expert, env_id, size.demonstrations, seed, max_steps=size.max_steps)
    policy = METHODS["mpc.dx"].train(examples, env_id, seed, None, options)
    wrong = ", ".join(f"{name} {value:g}" for name, value in options.learn.items())
    return policy, (
        f"Cloned from {size.demonstrations} episodes of an expert that plans with the true "
        f"physics, and from the next states observed there. Its physics at first: {wrong}."
    )


def _train_mlp(env_id: str, size: Size, seed: int) -> tuple[BasePolicy, str]:
    policy = make_policy(ActorCriticPolicy, env_id, seed, net_arch=[64, 64])
    DAgger(
        policy,
        RECIPES[env_id].expert(env_id),
        env_id,
        episodes=size.episodes,
        epochs=size.epochs,
        batch_size=512,
        seed=seed,
        max_steps=size.max_steps,
        **CLONE_NETWORK,
    ).train(size.rounds)
    return policy, (
        f"Trained by DAgger: {size.rounds} rounds of {size.episodes} episodes, labelled by an "
        f"expert that plans with the true physics. Its value network is not trained."
    )


def main(
    folder: Annotated[Path, typer.Option(help="Folder of the policies.")] = SHIPPED,
    only: Annotated[str | None, typer.Option(help="One environment; by default all.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Train, score and write the policies that come with the package."""
    torch.set_num_threads(1)  # more of them only get in each other's way: the networks are small
    with without_convergence_warnings():
        for env_id in [only] if only else RECIPES:
            make_pretrained(env_id, folder, Size(), seed, Console().print)


if __name__ == "__main__":
    typer.run(main)
