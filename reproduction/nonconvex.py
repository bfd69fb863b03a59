"""Imitation of an expert that plans with non-convex dynamics (Amos et al., 2018, section 5.3).

Pendulum and cart-pole; 10, 50 or 100 plans of the expert to learn from, of 20 steps each. A
network, system identification, and a controller that learns its physics, its cost or both (see
`learning`) are compared by the imitation loss on plans that none has seen.

Settings are those of the paper and of the authors' program, with three exceptions. Start states are
drawn anew for every seed. Masses and lengths are kept positive. Learning ends early where the best
validation loss has been below 1e-9 for long, or flat for long and below a hundredth of the first;
the network, whose epochs take longest, ends wherever it is flat. Where the constant learning rate
of the paper hides what could be learned, a falling one is tried beside it.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mpc_gym.experiments.runs import Run
from mpc_gym.policies import LSTMPlanner
from reproduction.learning import (
    NETWORK,
    PLANNERS,
    SYSID,
    ImitationLoss,
    ModelLoss,
    NetworkLoss,
    learn,
    make_planner,
    small_or_flat,
)
from reproduction.nonconvex_section import (
    BOTH,
    CONSTANT,
    EPOCHS,
    EXPERT,
    FALLING,
    GUIDED,
    ONE,
    PATIENCE,
    THROUGH_PLANS,
    section,
)
from reproduction.problems import HORIZON, SYSTEMS, Hessian, expert_plans
from reproduction.report import Result

__all__ = ["run", "runs", "section"]

SEEDS = 4
DEMONSTRATIONS: tuple[int, ...] = (10, 50, 100)
SOME = (50,)  # of them, where the number is not what is asked
QUICK_EPOCHS, QUICK_NETWORK_EPOCHS = 60, 20
PAPER = {
    "hessian": "exact",
    "planning": ONE,
    "epochs": EPOCHS,
    "patience": PATIENCE,
    "fall": 0.01,
    "rate": CONSTANT,
}


class Guesses(NamedTuple):
    """How many initial guesses each plan is solved from, of which the best plan counts.

    Args:
        expert: of the expert's plans.
        learner: of the learner's plans.
        guided: whether the learner's training plans begin at the demonstrated controls instead.
    """

    expert: int
    learner: int
    guided: bool = False


GUESSES = {
    ONE: Guesses(1, 1),
    EXPERT: Guesses(8, 1),
    BOTH: Guesses(8, 8),
    GUIDED: Guesses(8, 8, guided=True),
}


def runs(quick: bool, seed: int = 0) -> list[Run]:
    """All methods on both systems, and further ways to plan on the cart-pole.

    Quick: one seed, few demonstrations and epochs.
    """
    found = []
    for settings, counts in _variants():
        if quick:
            network = settings["method"] == NETWORK
            settings["epochs"] = QUICK_NETWORK_EPOCHS if network else QUICK_EPOCHS
        folder = "{system}/{planning}/{method}/{hessian}/{rate}-rate".format(**settings)
        found += [
            Run(
                f"nonconvex/{folder}/plans-{count}/seed-{each}",
                f"{__name__}:run",
                {**settings, "demonstrations": count, "seed": each},
            )
            for count in (SOME if quick else counts)
            for each in range(seed, seed + (1 if quick else SEEDS))
        ]
    return found


def _variants() -> Iterator[tuple[dict[str, Any], tuple[int, ...]]]:
    """All settings but demonstrations and seed; and the numbers of demonstrations."""

    def variant(system: str, method: str, **change: Any) -> dict[str, Any]:
        return {**PAPER, "system": system, "method": method, **change}

    for system in SYSTEMS:
        yield variant(system, NETWORK, fall=1.0), DEMONSTRATIONS
        for method in PLANNERS:
            yield variant(system, method), DEMONSTRATIONS
        for method in THROUGH_PLANS:
            yield variant(system, method, hessian="gauss-newton"), DEMONSTRATIONS
    for planning in (EXPERT, BOTH):
        yield variant("cartpole", "mpc.dx", planning=planning), SOME
    for method in (SYSID, "mpc.dx", "mpc.cost"):
        yield variant("cartpole", method, planning=GUIDED), DEMONSTRATIONS
    for system in SYSTEMS:
        for method in (SYSID, "mpc.dx"):
            yield variant(system, method, rate=FALLING, patience=EPOCHS), DEMONSTRATIONS


def run(
    folder: Path,
    system: str,
    method: str,
    hessian: Hessian,
    planning: str,
    demonstrations: int,
    seed: int,
    epochs: int,
    patience: int,
    fall: float,
    rate: str,
) -> Result:
    """Let one learner imitate the expert.

    Args:
        folder: for log and checkpoint; the run goes on from a checkpoint there.
        system: one of `SYSTEMS`.
        method: "nn", or one of `PLANNERS`.
        hessian: of the learner's plans and gradients.
        planning: one of `GUESSES`.
        demonstrations: the expert's plans to learn from.
        seed: of the start states, the network's weights and the order of learning.
        epochs: at most.
        patience, fall: when learning ends earlier, see `small_or_flat`.
        rate: "constant", or "falling" for a learning rate that falls in the second half.

    Returns:
        The settings, and what `learn` returns.
    """
    settings = {name: value for name, value in locals().items() if name != "folder"}
    guesses = GUESSES[planning]
    plans = expert_plans(SYSTEMS[system], seed, guesses.expert)
    loss: NetworkLoss | ModelLoss
    if method == NETWORK:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = (plans.states.shape[-1], plans.controls.shape[-1])
            loss = NetworkLoss(LSTMPlanner(*sizes, HORIZON), plans)
    else:
        mpc = make_planner(SYSTEMS[system], method, hessian, guesses.learner)
        if method == SYSID:
            loss = ModelLoss(mpc, plans)
        else:
            loss = ImitationLoss(mpc, plans, plans.controls if guesses.guided else None)
    rows = (plans.training(demonstrations), plans.validation)
    enough = partial(small_or_flat, patience=patience, fall=fall)
    falling_epochs = epochs // 2 if rate == FALLING else 0
    return {**settings, **learn(folder, loss, *rows, epochs, enough, settings, falling_epochs)}
