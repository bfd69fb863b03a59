"""Imitation of an expert that no model of the learner can be (Amos et al., 2018, section 5.4).

The expert plans with the physics of `DiffPendulumWindy-v0`, in wind and with friction, the learner
with the plain pendulum. System identification (`sysid`) finds the model that predicts best, and
imitation (`mpc.dx`) the one that plans most like the expert: they are not the same. 100 plans to
learn from, 250 epochs, 8 seeds. As in the authors' program the curves are of the plans learned
from; the last models are also measured on 1,000 others.
"""

import warnings
from pathlib import Path
from typing import Any

from mpc_gym.experiments.run import Run
from reproduction.learning import (
    SYSID,
    ImitationLoss,
    ModelLoss,
    learn,
    make_planner,
    never,
)
from reproduction.nonrealizable_section import section
from reproduction.problems import TRAINING, Hessian, expert_plans, windy_pendulum

__all__ = ["run", "runs", "section"]

SEEDS = 8
FRESH = 1000
EPOCHS = 250
METHODS = ((SYSID, "exact"), ("mpc.dx", "exact"), ("mpc.dx", "gauss-newton"))


def runs(quick: bool, seed: int = 0) -> list[Run]:
    """Both methods, and imitation with both gradients, for every seed.

    Args:
        quick: two seeds and few epochs.
        seed: the first of the seeds.
    """
    return [
        Run(
            name=f"nonrealizable/{method}/{hessian}/seed-{each}",
            function=f"{__name__}:run",
            settings={
                "method": method,
                "hessian": hessian,
                "seed": each,
                "epochs": 40 if quick else EPOCHS,
            },
        )
        for method, hessian in METHODS
        for each in range(seed, seed + (2 if quick else SEEDS))
    ]


def run(folder: Path, method: str, hessian: Hessian, seed: int, epochs: int) -> dict[str, Any]:
    """Let one learner imitate the expert.

    Args:
        folder: for log and checkpoint; the run goes on from a checkpoint there.
        method: "sysid" or "mpc.dx".
        hessian: of the learner's plans and gradients.
        seed: of the start states, the learner's first physics and the order of learning.
        epochs: how many.

    Returns:
        The settings, and what `learn` returns.
    """
    settings = {"method": method, "hessian": hessian, "seed": seed, "epochs": epochs}
    system = windy_pendulum(seed)
    plans = expert_plans(system, seed, test=FRESH)
    mpc = make_planner(system, method, hessian, starts=1)
    loss = ModelLoss(mpc, plans) if method == SYSID else ImitationLoss(mpc, plans)
    with warnings.catch_warnings():
        # far from the expert's model a plan may not converge; the results count such plans
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ control problems did not converge")
        rows = plans.training(TRAINING)
        found = learn(folder, mpc, loss, rows, rows, epochs, never, settings)
    return {**settings, **found}
