"""The second part of the demo: a quadrotor learns to fly round an obstacle, planning or not.

The environment ends an episode whose quadrotor hits the obstacle. Plans, the expert's too, keep a
margin to it, since a plan that touches it would hit it with any other model than the true one. An
MLP learns from the same flights, and knows nothing of the obstacle.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from mpc_gym.experiments.environments import PLANAR_QUADROTOR
from mpc_gym.experiments.film import Reel, shoot
from mpc_gym.experiments.methods import (
    CLONE_DYNAMICS,
    CLONE_NETWORK,
    MethodOptions,
    clone_by_epochs,
    make_policy,
)
from mpc_gym.experiments.progress import Stages
from mpc_gym.imitation import Evaluation, Stateless, collect, evaluate
from mpc_gym.imitation.rates import FallingRate
from mpc_gym.policies import MPCPolicy

ENV_ID, RADIUS, MARGIN = "DiffPlanarQuadrotor-v0", 0.7, 0.05  # [m]
OPTIONS = MethodOptions(PLANAR_QUADROTOR.wrong_physics, horizon=30, starts=8)
CONSTANT = 4  # epochs, before the learning rate falls: near the obstacle small errors are dear


class Size(NamedTuple):
    """How much there is to learn from and to measure.

    Args:
        mpc_epochs, mlp_epochs: of the policy that plans, and of the one that does not.
        episodes: unseen start states.
        max_steps: an episode ends after so many steps at the latest.
    """

    mpc_epochs: int
    mlp_epochs: int
    episodes: int
    max_steps: int


FULL = Size(mpc_epochs=15, mlp_epochs=300, episodes=20, max_steps=60)
QUICK = Size(mpc_epochs=1, mlp_epochs=1, episodes=2, max_steps=10)


@dataclass(frozen=True)
class Flights:
    """What came of the flights from unseen start states.

    Attributes:
        scores: of the agents "expert", "mpc_before", "mpc" and "mlp".
        reel: some of them, from the start state from which the MLP earns its median.
        max_steps: what a flight takes that does not end at the obstacle.
    """

    scores: dict[str, Evaluation]
    reel: Reel
    max_steps: int

    def crashes(self, agent: str) -> int:
        """How many flights of an agent ended at the obstacle."""
        return int((self.scores[agent].lengths < self.max_steps).sum())


def fly(demonstrations: int, seed: int, size: Size, stages: Stages) -> Flights:
    """Let both policies learn from an expert's flights, and fly themselves.

    Args:
        demonstrations: flights to learn from.
        seed: of start states, initial weights and the order of learning.
        size: how much.
        stages: where the progress is shown.
    """
    env = gym.make(ENV_ID, obstacle=RADIUS)
    seeds = range(seed + demonstrations, seed + demonstrations + size.episodes)
    with stages.stage("The quadrotor's expert flies"):
        expert = OPTIONS.expert(env)
        _keep_away(expert)
        flights = collect(
            expert, env, demonstrations, seed, max_steps=size.max_steps, progress_bar=False
        )

    def score(agent: Any) -> Evaluation:
        return evaluate(Stateless(agent), env, seeds, max_steps=size.max_steps)

    mpc = make_policy(MPCPolicy, env, seed, learn=dict(OPTIONS.learn), **OPTIONS.planning)
    before = make_policy(MPCPolicy, env, seed, learn=dict(OPTIONS.learn), **OPTIONS.planning)
    mlp = make_policy(ActorCriticPolicy, env, seed)
    for planning in (mpc, before):
        _keep_away(planning.mpc)
    rate = FallingRate(0.1, 0.005, CONSTANT, max(size.mpc_epochs - CONSTANT, 0))
    recipe = {**CLONE_DYNAMICS, "learning_rate": rate}
    with stages.stage("Both learn to fly", size.mpc_epochs + size.mlp_epochs) as advance:
        clone_by_epochs(mpc, flights, size.mpc_epochs, seed, recipe, advance)
        clone_by_epochs(mlp, flights, size.mlp_epochs, seed, CLONE_NETWORK, advance)
    agents: dict[str, Any] = {"expert": expert, "mpc_before": before, "mpc": mpc, "mlp": mlp}
    with stages.stage("All fly round the obstacle", 2 * len(agents) - 1) as advance:
        scores = {}
        for name, agent in agents.items():
            scores[name] = score(agent)
            advance()
        filmed = {"Wrong physics": before, "Cloned MPC": mpc, "Cloned MLP": mlp}
        shown = {name: Stateless(agent) for name, agent in filmed.items()}
        median = np.argsort(scores["mlp"].returns)[(size.episodes - 1) // 2]
        reel = shoot(shown, env, seeds[median], size.max_steps, advance)
    return Flights(scores, reel, size.max_steps)


def _keep_away(mpc: Any) -> None:
    """Let plans keep the margin to the obstacle."""
    mpc.constraints.radius.fill_(RADIUS + MARGIN)
