"""Thousands of random problems: no plan is called converged that is not, and none is dearer."""

import pytest
import torch

from tests.mpc.fuzz import FuzzCost, FuzzDynamics, Size, Verdict, judge, random_problems


def fuzz(size: Size, groups: int, count: int, seed: int, backend: str) -> tuple[float, int]:
    """The share of plans that converge, and how many of them are not optima."""
    generator = torch.Generator().manual_seed(seed)
    modules = FuzzDynamics(size), FuzzCost(size)
    converged = wrong = 0
    for _ in range(groups):
        problems = random_problems(size, count, generator)
        mpc = problems.mpc(*modules, backend=backend)
        with torch.no_grad():
            plan = mpc(problems.x_init, warm_start=problems.guess, context=problems.context)
        verdict: Verdict = judge(problems, modules, plan)
        assert verdict.finite.all(), "controls within their bounds, converged or not"
        assert not verdict.dearer.any(), "no plan costs more than its guess"
        converged += int(plan.converged.sum())
        wrong += int((plan.converged & ~verdict.stationary).sum())
    return converged / (groups * count), wrong


@pytest.mark.parametrize(("n", "m"), [pytest.param(1, 1, marks=pytest.mark.slow), (2, 1)])
def test_of_five_hundred_random_problems_no_plan_says_converged_and_is_not(n, m):
    converged, wrong = fuzz(Size(n, m), groups=13, count=20, seed=0, backend="native")
    assert wrong == 0
    assert converged > 0.85  # some have no minimum


def test_so_it_is_on_the_reference():
    converged, wrong = fuzz(Size(2, 1), groups=2, count=8, seed=1, backend="torch")
    assert wrong == 0
    assert converged > 0.8


@pytest.mark.parametrize(("n", "group", "row"), [(1, 10, 32), (2, 16, 4)])
def test_controls_that_have_run_away_where_no_cost_is_least_are_not_converged(n, group, row):
    """Of a sine of what is larger than 1e16, rounding makes any gradient and curvature at all."""
    generator = torch.Generator().manual_seed(2)
    size = Size(n, 1)
    for _ in range(group + 1):
        problems = random_problems(size, 40, generator)
    x_init, guess, context = (
        of_all[row : row + 1] for of_all in (problems.x_init, problems.guess, problems.context)
    )
    mpc = problems.mpc(FuzzDynamics(size), FuzzCost(size), backend="native")
    with torch.no_grad():
        plan = mpc(x_init, warm_start=guess, context=context)
    assert plan.cost < -1e20 * size.read(context)["cost_unit"]
    assert not plan.converged.any()


def test_a_plan_that_runs_away_stops_where_its_cost_is_finite():
    """A step to where the cost overflows decreases nothing, although its noise has no limit."""
    generator, size = torch.Generator().manual_seed(2), Size(1, 1)
    modules = FuzzDynamics(size), FuzzCost(size)
    for _ in range(10):
        problems = random_problems(size, 40, generator)
    with torch.no_grad():
        plan = problems.mpc(*modules, backend="native")(
            problems.x_init, warm_start=problems.guess, context=problems.context
        )
    assert plan.cost.isfinite().all()
    assert plan.cost.min() < -1e300
    assert not judge(problems, modules, plan).dearer.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "m", "least"),
    [(1, 1, 0.9), (2, 1, 0.9), (3, 2, 0.85), (5, 3, 0.78), (8, 4, 0.77)],
)
def test_of_ten_thousand_random_problems_none_says_so(n, m, least):
    """Those that do not converge have mostly no minimum, or hang on the rounding of a control."""
    converged, wrong = fuzz(Size(n, m), groups=50, count=40, seed=2, backend="native")
    assert wrong == 0
    assert converged > least
