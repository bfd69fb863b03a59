"""The quadratic program of one stage, for a batch.

    minimise 1/2 k' H k + q' k   subject to   low <= k <= high

One control: closed form. More: projected Newton with an active set (Tassa, Mansard & Todorov 2014,
section III; Bertsekas 1982), which ends at the exact solution of a strictly convex program. Where
the projection cuts off what balances a step, as in a narrow valley, the objective may fall along a
millionth of it alone. Then the step is that of an active set: controls at their bounds do not move
outwards, and the others go to their lowest point, or until the first of them is at its bound.

k = 0 is feasible. Where H is not positive definite, the controls that the gradient holds at a
bound there stay put, and the others need a positive definite block only: an optimum may have
negative curvature along a control at its bound. So do controls whose bounds are equal, and those
that the program does not depend on, such as the last ones of a problem whose cost does not weigh
them.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SETTLED = 1e-13  # of the terms that a gradient is summed from: rounding error
MAX_STEPS = 100
ENOUGH = 0.1  # of the decrease that the gradient promises along a projected step (Armijo)


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
        newton = -_solve(masked(H, free), torch.where(free, gradient, 0.0))
        projected = torch.minimum(torch.maximum(k + newton, low), high)
        enough = _decreases_enough(H, gradient, projected - k)
        outwards = ((k == low) & (newton < 0)) | ((k == high) & (newton > 0))
        inwards = free & ~outwards
        step = -_solve(masked(H, inwards), torch.where(inwards, gradient, 0.0))
        straight, cut = _straight(H, k, gradient, step, low, high)
        whole = torch.where(enough, (projected == k + newton).all(-1), ~cut)
        free = torch.where(enough.unsqueeze(-1), free, inwards)
        k = torch.where(enough.unsqueeze(-1), projected, straight)
        settled = whole & _is_solved(H, q, k, low, high, free)
        if bool(settled.all()):
            break
    return _differentiable(H, q, k.detach(), low, high, free), free & ~held, convex


def _differentiable(
    H: Tensor, q: Tensor, k: Tensor, low: Tensor, high: Tensor, free: Tensor
) -> Tensor:
    """The solution as a function of the program: a step from it, of what no bound holds."""
    inside = free & (low < k) & (k < high)
    k = torch.where(inside, k, torch.where(k <= low, low, high))
    step = -_solve(masked(H, inside), torch.where(inside, q + _times(H, k), 0.0))
    return torch.minimum(torch.maximum(k + step, low), high)


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


def _decreases_enough(H: Tensor, gradient: Tensor, move: Tensor) -> Bool[Tensor, " batch"]:
    expected = (move * gradient).sum(-1)
    # the change of the objective, free of the cancellation in a difference of two values
    enough: Tensor = expected + 0.5 * (move * _times(H, move)).sum(-1) <= ENOUGH * expected
    return enough


def _is_solved(
    H: Tensor, q: Tensor, k: Tensor, low: Tensor, high: Tensor, free: Tensor
) -> Bool[Tensor, " batch"]:
    """Whether the gradient vanishes on the free controls and presses the others to their bounds."""
    gradient, least = q + _times(H, k), SETTLED * (q.abs() + _times(H.abs(), k.abs()))
    rising, falling = gradient >= -least, gradient <= least
    pressed = ((k == low) & rising) | ((k == high) & falling)
    solved: Tensor = torch.where(free, rising & falling, pressed).all(-1)
    return solved


def _straight(
    H: Tensor, k: Tensor, gradient: Tensor, step: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Bool[Tensor, " batch"]]:
    """To the lowest point along a step, or until the first control is at its bound; was it so?"""
    bound = torch.where(step < 0, low, high)
    with torch.no_grad():
        along = torch.where((step == 0) | (k == bound), 0.0, step)
        curved = (along * _times(H, along)).sum(-1)
        lowest = torch.where(curved > 0, -(gradient * along).sum(-1) / curved, 0.0)
        reach = torch.where(along == 0, torch.inf, (bound - k) / along)
        first = reach.amin(-1)
        length = torch.minimum(lowest, first).unsqueeze(-1)
    there = torch.minimum(torch.maximum(k + length * along, low), high)
    return torch.where(reach <= length, bound, there), first < lowest


def _solve(H: Tensor, q: Tensor) -> Tensor:
    solution: Tensor = torch.linalg.solve_ex(H, q.unsqueeze(-1)).result
    return solution.squeeze(-1)


def _times(H: Tensor, k: Tensor) -> Tensor:
    return (H @ k.unsqueeze(-1)).squeeze(-1)
