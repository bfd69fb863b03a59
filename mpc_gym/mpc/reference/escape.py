"""Leaving a saddle or a maximum, where the gradient vanishes and a Newton step would end.

At a stationary point the exact programs of the stages are the blocks of a block LDL' factorisation
of the problem's Hessian, last stage first. So if that of stage t is the first that is not positive
definite on its free controls, and d' Q_uu d < 0, then moving u_t along d, with the feedback of the
later stages, is a direction of negative curvature of the whole problem. d is read off the Cholesky
factorisation where its pivot fails, so that it does not depend on the units of the controls. Both
signs are tried, from the length at which the quadratic model has lost all of the cost downwards.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mpc_gym.mpc.reference.boxqp import held_controls, masked

FLATNESS = 1e-12  # of a diagonal entry: rounding error, by which a pivot may be negative
SHORTEST_ESCAPE = 0.5**20
ESCAPE_LENGTHS = tuple(sign * 0.5**i for i in range(21) for sign in (1.0, -1.0))


def downwards(
    Q_uu: Float[Tensor, "m m"],
    q_u: Float[Tensor, " m"],
    low: Float[Tensor, " m"],
    high: Float[Tensor, " m"],
) -> tuple[Float[Tensor, " m"], float, bool] | None:
    """A direction d of the free controls along which the program of a stage is not convex.

    With it d' Q_uu d <= 0, and whether that is zero but for rounding. None where there is no such
    direction, or Q_uu is not finite.
    """
    H = masked(Q_uu[None], ~held_controls(Q_uu, q_u, low, high)[None])[0]
    d = torch.zeros_like(q_u)
    A = H.clone()  # its lower triangle becomes the Cholesky factor, as far as there is one
    for i in range(len(d)):
        pivot = H[i, i] - A[i, :i].square().sum()
        if not bool(pivot.isfinite()):
            return None
        if not bool(pivot > 0):
            d[i] = 1.0
            coupling = H[i, i + 1 :] - A[i + 1 :, :i] @ A[i, :i]
            flat = bool(-pivot <= FLATNESS * H[i, i].abs())
            if flat and bool(coupling.any()):  # as in u_1 u_2 at zero
                j = i + 1 + int((coupling != 0).int().argmax())
                across = coupling[j - i - 1]
                curved = H[j, j] - A[j, :i].square().sum()
                d[j] = -across / curved if curved > 0 else -across.sign()
                pivot = pivot + d[j] * (2 * across + d[j] * curved)
            d[:i] = -torch.linalg.solve_triangular(
                A[:i, :i].mT, (d[i:] @ A[i:, :i]).unsqueeze(-1), upper=True
            )[:, 0]
            return d, float(pivot), bool(len(d) > 1 and -pivot <= FLATNESS * H[i, i].abs())
        A[i, i] = pivot.sqrt()
        A[i + 1 :, i] = (H[i + 1 :, i] - A[i + 1 :, :i] @ A[i, :i]) / A[i, i]
    return None


def move_length(
    direction: Float[Tensor, " m"],
    curvature: float,
    ranges: Float[Tensor, " m"],
    size: float,
    noise: float,
) -> tuple[float, bool]:
    """How far to move at most, and whether the cost would change by no more than `noise`."""
    moving = direction != 0
    widest = float((ranges[moving] / direction[moving].abs()).min())
    length = min(widest, (2 * size / -curvature) ** 0.5) if curvature < 0 else widest
    flat = widest < float("inf") and -0.5 * curvature * widest**2 <= noise
    return (length if 0 < length < float("inf") else 1.0), flat


def failed_stage(convex: Bool[Tensor, " time"]) -> int:
    """The last stage whose program is not convex."""
    return int((~convex).nonzero().max())
