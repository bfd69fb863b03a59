"""The derivative of the optimum, against central finite differences of problems solved again."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mpc_gym.models import (
    CartPoleDynamics,
    LinearDynamics,
    NeuralDynamics,
    PendulumCost,
    PendulumDynamics,
    QuadraticCost,
)
from mpc_gym.mpc import MPC

STEP = 1e-5
RELATIVE, FLOOR = 1e-6, 1e-8


def float64(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def bounds(low, high) -> dict[str, nn.Parameter]:
    return {
        "control_low": nn.Parameter(float64(low)),
        "control_high": nn.Parameter(float64(high)),
    }


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


class WindyPendulum(PendulumDynamics):
    """The context's first two entries push the pendulum."""

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        gust = context[..., :1] + torch.sin(context[..., 1:2]) * state[..., :1]
        return super().forward(state, control + gust)


class Tracking(nn.Module):
    """The distance to the state in the context, weighted."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(float64([1.0, 2.0, 0.1]))

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        gap = state - context[..., 2:]
        return (self.weight * gap**2).sum(-1) + 0.05 * control.square().sum(-1)


def pendulum() -> tuple[MPC, Tensor, None]:
    cost = QuadraticCost.from_goal(float64([1, 0, 0]), float64([1, 1, 0.1]), 0.001)
    mpc = MPC(PendulumDynamics(damping=0.1, wind=0.1, max_speed=None), cost, 20, **bounds(-2, 2))
    return mpc, float64([[0.9, 0.4, -0.5], [0.3, -0.95, 0.8]]), None


def clipped_pendulum() -> tuple[MPC, Tensor, None]:
    mpc = MPC(PendulumDynamics(), PendulumCost(torque_weight=0.05), 12, **bounds(-1.5, 2))
    return mpc, float64([[-0.4, 0.9, 7.5], [0.95, 0.3, -0.6]]), None


def cartpole() -> tuple[MPC, Tensor, None]:
    cost = QuadraticCost.from_goal(float64([0, 0, 1, 0, 0]), float64([0.1, 0.1, 1, 1, 0.1]), 0.001)
    mpc = MPC(CartPoleDynamics(), cost, 15, **bounds([-4], [6]))
    return mpc, float64([[0.5, -0.3, 0.9, 0.4, 0.5], [-0.4, 0.2, 0.95, -0.3, -0.2]]), None


def neural() -> tuple[MPC, Tensor, None]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        dynamics = NeuralDynamics(3, 2, hidden=(6,)).double()
    with torch.no_grad():
        dynamics.net[-1].weight.mul_(10)
    L = normal(5, 5, seed=1)
    cost = QuadraticCost(L @ L.T / 5 + 0.3 * torch.eye(5), normal(5, seed=2))
    return MPC(dynamics, cost, 8, **bounds([-0.6, -0.9], [0.7, 0.6])), normal(2, 3, seed=3), None


def linear_with_stages() -> tuple[MPC, Tensor, None]:
    A = 0.5 * normal(3, 3, seed=4)
    dynamics = LinearDynamics(A, normal(3, 2, seed=5), normal(3, seed=6))
    L = normal(6, 5, 5, seed=7)
    cost = QuadraticCost(L @ L.mT / 5 + 0.3 * torch.eye(5), normal(6, 5, seed=8))
    low = -0.3 - 0.1 * normal(6, 2, seed=15).abs()
    return MPC(dynamics, cost, 6, **bounds(low.tolist(), 0.3)), normal(2, 3, seed=9), None


def with_context() -> tuple[MPC, Tensor, Tensor]:
    mpc = MPC(WindyPendulum(max_speed=None), Tracking(), 10, **bounds(-1.5, 1.5))
    return mpc, float64([[0.9, 0.4, -0.5], [0.3, -0.95, 0.8]]), 0.5 * normal(2, 10, 5, seed=10)


PROBLEMS = [pendulum, clipped_pendulum, cartpole, neural, linear_with_stages, with_context]


def losses_of(mpc: MPC, x_init: Tensor, context: Tensor | None, guess: Tensor | None) -> Tensor:
    """Three losses: one each on the controls, the states and the optimal cost."""
    plan = mpc(x_init, warm_start=guess, context=context)
    assert plan.converged.all()
    controls = (normal(*plan.controls.shape, seed=11) * plan.controls).sum()
    states = (normal(*plan.states.shape, seed=12) * plan.states).sum()
    return torch.stack((controls, states, (normal(len(x_init), seed=13) * plan.cost).sum()))


def assert_gradients_match(losses: Callable[[], Tensor], tensors: dict[str, Tensor]) -> None:
    """Each loss's gradient along a random direction of each tensor is the difference quotient."""
    direction = {
        name: normal(*tensor.shape, seed=14) * tensor.detach().abs().clamp(min=0.1)
        for name, tensor in tensors.items()
    }
    gradients = [
        torch.autograd.grad(loss, list(tensors.values()), retain_graph=True) for loss in losses()
    ]
    for i, (name, tensor) in enumerate(tensors.items()):
        analytic = torch.stack([(g[i] * direction[name]).sum() for g in gradients])
        saved, found = tensor.detach().clone(), []
        with torch.no_grad():
            for sign in (1, -1):
                tensor.copy_(saved + sign * STEP * direction[name])
                found.append(losses())
            tensor.copy_(saved)
        quotient = (found[0] - found[1]) / (2 * STEP)
        error = (analytic - quotient).abs()
        assert (error <= RELATIVE * quotient.abs() + FLOOR).all(), (name, analytic, quotient)


