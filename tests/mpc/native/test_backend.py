"""The native backend: the same plans and gradients as the reference, whatever is solved beside."""

import os
import signal
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mpc_gym.compiled import ProgramTooLarge, UnsupportedOperation
from mpc_gym.models import (
    Dynamics,
    LinearDynamics,
    PendulumCost,
    PendulumDynamics,
    QuadraticCost,
)
from mpc_gym.mpc import MPC
from mpc_gym.mpc.native.compiled_models import CompiledModels
from tests.killing import needs_fork


class SmoothDynamics(Dynamics):
    """Random smooth dynamics of any size, with gentle curvature in state and control."""

    def __init__(self, n_state: int, n_ctrl: int, generator: torch.Generator) -> None:
        super().__init__(n_state, n_ctrl)

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

        self.A, self.B = normal(n_state, n_state), normal(n_state, n_ctrl)
        self.inner, self.outer = normal(n_state, n_state + n_ctrl), normal(n_state, n_state)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        hidden = torch.sin(torch.cat((state, control), -1) @ self.inner.mT)
        return 0.6 * state @ self.A.mT + control @ self.B.mT + 0.3 * hidden @ self.outer.mT


class SmoothCost(nn.Module):
    """A random convex quadratic, with a smooth non-quadratic term."""

    def __init__(self, size: int, generator: torch.Generator) -> None:
        super().__init__()
        root = torch.randn(size, size, generator=generator, dtype=torch.float64)
        linear = torch.randn(size, generator=generator, dtype=torch.float64)
        self.quadratic = QuadraticCost(root @ root.mT / size + 0.2 * torch.eye(size), linear)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.quadratic(state, control) + 0.2 * torch.log1p(state.square().sum(-1))


def random_problem(seed: int, n: int, m: int) -> tuple[nn.Module, nn.Module, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dynamics = SmoothDynamics(n, m, generator)
    x_init = torch.randn(5, n, generator=generator, dtype=torch.float64)
    return dynamics, SmoothCost(n + m, generator), x_init


def plan_and_gradients(mpc: MPC, x_init: Tensor) -> tuple[object, list[Tensor]]:
    x_init = x_init.clone().requires_grad_()
    plan = mpc(x_init)
    weights = torch.linspace(-1.0, 1.0, plan.controls.numel(), dtype=torch.float64)
    loss = (plan.controls * weights.reshape(plan.controls.shape)).sum()
    loss = loss + plan.states.square().mean() + plan.cost.sum()
    return plan, list(torch.autograd.grad(loss, [x_init, *mpc.parameters()]))


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 3),
    m=st.integers(1, 2),
    horizon=st.integers(1, 8),
    limit=st.floats(0.05, 3.0),
    exact=st.booleans(),
)
def test_both_backends_give_the_same_plan_and_gradient(seed, n, m, horizon, limit, exact):
    dynamics, cost, x_init = random_problem(seed, n, m)
    hessian = "exact" if exact else "gauss-newton"
    found = []
    for backend in ("torch", "native"):
        mpc = MPC(dynamics, cost, horizon, -limit, limit, backend=backend, hessian=hessian)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not every random problem converges
            found.append(plan_and_gradients(mpc, x_init))
    (reference, expected), (native, gradients) = found
    torch.testing.assert_close(native.converged, reference.converged)
    rows = reference.converged
    torch.testing.assert_close(
        native.controls[rows], reference.controls[rows], rtol=1e-8, atol=1e-8
    )
    torch.testing.assert_close(native.states[rows], reference.states[rows], rtol=1e-8, atol=1e-8)
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-6, atol=1e-6)


def test_a_result_is_bitwise_the_same_alone_in_a_batch_and_on_two_threads(paper):
    x_init = paper.x_init
    limit = paper.control_limit
    mpc = MPC(paper.dynamics(), paper.cost(), 20, -limit, limit, backend="native")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        together, gradients = plan_and_gradients(mpc, x_init)
        alone = [mpc(x_init[i : i + 1]).controls for i in (0, 17, 63)]
        torch.set_num_threads(2)
        split, split_gradients = plan_and_gradients(mpc, x_init)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together.controls, split.controls)
    assert torch.equal(together.cost, split.cost)
    assert all(torch.equal(*pair) for pair in zip(gradients, split_gradients, strict=True))
    assert torch.equal(torch.cat(alone), together.controls[[0, 17, 63]])


