"""Which plan is kept with constraints, which rows are asked, and whose bits are whose."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from benchmarks.constrained_systems import OBSTACLE, SYSTEMS, TRACK, Within
from mpc_gym import MPC
from mpc_gym.models import LinearDynamics
from tests.covering import covering_product

FLOAT = torch.float64


class DoubleWell(nn.Module):
    """Cheapest near -1, and nearly as cheap near 1."""

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        x = state[..., 0]
        return (x * x - 1) ** 2 + 0.3 * x + 0.01 * control.square().sum(-1)


class NotNegative(nn.Module):
    def forward(self, state: Tensor, _control: Tensor) -> Tensor:
        return -state


class Affine(nn.Module):
    """A x + B u - 0.7, whose B may be zero."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.register_buffer("A", torch.tensor([[0.0, 1.0]], dtype=FLOAT))
        self.register_buffer("B", torch.tensor([[gain]], dtype=FLOAT))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state @ self.A.T + control @ self.B.T - 0.7


def sledge(**options: object) -> MPC:
    A = torch.tensor([[1.0, 0.1], [0.0, 1.0]], dtype=FLOAT)
    B = torch.tensor([[0.0], [0.1]], dtype=FLOAT)

    class AtRest(nn.Module):
        def forward(self, state: Tensor, control: Tensor) -> Tensor:
            return state.square().sum(-1) + 0.01 * control.square().sum(-1)

    return MPC(LinearDynamics(A, B), AtRest(), 8, -3.0, 3.0, **options)


def test_of_several_starts_the_one_is_kept_that_costs_least_with_its_violation() -> None:
    one = torch.eye(1, dtype=FLOAT)
    mpc = MPC(LinearDynamics(one, one), DoubleWell(), 2, -2.0, 2.0, NotNegative(), soft=1.0)
    x_init = torch.tensor([[0.0]], dtype=FLOAT)
    guess = torch.tensor([[[0.9], [0.0]]], dtype=FLOAT)
    totals = []
    for starts in (1, 3):
        with torch.no_grad():
            plan = mpc(x_init, guess, starts=starts)
        violated = (-plan.states[0, 1:]).clamp(min=0).sum()
        totals.append((plan.cost + violated).item())
        assert plan.converged.all()
    assert totals[1] <= totals[0] + 1e-9
    assert plan.states[0, 1, 0] > 0


def test_a_row_whose_control_has_a_gain_of_zero_is_not_asked_of_the_given_state() -> None:
    x_init = torch.tensor([[0.5, 0.8]], dtype=FLOAT)  # too fast, and that is given
    with torch.no_grad():
        plan = sledge(constraints=Affine(0.0))(x_init)
        assert plan.converged.all()
        assert plan.violation.item() <= 1e-7
        plan = sledge(constraints=Affine(0.05))(x_init)  # here the first control can do something
        assert plan.converged.all()
        assert 0.8 + 0.05 * plan.controls[0, 0, 0] <= 0.7 + 1e-7


def test_a_gradient_has_the_same_bits_alone_and_in_a_batch() -> None:
    mpc = TRACK.controller()
    x_init = TRACK.start_states(12, 0)

    def gradient(rows: Tensor) -> Tensor:
        rows = rows.clone().requires_grad_()
        plan = mpc(rows)
        return torch.autograd.grad(plan.controls.square().sum(), rows)[0]

    together = gradient(x_init)
    alone = torch.cat([gradient(x_init[i : i + 1]) for i in range(len(x_init))])
    assert torch.equal(together, alone)


def test_a_price_that_learning_has_made_negative_is_refused() -> None:
    price = nn.Parameter(torch.tensor(1.0, dtype=FLOAT))
    mpc = sledge(constraints=Affine(0.0), soft=price)
    with torch.no_grad():
        price.fill_(-0.1)
    with pytest.raises(ValueError, match=r"soft must be positive, got -0\.1"):
        mpc(torch.zeros(1, 2, dtype=FLOAT))


def test_bounds_that_are_learned_keep_their_gradient_beside_other_calls() -> None:
    high = nn.Parameter(torch.tensor(1.0, dtype=FLOAT))
    mpc = sledge(smoothing=0.01)
    mpc.control_high = high
    x_init = torch.tensor([[-2.0, 0.0]], dtype=FLOAT)
    (alone,) = torch.autograd.grad(mpc(x_init).controls.sum(), high)
    plan = mpc(x_init)
    with torch.no_grad():
        mpc(x_init + 0.1)
    (beside,) = torch.autograd.grad(plan.controls.sum(), high)
    assert alone.abs() > 1e-3
    assert torch.equal(alone, beside)


def test_a_smoothed_plan_that_is_cut_off_has_not_converged_and_gives_no_gradient() -> None:
    mpc = sledge(smoothing=1e-4, max_iterations=2)
    mpc.expected_unconverged = 1.0
    x_init = torch.tensor([[-2.0, 0.0], [0.0, 0.0]], dtype=FLOAT, requires_grad=True)
    plan = mpc(x_init)
    assert not plan.converged[0]
    (gradient,) = torch.autograd.grad(plan.controls.sum() + plan.cost.sum(), x_init)
    assert (gradient[0] == 0).all()


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_shifted_plan_brings_its_multipliers(backend: str) -> None:
    x_init = OBSTACLE.start_states(48 if backend == "native" else 6, 0)
    mpc = OBSTACLE.controller(backend=backend)
    with torch.no_grad():
        plan = mpc(x_init)
        shifted, x_next = plan.shift(), plan.states[:, 1]
        warm = mpc(x_next, warm_start=shifted)
        controls_alone = mpc(x_next, warm_start=shifted.clone())
    assert torch.equal(shifted.multipliers[:, :-1], plan.multipliers[:, 1:])
    assert warm.converged.all()
    torch.testing.assert_close(warm.cost, controls_alone.cost, rtol=1e-7, atol=1e-9)
    assert warm.iterations.sum() < 0.6 * controls_alone.iterations.sum()


