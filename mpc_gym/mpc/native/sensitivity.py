"""The native derivative of the optimum: `reference/sensitivity.py`, LANES at a time.

There is no iteration, so there is nothing to refill: block i holds rows i LANES to (i + 1) LANES
- 1, and results do not depend on the number of threads. As in `ddp.py`, the model enters
through addresses and a layout.
"""

# mypy: ignore-errors

import numpy as np
from numba.np.unsafe.ndarray import to_fixed_tuple

from mpc_gym.compiled.cpu.callback import call
from mpc_gym.compiled.cpu.emit import LANES
from mpc_gym.compiled.cpu.native import native
from mpc_gym.mpc.record import SensitivityOffsets

_OFFSETS = len(SensitivityOffsets._fields)


@native
def differentiate(
    stages,
    layout,
    X,
    U,
    context,
    g_X,
    g_U,
    g_cost,
    P,
    S,
    exact,
    rows,
    by_x,
    by_context,
    by_stage,
    by_P,
):
    """Gradients of rows rows[0] .. rows[1] - 1; the first is a multiple of LANES.

    stages: addresses of adjoint and response. layout: `SensitivityOffsets`, as an array.
    exact: 1.0, or 0.0 for Gauss-Newton.

    Writes the gradients by x_init [batch, n] and context [batch, T, n_context], and, summed over
    the rows of each block, those by what belongs to a stage [blocks, T, 2 m + n_staged] (lower
    bounds, upper bounds, its parameters) and by the shared parameters [blocks, n_shared].
    """
    L = SensitivityOffsets(*to_fixed_tuple(layout, _OFFSETS))
    T = X.shape[1]
    D = np.zeros((T + 1) * L.record)
    G = np.zeros(L.gathered + 1)
    for start in range(rows[0], rows[1], LANES):
        count = min(LANES, rows[1] - start)
        read(D, L, T, start, count, X, U, context, g_X, g_U, g_cost)
        recursions(D, L, stages, P, S, G, T, exact)
        write(D, L, G, T, start, count, by_x, by_context, by_stage, by_P)


@native
def first_step(stages, layout, X, U, context, P, S, exact, rows, step):
    """Newton steps of the first controls [batch, m], from solutions but for their bounds.

    Arguments as in `differentiate`. A lane without a step counts as zero.
    """
    L = SensitivityOffsets(*to_fixed_tuple(layout, _OFFSETS))
    T = X.shape[1]
    D = np.zeros((T + 1) * L.record)
    G = np.zeros(L.gathered + 1)
    no_loss = np.zeros_like(X), np.zeros_like(U)
    for start in range(rows[0], rows[1], LANES):
        count = min(LANES, rows[1] - start)
        read(D, L, T, start, count, X, U, context, *no_loss, np.ones(X.shape[0]))
        backward(D, L, stages, P, S, G, T, exact)
        # the force on a control that rests without being held is the slope of the optimal cost
        for i in range(L.m * LANES):
            D[L.gu + i] = D[L.force + i]
        call(stages[0], D, 0, P, S, 0, G)
        for b in range(count):
            for i in range(L.m):
                k = D[L.k + i * LANES + b]
                step[start + b, i] = k if D[L.regular + b] == 1.0 else 0.0


@native
def read(D, L, T, start, count, X, U, context, g_X, g_U, g_cost):
    """Put a block of rows into the workspace; lanes beyond the last row repeat it, unweighted."""
    for b in range(LANES):
        row = start + min(b, count - 1)
        weight = 1.0 if b < count else 0.0
        for t in range(T):
            R = D[t * L.record : (t + 1) * L.record]
            for i in range(L.n):
                R[L.x + i * LANES + b] = X[row, t, i]
                R[L.gx + i * LANES + b] = weight * g_X[row, t, i]
            for i in range(L.m):
                R[L.u + i * LANES + b] = U[row, t, i]
                R[L.gu + i * LANES + b] = weight * g_U[row, t, i]
            for i in range(L.n_context):
                R[L.c + i * LANES + b] = context[row, t, i]
        D[T * L.record + L.w + b] = weight * g_cost[row]


@native
def recursions(D, L, stages, P, S, G, T, exact):
    """Costates and gains backwards, then directions and gradients forwards."""
    for i in range(L.n * LANES):
        D[L.dx + i] = 0.0
    for i in range(L.n_shared * LANES):
        G[i] = 0.0
    backward(D, L, stages, P, S, G, T, exact)
    for b in range(LANES):
        D[L.finite + b] = D[L.regular + b]
    for t in range(T):
        call(stages[1], D, t * L.record, P, S, t, G)


@native
def backward(D, L, stages, P, S, G, T, exact):
    """Costates and gains."""
    E = D[T * L.record : (T + 1) * L.record]
    for i in range(L.n * LANES):
        E[L.lam + i] = 0.0
        E[L.v + i] = 0.0
    for i in range(L.n * (L.n + 1) // 2 * LANES):
        E[L.vv + i] = 0.0
    for b in range(LANES):
        E[L.exact + b] = exact
        E[L.regular + b] = 1.0
    for t in range(T - 1, -1, -1):
        call(stages[0], D, t * L.record, P, S, t, G)


@native
def write(D, L, G, T, start, count, by_x, by_context, by_stage, by_P):
    """Write the results of a block. A lane without a derivative counts as zero."""
    block = start // LANES
    regular = D[T * L.record + L.finite : T * L.record + L.finite + LANES]
    for b in range(count):
        weight = D[T * L.record + L.w + b]
        for i in range(L.n):
            gradient = D[L.v + i * LANES + b] + weight * D[L.lam + i * LANES + b]
            by_x[start + b, i] = gradient if regular[b] == 1.0 else 0.0
        for t in range(T):
            for i in range(L.n_context):
                gradient = D[t * L.record + L.gc + i * LANES + b]
                by_context[start + b, t, i] = gradient if regular[b] == 1.0 else 0.0
    for t in range(T):
        at = t * L.record
        for i in range(L.m):
            by_stage[block, t, i] = lane_sum(D, at + L.glow + i * LANES, regular)
            by_stage[block, t, L.m + i] = lane_sum(D, at + L.ghigh + i * LANES, regular)
        for i in range(L.n_staged):
            by_stage[block, t, 2 * L.m + i] = lane_sum(D, at + L.gs + i * LANES, regular)
    for i in range(L.n_shared):
        by_P[block, i] = lane_sum(G, i * LANES, regular)


@native
def lane_sum(values, start, regular):
    """The sum over the lanes that have a derivative."""
    total = 0.0
    for b in range(LANES):
        total += values[start + b] if regular[b] == 1.0 else 0.0
    return total
