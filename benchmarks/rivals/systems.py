"""CasADi with fatrop on the systems: multiple shooting from zero controls, mapped over the batch.

The program of all stages is one expression where that is what CasADi computes fastest, and calls
of one function a stage where that expression would be too large.
"""

import tempfile
from dataclasses import dataclass
from functools import cache
from typing import Any

import casadi as ca
import numpy as np

from benchmarks.problems import Array
from benchmarks.rivals.casadi import OPTIONS, QUIET, _working_in, has_compiler
from benchmarks.rivals.twins import twin
from benchmarks.system_models.system import System

GCC_LIMIT = 60  # [s of the processor]
ONE_EXPRESSION = 8_000  # operations of the dynamics, over all stages, up to which gcc takes that
LARGE = 10_000  # operations of the dynamics from which on gcc needs more than its limit in any form


@dataclass(frozen=True)
class Solution:
    """Of a batch."""

    cost: Array  # [batch]
    violation: Array  # [batch], of the dynamics and of the bounds


def solvers(system: System) -> tuple[dict[str, ca.Function], str]:
    """The solver of one start state, interpreted and, where gcc is quick enough, compiled.

    Returns:
        The functions, and why there is only one of them, where that is so.
    """
    found = {"interpreted": _solver(system, compiled=False)}
    if not has_compiler():
        return found, "no gcc"
    if _stage(system)[0].n_nodes() > LARGE:
        return found, "too large for gcc"
    try:
        found["compiled"] = _solver(system, compiled=True)
    except RuntimeError:  # CasADi's only one: gcc was ended
        return found, f"gcc takes more than {GCC_LIMIT} s"
    return found, ""


def solution(found: Any) -> Solution:
    """What the mapped solver returned, as arrays."""
    cost, violation = (np.array(each).ravel() for each in found)
    return Solution(cost, violation)


@cache
def _stage(system: System) -> tuple[ca.Function, ca.Function]:
    """The dynamics and the cost of one stage."""
    x, u = ca.SX.sym("x", system.n_state), ca.SX.sym("u", system.n_ctrl)
    modules = {"dynamics": system.dynamics(), "cost": system.cost()}
    dynamics, cost = (
        ca.Function(name, [x, u], [twin(module, x, u)]) for name, module in modules.items()
    )
    return dynamics, cost


@cache
def _solver(system: System, *, compiled: bool) -> ca.Function:
    """From one start state to the cost and the largest violation."""
    operations = _stage(system)[0].n_nodes()
    small = operations * system.horizon <= ONE_EXPRESSION if compiled else operations <= LARGE
    program, guess, bounds = _program(system, ca.SX if small else ca.MX)
    rows = program["g"].numel()
    options: dict[str, Any] = {**QUIET, **OPTIONS["fatrop"], "equality": [True] * rows}
    if compiled:
        flags = {
            "compiler": f"ulimit -t {GCC_LIMIT}; gcc",
            "flags": ["-O3", "-march=native"],
            "directory": tempfile.gettempdir() + "/",
        }
        options |= {"jit": True, "compiler": "shell", "jit_options": flags}
    with _working_in(tempfile.gettempdir()):
        solve = ca.nlpsol("solve", "fatrop", program, options)
    x_init = ca.MX.sym("x_init", system.n_state)
    found = solve(x0=guess(x_init), p=x_init, lbx=-bounds, ubx=bounds, lbg=0, ubg=0)
    beyond = ca.fmax(ca.mmax(ca.fabs(found["g"])), ca.mmax(ca.fabs(found["x"]) - bounds))
    return ca.Function("fatrop", [x_init], [found["f"], beyond])


def _program(system: System, kind: Any) -> tuple[dict[str, Any], ca.Function, Array]:
    """The nonlinear program, its guess (zero controls) and the bounds +- of its unknowns.

    Unknowns are u_0, x_1, u_1, x_2, ... , u_{T-1}; the start state is a parameter.
    """
    n, m = system.n_state, system.n_ctrl
    dynamics, cost = _stage(system)
    start = kind.sym("start", n)
    x, rest, total = start, start, kind(0)
    unknowns, guess, gaps = [], [], []
    bounds: list[float] = []
    for t in range(system.horizon):
        u = kind.sym(f"u{t}", m)
        total += cost(x, u)
        unknowns.append(u)
        guess.append(kind.zeros(m))
        bounds += system.limit
        if t < system.horizon - 1:
            reached, rest = dynamics(x, u), dynamics(rest, kind.zeros(m))
            x = kind.sym(f"x{t + 1}", n)
            gaps.append(x - reached)
            unknowns.append(x)
            guess.append(rest)
            bounds += [np.inf] * n
    program = {
        "x": ca.vertcat(*unknowns), "p": start, "f": total, "g": ca.vertcat(*gaps)
    }  # fmt: skip
    rollout = ca.Function("rollout", [start], [ca.vertcat(*guess)])
    return program, rollout, np.array(bounds)
