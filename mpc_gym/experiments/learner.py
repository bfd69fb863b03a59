"""One run of a comparison: a method learns from demonstrations, and is scored.

The runs of a comparison share what the expert did. It lies in files two levels above a run's
folder, and whichever run needs an episode first asks the expert for it.
"""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from mpc_gym.experiments.methods import MethodOptions, Start, find_method
from mpc_gym.experiments.run import Run
from mpc_gym.files import holding
from mpc_gym.imitation import (
    Demonstrations,
    Stateless,
    collect,
    concatenate,
    evaluate,
    imitation_loss,
)
from mpc_gym.imitation.training import CHECKPOINT
from mpc_gym.make_mpc import make_mpc
from mpc_gym.models.wrapped import WrappedCost
from mpc_gym.mpc import MPC
from mpc_gym.policies import PlanningPolicy, save_pretrained

EXPERT = "expert"  # the folder of what runs share; no method may be called so
POLICY = "policy"  # the folder in a run's own that `load_pretrained` reads
# Streams of start states: of a seed's demonstrations, of unseen ones, and of scores.
LEARN, UNSEEN, SCORES = "seed", "unseen", "scores"
STREAMS = (LEARN, UNSEEN, SCORES)


def make_run(prefix: str, method: str, demonstrations: int, seed: int, **settings: Any) -> Run:
    """One run of a comparison.

    Args:
        prefix: of its name; what has the same prefix shares what the expert did.
        method, demonstrations, seed: the point in the grid.
        **settings: of `run`.
    """
    name = f"{method.replace(':', '.')}/{demonstrations:03d}-demonstrations/seed-{seed}"
    grid = {"method": method, "demonstrations": demonstrations, "seed": seed}
    return Run(f"{prefix}/{name}", f"{__name__}:run", {**grid, **settings})


def run(
    folder: Path,
    env: str,
    method: str,
    demonstrations: int,
    seed: int,
    learn: dict[str, Start],
    horizon: int,
    starts: int,
    updates: int,
    hidden: int,
    episodes: int,
    unseen: int,
    max_steps: int | None,
) -> dict[str, Any]:
    """Let one method learn, and score it.

    Args:
        folder: for log, checkpoint and policy.
        env: the environment's id.
        method: its name.
        demonstrations: episodes of the expert to learn from.
        seed: of the demonstrations' start states, of initial weights and of the order of learning.
        learn, horizon, starts, updates, hidden: see `MethodOptions`.
        episodes: start states to score the return from, alike for all seeds.
        unseen: further demonstrations to measure the imitation loss on, alike for all seeds.
        max_steps: an episode ends after so many steps at the latest.

    Returns:
        What was run; "returns" beside "expert_returns", "imitation_loss", "parameters" that were
        learned, "seconds" of learning (None of a run that was resumed) and
        "seconds_per_decision".
    """
    options = MethodOptions(learn, horizon, starts, updates, hidden)
    expert = Expert(folder.parents[2] / EXPERT, env, options, max_steps)
    examples = expert.episodes(LEARN, demonstrations, seed)
    policy, seconds = learn_by(method, examples, env, seed, folder, options)
    save_pretrained(policy, folder / POLICY, _description(env, method, demonstrations))
    scores = expert.episodes(SCORES, episodes)
    with quiet():
        evaluation = evaluate(
            Stateless(policy), env, episode_seeds(SCORES, episodes), max_steps=max_steps
        )
        loss = imitation_loss(policy, expert.episodes(UNSEEN, unseen))
    return {
        "env": env,
        "method": method,
        "demonstrations": demonstrations,
        "seed": seed,
        "returns": evaluation.returns.tolist(),
        "expert_returns": scores.returns.tolist(),
        "imitation_loss": loss,
        "parameters": learned_parameters(policy, learn),
        "seconds": seconds,
        "seconds_per_decision": evaluation.seconds_per_decision,
    }


