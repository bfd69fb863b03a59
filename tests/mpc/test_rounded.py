"""Plans at kinks of the model."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from mpc_gym import MPC, Plan, QuadraticCost, make_mpc
from mpc_gym.models import NeuralDynamics
from mpc_gym.mpc.backend import Settings
from mpc_gym.mpc.rounded import AtKinks

T, WEIGHT, STEP = 12, 0.3, 0.2


class DoubleIntegrator(nn.Module):
    n_state, n_ctrl = 2, 1

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        speed = state[..., 1:] + STEP * control
        return torch.cat((state[..., :1] + STEP * speed, speed), -1)


class L1Cost(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(WEIGHT, dtype=torch.float64))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        square = state.square() * torch.tensor([1.0, 0.1]).to(state)
        return (
            square.sum(-1) + 0.01 * control.square().sum(-1) + self.weight * control.abs().sum(-1)
        )


def l1_controller(**options: Any) -> MPC:
    return MPC(DoubleIntegrator(), L1Cost(), T, -1.0, 1.0, **options)


def starts(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return (2 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1) * 1.5


def independent_controls(x: np.ndarray, weight: float = WEIGHT) -> np.ndarray:
    """SciPy's solution of the convex problem in positive and negative parts of the controls."""
    A, b = np.array([[1.0, STEP], [0.0, 1.0]]), np.array([STEP**2, STEP])
    M, N, power = np.zeros((T, 2, T)), np.zeros((T, 2, 2)), np.eye(2)
    for t in range(T):
        N[t] = power
        for s in range(t):
            M[t, :, s] = np.linalg.matrix_power(A, t - 1 - s) @ b
        power = A @ power
    Q = np.diag([1.0, 0.1])
    H = 2 * (np.einsum("tis,ij,tjr->sr", M, Q, M) + 0.01 * np.eye(T))
    g = 2 * np.einsum("tis,ij,tjk,k->s", M, Q, N, x)
    split = np.hstack((np.eye(T), -np.eye(T)))

    def value(parts: np.ndarray) -> tuple[float, np.ndarray]:
        u = split @ parts
        return (
            0.5 * u @ H @ u + g @ u + weight * parts.sum(),
            split.T @ (H @ u + g) + weight,
        )

    found = minimize(
        value,
        np.full(2 * T, 0.1),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * (2 * T),
        options={"ftol": 1e-16, "maxiter": 1000},
    )
    result: np.ndarray = split @ found.x
    return result


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_l1_cost_holds_controls_at_zero_where_another_solver_does(backend: Any) -> None:
    x = starts(8)
    plan = l1_controller(backend=backend)(x)
    assert plan.converged.all()
    assert plan.at_kink is not None
    assert plan.at_kink.all()
    expected = np.stack([independent_controls(each) for each in x.numpy()])
    np.testing.assert_allclose(plan.controls.detach()[..., 0], expected, atol=2e-5)
    held = np.abs(expected) < 1e-7
    assert 0.2 < held.mean() < 0.8
    assert plan.controls.detach()[..., 0].numpy()[held].max() < 2e-5


def test_states_and_cost_are_those_of_the_model_without_rounding() -> None:
    mpc = l1_controller()
    plan = mpc(starts(8))
    states, controls = plan.states.detach(), plan.controls.detach()
    torch.testing.assert_close(
        mpc.dynamics(states[:, :-1], controls[:, :-1]), states[:, 1:], rtol=0, atol=1e-14
    )
    torch.testing.assert_close(mpc.cost(states, controls).sum(1), plan.cost, rtol=1e-14, atol=0)


def test_derivative_is_that_of_the_plan_held_at_its_kinks() -> None:
    mpc, x = l1_controller(), starts(4).requires_grad_()
    plan = mpc(x)
    probe = torch.randn(plan.controls.shape, generator=torch.Generator().manual_seed(0)).double()
    weight = mpc.cost.weight
    by_x, by_weight = torch.autograd.grad((probe * plan.controls).sum(), (x, weight))
    step = 1e-4

    def loss(start: Tensor, price: float) -> np.ndarray:
        found = [independent_controls(each, price) for each in start.detach().numpy()]
        return (probe[..., 0].numpy() * np.stack(found)).sum(1)

    difference = (loss(x, WEIGHT + step) - loss(x, WEIGHT - step)).sum() / (2 * step)
    np.testing.assert_allclose(by_weight.item(), difference, rtol=1e-3)
    for i in range(2):
        along = step * torch.eye(2, dtype=torch.float64)[i]
        difference = (loss(x + along, WEIGHT) - loss(x - along, WEIGHT)) / (2 * step)
        np.testing.assert_allclose(by_x[:, i], difference, rtol=1e-3, atol=1e-3)


