"""The box-constrained quadratic program, against the enumeration of every active set."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_gym.mpc.reference.boxqp import masked, solve_box_qp


def best_by_enumeration(H, q, low, high):
    """The feasible stationary point of lowest value over the 3^m faces of the box."""
    best, best_value = None, np.inf
    for face in map(np.array, product((-1, 0, 1), repeat=len(q))):
        k = np.where(face < 0, low, np.where(face > 0, high, 0.0))
        free = face == 0
        if not np.isfinite(k).all():
            continue
        if free.any():
            k[free] = np.linalg.solve(
                H[np.ix_(free, free)], -q[free] - H[np.ix_(free, ~free)] @ k[~free]
            )
        value = 0.5 * k @ H @ k + q @ k
        feasible = (k >= low - 1e-12).all() and (k <= high + 1e-12).all()
        if feasible and value < best_value:
            best, best_value = k, value
    return best


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), m=st.integers(1, 3), condition=st.floats(0, 6))
def test_the_minimiser_is_the_best_point_of_all_faces(seed, m, condition):
    rng = np.random.default_rng(seed)
    batch = 16
    orthogonal = np.linalg.qr(rng.normal(size=(batch, m, m)))[0]
    curvatures = 10.0 ** rng.uniform(-condition / 2, condition / 2, size=(batch, m))
    H = orthogonal @ (curvatures[..., None] * orthogonal.swapaxes(1, 2))
    H = 0.5 * (H + H.swapaxes(1, 2))
    q = 3 * rng.normal(size=(batch, m))
    low = np.where(rng.random((batch, m)) < 0.2, -np.inf, -rng.exponential(size=(batch, m)))
    high = np.where(rng.random((batch, m)) < 0.2, np.inf, rng.exponential(size=(batch, m)))
    k, free, convex = solve_box_qp(*map(torch.tensor, (H, q, low, high)))
    assert convex.all()
    for i in range(batch):
        expected = best_by_enumeration(H[i], q[i], low[i], high[i])
        np.testing.assert_allclose(k[i].numpy(), expected, rtol=1e-8, atol=1e-9)
        inside = (expected > low[i] + 1e-6) & (expected < high[i] - 1e-6)
        assert free[i].numpy()[inside].all()
        pressed = (H[i] @ expected + q[i]) * np.where(expected >= high[i] - 1e-12, -1, 1) > 1e-6
        assert not free[i].numpy()[pressed].any()


def narrow_valleys(m, count, generator):
    """Steep along some directions alone, as penalties are; many bounds at the controls."""

    def uniform(*shape):
        return torch.rand((count, *shape), generator=generator, dtype=torch.float64)

    steep = torch.randn(
        (count, m, max(m // 2, 1)), generator=generator, dtype=torch.float64
    ) * 10.0 ** (3 * uniform(1, 1))
    H = steep @ steep.mT + torch.eye(m) * 10.0 ** (uniform(1, 1) - 1)
    q = torch.randn((count, m), generator=generator, dtype=torch.float64) * 10.0 ** (
        -2 * uniform(m)
    )
    low, high = ((uniform(m) < 0.5) * uniform(m) for _ in range(2))
    return H, q, -low, high + 0.1


@pytest.mark.parametrize("m", [3, 4, 6])
def test_the_minimiser_is_found_in_a_narrow_valley(m):
    """A control at its bound which the gradient pulls away, and the step pushes against it."""
    H, q, low, high = narrow_valleys(m, 500, torch.Generator().manual_seed(m))
    k, free, convex = solve_box_qp(H, q, low, high)
    assert convex.all()
    assert ((low <= k) & (k <= high)).all()
    gradient = q + (H @ k[..., None])[..., 0]
    rounding = 1e-12 * (q.abs() + (H.abs() @ k.abs()[..., None])[..., 0])
    inside = gradient.abs() <= rounding
    assert (inside | ((k == low) & (gradient > 0)) | ((k == high) & (gradient < 0))).all()
    assert (inside | ~free).all()


@pytest.mark.parametrize("m", [3, 4, 6])
def test_the_minimiser_in_a_narrow_valley_has_the_derivative_of_its_free_controls(m):
    """In closed form: of those inside, k = -H^-1 (q + what those at bounds add)."""
    H, q, low, high = narrow_valleys(m, 2_000, torch.Generator().manual_seed(m))
    q.requires_grad_()
    k, _, _ = solve_box_qp(H, q, low, high)
    w = torch.linspace(1.0, 2.0, m, dtype=torch.float64)
    (found,) = torch.autograd.grad((k @ w).sum(), q)
    inside = (low < k) & (k < high)
    assert inside.any(1).sum() > 500
    expected = -torch.linalg.solve(masked(H, inside), inside * w) * inside
    scale = expected.abs().amax(1, keepdim=True).clamp(min=1e-12)
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_a_program_that_curves_downwards_is_reported_and_spoils_no_other(m):
    H = torch.stack((torch.eye(m), -torch.eye(m), torch.eye(m))).double()
    q = torch.full((3, m), 0.5, dtype=torch.float64)
    bound = torch.ones(3, m, dtype=torch.float64)
    k, _, convex = solve_box_qp(H, q, -bound, bound)
    assert convex.tolist() == [True, False, True]
    torch.testing.assert_close(k[::2], -q[::2])


@pytest.mark.parametrize("m", [1, 2, 3])
def test_a_control_held_at_its_bound_may_curve_downwards(m):
    H = torch.eye(m, dtype=torch.float64)[None].clone()
    H[:, 0, 0] = -1.0
    q = torch.full((1, m), 0.5, dtype=torch.float64)
    low = torch.full((1, m), -2.0, dtype=torch.float64)
    low[:, 0] = 0.0
    k, free, convex = solve_box_qp(H, q, low, low + 2.5)
    assert convex.all()
    assert k.tolist() == [[0.0] + [-0.5] * (m - 1)]
    assert free.tolist() == [[False] + [True] * (m - 1)]


def test_a_convex_program_is_solved_alike_beside_one_that_is_not():
    """Its first control is held at k = 0, but released once the second has moved."""
    H = torch.tensor([[[1.0, -0.9], [-0.9, 1.0]], [[-1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    q = torch.tensor([[0.1, -5.0]] * 2, dtype=torch.float64)
    low = torch.tensor([[0.0, -9.0]] * 2, dtype=torch.float64)
    high = torch.full((2, 2), 9.0, dtype=torch.float64)
    k, _, convex = solve_box_qp(H, q, low, high)
    assert convex.all()
    expected = best_by_enumeration(*(a[0].numpy() for a in (H, q, low, high)))
    assert expected[0] > 1
    torch.testing.assert_close(k[0], torch.tensor(expected))


def test_bounds_that_are_equal_fix_the_control():
    H = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]], dtype=torch.float64)
    zero = torch.zeros(1, 2, dtype=torch.float64)
    high = torch.tensor([[0.0, 5.0]], dtype=torch.float64)
    k, free, _ = solve_box_qp(H, torch.tensor([[-3.0, -4.0]], dtype=torch.float64), zero, high)
    torch.testing.assert_close(k, torch.tensor([[0.0, 2.0]], dtype=torch.float64))
    assert free[0, 1]