def learn_by(
    method: str,
    demonstrations: Demonstrations,
    env: str,
    seed: int,
    folder: Path,
    options: MethodOptions,
) -> tuple[BasePolicy, float | None]:
    """What a method makes of demonstrations, and the seconds it took; None where it was resumed."""
    resumed = (folder / CHECKPOINT).exists()
    began = time.perf_counter()
    with quiet():
        policy = find_method(method).train(demonstrations, env, seed, folder, options)
    return policy, None if resumed else time.perf_counter() - began


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warning that plans did not converge: with wrong physics some do not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ control problems did not converge")
        yield


class Expert:
    """What the expert did, in files: it plans with the true model, by the observation alone.

    Args:
        folder: of the files.
        env: the environment's id.
        options: of its plans, those of the learners.
        max_steps: an episode ends after so many steps at the latest.
    """

    def __init__(
        self, folder: Path, env: str, options: MethodOptions, max_steps: int | None
    ) -> None:
        self.folder, self.env, self.options, self.max_steps = folder, env, options, max_steps

    def episodes(self, stream: str, count: int, seed: int = 0) -> Demonstrations:
        """The first episodes of a stream; those that no run has asked for yet are collected.

        Args:
            stream: one of `STREAMS`.
            count: how many.
            seed: of the stream.

        Raises:
            ValueError: the file is damaged, or of another environment.
        """
        name = f"{stream}-{seed}"
        path = self.folder / f"{name}.npz"
        self.folder.mkdir(parents=True, exist_ok=True)
        with holding(self.folder / f".{name}.lock", str(path), timeout=None):
            known = Demonstrations.load(path) if path.exists() else None
            if known is not None:
                check_demonstrations(known, self.env, path)
            have = known.episodes if known is not None else 0
            if have < count:
                agent = Stateless(self.planner())
                seeds = episode_seeds(stream, count, seed)[have:]
                new = collect(
                    agent,
                    self.env,
                    len(seeds),
                    seeds[0],
                    max_steps=self.max_steps,
                    progress_bar=False,
                )
                known = new if known is None else concatenate([known, new])
                known.save(path)
        assert known is not None
        return known.select(range(count))

    def planner(self) -> MPC:
        """What the expert plans with."""
        return make_mpc(self.env, learn=(), model="true", **self.options.planning)


def episode_seeds(stream: str, count: int, seed: int = 0) -> range:
    """The seeds of the first episodes of a stream; no two streams share any, in all odds.

    Args:
        stream: one of `STREAMS`.
        count: of episodes.
        seed: of the stream.
    """
    words = (seed, STREAMS.index(stream))
    first = int(np.random.SeedSequence(words).generate_state(1)[0])
    return range(first, first + count)


def check_demonstrations(demonstrations: Demonstrations, env: str, path: Path) -> None:
    """Refuse demonstrations of another environment.

    Raises:
        ValueError: they are.
    """
    if (demonstrations.env_id, demonstrations.env_kwargs) != (env, {}):
        found = " ".join(map(str, (demonstrations.env_id, demonstrations.env_kwargs or "")))
        raise ValueError(
            f"{path} holds demonstrations of {found.strip()}, expected {env}. Choose another file, "
            "or that environment"
        )


def learned_parameters(policy: BasePolicy, learn: dict[str, Start]) -> dict[str, Any]:
    """The values of what was learned, by the names in `learn`.

    Args:
        policy: which learned.
        learn: see `MethodOptions`; additions to the cost have the names of their tensors.
    """
    if not isinstance(policy, PlanningPolicy):
        return {}
    found: dict[str, Any] = {}
    cost: nn.Module = policy.mpc.cost
    while isinstance(cost, WrappedCost):
        own = cost.named_parameters(recurse=False)
        found |= {f"{type(cost).__name__}.{name}": value.tolist() for name, value in own}
        cost = cost.cost
    for full in learn:
        group, dot, name = full.partition(".")
        if dot:
            value = getattr(policy.mpc.dynamics if group == "dynamics" else cost, name)
            assert isinstance(value, Tensor)
            found[full] = value.tolist()
    return found


def _description(env: str, method: str, demonstrations: int) -> str:
    return (
        f"Trained in {env} by `{method}` of `mpc-gym compare` from {demonstrations} "
        "demonstrations of an expert that plans with the true model."
    )
