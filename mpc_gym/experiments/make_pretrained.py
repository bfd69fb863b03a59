"""How the trained policies that come with the package are made.

    make policies, or python -m mpc_gym.experiments.make_pretrained

For each environment an `MPCPolicy`, whose physics is wrong at first and is fitted to what happens
in ten episodes of an expert, and an `MlpPolicy`, trained by DAgger. Their expert plans with the
true physics. Each is scored on the same start states as the policy that lies in its place; one that
is significantly worse is not written.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
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
    TRAINING,
    MethodOptions,
    make_policy,
    without_convergence_warnings,
)
from mpc_gym.imitation import (
    BehavioralCloning,
    DAgger,
    Evaluation,
    Stateless,
    SystemIdentification,
    collect,
    evaluate,
)
from mpc_gym.imitation.rates import FallingRate
from mpc_gym.policies import MPCPolicy, load_pretrained, save_pretrained
from mpc_gym.policies.sharing.policy_folder import CONFIG_FILE
from mpc_gym.policies.sharing.pretrained import SHIPPED

SIGNIFICANT, NEGLIGIBLE = 2.0, 1e-3  # standard errors; of the return
FIT_RATES = (0.1, 1e-4)  # of the MPC's physics: first and last
NETWORK_RATES = (1e-3, 1e-5)
WIDTHS = [128, 128]
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
        demonstrations, fit: episodes to fit the MPC's physics to, and epochs of that.
        rounds, episodes, epochs: of the MLP's DAgger; the latter two of each round.
        last: epochs over the labels of all rounds in the end, while the learning rate falls.
        evaluations: episodes of each score.
        max_steps: an episode ends after so many steps at the latest.
    """

    demonstrations: int = 10
    fit: int = 300
    rounds: int = 30
    episodes: int = 10
    epochs: int = 15
    last: int = 60
    evaluations: int = 100
    max_steps: int | None = None


def make_pretrained(
    env_id: str, folder: Path, size: Size, seed: int, report: Callable[[str], None]
) -> None:
    """Train and score both policies of an environment, and write them to `folder`/env_id.

    A policy that lies there is kept where the new one is significantly worse, by a thousandth
    of the return or more.

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
        before = folder / env_id / kind
        if (before / CONFIG_FILE).exists():
            old = load_pretrained(before, device="cpu")
            shipped = evaluate(old, env_id, seeds, max_steps=size.max_steps)
            gain, error = paired(score, shipped)
            report(
                f"{env_id}/{kind}: {score.mean:.1f}, before {shipped.mean:.1f}; on the same start "
                f"states {gain:+.2g} ± {error:.2g}"
            )
            if gain < -max(SIGNIFICANT * error, NEGLIGIBLE * abs(shipped.mean)):
                report(f"{env_id}/{kind}: worse, so that the one of before is kept")
                continue
        result = (
            f"Return {score.mean:.1f} ± {score.standard_error:.1f} (mean and standard error over "
            f"{size.evaluations} episodes, `env.reset(seed=...)` from {SCORED_FROM}), beside "
            f"{scored.mean:.1f} ± {scored.standard_error:.1f} of its expert."
        )
        origin = f"Made by `python -m mpc_gym.experiments.make_pretrained --seed {seed}`."
        save_pretrained(policy, folder / env_id / kind, f"{result}\n\n{how} {origin}")
        report(f"{env_id}/{kind}: {result}")


def paired(new: Evaluation, old: Evaluation) -> tuple[float, float]:
    """What one agent earns more than another from the same start states: mean, standard error."""
    gains = new.returns - old.returns
    return float(gains.mean()), float(np.std(gains, ddof=1) / math.sqrt(len(gains)))


def _train_mpc(env_id: str, size: Size, seed: int) -> tuple[BasePolicy, str]:
    options = RECIPES[env_id]
    expert = Stateless(options.expert(env_id))
    examples = collect(expert, env_id, size.demonstrations, seed, max_steps=size.max_steps)
    policy = make_policy(MPCPolicy, env_id, seed, learn=dict(options.learn), **options.planning)
    half = size.fit // 2
    rate = FallingRate(*FIT_RATES, half, size.fit - half)
    fit = SystemIdentification(policy, examples, learning_rate=rate, seed=seed, **TRAINING)
    fit.train(size.fit, progress_bar=False)
    wrong = ", ".join(f"{name} {value:g}" for name, value in options.learn.items())
    return policy, (
        f"Its physics is fitted to the states observed in {size.demonstrations} episodes of an "
        f"expert that plans with the true one. Its physics at first: {wrong}."
    )


def _train_mlp(env_id: str, size: Size, seed: int) -> tuple[BasePolicy, str]:
    policy = make_policy(ActorCriticPolicy, env_id, seed, net_arch=WIDTHS)
    learning = DAgger(
        policy,
        RECIPES[env_id].expert(env_id),
        env_id,
        episodes=size.episodes,
        epochs=size.epochs,
        learning_rate=NETWORK_RATES[0],
        batch_size=512,
        seed=seed,
        max_steps=size.max_steps,
    )
    learning.train(size.rounds, progress_bar=False)
    BehavioralCloning(
        policy,
        learning.demonstrations,
        learning_rate=FallingRate(*NETWORK_RATES, 0, size.last),
        batch_size=512,
        seed=seed,
    ).train(size.last, progress_bar=False)
    return _with_small_critic(policy, env_id, seed), (
        f"Trained by DAgger: {size.rounds} rounds of {size.episodes} episodes, labelled by an "
        f"expert that plans with the true physics. Its value network is not trained."
    )


def _with_small_critic(trained: BasePolicy, env_id: str, seed: int) -> BasePolicy:
    """The same actor beside a value network of half the width, since that is not trained."""
    halves = [width // 2 for width in WIDTHS]
    policy = make_policy(ActorCriticPolicy, env_id, seed, net_arch={"pi": WIDTHS, "vf": halves})
    actor = {name: each for name, each in trained.state_dict().items() if "value" not in name}
    policy.load_state_dict({**policy.state_dict(), **actor})
    return policy


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