@pytest.mark.parametrize("make", PROBLEMS, ids=lambda make: make.__name__)
def test_every_gradient_is_that_of_finite_differences(make, backend):
    mpc, x_init, context = make()
    mpc.backend, mpc.tolerance = backend, 1e-9
    with torch.no_grad():
        plan = mpc(x_init, context=context)
    at_bound = (plan.controls <= mpc.control_low) | (plan.controls >= mpc.control_high)
    assert at_bound.any()
    assert not at_bound.all()
    guess = plan.controls
    tensors = dict(mpc.named_parameters())
    tensors["x_init"] = x_init.requires_grad_()
    if context is not None:
        tensors["context"] = context.requires_grad_()
    assert_gradients_match(lambda: losses_of(mpc, x_init, context, guess), tensors)


@pytest.mark.parametrize("make", PROBLEMS, ids=lambda make: make.__name__)
def test_second_derivatives_are_those_of_finite_differences_of_the_gradients(make, backend):
    """Along one direction of everything that the plan depends on, bounds and context included."""
    mpc, x_init, context = make()
    mpc.backend, mpc.tolerance = backend, 1e-10
    with torch.no_grad():
        guess = mpc(x_init, context=context).controls
    tensors = [*mpc.parameters(), x_init.requires_grad_()]
    if context is not None:
        tensors.append(context.requires_grad_())
    weights = [normal(*tensor.shape, seed=40 + i) for i, tensor in enumerate(tensors)]

    def slope() -> Tensor:
        losses = losses_of(mpc, x_init, context, guess)
        gradients = torch.autograd.grad(losses.sum(), tensors, create_graph=True)
        return sum((w * g).sum() for w, g in zip(weights, gradients, strict=True))

    second = torch.autograd.grad(slope(), tensors)
    directions = [
        normal(*tensor.shape, seed=60 + i) * tensor.detach().abs().clamp(min=0.1)
        for i, tensor in enumerate(tensors)
    ]
    analytic = sum((s * d).sum() for s, d in zip(second, directions, strict=True))
    found = []
    for sign in (1, -2):
        for tensor, direction in zip(tensors, directions, strict=True):
            tensor.data += sign * STEP * direction
        found.append(slope().detach())
    quotient = (found[0] - found[1]) / (2 * STEP)
    torch.testing.assert_close(analytic, quotient, rtol=1e-6, atol=1e-6)


