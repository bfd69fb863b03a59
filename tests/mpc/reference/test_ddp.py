"""The solver, against reference solutions, SciPy, a dense QP and the optimality conditions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear, minimize
from torch import nn

from mpc_gym.models import (
    Dynamics,
    LinearDynamics,
    PendulumCost,
    PendulumDynamics,
    QuadraticCost,
)
from mpc_gym.mpc import MPC


def rollout_cost(dynamics, cost, x_init, U):
    """The total cost of each instance, stage by stage."""
    x, total = x_init, 0.0
    for t in range(U.shape[1]):
        total = total + cost(x, U[:, t])
        x = dynamics(x, U[:, t])
    return total


def projected_gradient(dynamics, cost, x_init, U, low, high):
    """How far a unit gradient step moves the controls within their bounds, for each instance."""
    U = U.detach().requires_grad_()
    gradient = torch.autograd.grad(rollout_cost(dynamics, cost, x_init, U).sum(), U)[0]
    return (U - (U - gradient).clamp(low, high)).abs().amax((1, 2))


class SmoothDynamics(Dynamics):
    """A stable system with weak random nonlinearities in state and control."""

    def __init__(self, rng, n, m):
        super().__init__(n, m)
        self.A = nn.Parameter(torch.tensor(rng.normal(size=(n, n)) / np.sqrt(n)))
        self.B = nn.Parameter(torch.tensor(rng.normal(size=(n, m))))
        self.D = nn.Parameter(torch.tensor(rng.normal(size=(n, m)) * 0.3))

    def forward(self, state, control):
        drift = 0.7 * torch.tanh(state) @ self.A.T
        return drift + control @ self.B.T + torch.sin(control) @ self.D.T * torch.cos(state)


class Concave(nn.Module):
    """A stage cost that curves downwards in every control."""

    def forward(self, _state, control):
        return 0.1 * control.sum(-1) - control.square().sum(-1)


class SmoothCost(nn.Module):
    """A strictly convex stage cost that is not quadratic, and has no minimum at zero."""

    def __init__(self, rng, n, m):
        super().__init__()
        L = torch.tensor(rng.normal(size=(n + m, n + m)))
        self.C = nn.Parameter(L @ L.T / (n + m) + 0.5 * torch.eye(n + m))
        self.c = nn.Parameter(torch.tensor(rng.normal(size=n + m)))

    def forward(self, state, control):
        tau = torch.cat((state, control), -1)
        return ((0.5 * tau @ self.C + self.c) * tau).sum(-1) + torch.cosh(0.3 * state).sum(-1)


class TestReference:
    def test_a_cold_solve_reaches_the_optimum_that_a_descent_from_zero_reaches(
        self, paper, paper_mpc
    ):
        with torch.no_grad():
            plan = paper_mpc(paper)(paper.x_init)
        assert plan.converged.all()
        assert (plan.cost <= paper("cold_cost") + 1e-8).all()
        if paper.name == "cartpole":
            torch.testing.assert_close(plan.cost, paper("cold_cost"), rtol=0, atol=1e-8)

    def test_eight_starts_reach_the_best_known_optimum_of_every_state_or_a_better_one(
        self, paper, paper_mpc
    ):
        self.check_best_of_eight(paper, paper_mpc, slice(8))

    @pytest.mark.slow
    def test_eight_starts_do_so_for_all_reference_states(self, paper, paper_mpc):
        self.check_best_of_eight(paper, paper_mpc, slice(None))

    @staticmethod
    def check_best_of_eight(paper, paper_mpc, which):
        x_init, best = paper.x_init[which], paper("cost")[which]
        with torch.no_grad():
            plan = paper_mpc(paper, starts=8)(x_init)
        assert plan.converged.all()
        assert (plan.cost <= best + 1e-8).all()
        found = rollout_cost(paper.dynamics(), paper.cost(), x_init, plan.controls)
        torch.testing.assert_close(plan.cost, found, rtol=1e-12, atol=1e-12)
        assert (plan.controls.abs() <= paper.control_limit).all()
        if paper.name == "pendulum":  # one minimum each
            torch.testing.assert_close(plan.cost, best, rtol=0, atol=1e-8)
            torch.testing.assert_close(plan.controls[..., 0], paper("U")[which], rtol=0, atol=1e-6)

    def test_from_a_solution_nearby_the_reference_controls_are_found(self, paper, paper_mpc):
        expected = paper("grad_U")
        guess = (expected + 0.01 * torch.randn(expected.shape, dtype=expected.dtype))[..., None]
        with torch.no_grad():
            plan = paper_mpc(paper)(paper.x_init, warm_start=guess)
        torch.testing.assert_close(plan.controls[..., 0], expected, rtol=1e-8, atol=1e-7)


def random_states(name, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, 4, dtype=torch.float64, generator=generator) * 2 - 1
    angle = torch.pi * uniform[:, 0]
    pole = torch.stack((torch.cos(angle), torch.sin(angle), uniform[:, 1]), -1)
    return pole if name == "pendulum" else torch.cat((uniform[:, 2:], pole), -1)


def test_where_the_program_curves_more_than_the_cost_steps_grow_longer(pendulum):
    """It takes 5.7 iterations in the mean, and 6.9 where no step is longer than the program's."""
    x_init = random_states("pendulum", 512)
    mpc = MPC(pendulum.dynamics(), pendulum.cost(), 20, -2.0, 2.0, backend="native")
    with torch.no_grad():
        plan = mpc(x_init)
    assert plan.converged.all()
    assert plan.iterations.double().mean() < 6.4


