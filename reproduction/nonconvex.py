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

import warnings
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mpc_gym.experiments.run import Run
from mpc_gym.policies.lstm import LSTMPlanner
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
from reproduction.nonconvex_runs import CONSTANT, EPOCHS, FALLING, PATIENCE
from reproduction.nonconvex_section import section
from reproduction.problems import HORIZON, SYSTEMS, Hessian, expert_plans

__all__ = ["run", "runs", "section"]

SEEDS = 4
DEMONSTRATIONS: tuple[int, ...] = (10, 50, 100)
GUIDED_METHODS = (SYSID, "mpc.dx", "mpc.cost")
SOME = (50,)  # of them, where the number is not what is asked
THROUGH_PLANS = tuple(method for method in PLANNERS if method != SYSID)
# epochs at most, epochs after which a loss is flat, and how far it has to have fallen by then
EFFORT = {"epochs": EPOCHS, "patience": PATIENCE, "fall": 0.01, "rate": CONSTANT}
NETWORK_EFFORT = {**EFFORT, "fall": 1.0}
FALLING_METHODS = (SYSID, "mpc.dx")
FALLING_EFFORT = {**EFFORT, "patience": EPOCHS, "rate": FALLING}
QUICK_EPOCHS, QUICK_NETWORK_EPOCHS = 60, 20


class Planning(NamedTuple):
    """How often expert and learner plan anew from another initial guess.

    Args:
        expert: initial guesses of the expert.
        learner: initial guesses of the learner.
        guided: whether the learner's training plans begin at the demonstrated controls instead.
    """

    expert: int
    learner: int
    guided: bool = False


PLANNING = {
    "one start": Planning(1, 1),
    "eight of the expert": Planning(8, 1),
    "eight of both": Planning(8, 8),
    "eight, guided": Planning(8, 8, guided=True),
}
PAPER = "one start"


def runs(quick: bool, seed: int = 0) -> list[Run]:
    """All methods on both systems, and further ways to plan on the cart-pole.

    Args:
        quick: one seed, few demonstrations and epochs.
        seed: the first of the seeds.
    """
    chosen = [
        (system, *each)
        for system in SYSTEMS
        for each in (
            *(("exact", PAPER, method, DEMONSTRATIONS) for method in (NETWORK, *PLANNERS)),
            *(("gauss-newton", PAPER, method, DEMONSTRATIONS) for method in THROUGH_PLANS),
        )
    ]
    chosen += [
        ("cartpole", "exact", planning, method, counts)
        for planning, method, counts in (
            ("eight of the expert", "mpc.dx", SOME),
            ("eight of both", "mpc.dx", SOME),
            *(("eight, guided", method, DEMONSTRATIONS) for method in GUIDED_METHODS),
        )
    ]
    efforts = [(each, NETWORK_EFFORT if NETWORK in each else EFFORT) for each in chosen]
    efforts += [
        ((system, "exact", PAPER, method, DEMONSTRATIONS), FALLING_EFFORT)
        for system in SYSTEMS
        for method in FALLING_METHODS
    ]
    return [
        _run(system, method, hessian, planning, count, each, _quick(effort) if quick else effort)
        for (system, hessian, planning, method, counts), effort in efforts
        for count in (SOME if quick else counts)
        for each in range(seed, seed + (1 if quick else SEEDS))
    ]


def _quick(effort: dict[str, Any]) -> dict[str, Any]:
    epochs = QUICK_NETWORK_EPOCHS if effort == NETWORK_EFFORT else QUICK_EPOCHS
    return {**effort, "epochs": epochs}


def _run(
    system: str,
    method: str,
    hessian: str,
    planning: str,
    count: int,
    seed: int,
    effort: dict[str, Any],
) -> Run:
    folder = f"nonconvex/{system}/{planning}/{method}/{hessian}/{effort['rate']}-rate"
    return Run(
        name=f"{folder}/plans-{count}/seed-{seed}",
        function=f"{__name__}:run",
        settings={
            "system": system,
            "method": method,
            "hessian": hessian,
            "planning": planning,
            "demonstrations": count,
            "seed": seed,
            **effort,
        },
    )


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
) -> dict[str, Any]:
    """Let one learner imitate the expert.

    Args:
        folder: for log and checkpoint; the run goes on from a checkpoint there.
        system: one of `SYSTEMS`.
        method: "nn", or one of `PLANNERS`.
        hessian: of the learner's plans and gradients.
        planning: one of `PLANNING`.
        demonstrations: the expert's plans to learn from.
        seed: of the start states, the network's weights and the order of learning.
        epochs: at most.
        patience, fall: when learning ends earlier, see `small_or_flat`.
        rate: "constant", or "falling" for a learning rate that falls in the second half.

    Returns:
        The settings, and what `learn` returns.
    """
    settings = {
        "system": system,
        "method": method,
        "hessian": hessian,
        "planning": planning,
        "demonstrations": demonstrations,
        "seed": seed,
        "epochs": epochs,
        "patience": patience,
        "fall": fall,
        "rate": rate,
    }
    chosen, how = SYSTEMS[system], PLANNING[planning]
    plans = expert_plans(chosen, seed, how.expert)
    learner: torch.nn.Module
    loss: NetworkLoss | ModelLoss
    if method == NETWORK:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = (plans.states.shape[-1], plans.controls.shape[-1])
            learner = LSTMPlanner(*sizes, HORIZON)
        loss = NetworkLoss(learner, plans)
    else:
        learner = mpc = make_planner(chosen, method, hessian, how.learner)
        if method == SYSID:
            loss = ModelLoss(mpc, plans)
        else:
            loss = ImitationLoss(mpc, plans, plans.controls if how.guided else None)
    with warnings.catch_warnings():
        # far from the expert's model a plan may not converge; the results count such plans
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ control problems did not converge")
        enough = partial(small_or_flat, patience=patience, fall=fall)
        rows = (plans.training(demonstrations), plans.validation)
        falling = epochs // 2 if rate == FALLING else 0
        found = learn(folder, learner, loss, *rows, epochs, enough, settings, falling)
    return {**settings, **found}