def test_the_speed_clip_is_active_in_the_problem_that_is_to_test_it():
    mpc, x_init, _ = clipped_pendulum()
    with torch.no_grad():
        speeds = mpc(x_init).states[..., 2]
    assert (speeds.abs() == 8.0).any()


def test_near_upright_the_gradients_by_the_physics_are_those_of_differences(pendulum, backend):
    """The problem that docs/mpc.md compares others on: eight pendulums at rest near upright."""
    theta = torch.linspace(-0.5, 0.5, 8, dtype=torch.float64)
    x_init = torch.stack((theta.cos(), theta.sin(), torch.zeros_like(theta)), -1)
    physics = {"gravity": 10.0, "mass": 1.0, "length": 1.0}

    def controls(**physics: float) -> tuple[MPC, Tensor]:
        dynamics = PendulumDynamics(max_speed=None, **physics)
        mpc = MPC(dynamics, pendulum.cost(), 20, -2.0, 2.0, backend=backend, tolerance=1e-10)
        return mpc, mpc(x_init).controls

    mpc, U = controls(**physics)
    held = (U.abs() == 2.0).double().mean((1, 2))
    assert held.max() > 0.5
    assert held.min() == 0.0
    parameters = [getattr(mpc.dynamics, name) for name in physics]
    found = torch.autograd.grad(U.square().mean(), parameters)
    for (name, value), exact in zip(physics.items(), found, strict=True):
        with torch.no_grad():
            more, less = (
                controls(**{**physics, name: value * (1 + step)})[1].square().mean()
                for step in (STEP, -STEP)
            )
        difference = ((more - less) / (2 * STEP * value)).item()
        assert exact.item() == pytest.approx(difference, rel=1e-8)