def test_the_optimality_conditions_hold_at_random_states(paper, paper_mpc):
    x_init = random_states(paper.name, 96)
    with torch.no_grad():
        plan = paper_mpc(paper)(x_init)
    assert plan.converged.all()
    limit = paper.control_limit
    residual = projected_gradient(
        paper.dynamics(), paper.cost(), x_init, plan.controls, -limit, limit
    )
    assert residual.max() < 1e-6


def test_convergence_is_quadratic(paper, paper_mpc):
    """A last step of less than 1e-3 leaves an error of about 1e-6 of it."""
    x_init = paper.x_init[:16]
    with torch.no_grad():
        coarse = paper_mpc(paper, tolerance=1e-3)(x_init)
        fine = paper_mpc(paper, tolerance=1e-10)(x_init)
    assert coarse.converged.all()
    assert fine.converged.all()
    assert (fine.iterations - coarse.iterations).max() <= 2
    assert fine.iterations.max() <= 20
    assert (coarse.controls - fine.controls).abs().max() < 2e-5


def test_the_exact_hessian_and_gauss_newton_find_the_same_optimum(paper, paper_mpc):
    x_init = paper.x_init[:16]
    guess = paper("grad_U")[:16, :, None]
    with torch.no_grad():
        exact = paper_mpc(paper)(x_init, warm_start=guess)
        gauss_newton = paper_mpc(paper, hessian="gauss-newton")(x_init, warm_start=guess)
    assert gauss_newton.converged.all()
    torch.testing.assert_close(gauss_newton.controls, exact.controls, rtol=0, atol=1e-4)
    torch.testing.assert_close(gauss_newton.cost, exact.cost, rtol=1e-10, atol=0)


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 4),
    m=st.integers(1, 3),
    horizon=st.integers(1, 8),
)
def test_scipy_finds_the_same_optimum_of_a_random_smooth_problem(seed, n, m, horizon):
    rng = np.random.default_rng(seed)
    dynamics, cost = SmoothDynamics(rng, n, m), SmoothCost(rng, n, m)
    low, high = torch.full((m,), -0.4), torch.full((m,), 0.3)
    x_init = torch.tensor(rng.normal(size=(2, n)))
    with torch.no_grad():
        plan = MPC(dynamics, cost, horizon, low, high)(x_init)
    assert plan.converged.all()
    low, high = low.double(), high.double()
    for x, U, found in zip(x_init, plan.controls, plan.cost, strict=True):

        def objective(u, x=x):
            controls = torch.tensor(u).reshape(1, horizon, m).requires_grad_()
            value = rollout_cost(dynamics, cost, x[None], controls)[0]
            value.backward()
            return value.item(), controls.grad.numpy().ravel()

        bounds = list(zip(low.tolist(), high.tolist(), strict=True)) * horizon
        options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000}
        for guess in (np.zeros(horizon * m), U.numpy().ravel()):
            best = minimize(objective, guess, method="L-BFGS-B", jac=True, bounds=bounds,
                            options=options)  # fmt: skip
            if guess.any():  # no descent leads away from the solution
                assert found <= best.fun + 1e-9 * (1 + abs(best.fun))
            elif np.abs(best.x - U.numpy().ravel()).max() < 0.05:  # the same minimum
                np.testing.assert_allclose(found, best.fun, rtol=1e-8, atol=1e-8)
                np.testing.assert_allclose(U.numpy().ravel(), best.x, atol=1e-4)
    assert projected_gradient(dynamics, cost, x_init, plan.controls, low, high).max() < 1e-6


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 4),
    m=st.integers(1, 3),
    horizon=st.integers(1, 8),
)
def test_a_dense_quadratic_program_has_the_same_solution(seed, n, m, horizon):
    rng = np.random.default_rng(seed)
    A, B, offset = rng.normal(size=(n, n)), rng.normal(size=(n, m)), rng.normal(size=n)
    A /= max(1.0, np.abs(np.linalg.eigvals(A)).max())
    L = rng.normal(size=(horizon, n + m, n + m))
    C = L @ L.swapaxes(1, 2) + 0.1 * np.eye(n + m)
    c = rng.normal(size=(horizon, n + m))
    low = -rng.exponential(size=(horizon, m))
    high = rng.exponential(size=(horizon, m))
    x_init = rng.normal(size=n)

    # z = (x_t, u_t) over all stages is affine in u: z = S u + s
    S, s = np.zeros((horizon, n + m, horizon * m)), np.zeros((horizon, n + m))
    X, x = np.zeros((n, horizon * m)), x_init
    for t in range(horizon):
        S[t, :n], s[t, :n] = X, x
        S[t, n:, t * m : (t + 1) * m] = np.eye(m)
        X, x = A @ S[t, :n] + B @ S[t, n:], A @ x + offset
    H = sum(S[t].T @ C[t] @ S[t] for t in range(horizon))
    g = sum(S[t].T @ (C[t] @ s[t] + c[t]) for t in range(horizon))
    factor = np.linalg.cholesky(H)  # 1/2 u'Hu + g'u = 1/2 |factor' u + factor^-1 g|^2 + const
    dense = lsq_linear(
        factor.T, -np.linalg.solve(factor, g), (low.ravel(), high.ravel()), "bvls", tol=1e-14
    )
    mpc = MPC(
        LinearDynamics(*map(torch.tensor, (A, B, offset))),
        QuadraticCost(torch.tensor(C), torch.tensor(c)),
        horizon,
        torch.tensor(low),
        torch.tensor(high),
    )
    with torch.no_grad():
        plan = mpc(torch.tensor(x_init)[None])
    assert plan.converged.all()
    scale = np.linalg.cond(H) * 1e-12
    np.testing.assert_allclose(plan.controls[0].numpy().ravel(), dense.x, atol=1e-9 + scale)


