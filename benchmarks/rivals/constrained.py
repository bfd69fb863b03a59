"""CasADi on systems with constraints: multiple shooting, compiled by the machine's C compiler."""

import tempfile
from dataclasses import dataclass
from functools import cache
from typing import Any

import casadi as ca
import numpy as np

from benchmarks.constrained_systems import (
    CENTRE,
    DRAG,
    MASS,
    OBSTACLE,
    ORIGIN,
    RADIUS,
    SLOW,
    TIME_STEP,
    TRACK,
    ConstrainedSystem,
)
from benchmarks.problems import Array
from benchmarks.rivals.casadi import OPTIONS, QUIET, _cartpole, _pendulum, _working_in


@dataclass(frozen=True)
class Solution:
    """Of a batch."""

    controls: Array  # [batch, time, n_ctrl]
    cost: Array  # [batch]
    violation: Array  # [batch], of all constraints, the dynamics among them


def solver(system: ConstrainedSystem, name: str, count: int) -> Any:
    """A function without arguments for a batch of start states [batch, n_state] on one thread."""
    return _compiled(system, name).map(count)


def solution(system: ConstrainedSystem, found: Any) -> Solution:
    """What the solver returned, as arrays."""
    controls, cost, violation = (np.array(each).T for each in found)
    shape = (len(controls), system.horizon, system.n_ctrl)
    return Solution(controls.reshape(shape), cost[:, 0], violation[:, 0])


@cache
def _compiled(system: ConstrainedSystem, name: str) -> ca.Function:
    """Of one start state: the controls, the cost, and the largest violation."""
    program, guess, bounds, is_control, kinds = _program(system)
    options: dict[str, Any] = {**QUIET, **OPTIONS[name]}
    if name == "fatrop":
        options["equality"] = [kind == "equality" for kind in kinds]
    flags = {"flags": ["-O3", "-march=native"], "directory": tempfile.gettempdir() + "/"}
    options |= {"jit": True, "compiler": "shell", "jit_options": flags}
    with _working_in(tempfile.gettempdir()):
        solve = ca.nlpsol("solve", name, program, options)
    x_init = ca.MX.sym("x_init", program["p"].numel())
    low = np.where(np.array(kinds) == "equality", 0.0, -np.inf)
    found = solve(
        x0=guess(x_init), p=x_init, lbx=-bounds, ubx=bounds, lbg=low, ubg=np.zeros(len(kinds))
    )
    z, g = found["x"], found["g"]
    violation = ca.fmax(ca.mmax(ca.fmax(g, low - g)), ca.mmax(ca.fabs(z) - bounds))
    controls = z[np.flatnonzero(is_control).tolist()]
    return ca.Function(name, [x_init], [controls, found["f"], violation])


def _program(
    system: ConstrainedSystem,
) -> tuple[dict[str, ca.SX], ca.Function, Array, Array, list[str]]:
    """Program, guess (zero controls), bounds +-, which unknowns are controls, kinds of the rows.

    Unknowns are u_0, x_1, u_1, x_2, ... , u_{T-1}; the start state is a parameter.
    """
    n, m = len(system.goal), system.n_ctrl
    start = ca.SX.sym("start", n)
    dynamics = {TRACK: _track, SLOW: _slow}.get(system, _point_mass)
    of_state = np.full(n, np.inf)
    if system in (TRACK, SLOW):
        entry, limit = (0, 0.6) if system is TRACK else (2, 0.5)
        of_state[entry] = limit
    x, rest, cost = start, start, ca.SX(0)
    unknowns, guess, bounds, is_control, rows, kinds = [], [], [], [], [], []
    for t in range(system.horizon):
        u = ca.SX.sym(f"u{t}", m)
        cost += 0.5 * ca.sum1(np.array(system.weights) * (x - np.array(system.goal)) ** 2)
        cost += 0.5 * system.penalty * ca.sum1(u**2)
        unknowns.append(u)
        guess.append(ca.SX.zeros(m))
        bounds += [system.limit] * m
        is_control += [1.0] * m
        here = x
        if t < system.horizon - 1:
            reached, rest = dynamics(x, u), dynamics(rest, ca.SX.zeros(m))
            x = ca.SX.sym(f"x{t + 1}", n)
            rows.append(x - reached)
            kinds += ["equality"] * n
            unknowns.append(x)
            guess.append(rest)
            bounds += list(of_state)
            is_control += [0.0] * n
        if system is OBSTACLE and t:
            rows.append(RADIUS**2 - ca.sum1((here[:2] - np.array(CENTRE)) ** 2))
            kinds.append("inequality")
    if system is ORIGIN:
        rows.append(x)
        kinds += ["equality"] * n
    program = {
        "x": ca.vertcat(*unknowns), "p": start, "f": cost, "g": ca.vertcat(*rows)
    }  # fmt: skip
    rollout = ca.Function("rollout", [start], [ca.vertcat(*guess)])
    return program, rollout, np.array(bounds), np.array(is_control), kinds


def _slow(x: ca.SX, u: ca.SX) -> ca.SX:
    return _pendulum(x, u, ca.SX([10.0, 1.0, 1.0]))


def _track(x: ca.SX, u: ca.SX) -> ca.SX:
    return _cartpole(x, u, ca.SX([9.8, 1.0, 0.1, 0.5]))


def _point_mass(x: ca.SX, u: ca.SX) -> ca.SX:
    velocity = x[2:] + TIME_STEP * (u / MASS - DRAG * x[2:])
    return ca.vertcat(x[:2] + TIME_STEP * velocity, velocity)
