"""Writes tests/mpc/data/barrier_plans.npz: plans of ipopt that stops at a given barrier parameter.

    python -m benchmarks.scripts.barrier_plans

Ipopt minimises f(z) - mu sum log(slacks) with mu above zero (Waechter & Biegler 2006, eq. 3), and
with `mu_target` it converges there: the smoothed plan, found by another method and in other
unknowns. Scaling, relaxed bounds and the damping of one-sided bounds would change that problem, and
are off. Derivatives of the loss mean(u^2) are differences of order four of plans solved again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from benchmarks.constrained_systems import OBSTACLE, SLOW, TRACK, ConstrainedSystem
from benchmarks.problems import CARTPOLE, PENDULUM, Array, PaperProblem
from benchmarks.rivals import casadi as paper
from benchmarks.rivals import constrained

FILE = Path(__file__).parents[2] / "tests/mpc/data/barrier_plans.npz"
MUS = (1.0, 1e-2, 1e-3)
COUNT = 4  # start states of each system
STEP = 1e-4
OPTIONS = {
    "print_level": 0,
    "sb": "yes",
    "tol": 1e-12,
    "acceptable_iter": 0,
    "mu_strategy": "monotone",
    "kappa_d": 0.0,
    "bound_relax_factor": 0.0,
    "nlp_scaling_method": "none",
}


@dataclass(frozen=True)
class Problem:
    """A nonlinear program of an instance, which begins with the numbers to differentiate by."""

    program: dict[str, ca.SX]
    guess: ca.Function
    bounds: Array
    equality: NDArray[np.bool_]  # of each row; the others are at most zero
    is_control: NDArray[np.bool_]
    instances: Array  # [COUNT, .]
    differentiated: int  # so many of an instance's numbers

    def solver(self, mu: float) -> Callable[[Array], Array]:
        """The controls of an instance, one after another."""
        given: dict[str, Any] = {**OPTIONS, "mu_init": mu, "mu_target": mu}
        solve = ca.nlpsol("solve", "ipopt", self.program, {"print_time": False, "ipopt": given})
        low = np.where(self.equality, 0.0, -np.inf)
        limits: dict[str, Any] = {"lbx": -self.bounds, "ubx": self.bounds, "lbg": low, "ubg": 0.0}

        def controls(instance: Array) -> Array:
            found: Any = solve(x0=self.guess(instance), p=instance, **limits)
            status = solve.stats()["return_status"]
            if status != "Solve_Succeeded":
                raise RuntimeError(f"ipopt says {status}")
            U: Array = np.array(found["x"])[self.is_control, 0]
            return U

        return controls


def paper_problem(problem: PaperProblem) -> Problem:
    """Differentiated by start state and physics."""
    program, guess, is_control = paper._program(problem)
    return Problem(
        program,
        guess,
        np.where(is_control, problem.limit, np.inf),
        np.ones(program["g"].numel(), dtype=bool),
        is_control > 0,
        paper._instances(problem, problem.start_states(COUNT, seed=0)),
        problem.n_state + len(problem.parameters),
    )


def constrained_problem(system: ConstrainedSystem) -> Problem:
    """Differentiated by the start state."""
    program, guess, bounds, is_control, kinds = constrained._program(system)
    x_init = system.start_states(COUNT, seed=0).numpy()
    equality = np.array(kinds) == "equality"
    return Problem(program, guess, bounds, equality, is_control > 0, x_init, x_init.shape[1])


def plans(problem: Problem, mu: float) -> tuple[Array, Array]:
    """Controls [COUNT, time * n_ctrl], and derivatives of their mean square [COUNT, .]."""
    solve = problem.solver(mu)
    found, gradients = [], []
    for instance in problem.instances:
        found.append(solve(instance))
        steps = STEP * np.eye(len(instance))[: problem.differentiated]
        near, far = (
            [np.mean(solve(instance + k * d) ** 2) - np.mean(solve(instance - k * d) ** 2)
             for d in steps]
            for k in (1, 2)
        )  # fmt: skip
        gradients.append((8 * np.array(near) - np.array(far)) / (12 * STEP))
    return np.stack(found), np.stack(gradients)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    **{each.name: partial(paper_problem, each) for each in (PENDULUM, CARTPOLE)},
    **{each.name: partial(constrained_problem, each) for each in (SLOW, TRACK, OBSTACLE)},
}


def main() -> None:
    """Solve all, and replace the file."""
    arrays: dict[str, Any] = {}
    for name, make in PROBLEMS.items():
        problem = make()
        for mu in MUS:
            U, gradient = plans(problem, mu)
            arrays |= {f"{name} {mu:g} U": U, f"{name} {mu:g} gradient": gradient}
            print(f"{name}, mu {mu:g}")
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