def test_gradients_match_those_of_the_reference_file(paper, paper_mpc):
    mpc = paper_mpc(paper)
    x_init = paper.x_init.requires_grad_()
    guess = paper("grad_U")[..., None]
    loss = mpc(x_init, warm_start=guess).controls.square().mean((1, 2))
    torch.testing.assert_close(loss.detach(), paper("grad_loss"), rtol=1e-9, atol=1e-9)
    physical = {
        "pendulum": ("gravity", "mass", "length"),
        "cartpole": ("gravity", "cart_mass", "pole_mass", "pole_length"),
    }[paper.name]
    parameters = [mpc.dynamics.get_parameter(name) for name in physical]
    # neighbouring optima that change their active set have no derivative to compare with
    smooth = paper("margin") > 1e-2
    assert smooth.sum() > 40
    for rows in smooth.nonzero()[:, 0].split(8):
        found = torch.autograd.grad(
            loss[rows].sum(), [x_init, *parameters, mpc.cost.C, mpc.cost.c], retain_graph=True
        )
        for gradient, key in (
            (found[0][rows], "x0"),
            (torch.stack(found[1:-2]), "params"),
            (found[-2], "q"),
            (found[-1], "p"),
        ):
            each = paper(f"grad_fd_{key}")[rows]
            expected = each if key == "x0" else each.sum(0)
            error = (gradient - expected).abs()
            # the file's own differences are good to 1e-6 in the small control penalty
            assert (error <= 1e-5 * each.abs().sum(0) + 1e-6).all(), (key, gradient, expected)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_gradcheck_passes_on_a_linear_quadratic_problem(m, backend):
    n, horizon = 2, 3
    L = normal(n + m, n + m, seed=20)
    C, c = L @ L.T + 0.3 * torch.eye(n + m), normal(n + m, seed=21)
    tensors = {
        "dynamics.A": 0.5 * normal(n, n, seed=22),
        "dynamics.B": normal(n, m, seed=23),
        "dynamics.offset": normal(n, seed=24),
        "cost.C": C,
        "cost.c": c,
        "control_low": torch.full((m,), -0.3, dtype=torch.float64),
        "control_high": torch.full((m,), 0.2, dtype=torch.float64),
    }
    dynamics = LinearDynamics(*(tensors[f"dynamics.{name}"] for name in ("A", "B", "offset")))
    mpc = MPC(
        dynamics, QuadraticCost(C, c), horizon, **bounds([-0.3] * m, [0.2] * m), backend=backend
    )

    def solve(x_init, *values):
        named = dict(zip(tensors, values, strict=True))
        plan = torch.func.functional_call(mpc, named, (x_init,))
        return plan.controls, plan.states, plan.cost

    x_init = normal(2, n, seed=25)
    controls = mpc(x_init).controls.detach()
    at_bound = (controls == -0.3) | (controls == 0.2)
    assert at_bound.any()
    assert not at_bound.all()
    inputs = [value.detach().requires_grad_() for value in (x_init, *tensors.values())]
    assert torch.autograd.gradcheck(solve, inputs, fast_mode=True, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("make", [pendulum, linear_with_stages], ids=lambda make: make.__name__)
def test_the_unrolled_gradient_equals_the_implicit_one(make):
    mpc, x_init, _ = make()
    tensors = [x_init.requires_grad_(), *mpc.parameters()]
    found = {}
    for differentiate in ("implicit", "unrolled"):
        mpc.differentiate = differentiate
        losses = losses_of(mpc, x_init, None, None)
        found[differentiate] = torch.autograd.grad(losses.sum(), tensors)
    for implicit, unrolled in zip(found["implicit"], found["unrolled"], strict=True):
        torch.testing.assert_close(unrolled, implicit, rtol=1e-6, atol=1e-8)


def gradients_with(hessian: str, mpc: MPC, x_init: Tensor) -> list[Tensor]:
    mpc.hessian = hessian
    losses = losses_of(mpc, x_init, None, None)
    return list(torch.autograd.grad(losses[0], [x_init, *mpc.parameters()]))


def test_gauss_newton_has_the_exact_gradient_of_a_linear_system():
    mpc, x_init, _ = linear_with_stages()
    x_init.requires_grad_()
    exact = gradients_with("exact", mpc, x_init)
    for gradient, expected in zip(gradients_with("gauss-newton", mpc, x_init), exact, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)


def test_gauss_newton_has_another_gradient_where_the_dynamics_curve():
    mpc, x_init, _ = cartpole()
    x_init.requires_grad_()
    exact = gradients_with("exact", mpc, x_init)[0]
    gauss_newton = gradients_with("gauss-newton", mpc, x_init)[0]
    assert (gauss_newton - exact).norm() > 0.01 * exact.norm()


def test_a_control_fixed_by_equal_bounds_moves_with_them_alone():
    """Also where its gradient is zero: the last control, penalised, fixed at zero."""
    mpc, x_init, _ = linear_with_stages()
    fixed = torch.zeros(6, 2, dtype=torch.float64)
    cost = QuadraticCost(torch.ones(5).double())
    mpc = MPC(mpc.dynamics, cost, 6, nn.Parameter(fixed), nn.Parameter(fixed.clone()))
    x_init.requires_grad_()
    plan = mpc(x_init)
    weights = normal(*plan.controls.shape, seed=30)
    (weights * plan.controls).sum().backward()
    total = mpc.control_low.grad + mpc.control_high.grad
    torch.testing.assert_close(total, weights.sum(0), rtol=1e-12, atol=1e-12)
    assert (x_init.grad == 0).all()
    assert all((p.grad == 0).all() for p in (*mpc.dynamics.parameters(), *cost.parameters()))


class Chased(nn.Module):
    """The distance of a control, in its unit, to a target that the state moves a little."""

    def __init__(self, unit: float, target: float = 1.9995) -> None:
        super().__init__()
        self.unit = unit
        self.target = nn.Parameter(float64(target))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        target = self.target + 1e-3 * torch.sin(state[..., 0])
        return torch.cosh(control[..., 0] / self.unit - target) + 1e-6 * state[..., 0] ** 2


class Drift(nn.Module):
    """A state that a control, in its unit, moves."""

    n_state = n_ctrl = 1

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return 0.9 * state + control / self.unit


@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e7])
def test_a_control_near_its_bound_in_any_unit_is_free(unit, backend):
    """Between 1.9985 and 2 units, some of them at the bound; differences are of smaller steps."""
    x_init = torch.linspace(-2, 1, 24, dtype=torch.float64).unsqueeze(-1)

    def controls(target: float, high: float) -> tuple[MPC, Tensor]:
        mpc = MPC(
            Drift(unit),
            Chased(unit, target),
            4,
            -2.0 * unit,
            nn.Parameter(float64(high * unit)),
            backend=backend,
            tolerance=1e-10,
        )
        plan = mpc(x_init)
        assert plan.converged.all()
        return mpc, plan.controls[..., 0] / unit

    mpc, u = controls(1.9995, 2.0)
    held = u >= 2.0 - 1e-12
    assert 8 < held.sum() < held.numel() - 8
    weight = normal(*u.shape, seed=3)
    by_target, by_high = torch.autograd.grad(
        (weight * u).sum(), [mpc.cost.target, mpc.control_high]
    )
    h = 1e-7
    for found, (lower, upper) in (
        (by_target, (controls(1.9995 - h, 2.0), controls(1.9995 + h, 2.0))),
        (by_high * unit, (controls(1.9995, 2.0 - h), controls(1.9995, 2.0 + h))),
    ):
        difference = (weight * (upper[1] - lower[1])).sum().detach() / (2 * h)
        torch.testing.assert_close(found, difference, rtol=1e-5, atol=1e-6)


