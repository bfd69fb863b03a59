"""The box QPs of the stages, in closed form and by steps, against the reference's active set."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_gym.compiled import Program
from mpc_gym.mpc.reference.boxqp import masked, solve_box_qp
from mpc_gym.mpc.stages import box_qps
from mpc_gym.mpc.stages.algebra import solve_free, symmetric
from tests.compiled.interpreter import run
from tests.mpc.reference.test_boxqp import narrow_valleys

N = 3
STEPS = 20


def evaluate(program, outputs, values):
    """The outputs by name, of inputs given by the name of their field."""
    inputs = {
        f"{name}{i}": v for name, field in values.items() for i, v in enumerate(np.ravel(field))
    }
    inputs |= {name: float(field) for name, field in values.items() if np.ndim(field) == 0}
    with np.errstate(all="ignore"):
        return dict(zip(outputs, run(program, list(outputs.values()), inputs), strict=True))


def gains(H, q, Q_ux, low, high):
    """k, K and whether there are any, as the programs of the stages find them."""
    m = len(q)
    program = Program()
    fields = [program.inputs(name, m) for name in ("q", "low", "high")]
    entries = symmetric(program.inputs("H", m * (m + 1) // 2), m)
    given = {"H": H[np.triu_indices(m)], "q": q, "qux": Q_ux, "low": low, "high": high}
    if m == 2:
        k, K, solvable = box_qps.of_two(
            entries, fields[0], program.inputs("qux", m, N), *fields[1:]
        )
        outputs = {f"k{i}": v for i, v in enumerate(k)} | {f"K{i}": v for i, v in enumerate(K.flat)}
        found = evaluate(program, outputs | {"solvable": solvable}, given)
        K = np.array([found[f"K{i}"] for i in range(m * N)]).reshape(m, N)
        return np.array([found[f"k{i}"] for i in range(m)]), K, found["solvable"]
    begun = evaluate(program, box_qps.begin(entries, *fields), given)
    state = {
        name: np.array([begun[f"{name}{i}"] for i in range(m)]) for name in ("stays", "free", "k")
    }
    state |= {"h": np.array([begun[f"h{i}"] for i in range(m * (m + 1) // 2)])}
    state["settled"] = begun["settled"]
    state |= {"qu": q, "u": np.zeros(m), "low": low, "high": high}
    program = Program()
    step = box_qps.step(program, m)
    for _ in range(STEPS):
        if state["settled"]:
            break
        found = evaluate(program, step, state)
        for name in ("k", "free"):
            state[name] = np.array([found[f"{name}{i}"] for i in range(m)])
        state["settled"] = found["settled"]
    assert state["settled"]
    program = Program()
    K = solve_free(
        symmetric(program.inputs("h", m * (m + 1) // 2), m),
        program.inputs("qux", m, N),
        program.inputs("free", m),
    )
    found = evaluate(program, dict(enumerate(K.flat)), state | {"qux": Q_ux})
    return state["k"], np.array(list(found.values())).reshape(m, N), begun["solvable"]


def compare(H, q, Q_ux, low, high) -> bool:
    """Whether the program is convex, and the programs find what the reference finds."""
    given = [torch.tensor(each)[None] for each in (H, q, low, high)]
    expected, free, convex = (each[0] for each in solve_box_qp(*given))
    k, K, solvable = gains(H, q, Q_ux, low, high)
    assert bool(solvable) == bool(convex)
    if not convex:
        return False
    size = np.abs(expected.numpy()).max() + 1e-300
    np.testing.assert_allclose(k, expected, rtol=1e-9, atol=1e-9 * size)
    kept = np.where(free.numpy()[:, None], Q_ux, 0.0)
    expected = -np.linalg.solve(masked(given[0], free[None])[0].numpy(), kept)
    np.testing.assert_allclose(K, expected, rtol=1e-8, atol=1e-12 * np.abs(expected).max())
    return True


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    exponent=st.floats(0, 5),
    upwards=st.sampled_from([True, True, False]),
    m=st.integers(2, 5),
)
def test_it_is_what_the_reference_finds(seed, exponent, upwards, m):
    rng = np.random.default_rng(seed)
    solved = 0
    for _ in range(10 if m == 2 else 3):
        basis = np.linalg.qr(rng.normal(size=(m, m)))[0]
        curvatures = 10.0 ** rng.uniform(-exponent / 2, exponent / 2, m)
        curvatures[0] *= 1.0 if upwards else -1.0
        H = basis @ np.diag(curvatures) @ basis.T
        H = 0.5 * (H + H.T)
        q, Q_ux = 3 * rng.normal(size=m), rng.normal(size=(m, N))
        low, high = -rng.exponential(size=m), rng.exponential(size=m)
        for bound, beyond in ((low, -np.inf), (high, np.inf)):
            bound[rng.random(m) < 0.2] = beyond
            bound[rng.random(m) < 0.2] = 0.0
        solved += compare(H, q, Q_ux, low, high)
    assert solved > 2 or not upwards


@pytest.mark.parametrize("m", [3, 4, 6])
def test_it_is_what_the_reference_finds_in_a_narrow_valley(m):
    rng = np.random.default_rng(m)
    for problem in zip(*narrow_valleys(m, 12, torch.Generator().manual_seed(m)), strict=True):
        H, q, low, high = (each.numpy() for each in problem)
        assert compare(H, q, rng.normal(size=(m, N)), low, high)


@pytest.mark.parametrize("m", [2, 3])
def test_it_holds_what_the_gradient_presses_against_a_bound_and_what_has_no_effect(m):
    def with_more(values, rest):
        return np.array([*values, *[rest] * (m - 2)])

    Q_ux, wide = np.ones((m, N)), np.full(m, 5.0)
    downwards, q = np.diag(with_more([-1.0, 2.0], 1.0)), with_more([0.5, -1.0], 7.0)
    at_low = with_more([0.0, -5.0], -5.0)
    assert compare(downwards, q, Q_ux, at_low, wide)
    assert not compare(downwards, -q, Q_ux, at_low, wide)
    idle = np.diag(with_more([0.0, 2.0], 1.0))
    assert compare(idle, with_more([0.0, -1.0], 0.5), Q_ux, -wide, wide)
    H = np.eye(m) + np.ones((m, m))
    fixed = with_more([0.0, 5.0], 1.0)
    assert compare(H, with_more([-3.0, -4.0], 2.0), Q_ux, 0 * fixed, fixed)
