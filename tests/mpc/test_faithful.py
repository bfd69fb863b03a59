"""Whatever a model does in its forward, all backends plan alike or say why they cannot."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpc_gym.compiled import ImpureModule, UnsupportedOperation
from mpc_gym.models import Dynamics, QuadraticCost
from mpc_gym.mpc import MPC

BACKENDS = ("native", "auto", "torch")
X = torch.tensor([[0.3, 0.2], [-0.1, 0.4]], dtype=torch.float64)


def controller(dynamics: nn.Module, cost: nn.Module | None = None, *, backend: str) -> MPC:
    quadratic = QuadraticCost(torch.ones(3, dtype=torch.float64))
    return MPC(dynamics, cost or quadratic, 5, backend=backend)


class Model(Dynamics):
    n_state, n_ctrl = 2, 1


class Drift(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return 0.9 * state + 0.3 * control


class NumpyGoal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.goal = np.array([1.0, 0.0])

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return ((state - self.goal) ** 2).sum(-1) + control.square().sum(-1)


class NumpySine(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return torch.from_numpy(np.sin(state.detach().numpy())) + control


class Noise(Model):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.drop(state) + control


class WithoutGradient(Model):
    @torch.no_grad()
    def wave(self, state: Tensor) -> Tensor:
        return torch.sin(state)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.wave(state) + control


class OneForEachInstance(Model):
    def __init__(self) -> None:
        super().__init__()
        self.mass = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        speed = state[..., 1] + control[..., 0] * self.mass
        return torch.stack((state[..., 0] + self.mass * state[..., 1], speed), -1)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("dynamics", "cost", "message"),
    [
        (Drift(), NumpyGoal(), "register_buffer"),
        (NumpySine(), None, r"compute with torch alone"),
        (Noise(), None, r"drop \(Dropout\) is in training mode: call eval\(\)"),
        (WithoutGradient(), None, r"autograd cannot follow .*test_faithful\.py:\d+"),
        (OneForEachInstance(), None, r"map each row .* on its own.*context.*mass \[2\]"),
    ],
)
def test_a_model_that_nobody_can_plan_with_is_refused_by_every_backend(
    dynamics, cost, message, backend
) -> None:
    with pytest.raises(ImpureModule, match=message):
        controller(dynamics, cost, backend=backend)(X)


def test_dropout_in_evaluation_mode_is_planned_alike_everywhere() -> None:
    plans = [controller(Noise().eval(), backend=backend)(X) for backend in BACKENDS]
    for plan in plans[1:]:
        torch.testing.assert_close(plan.controls, plans[0].controls, rtol=1e-8, atol=1e-8)


class WritesIntoState(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        state[..., 0] += 0.5 * state[..., 1] * control[..., 0]
        return state + 0.3 * control


class HamiltonianNetwork(Model):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.energy = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        state = state if state.requires_grad else state.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.energy(state).sum(), state, create_graph=True)
        return state + 0.3 * torch.stack((slope[..., 1], control[..., 0] - slope[..., 0]), -1)


@pytest.mark.parametrize("kind", [WritesIntoState, HamiltonianNetwork])
def test_an_unusual_forward_is_planned_alike_and_leaves_the_start_state_alone(kind) -> None:
    x_init, found = X.clone(), []
    for backend in BACKENDS:
        mpc = controller(kind(), backend=backend)
        plan = mpc(x_init)
        (plan.controls.sum() + plan.cost.sum()).backward()
        found.append((plan.controls.detach(), [p.grad for p in mpc.dynamics.parameters()]))
        assert plan.converged.all()
    assert torch.equal(x_init, X)
    for controls, gradients in found[1:]:
        torch.testing.assert_close(controls, found[0][0], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(gradients, found[0][1], rtol=1e-6, atol=1e-8)


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(_: object, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(_: object, slope: Tensor) -> Tensor:
        return slope


class Rounds(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return 0.5 * state + StraightThrough.apply(control)


def test_a_straight_through_estimator_is_refused_by_every_backend() -> None:
    with pytest.raises(UnsupportedOperation, match=r"autograd\.Function with a backward"):
        controller(Rounds(), backend="native")(X)
    with (
        pytest.warns(UserWarning, match=r"PyTorch reference.*autograd\.Function"),
        pytest.raises(ValueError, match="the first derivative of Rounds by autograd is not that"),
    ):
        controller(Rounds(), backend="auto")(X)
    with pytest.raises(ValueError, match="the first derivative of Rounds by autograd is not that"):
        controller(Rounds(), backend="torch")(X)


class Config:
    def __init__(self) -> None:
        self.goal = 0.0


class OwnGoal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = Config()

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return (state - self.config.goal).square().sum(-1) + control.square().sum(-1)


def test_a_model_that_reaches_too_much_to_be_watched_is_planned_by_the_reference() -> None:
    cost = OwnGoal()
    cost.config.history = [object() for _ in range(30_000)]
    cost.kept = cost.config.history
    with pytest.raises(UnsupportedOperation, match="keep numbers in buffers"):
        controller(Drift(), cost, backend="native")(X)
    mpc = controller(Drift(), cost, backend="auto")
    with pytest.warns(UserWarning, match=r"PyTorch reference.* objects"):
        plan = mpc(X)
    expected = controller(Drift(), OwnGoal(), backend="native")(X)
    torch.testing.assert_close(plan.controls, expected.controls, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_goal_in_an_object_of_the_users_own_is_followed(backend: str) -> None:
    cost = OwnGoal()
    mpc = controller(Drift(), cost, backend=backend)
    mpc(X)
    cost.config.goal = 1.0
    expected = controller(Drift(), cost, backend="torch")(X)
    torch.testing.assert_close(mpc(X).controls, expected.controls, rtol=1e-8, atol=1e-8)
    assert not torch.allclose(mpc(X).controls, torch.zeros(2, 5, 1).double())


class HalfGoal(nn.Module):
    """A cost whose goal is (1, 1), kept in other numbers than float64."""

    def __init__(self, goal: Tensor) -> None:
        super().__init__()
        self.kept = goal

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return (state - 0.5 * self.kept).square().sum(-1) + control.square().sum(-1)


@pytest.mark.parametrize(
    "goal",
    [
        torch.tensor([2.0, 2.0], dtype=torch.bfloat16),
        torch.tensor(2.0, dtype=torch.bfloat16).expand(2),
        torch.tensor([2.0, 2.0], dtype=torch.float16),
        nn.Parameter(torch.tensor([2, 2]), requires_grad=False),
    ],
    ids=["bfloat16", "expanded", "float16", "integer parameter"],
)
def test_constants_of_every_type_are_planned_and_differentiated_alike(goal: Tensor) -> None:
    found = []
    for kept in (torch.tensor([2.0, 2.0], dtype=torch.float64), goal):
        for backend in BACKENDS:
            x = X.clone().requires_grad_()
            plan = controller(Drift(), HalfGoal(kept), backend=backend)(x)
            (slope,) = torch.autograd.grad(plan.controls.sum(), x, create_graph=True)
            (bend,) = torch.autograd.grad(slope.square().sum(), x)
            found.append(torch.stack((plan.states[:, 1].detach(), slope.detach(), bend)))
    for each in found[1:]:
        torch.testing.assert_close(each, found[0], rtol=1e-7, atol=1e-7)