def relu_controller(**options: Any) -> MPC:
    torch.manual_seed(0)
    dynamics = NeuralDynamics(2, 1, (16, 16), nn.ReLU).double()
    with torch.no_grad():
        dynamics.net[-1].weight.mul_(10)
    cost = QuadraticCost.from_goal([1.0, 0.0], [1.0, 0.1], 0.01).double()
    return MPC(dynamics, cost, 15, -2.0, 2.0, **options)


def test_relu_network_converges_and_costs_no_more_than_where_the_solver_stalled() -> None:
    x = starts(32)
    with torch.no_grad():
        plan = relu_controller()(x)
        stalled = without_rounding(relu_controller())(x)
    assert plan.converged.double().mean() >= 0.95
    assert plan.iterations.double().median() <= 60
    assert stalled.converged.double().mean() < 0.9
    assert plan.cost.mean() <= stalled.cost.mean() * (1 + 1e-6)


def without_rounding(mpc: MPC) -> MPC:
    mpc._rounded = None
    return mpc


def test_derivative_of_a_relu_network_is_that_of_differences_with_its_widths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mpc, x, kept = relu_controller(), starts(32), []
    put_into = AtKinks.put_into

    def keeping(at_kinks: AtKinks, *arguments: Any) -> Plan:
        kept.append(at_kinks)
        return put_into(at_kinks, *arguments)

    monkeypatch.setattr(AtKinks, "put_into", keeping)
    plan = mpc(x)
    assert plan.at_kink is not None
    at_kinks = kept[0]
    rows = at_kinks.rows
    assert len(rows) > 8
    assert torch.equal(rows, plan.at_kink.nonzero()[:, 0])
    probe = torch.randn(plan.controls.shape, generator=torch.Generator().manual_seed(0)).double()
    bias = mpc.dynamics.net[-1].bias
    inner, context = at_kinks.inner, at_kinks.widths.unsqueeze(1).expand(-1, mpc.horizon, -1)
    inner.tolerance = 1e-10
    exact = [
        torch.autograd.grad((probe[row] * plan.controls[row]).sum(), bias, retain_graph=True)
        for row in rows[:8].tolist()
    ]
    step = 1e-7
    for row, widths, (found,) in zip(rows[:8].tolist(), context[:8], exact, strict=True):
        start, losses = (x[row : row + 1], plan.controls[row : row + 1].detach()), []
        for sign in (1, -1):
            with torch.no_grad():
                bias[0] += sign * step
                losses.append((probe[row] * inner(*start, widths.unsqueeze(0)).controls).sum())
                bias[0] -= sign * step
        difference = float(losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose(found[0], difference, rtol=1e-4)


def test_plans_away_from_all_kinks_are_those_of_the_model_itself() -> None:
    """A limit that is never reached changes nothing; nor does one that is, in the end."""

    class Limited(DoubleIntegrator):
        def forward(self, state: Tensor, control: Tensor) -> Tensor:
            return super().forward(state, control).clamp(-50.0, 50.0)

    cost = QuadraticCost.from_goal([0.0, 0.0], [1.0, 0.1], 0.01)
    plain, limited = (MPC(f, cost, T, -1.0, 1.0) for f in (DoubleIntegrator(), Limited()))
    x = starts(8)
    expected, found = plain(x), limited(x)
    assert expected.at_kink is None
    assert found.at_kink is not None
    assert not found.at_kink.any()
    torch.testing.assert_close(found.controls, expected.controls, rtol=0, atol=1e-9)
    assert torch.equal(found.iterations, expected.iterations)


class Jump(DoubleIntegrator):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        pushed = torch.where(state[..., :1] > 0.0, control + 0.5, control - 0.5)
        return super().forward(state, pushed)


def test_plan_that_relies_on_a_rounded_jump_has_not_converged() -> None:
    cost = QuadraticCost.from_goal([0.0, 0.0], [1.0, 0.1], 0.01)
    mpc = MPC(Jump(), cost, T, -1.0, 1.0)
    mpc.expected_unconverged = 1.0
    plan = mpc(starts(16))
    assert plan.at_kink is not None
    assert not plan.at_kink.any()
    assert not plan.converged.all()
    states, controls = plan.states.detach(), plan.controls.detach()
    reached = mpc.dynamics(states[:, :-1], controls[:, :-1])
    followed = (reached - states[:, 1:]).abs().amax((1, 2)) < 1e-12
    assert followed.all()
    costs = mpc.cost(states, controls).sum(1)
    torch.testing.assert_close(costs, plan.cost.detach())


def test_constraints_and_kinks_go_together() -> None:
    class SpeedLimit(nn.Module):
        def forward(self, state: Tensor, control: Tensor) -> Tensor:
            return state[..., 1:].abs() - 0.4 + 0.0 * control

    mpc = l1_controller(constraints=SpeedLimit())
    x = torch.stack((starts(8)[:, 0], torch.zeros(8, dtype=torch.float64)), 1).requires_grad_()
    plan = mpc(x)
    assert plan.converged.all()
    assert plan.violation is not None
    assert plan.violation.max() <= 1e-6
    assert plan.states[..., 1].abs().max() > 0.399
    plan.controls.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("nearer", [1.0, 0.1, 1e-3])
def test_near_its_goal_an_l1_cost_holds_all_controls_at_zero(nearer: float) -> None:
    plan = l1_controller()(nearer * starts(16))
    assert plan.converged.all()
    if nearer == 1e-3:
        assert plan.controls.abs().max() < 1e-6


def test_kinks_of_parameters_and_of_the_context_alone_are_left_as_they_are() -> None:
    class Flagged(L1Cost):
        def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
            fast = torch.relu(state[..., 1].abs() - 0.3) ** 2
            limit = torch.where(context[..., 0] > 0.0, 1e5 * fast, 0.0)
            return super().forward(state, control) * self.weight.abs() / self.weight + limit

    x = starts(8)
    flagged = MPC(DoubleIntegrator(), Flagged(), T, -1.0, 1.0)
    found, expected = flagged(x, context=torch.zeros(8, 1)), l1_controller()(x)
    assert found.converged.all()
    torch.testing.assert_close(found.controls, expected.controls, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.cost, expected.cost, rtol=1e-5, atol=0)


def test_long_swing_ups_at_the_speed_limit_converge() -> None:
    """Without rounding not four in five do, and they cost more."""
    mpc = make_mpc("DiffPendulum-v0", horizon=60, starts=8)
    random = torch.Generator().manual_seed(0)
    angle = 2 * torch.pi * torch.rand(64, generator=random)
    x = torch.stack((angle.cos(), angle.sin(), 2 * torch.rand(64, generator=random) - 1), 1)
    with torch.no_grad():
        plan = mpc(x)
        plain = without_rounding(mpc)(x)
    assert plan.converged.double().mean() >= 0.95
    assert plain.converged.double().mean() < 0.8
    assert plan.cost.mean() <= plain.cost.mean()


def test_plan_costs_no_more_than_its_guess() -> None:
    mpc, x = relu_controller(), starts(24)
    mpc.expected_unconverged = 1.0
    with torch.no_grad():
        guess = mpc(x).controls
        for noise in (0.0, 0.3):
            generator = torch.Generator().manual_seed(1)
            start = guess + noise * torch.randn(guess.shape, generator=generator).double()
            plan = mpc(x, warm_start=start.clamp(-2.0, 2.0))
            states = [x]
            for t in range(mpc.horizon - 1):
                states.append(mpc.dynamics(states[-1], start.clamp(-2.0, 2.0)[:, t]))
            before = mpc.cost(torch.stack(states, 1), start.clamp(-2.0, 2.0)).sum(1)
            assert (plan.cost <= before + 1.1e-3 * before.abs()).all()
            assert plan.converged.double().mean() >= 0.9


def test_iterations_are_limited_in_all() -> None:
    mpc = relu_controller()
    mpc.expected_unconverged = 1.0
    for limit in (1, 10, 30, 45):
        plan = mpc(starts(16), max_iterations=limit)
        assert (plan.iterations[plan.converged] <= limit).all()


def test_result_does_not_depend_on_the_batch() -> None:
    mpc, x = relu_controller(), starts(12)
    with torch.no_grad():
        together = mpc(x)
        alone = [mpc(each.unsqueeze(0)) for each in x]
    for name in ("controls", "cost", "converged", "iterations", "at_kink"):
        found = torch.cat([getattr(plan, name) for plan in alone])
        assert torch.equal(found, getattr(together, name)), name


def test_both_backends_give_up_at_a_kink_after_the_same_iterations() -> None:
    x = starts(8)
    plans = [stalled_plan(l1_controller(backend=backend), x) for backend in ("native", "torch")]
    assert torch.equal(plans[0].iterations, plans[1].iterations)
    assert plans[0].iterations.max() < 60
    torch.testing.assert_close(plans[0].controls, plans[1].controls, rtol=0, atol=1e-9)


def stalled_plan(mpc: MPC, x: Tensor) -> Plan:
    bounds = mpc._bounds()
    guess = torch.zeros(len(x), T, 1, dtype=torch.float64)
    settings = Settings(exact=True, tolerance=1e-6, max_iterations=200, kinked=True)
    return mpc._problem(x, guess, bounds, None, settings).solve(x, guess)
