"""Random problems with constraints: KKT conditions, judged in NumPy, hold where it says so."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.mpc.constrained_fuzz import Problems, Size, random_problems, wrong

COUNT = 8
GRADIENT = 1e-5  # relative to the terms that it is summed from
OTHERS = 1e-6

SIZES = st.sampled_from([Size(1, 1, 1, 1), Size(2, 2, 1, 2), Size(3, 1, 2, 1)])
HORIZONS = st.sampled_from([1, 2, 5, 12])
SEEDS = st.integers(0, 2**20)
PRICES = st.one_of(st.none(), st.floats(-1, 3).map(lambda power: 10**power))


def assert_right(problems: Problems, plan, w: float | None) -> None:
    for i in plan.converged.nonzero()[:, 0].tolist():
        found = wrong(problems, plan, i, w)
        allowed = {name: GRADIENT if name == "gradient" else OTHERS for name in found}
        assert all(found[name] <= allowed[name] for name in found), (i, found)


@settings(max_examples=25)
@given(size=SIZES, horizon=HORIZONS, seed=SEEDS, w=PRICES)
@example(size=Size(2, 2, 1, 2), horizon=1, seed=360, w=None)  # a row nearly zero along the guess
@example(size=Size(2, 2, 1, 2), horizon=12, seed=510510, w=1.0)  # a price that is soon reached
@example(size=Size(2, 2, 1, 2), horizon=2, seed=6223, w=None)  # a multiplier nearly zero
def test_every_convex_problem_that_can_be_satisfied_is(size, horizon, seed, w):
    problems = random_problems(size, horizon, COUNT, seed, convex=True)
    plan = problems.plan("native", w)
    assert plan.converged.all()
    assert_right(problems, plan, w)


DWARFED = [
    (Size(1, 2, 2, 1), 7, 32, 14, [6], None),
    (Size(2, 2, 1, 2), 1, 200, 510510, [38, 87, 88], 1.0),
    (Size(2, 2, 1, 2), 2, COUNT, 6223, [0], None),
    (Size(2, 2, 1, 2), 2, 64, 9002, [59], None),
    (Size(3, 1, 2, 1), 2, 64, 108, [24], 1.4321525202230105),
]
LONGER = (Size(1, 2, 2, 1), 20, 32, 6, [22], None)
THREE_CONTROLS = [
    (Size(5, 3, 3, 2), 2, 32, 28, [2], 0.15051586768193964),
    (Size(5, 3, 3, 2), 5, 32, 6, [9], 990.559517957634),
]


@pytest.mark.parametrize(
    ("size", "horizon", "count", "seed", "rows", "w", "backend"),
    [
        *((*case, "native") for case in (*DWARFED, LONGER)),
        (*DWARFED[0], "torch"),
        (*THREE_CONTROLS[0], "torch"),
        *(pytest.param(*case, "torch", marks=pytest.mark.slow) for case in (*DWARFED[1:], LONGER)),
        *(pytest.param(*case, "native", marks=pytest.mark.slow) for case in THREE_CONTROLS),
    ],
)
def test_penalties_that_dwarf_the_cost_are_no_obstacle(
    size, horizon, count, seed, rows, w, backend
):
    """Here every step used to stop where a row became active, until no iteration was left."""
    problems = random_problems(size, horizon, count, seed, convex=True).only(rows)
    plan = problems.plan(backend, w)
    assert plan.converged.all()
    for i in range(len(rows)):
        found = wrong(problems, plan, i, w)
        assert max(found.values()) <= OTHERS, found


@settings(max_examples=25)
@given(size=SIZES, horizon=HORIZONS, seed=SEEDS, w=PRICES)
def test_no_plan_says_converged_and_is_not(size, horizon, seed, w):
    problems = random_problems(size, horizon, COUNT, seed, convex=False)
    plan = problems.plan("native", w)
    assert plan.converged.float().mean() >= 0.75
    assert_right(problems, plan, w)


@settings(max_examples=15)
@given(size=SIZES, horizon=HORIZONS, seed=SEEDS, excess=st.floats(-3, 6).map(lambda p: 10**p))
def test_a_problem_without_a_solution_says_so_and_disturbs_no_other(size, horizon, seed, excess):
    problems = random_problems(size, horizon, COUNT, seed, convex=True)
    alone = problems.plan("native", None)
    spoilt = [0, 3, 7]
    # two rows of state and control that no state and control satisfies together
    size_2 = Size(size.n, size.m, size.of_state, size.mixed + 1)
    values = dict(problems.values)
    for name, opposite in (("b", -1.0), ("d", -1.0)):
        values[name] = np.concatenate((values[name], opposite * values[name][:, :1]), 1)
    room = np.full((COUNT, 1), 1e3)
    room[spoilt] = -values["g"][spoilt, :1] - excess
    values["g"] = np.concatenate((values["g"], room), 1)
    problems = Problems(size_2, problems.x_init, values, horizon)
    plan = problems.plan("native", None)
    others = [i for i in range(COUNT) if i not in spoilt]
    assert not plan.converged[spoilt].any()
    assert (plan.violation[spoilt] >= 0.49 * excess).all()
    assert plan.controls[spoilt].isfinite().all()
    assert plan.iterations.max() <= 2 * 200
    assert plan.converged[others].all()
    assert_right(problems, plan, None)
    assert torch.equal(plan.controls[others], problems.plan("native", None, others).controls)
    torch.testing.assert_close(
        plan.cost[others], alone.cost[others], rtol=1e-6, atol=1e-6, msg="the other rows are slack"
    )


@pytest.mark.parametrize("w", [None, 0.5])
@pytest.mark.parametrize(
    ("size", "horizon", "convex"), [(Size(2, 1, 2, 1), 6, False), (Size(3, 2, 2, 2), 4, True)]
)
def test_the_reference_finds_the_same(size, horizon, convex, w):
    problems = random_problems(size, horizon, COUNT, 5, convex=convex)
    native = problems.plan("native", w)
    reference = problems.plan("torch", w)
    assert torch.equal(native.converged, reference.converged)
    for name in ("states", "controls", "cost", "violation", "multipliers"):
        one, other = getattr(native, name), getattr(reference, name)
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    assert_right(problems, reference, w)


def test_a_plan_whose_gradient_is_the_rounding_of_its_controls_is_told_from_one_that_is_off():
    """A unit in the last place of the first controls is 1e-5 in the gradient, 20 stages later."""
    problems = random_problems(Size(1, 2, 2, 1), 20, 32, 28, convex=False).only([6])
    plan = problems.plan("native", 9.2)
    assert plan.converged.all()
    assert not plan.multipliers.any()
    assert wrong(problems, plan, 0, 9.2)["gradient"] < 1e-12
    off = plan.controls.clone()
    off[0, -1] += 1e-4
    assert wrong(problems, replace(plan, controls=off), 0, 9.2)["gradient"] > GRADIENT


@pytest.mark.slow
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("convex", [False, True])
@pytest.mark.parametrize("size", [Size(1, 2, 2, 1), Size(3, 1, 2, 2), Size(5, 3, 3, 2)])
def test_of_a_thousand_problems_none_says_so(size, convex, soft):
    converged, random = 0, np.random.default_rng(size.n)
    for seed in range(32):
        w = float(10 ** random.uniform(-2, 3)) if soft else None
        problems = random_problems(size, int(random.integers(1, 25)), 32, seed, convex=convex)
        plan = problems.plan("native", w)
        assert_right(problems, plan, w)
        converged += int(plan.converged.sum())
    assert converged >= (1.0 if convex else 0.97) * 32 * 32
