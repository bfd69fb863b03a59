"""The systems that the solver is measured on: modules, costs, limits, start states."""

import numpy as np

from benchmarks import problems
from benchmarks.system_models.linear import ACADOS, LINEAR, TURBO
from benchmarks.system_models.mechanisms import ACROBOT, ARM, CHAIN, CONTACT, LONG_CHAIN
from benchmarks.system_models.networks import CARTPOLE as ANGLED
from benchmarks.system_models.networks import NETWORKS
from benchmarks.system_models.system import System
from benchmarks.system_models.vehicles import BICYCLE, ONE_CONTROL, PLANAR, QUADROTOR, TWO_CONTROLS
from reproduction.problems import HORIZON


def _of_the_paper(problem: problems.PaperProblem) -> System:
    def draw(random: np.random.Generator, count: int) -> problems.Array:
        return problem.fresh(count, int(random.integers(2**31)))

    return System(
        f"{problem.name} of the paper",
        HORIZON,
        (problem.limit,),
        problem.dynamics,
        problem.system.cost,
        draw,
    )


PENDULUM, CARTPOLE = map(_of_the_paper, problems.PROBLEMS)
SYSTEMS = (
    PENDULUM,
    CARTPOLE,
    PLANAR,
    BICYCLE,
    ACROBOT,
    QUADROTOR,
    ARM,
    CHAIN,
    LONG_CHAIN,
    LINEAR,
    *NETWORKS,
    CONTACT,
)
PUBLISHED = (*ACADOS, *TURBO)
OTHER = ANGLED.system  # compiled before the others
NAMED = {system.name: system for system in (*SYSTEMS, *PUBLISHED, ONE_CONTROL, TWO_CONTROLS, OTHER)}

__all__ = [
    "NAMED",
    "ONE_CONTROL",
    "OTHER",
    "PENDULUM",
    "PLANAR",
    "PUBLISHED",
    "SYSTEMS",
    "TWO_CONTROLS",
    "System",
]
