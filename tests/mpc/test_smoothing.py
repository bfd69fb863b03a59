"""Smoothed plans against the barrier problem as SciPy solves it, and against differences."""

import copy
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from mpc_gym import MPC, Plan, QuadraticCost
from mpc_gym.models import Dynamics, LinearDynamics, PendulumDynamics
from mpc_gym.mpc.native import compiled_models

HORIZON = 8
LIMIT = 2.0
float64 = torch.float64


def slow(mu: float) -> object:
    return pytest.param(mu, marks=pytest.mark.slow)


# the reference takes many seconds for these, and is compared with native code below
SLOW_REFERENCE = pytest.mark.parametrize(
    "backend", [pytest.param("torch", marks=pytest.mark.slow), "native"]
)


class SpeedLimit(nn.Module):
    """The pendulum's speed is at most `limit`, either way."""

    def __init__(self, limit: float = 1.2) -> None:
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(limit, dtype=float64))

    def forward(self, state: Tensor, _control: Tensor) -> Tensor:
        return torch.stack((state[..., 2] - self.limit, -self.limit - state[..., 2]), -1)


class PowerLimit(nn.Module):
    """The motor gives at most so much power: a row that depends on the control."""

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state[..., 2:3] * control - 1.5


def pendulum(backend: str = "native", low: object = -LIMIT, high: object = LIMIT, **options) -> MPC:
    weights = torch.tensor([1.0, 1.0, 0.1, 0.01], dtype=float64)
    linear = torch.tensor([-1.0, 0.0, 0.0, 0.0], dtype=float64)
    options = {"horizon": HORIZON, "tolerance": 1e-9, "backend": backend, **options}
    dynamics = PendulumDynamics(max_speed=None)
    return MPC(
        dynamics, QuadraticCost.diagonal(weights, linear), control_low=low, control_high=high,
        **options,
    )  # fmt: skip


def states(count: int, spread: float = 2.0, speed: float = 0.3) -> Tensor:
    """Mostly so far from upright that the plain plan holds its bounds."""
    generator = torch.Generator().manual_seed(5)
    theta = spread * (2 * torch.rand(count, generator=generator, dtype=float64) - 1)
    omega = speed * (2 * torch.rand(count, generator=generator, dtype=float64) - 1)
    return torch.stack((theta.cos(), theta.sin(), omega), -1)


def rolled_out(mpc: MPC, x: Tensor, controls: Tensor) -> Tensor:
    """States [time, n_state] under controls [time, n_ctrl]."""
    found = [x]
    for u in controls[:-1]:
        found.append(mpc.dynamics(found[-1], u))
    return torch.stack(found)


def barrier_problem(mpc: MPC, x: Tensor, mu: float) -> Callable[[Tensor], Tensor]:
    """The cost of a start state's controls with the barrier on all bounds and constraints."""
    low, high = mpc.control_low, mpc.control_high

    def cost(flat: Tensor) -> Tensor:
        U = flat.reshape(mpc.horizon, -1)
        X = rolled_out(mpc, x, U)
        slacks = [U - low, high - U]
        for rows in (mpc.constraints, mpc.terminal_constraints):
            if isinstance(rows, SpeedLimit):
                slacks.append(-rows(X[1:], U[1:]))  # of the first state nothing is asked
            elif rows is not None:
                slacks.append(-rows(X, U))
        barriers = [torch.log(each[each.isfinite()]).sum() for each in slacks]
        return mpc.cost(X, U).sum() - mu * torch.stack(barriers).sum()

    return cost


