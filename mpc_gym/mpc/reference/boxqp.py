"""The quadratic program of one stage, for a batch.

    minimise 1/2 k' H k + q' k   subject to   low <= k <= high

One control: closed form. More: projected Newton with an active set (Tassa, Mansard & Todorov 2014,
section III; Bertsekas 1982), which ends at the exact solution of a strictly convex program.

k = 0 is feasible. Where H is not positive definite, the controls that the gradient holds at a
bound there stay put, and the others need a positive definite block only: an optimum may have
negative curvature along a control at its bound. So do controls whose bounds are equal, and those
that the program does not depend on, such as the last ones of a problem whose cost does not weigh
them.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SETTLED = 1e-15  # relative change of k, in the norm of H's diagonal: rounding error

MAX_STEPS = 100
_STEP_LENGTHS = tuple(0.6**i for i in range(20))


def solve_box_qp(
    H: Float[Tensor, "batch m m"],
    q: Float[Tensor, "batch m"],
    low: Float[Tensor, "batch m"],
    high: Float[Tensor, "batch m"],
) -> tuple[Float[Tensor, "batch m"], Bool[Tensor, "batch m"], Bool[Tensor, " batch"]]:
    """Minimiser k, which of its entries are free, and whether the program is convex.

    Where it is not convex the other two results have no meaning.
    """
    H, held, convex = _without_held(H, q, low, high)
    low, high = low.masked_fill(held, 0.0), high.masked_fill(held, 0.0)
    if H.shape[-1] == 1:
        newton = -q / H[:, 0]
        k = torch.minimum(torch.maximum(newton, low), high)
        return k, (k == newton) & ~held, convex
    identity = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    H = torch.where(convex[:, None, None], H, identity)
    k = torch.minimum(torch.maximum(-_solve(H, q), low), high)
    for _ in range(MAX_STEPS):
        gradient = q + _times(H, k)
        free = ~(((k == low) & (gradient > 0)) | ((k == high) & (gradient < 0)))
        step = -_solve(masked(H, free), torch.where(free, gradient, 0.0))
        moved = _projected_step(H, k, gradient, step, low, high)
        # not the largest entry: controls may differ in their units by many orders
        weight = H.diagonal(dim1=-2, dim2=-1)
        change, size = weight * (moved - k).square(), weight * moved.square()
        settled = change.amax(-1) <= SETTLED**2 * size.amax(-1)
        k = moved
        if bool(settled.all()):
            break
    return k, free & ~held, convex


def masked(H: Float[Tensor, "batch m m"], free: Bool[Tensor, "batch m"]) -> Tensor:
    """H with the rows and columns of clamped entries replaced by those of the identity."""
    both = free.unsqueeze(-1) & free.unsqueeze(-2)
    return torch.where(both, H, torch.eye(H.shape[-1], dtype=H.dtype, device=H.device))


def _without_held(
    H: Tensor, q: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Bool[Tensor, "batch m"], Bool[Tensor, " batch"]]:
    """H without the controls held where it is not positive definite; which they are; is it now?"""
    convex = _positive_definite(H)
    if bool(convex.all()):
        return H, torch.zeros_like(q, dtype=torch.bool), convex
    held = held_controls(H, q, low, high) & ~convex.unsqueeze(-1)
    H = masked(H, ~held)
    return H, held, _positive_definite(H)


def held_controls(
    H: Float[Tensor, "*batch m m"],
    q: Float[Tensor, "*batch m"],
    low: Float[Tensor, "*batch m"],
    high: Float[Tensor, "*batch m"],
) -> Bool[Tensor, "*batch m"]:
    """Which controls stay at k = 0 whatever their curvature.

    Bounds that are equal hold them, or the gradient at a bound; or they have no effect.
    """
    at_low, at_high = low == 0, high == 0
    pressed = (at_low & (q > 0)) | (at_high & (q < 0))
    return (at_low & at_high) | pressed | ((q == 0) & (H == 0).all(-1))


def _positive_definite(H: Tensor) -> Bool[Tensor, " batch"]:
    if H.shape[-1] == 1:
        return H[:, 0, 0] > 0
    definite: Tensor = torch.linalg.cholesky_ex(H).info == 0
    return definite


def _projected_step(
    H: Tensor, k: Tensor, gradient: Tensor, step: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """The first of the projected step lengths that decreases the objective enough (Armijo)."""
    lengths = torch.tensor(_STEP_LENGTHS, dtype=k.dtype, device=k.device)[:, None, None]
    trial = torch.minimum(torch.maximum(k + lengths * step, low), high)  # (L, batch, m)
    move = trial - k
    # the change of the objective, free of the cancellation in a difference of two values
    change = (move * (gradient + 0.5 * _times(H, move))).sum(-1)
    enough = change <= 0.1 * (move * gradient).sum(-1)
    first = torch.where(enough.any(0), enough.int().argmax(0), 0)
    chosen = trial.gather(0, first[None, :, None].expand(1, *k.shape))[0]
    return torch.where(enough.any(0).unsqueeze(-1), chosen, k)


def _solve(H: Tensor, q: Tensor) -> Tensor:
    solution: Tensor = torch.linalg.solve_ex(H, q.unsqueeze(-1)).result
    return solution.squeeze(-1)


def _times(H: Tensor, k: Tensor) -> Tensor:
    return (H @ k.unsqueeze(-1)).squeeze(-1)
