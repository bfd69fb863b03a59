"""What the benchmark judges every solver by, beside the reference solutions and differences."""

import numpy as np
import pytest

from benchmarks.judge import (
    cost_gradient,
    gradient_groups,
    judge,
    judge_gradients,
    stationarity,
    total_cost,
)
from benchmarks.problems import PROBLEMS, PaperProblem
from benchmarks.rivals.ours import Ours


@pytest.fixture(params=PROBLEMS, ids=lambda problem: problem.name)
def problem(request: pytest.FixtureRequest) -> PaperProblem:
    return request.param


@pytest.fixture
def x_init(problem):
    return problem.reference("x_init")


def test_its_cost_of_the_reference_controls_is_the_reference_cost(problem, x_init):
    cost = total_cost(problem, x_init, problem.reference("U"))
    np.testing.assert_allclose(cost, problem.reference("cost"), rtol=1e-12, atol=1e-12)


def test_its_residual_of_the_reference_controls_is_the_reference_residual(problem, x_init):
    residual = stationarity(problem, x_init, problem.reference("U"))
    np.testing.assert_allclose(residual, problem.reference("residual"), atol=1e-13)


def test_its_cost_gradient_agrees_with_central_differences(problem, x_init):
    x_init, h = x_init[:8], 1e-5
    U = np.random.default_rng(0).uniform(-problem.limit, problem.limit, (8, 20))
    found = cost_gradient(problem, x_init, U)
    for t in range(20):
        step = h * np.eye(20)[t]
        above, below = (total_cost(problem, x_init, U + sign * step) for sign in (1, -1))
        np.testing.assert_allclose(found[:, t], (above - below) / (2 * h), rtol=1e-6, atol=1e-6)


def test_it_sees_controls_that_are_not_optimal(problem, x_init):
    U = problem.reference("U")
    best = judge(problem, x_init, U)
    assert best.stationary == 1.0
    worse = judge(problem, x_init, 0.9 * U)
    assert worse.mean_cost > best.mean_cost
    assert worse.worst_residual > 1e-3


def reference_gradients(problem):
    return np.concatenate(
        [problem.reference(f"grad_fd_{group}") for group in gradient_groups(problem)], 1
    )


def test_it_finds_no_error_in_the_reference_gradients(problem):
    U = problem.reference("grad_U")
    for group in gradient_groups(problem):
        verdict = judge_gradients(problem, U, reference_gradients(problem), group)
        assert verdict.compared > 0
        assert verdict.worst == 0.0


def test_it_finds_a_gradient_off_by_a_tenth_and_a_gradient_of_zero(problem):
    U = problem.reference("grad_U")
    wrong = judge_gradients(problem, U, 1.1 * reference_gradients(problem))
    assert wrong.median == pytest.approx(0.1)
    assert judge_gradients(problem, U, 0 * reference_gradients(problem)).median == pytest.approx(1)


def test_it_compares_no_gradient_at_another_solution(problem):
    U = np.full((64, 20), 0.5 * problem.limit)
    assert judge_gradients(problem, U, reference_gradients(problem)).compared == 0


def test_the_native_solver_passes(problem, x_init):
    solver = Ours("native", "native", starts=8)
    U, gradients = solver.gradients(problem, x_init)
    verdict = judge(problem, x_init, U)
    assert verdict.worst_residual < 1e-6
    assert (total_cost(problem, x_init, U) <= problem.reference("cost") + 1e-6).all()
    for group in ("params", "x0"):
        assert judge_gradients(problem, U, gradients, group).worst < 1e-6


def test_fresh_start_states_come_after_the_reference_ones_and_depend_on_the_seed(problem):
    states = problem.start_states(100, seed=3)
    np.testing.assert_array_equal(states[:64], problem.reference("x_init"))
    np.testing.assert_array_equal(states, problem.start_states(100, seed=3))
    assert not np.array_equal(states, problem.start_states(100, seed=4))
    n = problem.n_state
    np.testing.assert_allclose((states[:, n - 3 : n - 1] ** 2).sum(1), 1.0)
