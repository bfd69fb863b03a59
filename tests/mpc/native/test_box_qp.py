"""The closed form for two controls, against the reference's active set."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_gym.compiled import Program
from mpc_gym.mpc.reference.boxqp import masked, solve_box_qp
from mpc_gym.mpc.stages.solver import box_qp_of_two
from tests.compiled.interpreter import run

N = 3
PROGRAM = Program()
H_ENTRIES = PROGRAM.inputs("h", 3)
GAINS = box_qp_of_two(
    np.array([[H_ENTRIES[0], H_ENTRIES[1]], [H_ENTRIES[1], H_ENTRIES[2]]], dtype=object),
    *(PROGRAM.inputs(name, *shape) for name, shape in (("q", (2,)), ("qux", (2, N)))),
    *(PROGRAM.inputs(name, 2) for name in ("low", "high")),
)


def closed_form(H, q, Q_ux, low, high):
    """k, K and whether there are any."""
    entries = {"h": H[np.triu_indices(2)], "q": q, "qux": Q_ux.ravel(), "low": low, "high": high}
    inputs = {f"{name}{i}": v for name, values in entries.items() for i, v in enumerate(values)}
    with np.errstate(all="ignore"):
        return (
            run(PROGRAM, GAINS[0], inputs),
            run(PROGRAM, GAINS[1], inputs),
            *run(PROGRAM, [GAINS[2]], inputs),
        )


def compare(H, q, Q_ux, low, high) -> bool:
    """Whether the program is convex, and the closed form is what the reference finds."""
    given = [torch.tensor(each)[None] for each in (H, q, low, high)]
    expected, free, convex = (each[0] for each in solve_box_qp(*given))
    k, K, solvable = closed_form(H, q, Q_ux, low, high)
    assert bool(solvable) == bool(convex)
    if not convex:
        return False
    size = np.abs(expected.numpy()).max() + 1e-300
    np.testing.assert_allclose(k, expected, rtol=1e-9, atol=1e-9 * size)
    kept = np.where(free.numpy()[:, None], Q_ux, 0.0)
    gains = -np.linalg.solve(masked(given[0], free[None])[0].numpy(), kept)
    np.testing.assert_allclose(K, gains, rtol=1e-8, atol=1e-12 * np.abs(gains).max())
    return True


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    exponent=st.floats(0, 5),
    sign=st.sampled_from([(1, 1), (1, 1), (1, -1), (-1, -1)]),
)
def test_it_is_what_the_reference_finds(seed, exponent, sign):
    rng = np.random.default_rng(seed)
    solved = 0
    for _ in range(10):
        basis = np.linalg.qr(rng.normal(size=(2, 2)))[0]
        curvatures = np.array(sign) * 10.0 ** rng.uniform(-exponent / 2, exponent / 2, 2)
        H = basis @ np.diag(curvatures) @ basis.T
        H = 0.5 * (H + H.T)
        q, Q_ux = 3 * rng.normal(size=2), rng.normal(size=(2, N))
        low, high = -rng.exponential(size=2), rng.exponential(size=2)
        for bound, beyond in ((low, -np.inf), (high, np.inf)):
            bound[rng.random(2) < 0.2] = beyond
            bound[rng.random(2) < 0.2] = 0.0
        solved += compare(H, q, Q_ux, low, high)
    assert solved == 10 or min(sign) < 0


def test_it_holds_what_the_gradient_presses_against_a_bound_and_what_has_no_effect():
    Q_ux = np.ones((2, N))
    downwards = np.diag([-1.0, 2.0])
    wide = np.array([5.0, 5.0])
    assert compare(downwards, np.array([0.5, -1.0]), Q_ux, np.array([0.0, -5.0]), wide)
    assert not compare(downwards, np.array([-0.5, -1.0]), Q_ux, np.array([0.0, -5.0]), wide)
    assert compare(np.diag([0.0, 2.0]), np.array([0.0, -1.0]), Q_ux, -wide, wide)
    fixed = np.array([0.0, 5.0])
    assert compare(
        np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([-3.0, -4.0]), Q_ux, 0 * fixed, fixed
    )
