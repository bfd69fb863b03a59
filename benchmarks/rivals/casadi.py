"""CasADi: multiple shooting, compiled by the C compiler of the machine, mapped over the batch.

The derivative of the solution is CasADi's own. Through an interior-point solver it may come out as
nearly zero, without a word: a bound's multiplier is never exactly zero there, so that controls
count as clamped that are not. Through sqpmethod it is right.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import casadi as ca
import numpy as np

from benchmarks.problems import TIME_STEP, Array, PaperProblem
from benchmarks.rivals.base import Prepared
from reproduction.problems import HORIZON

TOLERANCE = 1e-6  # of sqpmethod, as ours
BARRIER_TOLERANCE = 1e-8  # their default: at 1e-6 the barrier leaves residuals of 4e-4
QUIET = {"print_time": False, "show_eval_warnings": False, "error_on_fail": False}
OPTIONS: dict[str, dict[str, Any]] = {
    "fatrop": {
        "structure_detection": "auto",
        "fatrop": {"print_level": 0, "tol": BARRIER_TOLERANCE},
    },
    "ipopt": {"ipopt": {"print_level": 0, "sb": "yes", "tol": BARRIER_TOLERANCE}},
    "sqpmethod": {
        "qpsol": "qrqp",
        "qpsol_options": {"print_iter": False, "print_header": False, "error_on_fail": False},
        "print_header": False,
        "print_iteration": False,
        "print_status": False,
        "tol_du": TOLERANCE,
        "tol_pr": TOLERANCE,
        "max_iter": 200,
        "max_iter_ls": 10,  # with these three it converges on both systems; by default it does not
        "c1": 1e-4,
        "beta": 0.5,
    },
}


def has_compiler() -> bool:
    """Whether gcc is there, which CasADi calls."""
    return shutil.which("gcc") is not None


@dataclass(frozen=True)
class Casadi:
    """CasADi with one of its solvers."""

    solver: str

    @property
    def name(self) -> str:
        """As in the tables."""
        return f"CasADi {self.solver}" + ("+qrqp" if self.solver == "sqpmethod" else "")

    def prepare(self, problem: PaperProblem, x_init: Array) -> Prepared:
        """One call solves the batch, on one thread."""
        solve, differentiate = compiled(problem, self.solver)
        batch = len(x_init)
        given = ca.DM(_instances(problem, x_init).T)
        forward, gradient = solve.map(batch), differentiate.map(batch)
        return Prepared(lambda: forward(given), lambda: gradient(given), lambda U: np.array(U).T)

    def gradients(self, problem: PaperProblem, x_init: Array) -> tuple[Array, Array]:
        """All states in one call."""
        _, differentiate = compiled(problem, self.solver)
        found = differentiate.map(len(x_init))(ca.DM(_instances(problem, x_init).T))
        return np.array(found[0]).T, np.array(found[1]).T


def _instances(problem: PaperProblem, x_init: Array) -> Array:
    """Start state, physical parameters, q and p of every instance, [batch, .]."""
    shared = np.concatenate((list(problem.parameters.values()), problem.q, problem.p))
    return np.concatenate((x_init, np.tile(shared, (len(x_init), 1))), 1)


@cache
def compiled(problem: PaperProblem, solver: str) -> tuple[ca.Function, ca.Function]:
    """Functions of one instance: its controls; controls and gradient of mean_t u^2."""
    program, guess, is_control = _program(problem)
    options = {**QUIET, **OPTIONS[solver]}
    if solver == "fatrop":
        options["equality"] = [True] * program["g"].numel()
    flags = {"flags": ["-O3", "-march=native"], "directory": tempfile.gettempdir() + "/"}
    jit: dict[str, Any] = {"jit": True, "compiler": "shell", "jit_options": flags}
    with _working_in(tempfile.gettempdir()):  # where CasADi leaves an empty file
        solve = ca.nlpsol("solve", solver, program, {**options, **jit})
    # what was compiled cannot be differentiated, but the derivative takes a solution as it is given
    adjoint = ca.nlpsol("plain", solver, program, options).reverse(1)

    instance = ca.MX.sym("instance", program["p"].numel())
    unknowns, constraints = program["x"].numel(), program["g"].numel()
    bound = np.where(is_control, problem.limit, np.inf)
    zero = ca.DM.zeros(constraints)
    start = (guess(instance), instance, -bound, bound, zero, zero, ca.DM.zeros(unknowns), zero)
    given: Any = [ca.MX(each) for each in start]
    found: Any = solve.call(given)
    controls = found[0][np.flatnonzero(is_control).tolist()]
    seed = 2 / HORIZON * is_control * found[0]
    seeds = (seed, *(ca.MX.zeros(*solve.size_out(i)) for i in range(1, 6)))
    gradient = adjoint.call([*given, *found, *seeds])[1]
    return (
        ca.Function("forward", [instance], [controls]),
        ca.Function("backward", [instance], [controls, gradient]),
    )


@contextmanager
def _working_in(folder: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _program(problem: PaperProblem) -> tuple[dict[str, ca.SX], ca.Function, Array]:
    """The nonlinear program, its initial guess (zero controls), and which unknowns are controls.

    Unknowns are u_0, x_1, u_1, x_2, ... , u_{T-1}; the start state is a parameter.
    """
    n, physical = problem.n_state, len(problem.parameters)
    instance = ca.SX.sym("instance", n + physical + 2 * (n + 1))
    start, theta, q, p = ca.vertsplit(instance, [0, n, n + physical, n + physical + n + 1,
                                                 instance.numel()])  # fmt: skip
    dynamics = {"pendulum": _pendulum, "cartpole": _cartpole}[problem.name]
    x, cost = start, ca.SX(0)
    rest = start  # the state under zero controls
    unknowns, guess, is_control, gaps = [], [], [], []
    for t in range(HORIZON):
        u = ca.SX.sym(f"u{t}")
        tau = ca.vertcat(x, u)
        cost += ca.sum1(0.5 * q * tau**2 + p * tau)
        unknowns.append(u)
        guess.append(ca.SX(0))
        is_control.append(1.0)
        if t < HORIZON - 1:
            reached, rest = dynamics(x, u, theta), dynamics(rest, ca.SX(0), theta)
            x = ca.SX.sym(f"x{t + 1}", n)
            gaps.append(x - reached)
            unknowns.append(x)
            guess.append(rest)
            is_control += [0.0] * n
    program = {
        "x": ca.vertcat(*unknowns), "p": instance, "f": cost, "g": ca.vertcat(*gaps)
    }  # fmt: skip
    rollout = ca.Function("rollout", [instance], [ca.vertcat(*guess)])
    return program, rollout, np.array(is_control)


def _pendulum(x: ca.SX, u: ca.SX, parameters: ca.SX) -> ca.SX:
    gravity, mass, length = ca.vertsplit(parameters)
    cosine, sine, speed = ca.vertsplit(x)
    speed += TIME_STEP * (1.5 * gravity / length * sine + 3 / (mass * length**2) * u)
    theta = ca.atan2(sine, cosine) + TIME_STEP * speed
    return ca.vertcat(ca.cos(theta), ca.sin(theta), speed)


def _cartpole(x: ca.SX, u: ca.SX, parameters: ca.SX) -> ca.SX:
    gravity, cart_mass, pole_mass, length = ca.vertsplit(parameters)
    position, velocity, cosine, sine, speed = ca.vertsplit(x)
    total, moment = cart_mass + pole_mass, pole_mass * length
    push = (u + moment * speed**2 * sine) / total
    angular = (gravity * sine - cosine * push) / (length * (4 / 3 - pole_mass * cosine**2 / total))
    acceleration = push - moment * angular * cosine / total
    theta = ca.atan2(sine, cosine) + TIME_STEP * speed
    return ca.vertcat(
        position + TIME_STEP * velocity,
        velocity + TIME_STEP * acceleration,
        ca.cos(theta),
        ca.sin(theta),
        speed + TIME_STEP * angular,
    )
