"""How far a plan of `constrained_fuzz` is from an optimum, in arithmetic of 50 digits.

A system that is unstable over its horizon amplifies the last digit of its first controls, so that
no float64 controls at all have a small gradient. Then a Newton step of the KKT conditions from
there says how far it is to where the gradient vanishes; its matrix, whose entries differ by 15
orders, and the cancellation in the gradient need more digits than float64 has.
"""

from dataclasses import dataclass

import mpmath
import numpy as np
from numpy.typing import NDArray

DIGITS = 50
STEP = mpmath.mpf(10) ** -20  # of a difference


@dataclass(frozen=True)
class Instance:
    """One of the problems of `constrained_fuzz`, its numbers as they are.

    values: by name, without the batch. asked: at which stages the rows are, [time, rows].
    """

    values: dict[str, NDArray[np.float64]]
    x_init: NDArray[np.float64]
    asked: NDArray[np.bool_]

    def slope(self, U: list, lam: list) -> list:
        """Derivative of the Lagrangian by the controls, given as [time * n_ctrl], [time, rows]."""
        p = {name: value.astype(object) * mpmath.mpf(1) for name, value in self.values.items()}
        T, m = len(lam), len(U) // len(lam)
        u = np.array(U, dtype=object).reshape(T, m)
        pressed = np.where(self.asked, np.array(lam, dtype=object), 0)
        split = len(p["a"])
        states = [self.x_init.astype(object) * mpmath.mpf(1)]
        for t in range(T - 1):
            x = states[-1]
            sine = np.array([mpmath.sin(entry) for entry in x])
            states.append(p["A"] @ x + p["B"] @ u[t] + p["s"] * sine)
        costate, found = 0 * states[0], [None] * T
        for t in reversed(range(T)):
            x, of_state, mixed = states[t], pressed[t, :split], pressed[t, split:]
            found[t] = p["r"][0] * u[t] + p["B"].T @ costate + p["d"].T @ mixed
            cosine = np.array([mpmath.cos(entry) for entry in x])
            costate = p["A"].T @ costate + p["s"] * cosine * costate
            costate = costate + p["Q"] * x + p["q"] + p["a"].T @ of_state + p["b"].T @ mixed
            costate[0] = costate[0] + 2 * (p["curve"] @ of_state) * x[0]
        return list(np.concatenate(found))


def distance(
    instance: Instance,
    U: NDArray[np.float64],
    lam: NDArray[np.float64],
    free: NDArray[np.bool_],
    active: NDArray[np.bool_],
) -> float:
    """The largest entry of a Newton step of the free controls, along which active rows are kept.

    Args:
        U, free: [time, n_ctrl].
        lam, active: [time, rows].
    """
    with mpmath.workdps(DIGITS):
        u = [mpmath.mpf(value) for value in U.ravel()]
        multipliers = lam.astype(object) * mpmath.mpf(1)
        slope = instance.slope(u, multipliers)
        some, rows = np.flatnonzero(free), list(zip(*np.nonzero(active), strict=True))
        size = len(some) + len(rows)
        K = mpmath.zeros(size)
        for column, j in enumerate(some):
            moved = instance.slope([v + STEP * (i == j) for i, v in enumerate(u)], multipliers)
            for row, i in enumerate(some):
                K[row, column] = (moved[i] - slope[i]) / STEP
        for column, (t, r) in enumerate(rows, len(some)):
            raised = multipliers.copy()
            raised[t, r] += 1
            moved = instance.slope(u, raised)
            for row, i in enumerate(some):
                K[row, column] = K[column, row] = moved[i] - slope[i]
        right = mpmath.matrix([-slope[i] for i in some] + [0] * len(rows))
        step = mpmath.lu_solve(K, right)
        return float(max((abs(step[i]) for i in range(len(some))), default=mpmath.mpf(0)))
