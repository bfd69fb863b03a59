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


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 1)])
def test_of_five_hundred_random_problems_no_plan_says_converged_and_is_not(n, m):
    converged, wrong = fuzz(Size(n, m), groups=13, count=20, seed=0, backend="native")
    assert wrong == 0
    assert converged > 0.85  # some have no minimum


def test_so_it_is_on_the_reference():
    converged, wrong = fuzz(Size(2, 1), groups=2, count=8, seed=1, backend="torch")
    assert wrong == 0
    assert converged > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 1), (3, 2), (5, 3), (8, 4)])
def test_of_ten_thousand_random_problems_hardly_any_says_so(n, m):
    """What is left are unstable systems in which the rounding of a control decides."""
    converged, wrong = fuzz(Size(n, m), groups=50, count=40, seed=2, backend="native")
    assert wrong <= 4
    assert converged > 0.85
