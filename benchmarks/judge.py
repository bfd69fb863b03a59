"""Judges every solver's controls and gradients alike, with NumPy alone.

The motion is written in the angle itself, where the solvers use its cosine and sine, and the
derivative of the cost by each control is a complex step: with J analytic and h tiny,
dJ/du_t = imag J(u + i h e_t) / h to machine precision (Squire & Trapp, 1998). Neither shares a
formula with what is judged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.problems import TIME_STEP, Array, PaperProblem

STEP = 1e-30
State = tuple[Array, ...]  # position and velocity of the cart, where there is one; angle and speed


@dataclass(frozen=True)
class Verdict:
    """What a solver's controls are worth."""

    mean_cost: float
    worst_residual: float
    stationary: float  # share of the instances with a residual of at most 1e-5


@dataclass(frozen=True)
class GradientVerdict:
    """Relative errors of d loss / d (physical parameters), loss = mean of u^2 over the stages."""

    median: float  # over the instances whose gradient is not zero
    worst: float
    compared: int  # instances at the solution whose gradient is known, and not zero


def judge(problem: PaperProblem, x_init: Array, U: Array) -> Verdict:
    """Mean cost and stationarity residual of controls U [batch, time] from x_init [batch, n]."""
    U = np.clip(U, -problem.limit, problem.limit)
    residuals = stationarity(problem, x_init, U)
    return Verdict(
        float(total_cost(problem, x_init, U).mean()),
        float(residuals.max()),
        float((residuals <= 1e-5).mean()),
    )


def stationarity(problem: PaperProblem, x_init: Array, U: Array) -> Array:
    """Largest entry of u - clip(u - dJ/du), the projected gradient, [batch]."""
    derivative = cost_gradient(problem, x_init, U)
    projected = np.clip(U - derivative, -problem.limit, problem.limit)
    residual: Array = np.abs(U - projected).max(-1)
    return residual


def cost_gradient(problem: PaperProblem, x_init: Array, U: Array) -> Array:
    """Derivative of the total cost by every control, [batch, time]."""
    # a complex number stands where total_cost says real
    steps: Any = U[None] + 1j * STEP * np.eye(U.shape[1])[:, None]  # (time, batch, time)
    derivative: Array = total_cost(problem, x_init, steps).imag.T / STEP
    return derivative


def total_cost(problem: PaperProblem, x_init: Array, U: Array) -> Array:
    """Cost of the controls U [..., batch, time] from x_init [batch, n], [..., batch]."""
    systems: dict[str, Callable[..., State]] = {"pendulum": _pendulum, "cartpole": _cartpole}
    advance = systems[problem.name]
    n = problem.n_state
    theta, speed = np.arctan2(x_init[:, n - 2], x_init[:, n - 3]), x_init[:, n - 1]
    state: State = (*x_init.T[: n - 3], theta, speed)
    total: Array = np.zeros(U.shape[:-1])
    for t in range(U.shape[-1]):
        u = U[..., t]
        *cart, theta, speed = state
        tau = (*cart, np.cos(theta), np.sin(theta), speed, u)
        total = total + sum(
            0.5 * q * z**2 + p * z for q, p, z in zip(problem.q, problem.p, tau, strict=True)
        )
        state = advance(state, u, **problem.parameters)
    return total


def _pendulum(state: State, u: Array, gravity: float, mass: float, length: float) -> State:
    theta, speed = state
    acceleration = 3 * gravity * np.sin(theta) / (2 * length) + 3 * u / (mass * length**2)
    speed = speed + TIME_STEP * acceleration
    return theta + TIME_STEP * speed, speed


def _cartpole(
    state: State, u: Array, gravity: float, cart_mass: float, pole_mass: float, pole_length: float
) -> State:
    """Solves the two equations of motion, linear in the accelerations, by Cramer's rule."""
    position, velocity, theta, speed = state
    moment = pole_mass * pole_length
    a, b = cart_mass + pole_mass, moment * np.cos(theta)
    c, d = b, 4.0 / 3.0 * moment * pole_length
    force, torque = u + moment * speed**2 * np.sin(theta), moment * gravity * np.sin(theta)
    determinant = a * d - b * c
    acceleration = (force * d - b * torque) / determinant
    angular = (a * torque - c * force) / determinant
    dt = TIME_STEP
    return (
        position + dt * velocity,
        velocity + dt * acceleration,
        theta + dt * speed,
        speed + dt * angular,
    )


def gradient_groups(problem: PaperProblem) -> dict[str, slice]:
    """Where the gradient by each group of quantities stands in a row, by its reference key."""
    sizes = {
        "x0": problem.n_state,
        "params": len(problem.parameters),
        "q": problem.n_state + 1,
        "p": problem.n_state + 1,
    }
    edges = np.cumsum([0, *sizes.values()]).tolist()
    return {name: slice(edges[i], edges[i + 1]) for i, name in enumerate(sizes)}


def judge_gradients(
    problem: PaperProblem, U: Array, gradients: Array, group: str = "params"
) -> GradientVerdict:
    """Errors of gradients [64, .] (laid out as in `gradient_groups`) at the solutions U [64, time].

    They are compared with central differences of converged solutions, from the reference file. An
    instance at another of several minima is left out. A reference gradient below a thousandth of
    the largest counts as that large, and as zero in the median: it may be zero exactly, where all
    controls are at a bound.
    """
    expected = problem.reference(f"grad_fd_{group}")
    size = np.linalg.norm(expected, axis=1)
    floor = 1e-3 * size.max()
    error = np.linalg.norm(gradients[:, gradient_groups(problem)[group]] - expected, axis=1)
    relative = error / np.maximum(size, floor)
    distance = np.abs(U - problem.reference("grad_U")[: len(U)]).max(-1)
    same = distance <= 1e-3 * problem.limit
    moving = same & (size > floor)
    if not moving.any():
        return GradientVerdict(np.nan, np.nan, 0)
    return GradientVerdict(
        float(np.median(relative[moving])), float(relative[same].max()), int(moving.sum())
    )