def test_a_parameter_that_was_changed_in_place_is_used_at_once(pendulum):
    mpc = MPC(pendulum.dynamics(), pendulum.cost(), 10, backend="native")
    reference = MPC(mpc.dynamics, mpc.cost, 10, backend="torch")
    x_init = pendulum.x_init[:4]
    before = mpc(x_init).controls
    mpc.dynamics.mass.data.mul_(1.5)
    after = mpc(x_init).controls
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, reference(x_init).controls, rtol=1e-8, atol=1e-8)


def test_a_plain_attribute_that_was_changed_is_compiled_in_anew(pendulum):
    mpc = MPC(pendulum.dynamics(), pendulum.cost(), 10, backend="native")
    reference = MPC(mpc.dynamics, mpc.cost, 10, backend="torch")
    x_init = pendulum.x_init[:4]
    mpc(x_init)
    mpc.dynamics.dt = 0.02
    torch.testing.assert_close(
        mpc(x_init).controls, reference(x_init).controls, rtol=1e-8, atol=1e-8
    )


class Branching(Dynamics):
    n_state, n_ctrl = 1, 1

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        if state.sum() > 0:
            return state + 0.1 * control
        return state + 0.2 * control


def test_what_cannot_be_compiled_is_solved_by_the_reference_with_one_warning():
    mpc = MPC(Branching(), QuadraticCost(torch.ones(2).double()), 3)
    x_init = torch.ones(1, 1, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"PyTorch reference.*test_backend\.py:\d+"):
        plan = mpc(x_init)
    assert plan.converged.all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mpc(x_init)
        mpc.eval()(x_init)  # as a policy that acts after it was trained
        mpc.train()(x_init)


def test_on_a_gpu_the_reference_plans_with_one_warning_that_says_how_to_be_faster():
    modules, models = (Branching(), QuadraticCost(torch.ones(2).double())), CompiledModels()
    arguments = (modules, (1, 1, 0), torch.device("cuda"))
    with pytest.warns(UserWarning, match=r"PyTorch reference plans.*device='cpu'"):
        assert models.model(*arguments, required=False, check=lambda: None) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert models.model(*arguments, required=False, check=lambda: None) is None
    with pytest.raises(ValueError, match="device='cpu'"):
        models.model(*arguments, required=True, check=lambda: None)


def test_where_native_is_demanded_that_is_an_error_with_the_users_line():
    mpc = MPC(Branching(), QuadraticCost(torch.ones(2).double()), 3, backend="native")
    with pytest.raises(UnsupportedOperation, match=r"test_backend\.py:\d+"):
        mpc(torch.ones(1, 1))


def test_a_model_too_large_for_straight_line_code_is_refused_or_solved_by_the_reference():
    class ChangesItsWeights(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2, 40_000, dtype=torch.float64))

        def forward(self, state: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
            return 0.5 * state + control + torch.tanh(self.weight).sum(-1)

    dynamics, cost = ChangesItsWeights(), QuadraticCost(torch.ones(3).double())
    x_init = torch.full((2, 2), 0.1, dtype=torch.float64)
    with pytest.raises(ProgramTooLarge):
        MPC(dynamics, cost, 2, backend="native")(x_init)
    with pytest.warns(UserWarning, match="PyTorch reference"):
        assert MPC(dynamics, cost, 2)(x_init).converged.all()


def test_unrolled_differentiation_has_no_native_form():
    cost = QuadraticCost(torch.ones(4).double())
    with pytest.raises(ValueError, match="unrolled"):
        MPC(PendulumDynamics(), cost, 3, backend="native", differentiate="unrolled")


def test_a_cost_whose_hessian_is_indefinite_is_regularised_alike_on_both_backends():
    x_init = torch.tensor([[-1.0, 0.0, 0.5], [-0.9, -0.4, 3.0]], dtype=torch.float64)
    x_init[:, :2] /= x_init[:, :2].norm(dim=1, keepdim=True)
    plans = [
        MPC(PendulumDynamics(), PendulumCost(), 12, backend=backend)(x_init)
        for backend in ("torch", "native")
    ]
    assert all(plan.converged.all() for plan in plans)
    torch.testing.assert_close(plans[0].controls, plans[1].controls, rtol=1e-8, atol=1e-8)


class Goal(nn.Module):
    """A cost with constants of every kind that a trace takes in."""

    def __init__(self) -> None:
        super().__init__()
        self.goal = torch.zeros(3, dtype=torch.float64)
        self.weights = [1.0, 1.0, 0.1]
        self.register_buffer("mask", torch.tensor([True, True, True]))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        weights = torch.tensor(self.weights, dtype=state.dtype) * self.mask
        return (weights * (state - self.goal) ** 2).sum(-1) + 0.001 * control.square().sum(-1)


def change_a_tensor(cost: Goal) -> None:
    cost.goal = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)


