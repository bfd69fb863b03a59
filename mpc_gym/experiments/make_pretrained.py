"""How the trained policies that come with the package are made.

    python -m mpc_gym.experiments.make_pretrained

For each environment an `MPCPolicy`, cloned from ten demonstrations from wrong start physics, and an
`MlpPolicy`, trained by DAgger. Their expert plans with the true physics.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import torch
import typer
from rich.console import Console
from stable_baselines3.common.policies import ActorCriticPolicy

from mpc_gym.experiments.problems import CARTPOLE, PENDULUM, Physics
from mpc_gym.imitation import BehavioralCloning, DAgger, Stateless, collect, evaluate
from mpc_gym.make_mpc import make_mpc
from mpc_gym.policies import MPCPolicy, save_pretrained
from mpc_gym.policies.sharing.pretrained import SHIPPED

SCORED_FROM = 1_000_000  # seeds of the episodes for the scores; learning uses lower ones


@dataclass(frozen=True)
class Recipe:
    """Where a policy acts, and how its expert plans.

    Args:
        env_id: the environment.
        wrong_physics: the MPC's first guess of each parameter that it learns.
        horizon: of the plans.
    """

    env_id: str
    wrong_physics: Physics
    horizon: int

    @property
    def planning(self) -> dict[str, Any]:
        """Of expert and MPC alike, so that they act alike where they have the same physics."""
        return {"horizon": self.horizon, "starts": 8, "max_iterations": 50}


# The nominal model of the windy pendulum knows no wind and no damping. Far from upright it needs
# several swings, and so a longer plan.
WINDY: Mapping[str, float] = {**PENDULUM.wrong_physics, "damping": 0.0, "wind": 0.0}
RECIPES = (
    Recipe(PENDULUM.env_id, PENDULUM.wrong_physics, 20),
    Recipe("DiffPendulumWindy-v0", WINDY, 40),
    Recipe(CARTPOLE.env_id, CARTPOLE.wrong_physics, 20),
)


@dataclass(frozen=True)
class Effort:
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
    recipe: Recipe, output: Path, effort: Effort, seed: int, said: Callable[[str], None]
) -> None:
    """Train and score both policies of an environment, and write them to `output`/env_id.

    Args:
        recipe: of the environment.
        output: the folder of all policies.
        effort: how long.
        seed: of start states, initial weights and the order of learning.
        said: is told each policy's scores.
    """
    expert = make_mpc(recipe.env_id, learn=(), model="true", **recipe.planning)
    seeds = range(SCORED_FROM, SCORED_FROM + effort.evaluations)
    scored = evaluate(expert, recipe.env_id, seeds, max_steps=effort.max_steps)
    for kind, train in (("mpc", _train_mpc), ("mlp", _train_mlp)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policy, how = train(recipe, effort, seed)
        score = evaluate(policy, recipe.env_id, seeds, max_steps=effort.max_steps)
        result = (
            f"Return {score.mean:.1f} ± {score.standard_error:.1f} (mean and standard error over "
            f"{effort.evaluations} episodes, `env.reset(seed=...)` from {SCORED_FROM}), beside "
            f"{scored.mean:.1f} ± {scored.standard_error:.1f} of its expert."
        )
        save_pretrained(policy, output / recipe.env_id / kind, f"{result}\n\n{how}")
        said(f"{recipe.env_id}/{kind}: {result}")


def _train_mpc(recipe: Recipe, effort: Effort, seed: int) -> tuple[ActorCriticPolicy, str]:
    expert = make_mpc(recipe.env_id, learn=(), model="true", **recipe.planning)
    policy = MPCPolicy(
        *_spaces(recipe.env_id), _no_schedule, learn=dict(recipe.wrong_physics), **recipe.planning
    )
    demonstrations = collect(
        Stateless(expert), recipe.env_id, effort.demonstrations, seed, max_steps=effort.max_steps
    )
    BehavioralCloning(
        policy,
        demonstrations,
        prediction_weight=10.0,
        learning_rate=0.1,
        batch_size=256,
        validation_fraction=0.2,
        seed=seed,
    ).train(effort.mpc_epochs)
    wrong = ", ".join(f"{name} {value:g}" for name, value in recipe.wrong_physics.items())
    return policy, (
        f"Cloned from {effort.demonstrations} episodes of an expert that plans with the true "
        f"physics, and from the next states observed there. Its physics at first: {wrong}. "
        f"{_origin(seed)}"
    )


def _train_mlp(recipe: Recipe, effort: Effort, seed: int) -> tuple[ActorCriticPolicy, str]:
    expert = make_mpc(recipe.env_id, learn=(), model="true", **recipe.planning)
    policy = ActorCriticPolicy(*_spaces(recipe.env_id), _no_schedule, net_arch=[64, 64])
    DAgger(
        policy,
        expert,
        recipe.env_id,
        episodes=effort.episodes,
        epochs=effort.mlp_epochs,
        learning_rate=3e-3,
        batch_size=512,
        seed=seed,
        max_steps=effort.max_steps,
    ).train(effort.rounds)
    return policy, (
        f"Trained by DAgger: {effort.rounds} rounds of {effort.episodes} episodes, labelled by an "
        f"expert that plans with the true physics. Its value network is not trained. "
        f"{_origin(seed)}"
    )


def _origin(seed: int) -> str:
    return f"Made by `python -m mpc_gym.experiments.make_pretrained --seed {seed}`."


def _spaces(env_id: str) -> tuple[gym.spaces.Space[Any], gym.spaces.Space[Any]]:
    env = gym.make(env_id)
    return env.observation_space, env.action_space


def _no_schedule(_: float) -> float:
    """The learning rate of SB3's optimiser, which is not used: cloning brings its own."""
    return 0.0


def main(
    output: Annotated[Path, typer.Option(help="Folder of the policies.")] = SHIPPED,
    only: Annotated[str | None, typer.Option(help="One environment; by default all.")] = None,
    seed: Annotated[int, typer.Option(help="Of start states, weights and order.")] = 0,
) -> None:
    """Train, score and write the policies that come with the package."""
    console = Console()
    torch.set_num_threads(1)  # more of them only get in each other's way: the networks are small
    with warnings.catch_warnings():
        # with wrong physics some plans do not converge
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ control problems did not converge")
        for recipe in RECIPES:
            if only in {None, recipe.env_id}:
                make_pretrained(recipe, output, Effort(), seed, console.print)


if __name__ == "__main__":
    typer.run(main)