class TestHardProblems:
    def test_a_pendulum_hanging_at_rest_is_solved_although_its_cost_is_not_convex(self, backend):
        x_init = torch.tensor([[-1.0, 0.0, 0.0], [-1.0, 1e-3, 0.0], [-0.9, 0.4, 1.0]]).double()
        mpc = MPC(PendulumDynamics(), PendulumCost(), 30, backend=backend, starts=4)
        with torch.no_grad():
            plan = mpc(x_init)
        assert plan.converged.all()
        residual = projected_gradient(mpc.dynamics, mpc.cost, x_init, plan.controls, -2.0, 2.0)
        assert residual.max() < 1e-6

    def test_a_cost_that_curves_downwards_everywhere_ends_at_a_bound(self):
        dynamics = LinearDynamics(torch.eye(1), torch.ones(1, 2))
        with torch.no_grad():
            plan = MPC(dynamics, Concave(), 3, -1.0, 1.0)(torch.zeros(1, 1))
        assert plan.converged.all()
        assert (plan.controls == -1.0).all()

    def test_an_unstable_system_is_stabilised_from_a_guess_that_runs_away(self):
        class Cubic(Dynamics):
            n_state = n_ctrl = 1

            def forward(self, state, control):
                return state + 0.2 * (state**3 + control)

        x_init = torch.tensor([[1.2]], dtype=torch.float64)
        mpc = MPC(Cubic(), QuadraticCost(torch.ones(2).double()), 7, None, None)
        with torch.no_grad():
            plan = mpc(x_init)
        assert rollout_cost(Cubic(), mpc.cost, x_init, torch.zeros(1, 7, 1).double()) > 1e6
        assert plan.converged.all()
        assert plan.cost < 30

    def test_a_cost_without_a_minimum_is_reported_as_not_converged(self):
        dynamics = LinearDynamics(torch.eye(1), torch.ones(1, 1))
        cost = QuadraticCost(torch.tensor([1.0, -1.0]))
        with torch.no_grad():
            plan = MPC(dynamics, cost, 1, None, None, max_iterations=30)(torch.ones(1, 1))
        assert not plan.converged.any()

    def test_a_start_from_which_the_cost_overflows_is_reported_and_spoils_no_other(self):
        class Explosive(Dynamics):
            n_state = n_ctrl = 1

            def forward(self, state, control):
                return state**3 + control

        mpc = MPC(Explosive(), QuadraticCost(torch.ones(2).double()), 12)
        with torch.no_grad():
            plan = mpc(torch.tensor([[0.5], [1e30]], dtype=torch.float64))
            alone = mpc(torch.tensor([[0.5]], dtype=torch.float64))
        assert plan.converged.tolist() == [True, False]
        assert torch.equal(plan.controls[:1], alone.controls)