def change_a_tensor_in_place(cost: Goal) -> None:
    cost.goal[0] = 1.0


def change_a_list(cost: Goal) -> None:
    cost.weights[0] = 10.0


def change_a_mask(cost: Goal) -> None:
    cost.mask.copy_(torch.tensor([True, False, True]))


@pytest.mark.parametrize(
    "change", [change_a_tensor, change_a_tensor_in_place, change_a_list, change_a_mask]
)
def test_a_constant_that_was_changed_is_compiled_in_anew(pendulum, change):
    cost = Goal()
    native, reference = (
        MPC(pendulum.dynamics(), cost, 6, backend=backend) for backend in ("native", "torch")
    )
    x_init = pendulum.x_init[:4]
    before = native(x_init).cost
    change(cost)
    after = native(x_init).cost
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, reference(x_init).cost, rtol=1e-8, atol=1e-8)


def test_a_parameter_of_another_shape_is_compiled_in_anew(pendulum):
    cost = pendulum.cost()
    mpc = MPC(pendulum.dynamics(), cost, 6, backend="native")
    x_init = pendulum.x_init[:4]
    mpc(x_init)
    mpc.cost.c = nn.Parameter(torch.randn(6, 4, dtype=torch.float64))
    reference = MPC(mpc.dynamics, mpc.cost, 6, backend="torch")
    torch.testing.assert_close(mpc(x_init).cost, reference(x_init).cost, rtol=1e-8, atol=1e-8)


def test_annealing_an_attribute_is_warned_about_and_forgets_old_models(pendulum, monkeypatch):
    monkeypatch.setattr(CompiledModels, "_KEPT", 2)
    mpc = MPC(pendulum.dynamics(), pendulum.cost(), 2, backend="native")

    def anneal() -> None:
        for step in range(4):
            mpc.dynamics.dt = 0.05 + 0.001 * step
            mpc(pendulum.x_init[:1])

    with pytest.warns(UserWarning, match="register_buffer"):
        anneal()
    assert len(mpc._compiled._models) == 2


class Bent(Dynamics):
    """x + u + c/2 u^2: with c = -2 the optimum of some start states is degenerate."""

    n_state, n_ctrl = 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.tensor(-2.0, dtype=torch.float64))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state + control + 0.5 * self.c * control**2


def test_an_instance_without_a_derivative_spoils_no_other(backend):
    cost = QuadraticCost(
        torch.tensor([1.0, 1.0], dtype=torch.float64), torch.tensor([0.0, -1.0]).double()
    )
    mpc = MPC(Bent(), cost, 2, None, None, backend=backend)
    gradients = []
    for start in ([1.0, 3.0], [3.0]):
        x_init = torch.tensor(start, dtype=torch.float64)[:, None].requires_grad_()
        mpc.zero_grad()
        mpc(x_init).controls.sum().backward()
        gradients.append((x_init.grad[-1].clone(), mpc.dynamics.c.grad.clone()))
    assert all(value.isfinite().all() for pair in gradients for value in pair)
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1])


@needs_fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_solves_with_threads_of_its_own(pendulum):
    mpc = MPC(pendulum.dynamics(), pendulum.cost(), 4, backend="native")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        mpc(pendulum.x_init)
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a deadlock ends by a signal
            converged = bool(mpc(pendulum.x_init).converged.all())
            os._exit(0 if converged else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("weights", [[0.0], [1.0, 0.0], [0.0, 0.0]])
def test_the_last_controls_need_no_weight_in_the_cost(backend, weights):
    m = len(weights)
    dynamics = LinearDynamics(
        torch.tensor([[1.0, 0.1], [0.0, 1.0]]).double(), torch.ones(2, m).double().tril()
    )
    cost = QuadraticCost(torch.tensor([1.0, 1.0, *weights], dtype=torch.float64))
    mpc = MPC(dynamics, cost, 5, -5.0, 5.0, backend=backend)
    x_init = torch.tensor([[1.0, 0.5], [-2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    plan = mpc(x_init)
    assert plan.converged.all()
    assert (plan.controls[:, -1] == 0).all()
    plan.states.square().sum().backward()
    assert x_init.grad.isfinite().all()
    assert x_init.grad.abs().max() > 0
