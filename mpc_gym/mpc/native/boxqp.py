"""The box QP of one lane and stage, for what looks at a single one (`escape.py`)."""

# mypy: ignore-errors

from mpc_gym.compiled.cpu.emit import LANES
from mpc_gym.compiled.cpu.native import native_uncounted


def box_qp_rows(m):
    """Rows of m numbers in the workspace: two matrices, and five vectors."""
    return 2 * m + 5


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
def mask(H, A, free):
    """H with the rows and columns of clamped entries replaced by those of the identity, into A."""
    m = len(H)
    for i in range(m):
        for j in range(m):
            A[i, j] = H[i, j] if free[i] * free[j] == 1.0 else (1.0 if i == j else 0.0)