class Arm(nn.Module):
    """Two joints, whose accelerations solve a system with a matrix that depends on the state."""

    n_state, n_ctrl = 4, 1

    def __init__(self) -> None:
        super().__init__()
        self.coupling = nn.Parameter(float64(0.4))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        angles, speeds = state[..., :2], state[..., 2:]
        cosine = self.coupling * torch.cos(angles[..., 1])
        mass = torch.stack(
            (
                torch.stack((1.5 + cosine, 0.5 + cosine), -1),
                torch.stack((0.5 + cosine, torch.ones_like(cosine)), -1),
            ),
            -2,
        )
        force = torch.cat((control, torch.zeros_like(control)), -1) - torch.sin(angles)
        acceleration = torch.linalg.solve(mass, force.unsqueeze(-1)).squeeze(-1)
        return torch.cat((angles + 0.1 * speeds, speeds + 0.1 * acceleration), -1)


def network(*layers: nn.Module) -> nn.Module:
    class Network(nn.Module):
        n_state, n_ctrl = 4, 1

        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.net = nn.Sequential(nn.Linear(5, 6), *layers, nn.Linear(6, 4)).double()

        def forward(self, state: Tensor, control: Tensor) -> Tensor:
            return state + 0.3 * self.net(torch.cat((state, control), -1))

    return Network()


@pytest.mark.parametrize(
    "dynamics",
    [Arm(), network(nn.LayerNorm(6), nn.Tanh()), network(nn.SiLU()), network(nn.Mish())],
    ids=["solve", "LayerNorm", "SiLU", "Mish"],
)
@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=pytest.mark.slow)])
def test_a_model_of_any_operations_has_the_gradient_of_finite_differences(dynamics, backend):
    cost = QuadraticCost(float64([1.0, 1.0, 0.1, 0.1, 0.05]))
    mpc = MPC(dynamics, cost, 8, -1.0, 1.0, backend=backend, tolerance=1e-9)
    x_init = float64([[0.6, -0.4, 0.3, 0.2]]).requires_grad_()
    tensors = {"x_init": x_init, **dict(dynamics.named_parameters())}
    assert_gradients_match(lambda: losses_of(mpc, x_init, None, None), tensors)
