"""As `reference/escape.py`, in native code: a lane leaves a saddle along negative curvature."""

# mypy: ignore-errors

import numpy as np

from mpc_gym.compiled.cpu.emit import LANES
from mpc_gym.compiled.cpu.native import native_uncounted
from mpc_gym.mpc.native.boxqp import hold, read_program
from mpc_gym.mpc.reference.escape import FLATNESS, SHORTEST_ESCAPE
from mpc_gym.mpc.reference.gains import COST_ROUNDING

# What the last stage that is not convex looks like: nothing to be seen, or curved so little that
# no decrease can be told from rounding, or downwards.
CONVEX, FLAT, DOWNWARDS = range(3)


@native_uncounted
def try_escape(alpha):
    """Whether a step of this length is worth a try."""
    return abs(alpha) >= SHORTEST_ESCAPE


@native_uncounted
def point_downwards(work, L, b, lanes, T):
    """Replace the gains of lane b by a move along negative curvature, of the length `bend` tells.

    They are those of an exact backward pass which was not convex.
    """
    D = work.D
    stage = T - 1
    while stage >= 0 and D[stage * L.record + L.convex + b] == 1.0:
        stage -= 1
    if stage < 0:
        return CONVEX
    start = stage * L.record
    direction = work.box_qp[-1]
    direction[:] = 0.0
    found, curvature = downwards(work, L, b, start, work.S[stage], direction)
    if found == CONVEX:
        return CONVEX
    size = D[L.size + b]
    widest = np.inf
    for i in range(L.m):
        if direction[i] != 0.0:
            widest = min(widest, work.ranges[i] / abs(direction[i]))
    length = min(widest, np.sqrt(2.0 * size / -curvature)) if curvature < 0.0 else widest
    if not np.isfinite(length) or length == 0.0:
        length = 1.0
    lanes.bend[b] = curvature * length**2
    write_move(D, L, b, T, stage, length, direction)
    tiny = widest < np.inf and -0.5 * curvature * widest**2 <= COST_ROUNDING * size
    # of the stages before this one the pass has not told whether they are convex
    return FLAT if stage == 0 and (tiny or found == FLAT) else DOWNWARDS


@native_uncounted
def write_move(D, L, b, T, stage, length, direction):
    """Gains that move the controls of one stage alone, with the feedback of the later ones."""
    for t in range(T):
        here = t * L.record + b
        for i in range(L.m):
            D[here + L.k + i * LANES] = length * direction[i] if t == stage else 0.0
        if t <= stage:
            for i in range(L.m * L.n):
                D[here + L.kx + i * LANES] = 0.0


@native_uncounted
def downwards(work, L, b, start, bounds, direction):
    """A direction of the free controls of a stage along which its program is not convex."""
    if L.m == 1:
        curvature = work.D[start + L.quu + b]
        direction[0] = 1.0
        return (DOWNWARDS if -np.inf < curvature <= 0.0 else CONVEX), curvature
    m = L.m
    H, A, vectors = work.box_qp[:m], work.box_qp[m : 2 * m], work.box_qp[2 * m :]
    q, low, high, free = vectors[0], vectors[1], vectors[2], vectors[3]
    read_program(work.D, L, start, b, bounds, H, q, low, high)
    hold(H, A, q, low, high, free)
    for i in range(m):
        pivot = schur(H, A, i, i, i)
        if not abs(pivot) < np.inf:  # not np.isfinite: see `is_enough` in ddp.py
            return CONVEX, pivot
        if not pivot > 0.0:
            curvature = direct(H, A, i, pivot, direction)
            return (FLAT if -curvature <= FLATNESS * abs(H[i, i]) else DOWNWARDS), curvature
        A[i, i] = np.sqrt(pivot)
        for j in range(i + 1, m):
            A[j, i] = schur(H, A, i, j, i) / A[i, i]
    return CONVEX, 0.0


@native_uncounted
def schur(H, A, i, j, k):
    """An entry of H without what its first k rows explain; A holds their Cholesky factor."""
    total = H[i, j]
    for l in range(k):
        total -= A[i, l] * A[j, l]
    return total


@native_uncounted
def direct(H, A, i, pivot, direction):
    """Fill in the direction of a pivot i that is not positive; the curvature along it."""
    m = len(H)
    direction[i] = 1.0
    if -pivot <= FLATNESS * abs(H[i, i]):
        for j in range(i + 1, m):
            across = schur(H, A, i, j, i)
            if across != 0.0:  # as in u_1 u_2 at zero
                curved = schur(H, A, j, j, i)
                direction[j] = -across / curved if curved > 0.0 else -np.sign(across)
                pivot += direction[j] * (2.0 * across + direction[j] * curved)
                break
    for j in range(i - 1, -1, -1):
        for l in range(j + 1, m):
            direction[j] -= A[l, j] * direction[l]
        direction[j] /= A[j, j]
    return pivot