def minimum(cost: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """By SciPy's trust region method, with derivatives by autograd."""

    def value(flat: np.ndarray) -> float:
        found = cost(torch.tensor(flat)).item()
        return found if math.isfinite(found) else math.inf

    def gradient(flat: np.ndarray) -> np.ndarray:
        at = torch.tensor(flat, requires_grad=True)
        return torch.autograd.grad(cost(at), at)[0].numpy()

    def hessian(flat: np.ndarray) -> np.ndarray:
        return torch.autograd.functional.hessian(cost, torch.tensor(flat)).numpy()

    found = minimize(
        value, start.numpy(), jac=gradient, hess=hessian, method="trust-exact",
        options={"gtol": 1e-9, "maxiter": 2000},
    )  # fmt: skip
    return torch.tensor(found.x)


def assert_differences(make: Callable[[Tensor], Plan], at: Tensor, h: float = 1e-5) -> None:
    """The derivative of a random sum of the plan is that of central differences."""
    at = at.detach().clone().requires_grad_()
    plan = make(at)
    assert plan.converged.all()
    generator = torch.Generator().manual_seed(2)
    weights = [
        torch.randn(each.shape, generator=generator, dtype=float64)
        for each in (plan.states, plan.controls, plan.cost)
    ]

    def loss(plan: Plan) -> Tensor:
        parts = (plan.states, plan.controls, plan.cost)
        return sum(((w * part).sum() for w, part in zip(weights, parts, strict=True)), 0 * part_0)

    part_0 = plan.cost.sum()
    (exact,) = torch.autograd.grad(loss(plan), at)
    found = torch.zeros_like(exact)
    with torch.no_grad():
        for i in range(at.numel()):
            step = torch.zeros_like(at).flatten()
            step[i] = h
            step = step.reshape(at.shape)
            change = loss(make(at + step)) - loss(make(at - step))
            found.view(-1)[i] = change / (2 * h)
    scale = exact.abs().amax().item()
    assert scale > 1e-4
    torch.testing.assert_close(exact, found, rtol=1e-6, atol=1e-6 * scale)


def test_a_smoothed_plan_is_strictly_inside_and_multiplier_times_slack_is_mu(backend: str) -> None:
    x = states(6 if backend == "torch" else 40)
    mpc = pendulum(backend)
    plain = mpc(x).controls.detach()
    assert (plain.abs() == LIMIT).double().mean() > 0.3
    for mu in (1.0, 1e-2, 1e-4, 1e-6):
        mpc.smoothing = mu
        plan = mpc(x)
        assert plan.converged.all()
        controls = plan.controls.detach().requires_grad_()
        assert (controls.abs() < LIMIT).all()
        for row in range(len(x)):
            X = rolled_out(mpc, x[row], controls[row])
            mpc.cost(X, controls[row]).sum().backward()
        pressed = plain.abs() == LIMIT
        slack = LIMIT - controls.detach().abs()[pressed]
        other = LIMIT + controls.detach().abs()[pressed]
        force = -(controls.grad * controls.sign())[pressed]
        torch.testing.assert_close(
            (force + mu / other) * slack, torch.full_like(slack, mu), rtol=1e-5, atol=0.0
        )


@SLOW_REFERENCE
@pytest.mark.parametrize("mu", [1.0, 1e-2, 1e-4])
def test_a_smoothed_plan_is_scipys_minimum_of_the_barrier_problem(backend: str, mu: float) -> None:
    x = states(4)
    mpc = pendulum(backend, smoothing=mu)
    plan = mpc(x)
    for row in range(len(x)):
        found = minimum(
            barrier_problem(mpc, x[row], mu), 0.99 * plan.controls[row].detach().flatten()
        )
        torch.testing.assert_close(plan.controls[row].detach().flatten(), found, rtol=0, atol=1e-6)
        cost = mpc.cost(plan.states[row], plan.controls[row]).sum()
        assert plan.cost[row].item() == pytest.approx(cost.item(), rel=1e-9), "without the barrier"


@SLOW_REFERENCE
@pytest.mark.parametrize("mu", [1.0, 1e-2, 1e-4])
def test_with_constraints_it_is_scipys_minimum_too(backend: str, mu: float) -> None:
    x = states(3, 0.3)
    mpc = pendulum(backend, smoothing=mu, constraints=SpeedLimit(0.5))
    plan = mpc(x)
    assert plan.converged.all()
    assert (plan.violation == 0).all()
    for row in range(len(x)):
        cost = barrier_problem(mpc, x[row], mu)
        start = plan.controls[row].detach().flatten()
        assert cost(start).isfinite(), "strictly inside"
        torch.testing.assert_close(start, minimum(cost, 0.999 * start), rtol=0, atol=1e-6)


@SLOW_REFERENCE
@pytest.mark.parametrize("mu", [0.3, slow(1e-2), slow(1e-3)])
def test_its_derivative_is_that_of_differences(backend: str, mu: float) -> None:
    x = states(3)
    mpc = pendulum(backend, smoothing=mu)
    assert_differences(mpc, x)
    names = ["dynamics.mass", "dynamics.damping", "cost.c"]
    for name in names[: 2 if backend == "torch" else 3]:
        parameter = mpc.get_parameter(name)

        def planned(value: Tensor, name: str = name) -> Plan:
            return torch.func.functional_call(mpc, {name: value}, (x,))

        assert_differences(planned, parameter)


@SLOW_REFERENCE
def test_its_derivative_by_the_bounds_is_that_of_differences(backend: str) -> None:
    x = states(3)

    def planned(bounds: Tensor) -> Plan:
        low, high = bounds
        return pendulum(backend, low, high, smoothing=0.05)(x)

    stages = torch.linspace(1.5, 2.5, HORIZON, dtype=float64).unsqueeze(-1)
    assert_differences(planned, torch.stack((-stages, stages.flip(0))))
    assert_differences(planned, torch.tensor([[-1.7], [1.9]], dtype=float64))


def test_bounds_that_are_parameters_learn(backend: str) -> None:
    high = nn.Parameter(torch.tensor(1.9, dtype=float64))
    mpc = pendulum(backend, high=high, smoothing=0.05)
    (found,) = torch.autograd.grad(mpc(states(3)).cost.sum(), high)
    h = 1e-5
    more, less = (
        pendulum(backend, high=1.9 + step, smoothing=0.05)(states(3)).cost.sum().item()
        for step in (h, -h)
    )
    assert found.item() == pytest.approx((more - less) / (2 * h), rel=1e-6)


@SLOW_REFERENCE
@pytest.mark.parametrize("mu", [slow(0.3), 1e-2, slow(1e-4)])
def test_with_constraints_its_derivative_is_that_of_differences_too(
    backend: str, mu: float
) -> None:
    x = states(2, 0.3)
    mpc = pendulum(backend, smoothing=mu, constraints=SpeedLimit(0.5), terminal_constraints=Tip())
    assert (mpc(x).multipliers > 2 * mu).any(), "some rows are pressed"
    assert_differences(mpc, x)
    names = ["dynamics.mass", "constraints.limit", "terminal_constraints.reach", "cost.c"]
    for name in names[: 3 if backend == "torch" else 4]:
        parameter = mpc.get_parameter(name)

        def planned(value: Tensor, name: str = name) -> Plan:
            return torch.func.functional_call(mpc, {name: value}, (x,))

        assert_differences(planned, parameter)

    def bounded(high: Tensor) -> Plan:
        return pendulum(backend, high=high, smoothing=mu, constraints=SpeedLimit(0.5))(x)

    assert_differences(bounded, torch.tensor(1.1, dtype=float64))


class Tip(nn.Module):
    """The sine of the last angle is at most `reach`."""

    def __init__(self) -> None:
        super().__init__()
        self.reach = nn.Parameter(torch.tensor(-0.03, dtype=float64))

    def forward(self, state: Tensor) -> Tensor:
        return state[..., 1:2] - self.reach


def test_a_row_of_state_and_control_is_asked_of_every_stage(backend: str) -> None:
    x = states(2, 1.0)
    mpc = pendulum(backend, smoothing=1e-2, constraints=PowerLimit())
    plan = mpc(x)
    assert plan.converged.all()
    for row in range(len(x)):
        start = plan.controls[row].detach().flatten()
        found = minimum(barrier_problem(mpc, x[row], 1e-2), 0.999 * start)
        torch.testing.assert_close(start, found, rtol=0, atol=1e-6)


@SLOW_REFERENCE
def test_equalities_stay_equalities(backend: str) -> None:
    class Rest(nn.Module):
        def forward(self, state: Tensor) -> Tensor:
            return state[..., 2:3]

    mpc = pendulum(backend, smoothing=1e-2, terminal_equalities=Rest())
    x = states(2, 0.3)
    plan = mpc(x)
    assert plan.converged.all()
    assert plan.states[:, -1, 2].abs().max() < 1e-7
    assert_differences(mpc, x)


@SLOW_REFERENCE
def test_it_tends_to_the_plain_plan(backend: str) -> None:
    x = states(4 if backend == "torch" else 16)
    for constraints in (None, SpeedLimit(0.5)):
        start = x if constraints is None else states(4, 0.3)
        mpc = pendulum(backend, constraints=constraints)
        plain = mpc(start)
        gaps = []
        for mu in (1e-2, 1e-4, 1e-6):
            mpc.smoothing = mu
            gap = mpc(start, plain.controls).controls - plain.controls
            gaps.append(gap.abs().max().item())
        assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]
        assert gaps[2] < 1e-3