class Scaled(nn.Module):
    """A cost in another unit, with a constant added."""

    def __init__(self, cost, factor, constant=0.0):
        super().__init__()
        self.cost, self.factor, self.constant = cost, factor, constant

    def forward(self, state, control):
        return self.factor * self.cost(state, control) + self.constant


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**40])
@pytest.mark.parametrize("cost", [PendulumCost(), Concave()], ids=["pendulum", "concave"])
def test_the_unit_of_the_cost_changes_nothing(cost, factor, backend):
    x_init = torch.tensor([[-1.0, 0.1, 0.5], [0.2, -0.9, 4.0]], dtype=torch.float64)
    with torch.no_grad():
        plain = MPC(PendulumDynamics(), cost, 6, backend=backend)(x_init)
        scaled = MPC(PendulumDynamics(), Scaled(cost, factor), 6, backend=backend)(x_init)
    assert plain.converged.all()
    assert torch.equal(scaled.iterations, plain.iterations)
    # a power of two changes no digit, but LLVM may sum the terms of another program otherwise
    rounding = {"rtol": 0.0, "atol": 0.0} if backend == "torch" else {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(scaled.controls, plain.controls, **rounding)
    torch.testing.assert_close(scaled.cost / factor, plain.cost, **rounding)


def test_a_large_constant_in_the_cost_does_not_stop_convergence(paper, paper_mpc):
    x_init = paper.x_init[:8]
    mpc = paper_mpc(paper)
    shifted = MPC(mpc.dynamics, Scaled(mpc.cost, 1.0, 1e7), 20, mpc.control_low, mpc.control_high)
    with torch.no_grad():
        plan, expected = shifted(x_init), mpc(x_init)
    assert plan.converged.all()
    torch.testing.assert_close(plan.controls, expected.controls, rtol=0, atol=1e-5)


def test_states_of_ten_thousand_are_as_good_as_states_of_one():
    A = torch.tensor([[1.0, 0.1], [0.0, 1.0]], dtype=torch.float64)
    B = torch.tensor([[0.0], [0.1]], dtype=torch.float64)
    mpc = MPC(LinearDynamics(A, B), QuadraticCost(torch.ones(3).double()), 20, None, None)
    x_init = torch.tensor([[1.0, -0.5], [1e4, -5e3]], dtype=torch.float64)
    with torch.no_grad():
        plan = mpc(x_init)
    assert plan.converged.all()
    torch.testing.assert_close(plan.controls[1], 1e4 * plan.controls[0], rtol=1e-9, atol=1e-6)


def test_an_instance_is_solved_alike_in_any_batch(paper, paper_mpc):
    mpc = paper_mpc(paper, horizon=8)
    x_init = paper.x_init[:5]
    with torch.no_grad():
        together = mpc(x_init)
        alone = [mpc(x[None]) for x in x_init]
    for name in ("states", "controls", "cost", "iterations"):
        expected = torch.cat([getattr(plan, name) for plan in alone])
        assert torch.equal(getattr(together, name), expected), name
