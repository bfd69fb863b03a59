"""How the trained policies that come with the package are made.

    python -m mpc_gym.experiments.make_pretrained

For each environment an `MPCPolicy`, cloned from ten demonstrations from wrong start physics, and an
`MlpPolicy`, trained by DAgger. Their expert plans with the true physics.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from mpc_gym.experiments.environments import CARTPOLE, PENDULUM, Physics
from mpc_gym.experiments.learner import without_convergence_warnings
from mpc_gym.experiments.methods import (
    CLONE_DYNAMICS,
    CLONE_NETWORK,
    TRAINING,
    MethodOptions,
    make_policy,
)
from mpc_gym.imitation import BehavioralCloning, DAgger, Stateless, collect, evaluate
from mpc_gym.mpc import MPC
from mpc_gym.policies import MPCPolicy, save_pretrained
from mpc_gym.policies.sharing.pretrained import SHIPPED

SCORED_FROM = 1_000_000  # seeds of the episodes for the scores; learning uses lower ones


@dataclass(frozen=True)
class Recipe:
    """Where a policy acts, and how its expert plans.

    Args:
        env_id: the environment.
        wrong_physics: the MPC's first guess of each parameter that it learns.
        options: of the plans of expert and MPC alike.
    """

    env_id: str
    wrong_physics: Physics
    options: MethodOptions

    def expert(self) -> MPC:
        """It plans with the true physics."""
        return self.options.expert(self.env_id)


# The nominal model of the windy pendulum knows no wind and no damping. Far from upright it needs
# several swings, and so a longer plan.
WINDY: Mapping[str, float] = {**PENDULUM.wrong_physics, "damping": 0.0, "wind": 0.0}
RECIPES = (
    Recipe("DiffPendulum-v0", PENDULUM.wrong_physics, MethodOptions()),
    Recipe("DiffPendulumWindy-v0", WINDY, MethodOptions(horizon=40)),
    Recipe("DiffCartPole-v0", CARTPOLE.wrong_physics, MethodOptions()),
)


@dataclass(frozen=True)
class Size:
    """How long to learn and to measure.

    Args:
        demonstrations: episodes to clone the MPC from.
        mpc_epochs: of its cloning.
        rounds, episodes, mlp_epochs: of the MLP's DAgger: its epochs are those of each round.
        evaluations: episodes of each score.
        max_steps: an episode ends after so many steps at the latest.
    """

    demonstrations: int = 10
    mpc_epochs: int = 30
    rounds: int = 10
    episodes: int = 10
    mlp_epochs: int = 100
    evaluations: int = 100
    max_steps: int | None = None


def make_pretrained(
    recipe: Recipe, output: Path, size: Size, seed: int, report: Callable[[str], None]
) -> None:
    """Train and score both policies of an environment, and write them to `output`/env_id.

    Args:
        recipe: of the environment.
        output: the folder of all policies.
        size: how long.
        seed: of start states, initial weights and the order of learning.
        report: called with the text of each policy's scores.
    """
    expert = recipe.expert()
    seeds = range(SCORED_FROM, SCORED_FROM + size.evaluations)
    scored = evaluate(expert, recipe.env_id, seeds, max_steps=size.max_steps)
    for kind, train in (("mpc", _train_mpc), ("mlp", _train_mlp)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policy, how = train(recipe, size, seed)
        score = evaluate(policy, recipe.env_id, seeds, max_steps=size.max_steps)
        result = (
            f"Return {score.mean:.1f} ± {score.standard_error:.1f} (mean and standard error over "
            f"{size.evaluations} episodes, `env.reset(seed=...)` from {SCORED_FROM}), beside "
            f"{scored.mean:.1f} ± {scored.standard_error:.1f} of its expert."
        )
        save_pretrained(policy, output / recipe.env_id / kind, f"{result}\n\n{how}")
        report(f"{recipe.env_id}/{kind}: {result}")


def _train_mpc(recipe: Recipe, size: Size, seed: int) -> tuple[BasePolicy, str]:
    expert = recipe.expert()
    learn = dict(recipe.wrong_physics)
    policy = make_policy(MPCPolicy, recipe.env_id, learn=learn, **recipe.options.planning)
    demonstrations = collect(
        Stateless(expert), recipe.env_id, size.demonstrations, seed, max_steps=size.max_steps
    )
    BehavioralCloning(policy, demonstrations, seed=seed, **TRAINING, **CLONE_DYNAMICS).train(
        size.mpc_epochs
    )
    wrong = ", ".join(f"{name} {value:g}" for name, value in recipe.wrong_physics.items())
    return policy, (
        f"Cloned from {size.demonstrations} episodes of an expert that plans with the true "
        f"physics, and from the next states observed there. Its physics at first: {wrong}. "
        f"{_origin(seed)}"
    )


def _train_mlp(recipe: Recipe, size: Size, seed: int) -> tuple[BasePolicy, str]:
    expert = recipe.expert()
    policy = make_policy(ActorCriticPolicy, recipe.env_id, net_arch=[64, 64])
    DAgger(
        policy,
        expert,
        recipe.env_id,
        episodes=size.episodes,
        epochs=size.mlp_epochs,
        batch_size=512,
        seed=seed,
        max_steps=size.max_steps,
        **CLONE_NETWORK,
    ).train(size.rounds)
    return policy, (
        f"Trained by DAgger: {size.rounds} rounds of {size.episodes} episodes, labelled by an "
        f"expert that plans with the true physics. Its value network is not trained. "
        f"{_origin(seed)}"
    )


def _origin(seed: int) -> str:
    return f"Made by `python -m mpc_gym.experiments.make_pretrained --seed {seed}`."


def main(
    output: Annotated[Path, typer.Option(help="Folder of the policies.")] = SHIPPED,
    only: Annotated[str | None, typer.Option(help="One environment; by default all.")] = None,
    seed: Annotated[int, typer.Option(help="Of start states, weights and order.")] = 0,
) -> None:
    """Train, score and write the policies that come with the package."""
    console = Console()
    torch.set_num_threads(1)  # more of them only get in each other's way: the networks are small
    with without_convergence_warnings():
        for recipe in RECIPES:
            if only in {None, recipe.env_id}:
                make_pretrained(recipe, output, Size(), seed, console.print)


if __name__ == "__main__":
    typer.run(main)
