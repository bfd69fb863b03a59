"""The box QPs of a native backward pass with three controls or more, lane by lane.

As in `reference/boxqp.py`. They stand between two lane functions, the expansion and the update of
the value function, and are solved by loops, which end when that lane's program is solved.
"""

# mypy: ignore-errors

import numpy as np

from mpc_gym.compiled.cpu.emit import LANES
from mpc_gym.compiled.cpu.native import native_uncounted
from mpc_gym.mpc.reference.boxqp import SETTLED


def box_qp_rows(m):
    """Rows of m numbers in the workspace: two matrices, and eight vectors."""
    return 2 * m + 8


@native_uncounted
def solve_box_qps(D, L, start, bounds, G):
    """Gains k, K of the stage whose record begins at `start`, for all lanes."""
    m = L.m
    H, A, vectors = G[:m], G[m : 2 * m], G[2 * m :]
    q, low, high, k = vectors[0], vectors[1], vectors[2], vectors[3]
    gradient, step, free = vectors[4], vectors[5], vectors[6]
    for b in range(LANES):
        read_program(D, L, start, b, bounds, H, q, low, high)
        for i in range(m):
            H[i, i] += D[start + L.damping + i * LANES + b]
        solvable = factorise(H, A)
        if not solvable:
            hold(H, A, q, low, high, free)
            solvable = factorise(H, A)
        D[start + L.solvable + b] = 1.0 if solvable else 0.0
        if solvable:
            minimise(H, A, q, low, high, k, gradient, step, free)
            write_gains(D, L, start, b, H, A, k, step, free)


@native_uncounted
def read_program(D, L, start, b, bounds, H, q, low, high):
    """The box QP of lane b, of the stage whose record begins at `start`, without damping."""
    m = L.m
    for i in range(m):
        u = D[start + L.u + i * LANES + b]
        q[i] = D[start + L.qu + i * LANES + b]
        low[i] = bounds[i] - u
        high[i] = bounds[m + i] - u
        for j in range(i, m):
            entry = i * m - i * (i - 1) // 2 + j - i  # in the row-wise upper triangle
            H[i, j] = H[j, i] = D[start + L.quu + entry * LANES + b]


@native_uncounted
def hold(H, A, q, low, high, free):
    """Fix the controls that the gradient holds at a bound, or that have no effect, at k = 0."""
    m = len(H)
    for i in range(m):
        idle = q[i] == 0.0
        for j in range(m):
            idle = idle and H[i, j] == 0.0
        fixed = low[i] == 0.0 and high[i] == 0.0
        pressed = (low[i] == 0.0 and q[i] > 0.0) or (high[i] == 0.0 and q[i] < 0.0)
        held = idle or fixed or pressed
        free[i] = 0.0 if held else 1.0
        if held:
            low[i] = high[i] = 0.0
    mask(H, A, free)
    for i in range(m):
        for j in range(m):
            H[i, j] = A[i, j]


@native_uncounted
def minimise(H, A, q, low, high, k, gradient, step, free):
    """Projected Newton steps from the clipped unconstrained minimiser; A holds the factor of H."""
    m = len(H)
    for i in range(m):
        step[i] = -q[i]
    substitute(A, step)
    for i in range(m):
        k[i] = clip(step[i], low[i], high[i])
    for _ in range(100):
        for i in range(m):
            gradient[i] = q[i]
            for j in range(m):
                gradient[i] += H[i, j] * k[j]
            held = (k[i] == low[i] and gradient[i] > 0.0) or (k[i] == high[i] and gradient[i] < 0.0)
            free[i] = 0.0 if held else 1.0
            step[i] = 0.0 if held else -gradient[i]
        mask(H, A, free)
        factorise(A, A)
        substitute(A, step)
        if not move(H, low, high, k, gradient, step):
            break


@native_uncounted
def move(H, low, high, k, gradient, step):
    """Take the longest projected step that decreases enough; whether k is not settled yet."""
    m = len(H)
    length = 1.0
    for _ in range(20):
        change = 0.0
        expected = 0.0
        for i in range(m):
            move_i = clip(k[i] + length * step[i], low[i], high[i]) - k[i]
            half = 0.0
            for j in range(m):
                half += H[i, j] * (clip(k[j] + length * step[j], low[j], high[j]) - k[j])
            change += move_i * (gradient[i] + 0.5 * half)
            expected += move_i * gradient[i]
        if change <= 0.1 * expected:
            largest = 0.0
            size = 0.0
            for i in range(m):
                target = clip(k[i] + length * step[i], low[i], high[i])
                largest = max(largest, H[i, i] * (target - k[i]) ** 2)
                size = max(size, H[i, i] * target**2)
                k[i] = target
            return largest > SETTLED**2 * size
        length *= 0.6
    return False


@native_uncounted
def write_gains(D, L, start, b, H, A, k, step, free):
    """k, and K = -Q_uu^-1 Q_ux on the free controls."""
    n, m = L.n, L.m
    mask(H, A, free)
    factorise(A, A)
    for i in range(m):
        D[start + L.k + i * LANES + b] = k[i]
    for j in range(n):
        for i in range(m):
            step[i] = -free[i] * D[start + L.qux + (i * n + j) * LANES + b]
        substitute(A, step)
        for i in range(m):
            D[start + L.kx + (i * n + j) * LANES + b] = step[i]


@native_uncounted
def mask(H, A, free):
    """H with the rows and columns of clamped entries replaced by those of the identity, into A."""
    m = len(H)
    for i in range(m):
        for j in range(m):
            A[i, j] = H[i, j] if free[i] * free[j] == 1.0 else (1.0 if i == j else 0.0)


@native_uncounted
def factorise(H, A):
    """Lower Cholesky factor of H, into A; whether H is positive definite."""
    m = len(H)
    for i in range(m):
        for j in range(i + 1):
            total = H[i, j]
            for l in range(j):
                total -= A[i, l] * A[j, l]
            if i == j:
                if not total > 0.0:
                    return False
                A[i, i] = np.sqrt(total)
            else:
                A[i, j] = total / A[j, j]
    return True


@native_uncounted
def substitute(A, x):
    """Solve A A' y = x in place."""
    m = len(A)
    for i in range(m):
        for l in range(i):
            x[i] -= A[i, l] * x[l]
        x[i] /= A[i, i]
    for i in range(m - 1, -1, -1):
        for l in range(i + 1, m):
            x[i] -= A[l, i] * x[l]
        x[i] /= A[i, i]


@native_uncounted
def clip(value, low, high):
    """The value within the bounds."""
    return min(max(value, low), high)