def test_multipliers_that_are_not_finite_or_of_a_wrong_sign_do_no_harm() -> None:
    x_init = OBSTACLE.start_states(3, 0)
    mpc = OBSTACLE.controller()
    with torch.no_grad():
        plan = mpc(x_init)
        for spoilt in (torch.nan, torch.inf, -1e6):
            shifted = plan.shift()
            shifted.multipliers[0] = spoilt
            found = mpc(plan.states[:, 1], warm_start=shifted)
            assert found.converged.all()
            expected = mpc(plan.states[:, 1], warm_start=plan.shift())
            torch.testing.assert_close(found.cost, expected.cost, rtol=1e-7, atol=1e-9)


@torch.no_grad()
def test_multipliers_of_other_constraints_are_refused() -> None:
    plan = OBSTACLE.controller()(OBSTACLE.start_states(3, 0))
    other = OBSTACLE.controller(constraints=Within(0, 3.0))
    with pytest.raises(ValueError, match="of other constraints"):
        other(plan.states[:, 1], warm_start=plan.shift())
    shifted = plan.shift()
    shifted.multipliers = shifted.multipliers[:2]
    with pytest.raises(ValueError, match="or instances"):
        OBSTACLE.controller(starts=3)(plan.states[:, 1], warm_start=shifted)
    free = OBSTACLE.controller(constraints=None)
    assert free(plan.states[:, 1], warm_start=plan.shift()).converged.all()


@pytest.mark.parametrize(("limit", "backend"), covering_product([1, 9, 15], ["native", "torch"]))
def test_all_solves_together_take_no_more_than_the_iterations_allowed(
    limit: int, backend: str
) -> None:
    x_init = OBSTACLE.start_states(64 if backend == "native" else 6, 0)
    with torch.no_grad():
        plan = OBSTACLE.controller(max_iterations=limit, backend=backend)(x_init)
    assert plan.iterations.max() <= limit
    assert not plan.converged.all()


@pytest.mark.parametrize(("system", "tolerance"), covering_product(SYSTEMS, [1e-2, 1e-4]))
def test_both_backends_take_the_same_decisions(system, tolerance: float) -> None:
    x_init = system.start_states(6, 3)
    with torch.no_grad():
        native, reference = (
            system.controller(backend=backend, tolerance=tolerance)(x_init)
            for backend in ("native", "torch")
        )
    assert native.converged.all()
    assert torch.equal(native.converged, reference.converged)
    assert torch.equal(native.iterations, reference.iterations)
    torch.testing.assert_close(native.multipliers, reference.multipliers, rtol=1e-7, atol=1e-7)


def test_loose_plans_converge_too() -> None:
    """Their multipliers still move, and so does the cost that has these in it."""
    with torch.no_grad():
        plan = OBSTACLE.controller(tolerance=1e-2)(OBSTACLE.start_states(256, 3))
    assert plan.converged.float().mean() >= 0.95


class Logarithm(nn.Module):
    """Not a number for a position below zero."""

    def forward(self, state: Tensor, _control: Tensor) -> Tensor:
        return state[..., :1].log() - 5.0


def test_a_row_that_is_no_number_satisfies_nothing() -> None:
    mpc = OBSTACLE.controller(constraints=Logarithm(), max_iterations=3)
    below, above = torch.tensor([[-1.0, 0, 0, 0], [2.0, 0, 0, 0]], dtype=FLOAT)
    with torch.no_grad():
        plan = mpc(torch.stack((below, above)))
    assert not plan.converged[0]
    assert plan.violation[0].isnan()
    assert plan.violation[1] == 0


class Below(nn.Module):
    """The position is less than the context."""

    takes_context = True

    def forward(self, state: Tensor, _control: Tensor, context: Tensor) -> Tensor:
        return state[..., :1] - context


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_context_that_is_not_finite_spoils_its_own_instance(backend: str) -> None:
    mpc = OBSTACLE.controller(constraints=Below(), backend=backend)
    context = torch.tensor([[0.5], [torch.inf], [torch.nan]], dtype=FLOAT)
    with torch.no_grad():
        plan = mpc(OBSTACLE.start_states(3, 0), context=context)
    assert plan.converged.tolist() == [True, False, False]
    assert plan.cost.isnan().tolist() == plan.violation.isnan().tolist() == [False, True, True]


def test_a_warm_start_can_be_copied() -> None:
    with torch.no_grad():
        shifted = OBSTACLE.controller()(OBSTACLE.start_states(2, 0)).shift()
    copied = copy.deepcopy(shifted)
    assert torch.equal(copied, shifted)
    assert torch.equal(copied.multipliers, shifted.multipliers)
    assert pickle.loads(pickle.dumps(shifted)).multipliers.shape == shifted.multipliers.shape