@pytest.mark.parametrize("constraints", [None, SpeedLimit(0.5)])
def test_both_backends_plan_and_differentiate_alike(constraints: nn.Module | None) -> None:
    x = states(4, 0.3)
    for mu in (1.0, 1e-3, 1e-6):
        found = []
        for backend in ("torch", "native"):
            mpc = pendulum(backend, smoothing=mu, constraints=copy.deepcopy(constraints))
            start = x.clone().requires_grad_()
            plan = mpc(start)
            assert plan.converged.all()
            plan.controls.square().sum().backward()
            slopes = [start.grad, mpc.cost.c.grad, mpc.dynamics.mass.grad]
            found.append([plan.states, plan.controls, plan.cost, *slopes])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("constraints", [None, SpeedLimit(0.5)])
def test_another_mu_compiles_nothing(
    constraints: nn.Module | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpc, x = pendulum(constraints=constraints), states(2, 0.3)
    mpc(x)
    mpc.smoothing = 0.1
    mpc(x)

    def compiled(*_args: object, **_options: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(compiled_models, "_compiled", compiled)
    for mu in (1.0, 1e-3, 0.0, 1e-2, 0.0):
        mpc.smoothing = mu
        mpc(x)
        mpc.smoothing.fill_(2 * mu)
        mpc(x)
    if constraints is None:
        mpc.smoothing, mpc.control_high = 0.1, 1.5
        mpc(x)


def test_without_smoothing_plans_are_bitwise_what_they_were(backend: str) -> None:
    x = states(4)
    expected = pendulum(backend)(x)
    mpc = pendulum(backend, smoothing=0.0)
    mpc.smoothing = 0.1
    mpc(x)
    mpc.smoothing = 0.0
    for found in (pendulum(backend, smoothing=0.0)(x), mpc(x)):
        for one, other in zip(vars(found).values(), vars(expected).values(), strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


def test_it_has_a_gradient_where_the_plain_plan_holds_a_bound(backend: str) -> None:
    mpc = pendulum(backend)
    x = states(8)
    plain = mpc(x)
    held = (plain.controls[:, 0, 0].abs() == LIMIT).nonzero()[:, 0].tolist()
    assert len(held) >= 2
    mpc.smoothing = 0.1
    smoothed = mpc(x)
    for row in held:
        for plan, is_zero in ((plain, True), (smoothed, False)):
            (found,) = torch.autograd.grad(
                plan.controls[row, 0, 0], mpc.dynamics.mass, retain_graph=True
            )
            assert (found.item() == 0.0) is is_zero


@pytest.mark.parametrize(
    "value", [-1e-3, math.nan, math.inf, torch.tensor([0.1, 0.2]), "0.1", None, True]
)
def test_a_smoothing_that_is_none_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match="smoothing must be a number that is not negative"):
        pendulum(smoothing=value)
    mpc = pendulum()
    with pytest.raises(ValueError, match="smoothing must be a number that is not negative"):
        mpc.smoothing = value
    assert mpc.smoothing == 0.0


def test_a_smoothing_that_requires_a_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="smoothing must not require a gradient"):
        pendulum(smoothing=torch.tensor(0.1, requires_grad=True))


def test_a_smoothing_that_was_overwritten_is_checked() -> None:
    mpc = pendulum()
    mpc.smoothing.fill_(-1.0)
    with pytest.raises(ValueError, match="smoothing must be a number that is not negative"):
        mpc(states(1))


def test_what_cannot_be_smoothed_is_refused() -> None:
    with pytest.raises(ValueError, match="soft constraints cannot be smoothed"):
        pendulum(smoothing=0.1, soft=1.0, constraints=SpeedLimit())(states(1))
    with pytest.raises(ValueError, match=r"unrolled.* knows no smoothing"):
        pendulum("torch", smoothing=0.1, differentiate="unrolled")(states(1))


def linear(backend: str, low: Tensor | None, high: Tensor | None, **options: object) -> MPC:
    generator = torch.Generator().manual_seed(1)
    A = torch.eye(2, dtype=float64) + 0.1 * torch.randn(2, 2, generator=generator, dtype=float64)
    B = torch.randn(2, 2, generator=generator, dtype=float64)
    cost = QuadraticCost(torch.eye(4, dtype=float64), torch.ones(4, dtype=float64))
    options = {"tolerance": 1e-9, "smoothing": 0.1, **options}
    return MPC(LinearDynamics(A, B), cost, 4, low, high, backend=backend, **options)


def test_infinite_bounds_contribute_nothing(backend: str) -> None:
    x = torch.tensor([[2.0, -1.0], [-3.0, 2.0]], dtype=float64)
    free = linear(backend, None, None)
    torch.testing.assert_close(
        free(x).controls, linear(backend, None, None, smoothing=0.0)(x).controls, rtol=0, atol=1e-9
    )
    low = torch.tensor([-math.inf, -0.5], dtype=float64)
    high = torch.tensor([1.0, math.inf], dtype=float64)
    mpc = linear(backend, low, high)
    plan = mpc(x)
    assert plan.converged.all()
    for row in range(len(x)):
        found = minimum(barrier_problem(mpc, x[row], 0.1), torch.zeros(8, dtype=float64))
        torch.testing.assert_close(plan.controls[row].flatten(), found, rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(plan.cost.sum(), mpc.cost.c)
    assert gradient.isfinite().all()


def test_equal_bounds_fix_a_control_and_contribute_nothing(backend: str) -> None:
    x = torch.tensor([[2.0, -1.0], [-3.0, 2.0]], dtype=float64)
    low = torch.tensor([[-1.0, -1.0]] * 3 + [[0.3, -1.0]], dtype=float64)
    high = torch.tensor([[1.0, 0.5]] * 3 + [[0.3, 0.5]], dtype=float64)
    for smoothing in (0.1, 1e-5):
        mpc = linear(backend, low, high, smoothing=smoothing)
        plan = mpc(x)
        assert plan.converged.all()
        assert (plan.controls[:, 3, 0] == 0.3).all()
        own = torch.stack([mpc.cost(plan.states[:, t], plan.controls[:, t]) for t in range(4)])
        torch.testing.assert_close(plan.cost, own.sum(0), rtol=1e-10, atol=1e-10)
        moving = torch.ones(4, 2, dtype=torch.bool)
        moving[3, 0] = False
        assert (plan.controls > low)[:, moving].all()
        assert (plan.controls < high)[:, moving].all()


def test_the_derivative_by_a_fixed_control_is_kept(backend: str) -> None:
    x = torch.tensor([[2.0, -1.0]], dtype=float64)

    def planned(fixed: Tensor) -> Plan:
        both = torch.stack((fixed, fixed.new_tensor(0.0)))
        width = both.new_tensor([0.0, 1.0])
        return linear(backend, both - width, both + width)(x)

    assert_differences(planned, torch.tensor(0.2, dtype=float64))


def test_bounds_of_any_size_and_range_are_kept(backend: str) -> None:
    x = torch.tensor([[2.0, -1.0]], dtype=float64)
    for centre, width in ((1e6, 1.0), (-1e6, 1e-3), (0.0, 1e-9), (0.0, 1e9), (1.0, 1e-15)):
        low = torch.full((2,), centre, dtype=float64)
        high = low + width
        plan = linear(backend, low, high, smoothing=1e-3)(x)
        assert plan.controls.isfinite().all()
        assert plan.cost.isfinite().all()
        assert (plan.controls >= low).all()
        assert (plan.controls <= high).all()
        if width > 1e-12:
            assert (plan.controls > low).all()
            assert (plan.controls < high).all()


def test_copies_and_pickles_keep_the_smoothing_and_state_dicts_do_without_it(backend: str) -> None:
    x = states(2)
    mpc = pendulum(backend, smoothing=0.05)
    expected = mpc(x)
    for other in (copy.deepcopy(mpc), pickle.loads(pickle.dumps(mpc))):
        assert other.smoothing == 0.05
        assert torch.equal(other(x).controls, expected.controls)
        other.smoothing = 0.0
    assert mpc.smoothing == 0.05
    assert mpc.state_dict().keys() == pendulum(backend).state_dict().keys()


def test_nothing_is_held_so_the_unclamped_control_is_the_control(backend: str) -> None:
    x = states(3, 0.3)
    for constraints in (None, SpeedLimit(0.5)):
        mpc = pendulum(backend, smoothing=0.05, constraints=constraints)
        plan = mpc(x, unclamped=True)
        assert plan.unclamped is not None
        assert torch.equal(plan.unclamped, plan.controls[:, 0])
        (one,) = torch.autograd.grad(plan.unclamped.sum(), mpc.dynamics.mass, retain_graph=True)
        (other,) = torch.autograd.grad(plan.controls[:, 0].sum(), mpc.dynamics.mass)
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_plan_is_the_same_alone_and_in_a_batch() -> None:
    mpc, x = pendulum(smoothing=1e-4), states(30)
    together = mpc(x)
    assert together.iterations.unique().numel() > 3
    for row in range(0, 30, 7):
        alone = mpc(x[row : row + 1])
        assert torch.equal(alone.controls[0], together.controls[row])
        assert torch.equal(alone.iterations[0], together.iterations[row])


@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_a_start_state_that_is_no_number_spoils_its_own_plan_alone(backend: str) -> None:
    x = states(3)
    expected = pendulum(backend, smoothing=1e-3)(x)
    x[1, 2] = math.nan
    plan = pendulum(backend, smoothing=1e-3)(x)
    assert plan.converged.tolist() == [True, False, True]
    assert plan.cost[1].isnan()
    assert torch.equal(plan.controls[[0, 2]], expected.controls[[0, 2]])


def test_any_warm_start_leads_to_the_same_plan(backend: str) -> None:
    x = states(3, 0.3)
    mpc = pendulum(backend, smoothing=1e-3)
    expected = mpc(x).controls
    generator = torch.Generator().manual_seed(3)
    for guess in (
        torch.full((3, HORIZON, 1), LIMIT, dtype=float64),
        torch.full((3, HORIZON, 1), -9.0, dtype=float64),
        LIMIT - 1e-9 * torch.rand(3, HORIZON, 1, generator=generator, dtype=float64),
        expected.detach(),
    ):
        plan = mpc(x, guess)
        assert plan.converged.all()
        torch.testing.assert_close(plan.controls, expected, rtol=0, atol=1e-8)


def test_more_starts_find_a_plan_that_is_no_dearer() -> None:
    mpc, x = pendulum(smoothing=1e-2, horizon=30), states(20, math.pi, 2.0)
    one, many = mpc(x), mpc(x, starts=6)
    problems = [barrier_problem(mpc, each, 1e-2) for each in x]
    for row, cost in enumerate(problems):
        least, found = (cost(plan.controls[row].detach()).item() for plan in (many, one))
        assert least <= found + 0.02 * abs(found)
    assert (many.cost < one.cost - 0.1).any()


class Follow(nn.Module):
    """A cost with a context: the control to follow."""

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        return (control - context).square().sum(-1) + 0.1 * state.square().sum(-1)


class Pushed(Dynamics):
    """With a context, too."""

    n_state, n_ctrl = 1, 1

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        return state + 0.1 * control + 0.1 * context


@SLOW_REFERENCE
def test_a_model_keeps_its_context(backend: str) -> None:
    context = torch.tensor([[3.0], [-0.5]], dtype=float64)
    x = torch.tensor([[0.0], [1.0]], dtype=float64)

    def planned(context: Tensor) -> Plan:
        mpc = MPC(Pushed(), Follow(), 4, -1.0, 1.0, backend=backend, tolerance=1e-9, smoothing=0.01)
        return mpc(x, context=context)

    plan = planned(context)
    assert 0.9 < plan.controls[0, 3, 0] < 1.0
    assert_differences(planned, context)
    assert_differences(planned, context.unsqueeze(1).repeat(1, 4, 1))


def test_a_smoothed_plan_can_be_differentiated_twice() -> None:
    mpc, x = pendulum("torch", smoothing=0.1, horizon=4), states(1)
    mass = mpc.dynamics.mass

    def slope(value: Tensor) -> Tensor:
        plan = torch.func.functional_call(mpc, {"dynamics.mass": value}, (x,))
        (found,) = torch.autograd.grad(plan.controls.sum(), value, create_graph=True)
        return found

    at = mass.detach().clone().requires_grad_()
    (second,) = torch.autograd.grad(slope(at), at)
    h = 1e-4
    more, less = (slope((mass.detach() + step).requires_grad_()) for step in (h, -h))
    assert second.item() == pytest.approx(((more - less) / (2 * h)).item(), rel=1e-5)
