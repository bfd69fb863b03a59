"""Imitation of an expert that plans with non-convex dynamics (Amos et al., 2018, section 5.3).

Pendulum and cart-pole; 10 plans of the expert to learn from, of 20 steps each: the fewest that the
paper has, from which learners are stuck. A network, system identification, and a controller that
learns its physics or its cost (see `learning`) are compared by the imitation loss on plans that
none has seen.

The paper's learner has the settings of the paper and of the authors' program, with three
exceptions. Start states are drawn anew for every seed. Masses and lengths are kept positive.
Learning ends early where the best validation loss has been below 1e-9 for long, or flat for long
and below a hundredth of the first; the network, whose steps take longest, ends wherever it is flat,
and has fewer of them. Ours is `learning.OurLoss`, with `learning.our_schedule`; what its `sysid`
minimises is the model loss, as in the paper.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mpc_gym.experiments.runs import Run
from mpc_gym.policies import LSTMPlanner
from reproduction.learning import (
    BATCH,
    HUNDREDFOLD,
    NETWORK,
    STEPS,
    SYSID,
    ImitationLoss,
    ModelLoss,
    NetworkLoss,
    OurLoss,
    epochs_of,
    learn,
    make_planner,
    never,
    our_schedule,
    small_or_flat,
)
from reproduction.nonconvex_findings import (
    BOTH,
    EPOCHS,
    EXPERT,
    METHODS,
    ONE,
    PATIENCE,
    THROUGH_PLANS,
)
from reproduction.nonconvex_section import section
from reproduction.problems import HORIZON, SYSTEMS, Hessian, expert_plans
from reproduction.report import OURS, PAPER, Result

__all__ = ["run", "runs", "section"]

SEEDS = 8
DEMONSTRATIONS = (10,)  # more are easier, and each number takes as long as all of this
QUICK_STEPS = 60

Settings = dict[str, Any]


class Guesses(NamedTuple):
    """How many initial guesses each plan is solved from, of which the best plan counts.

    Args:
        expert: of the expert's plans.
        learner: of the learner's plans.
    """

    expert: int
    learner: int


GUESSES = {ONE: Guesses(1, 1), EXPERT: Guesses(8, 1), BOTH: Guesses(8, 8)}


def runs(quick: bool, seed: int = 0) -> list[Run]:
    """All methods on both systems, and further ways to plan on the cart-pole.

    Quick: one seed and few steps.
    """
    found = []
    for settings in _variants():
        folder = "{system}/{planning}/{method}/{learner}/{hessian}".format(**settings)
        found += [
            Run(
                f"nonconvex/{folder}/plans-{count}/seed-{each}",
                f"{__name__}:run",
                {**settings, "demonstrations": count, "seed": each, "steps": steps},
            )
            for count in DEMONSTRATIONS
            for each in range(seed, seed + (1 if quick else SEEDS))
            for steps in [_steps(settings, count, quick)]
        ]
    return found


def _steps(settings: Settings, count: int, quick: bool) -> int:
    """How many steps a run takes, at most."""
    if quick:
        return QUICK_STEPS
    if settings["learner"] == OURS:
        return STEPS
    return EPOCHS * -(-count // BATCH)


def _variants() -> Iterator[Settings]:
    """All settings but demonstrations, seed and steps."""

    def variant(
        system: str, method: str, learner: str, planning: str = ONE, hessian: Hessian = "exact"
    ) -> Settings:
        return {
            "system": system,
            "method": method,
            "learner": learner,
            "planning": planning,
            "hessian": hessian,
        }

    for system in SYSTEMS:
        for method in (NETWORK, *METHODS):
            yield variant(system, method, PAPER)
        for method in METHODS:
            yield variant(system, method, OURS)
        for method in THROUGH_PLANS:
            yield variant(system, method, PAPER, hessian="gauss-newton")
    for planning, learner in ((EXPERT, PAPER), (BOTH, PAPER), (BOTH, OURS)):
        yield variant("cartpole", "mpc.dx", learner, planning)


def run(
    folder: Path,
    system: str,
    method: str,
    learner: str,
    planning: str,
    hessian: Hessian,
    demonstrations: int,
    seed: int,
    steps: int,
) -> Result:
    """Let one learner imitate the expert.

    Args:
        folder: for log and checkpoint; the run goes on from a checkpoint there.
        system: one of `SYSTEMS`.
        method: "nn", or one of `PLANNERS`.
        learner: "paper" or "ours"; of the latter only planners.
        planning: one of `GUESSES`.
        hessian: of the learner's plans and gradients.
        demonstrations: the expert's plans to learn from.
        seed: of the start states, the network's weights and the order of learning.
        steps: at most; ours takes them all, the paper's learner ends earlier where it is done, see
            `small_or_flat`.

    Returns:
        The settings, and what `learn` returns.
    """
    settings = {name: value for name, value in locals().items() if name != "folder"}
    guesses = GUESSES[planning]
    plans = expert_plans(SYSTEMS[system], seed, guesses.expert)
    rows = (plans.training(demonstrations), plans.validation)
    if method == NETWORK:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = (plans.states.shape[-1], plans.controls.shape[-1])
            network = NetworkLoss(LSTMPlanner(*sizes, HORIZON), plans)
        enough = partial(small_or_flat, patience=PATIENCE, fall=1.0)
        epochs = epochs_of(steps, demonstrations)
        return {**settings, **learn(folder, network, *rows, epochs, enough, settings)}
    mpc = make_planner(SYSTEMS[system], method, hessian, guesses.learner)
    if learner == OURS:
        epochs, rate = our_schedule(demonstrations, steps)
        ours = ModelLoss(mpc, plans) if method == SYSID else OurLoss(mpc, plans, epochs)
        return {**settings, **learn(folder, ours, *rows, epochs, never, settings, rate)}
    paper = ModelLoss(mpc, plans) if method == SYSID else ImitationLoss(mpc, plans)
    enough = partial(small_or_flat, patience=PATIENCE, fall=HUNDREDFOLD)
    epochs = epochs_of(steps, demonstrations)
    return {**settings, **learn(folder, paper, *rows, epochs, enough, settings)}
