"""A controller's settings may be changed later, with the checks of its constructor."""

import pytest
import torch
from torch import nn

from mpc_gym.models import LinearDynamics, PendulumDynamics, QuadraticCost, TerminalCost
from mpc_gym.mpc import MPC

X = torch.tensor([[1.0, -0.5], [0.3, 0.8]], dtype=torch.float64)


def dynamics() -> nn.Module:
    A, B = torch.tensor([[1.0, 0.1], [0.0, 1.0]]), torch.tensor([[0.0], [0.1]])
    return LinearDynamics(A.double(), B.double())


def cost(stages: int | None = None) -> nn.Module:
    weights = torch.tensor([1.0, 0.1, 0.1], dtype=torch.float64)
    linear = torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)
    if stages is None:
        return QuadraticCost(weights.diag(), linear)
    growing = torch.linspace(1.0, 2.0, stages).double()[:, None, None]
    return QuadraticCost(growing * weights.diag(), linear)


def controller(horizon: int = 8, stage_cost: nn.Module | None = None, **settings) -> MPC:
    return MPC(dynamics(), stage_cost or cost(), horizon, **settings)


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("horizon", [4, 12])
def test_another_horizon_is_that_of_a_new_controller(backend: str, horizon: int) -> None:
    mpc = controller(backend=backend)
    mpc(X)
    mpc.horizon = horizon
    expected = controller(horizon, backend="torch")(X)
    torch.testing.assert_close(mpc(X).cost, expected.cost, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("horizon", [4, 16])
@pytest.mark.parametrize("make", [lambda: cost(8), lambda: TerminalCost(cost(), 8, 2)])
def test_a_horizon_that_does_not_fit_the_cost_is_refused_and_the_old_one_stays(make, horizon):
    mpc = controller(stage_cost=make())
    before = mpc(X).cost
    with pytest.raises(ValueError, match=rf"has 8 time steps, but horizon = {horizon}"):
        mpc.horizon = horizon
    assert torch.equal(mpc(X).cost, before)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_cost_that_got_other_stages_than_the_horizon_is_refused(backend: str) -> None:
    mpc = controller(stage_cost=cost(8), backend=backend)
    mpc(X)
    mpc.cost.C = nn.Parameter(mpc.cost.C.detach()[:4])
    with pytest.raises(ValueError, match=r"C has 4 time steps, but .*horizon .*8"):
        mpc(X)
    with pytest.raises(ValueError, match="has 4 time steps, but horizon = 8"):
        mpc.cost = cost(4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("horizon", 0), ("horizon", 2.5), ("tolerance", -1.0), ("tolerance", float("nan")),
        ("max_iterations", 0), ("starts", "3"), ("hessian", "none"), ("differentiate", True),
        ("backend", "gpu"), ("control_low", 3.0), ("control_high", float("nan")),
        ("control_low", torch.zeros(3)), ("control_high", torch.zeros(7, 1)),
        ("expected_unconverged", 2.0),
    ],
)  # fmt: skip
def test_what_the_constructor_refuses_is_refused_later_too(name: str, value: object) -> None:
    mpc = controller()
    before = getattr(mpc, name)
    with pytest.raises(ValueError, match=name):
        setattr(mpc, name, value)
    assert getattr(mpc, name) is before
    if name != "expected_unconverged":
        with pytest.raises(ValueError, match=name):
            controller(**{"horizon": 8, name: value})


def test_settings_that_exclude_each_other_cannot_be_combined_later() -> None:
    mpc = controller(differentiate="unrolled")
    with pytest.raises(ValueError, match="unrolled"):
        mpc.backend = "native"
    mpc = controller(backend="native")
    with pytest.raises(ValueError, match="unrolled"):
        mpc.differentiate = "unrolled"


def test_modules_of_another_size_or_kind_are_refused_later() -> None:
    mpc = controller()
    with pytest.raises(TypeError, match=r"dynamics must be a torch\.nn\.Module"):
        mpc.dynamics = None
    with pytest.raises(ValueError, match="n_state"):
        mpc.dynamics = PendulumDynamics()
    mpc.cost = cost(8)
    expected = controller(stage_cost=cost(8), backend="torch")(X)
    torch.testing.assert_close(mpc(X).cost, expected.cost, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bound", [0.4, [0.4], torch.full((8, 1), 0.4), None])
def test_other_bounds_are_those_of_a_new_controller(bound: object) -> None:
    mpc = controller(control_high=nn.Parameter(torch.tensor(1.0)))
    mpc(X)
    mpc.control_high = bound
    expected = controller(control_high=bound, backend="torch")(X)
    torch.testing.assert_close(mpc(X).controls, expected.controls, rtol=1e-7, atol=1e-7)
    assert not any(name == "control_high" for name, _ in mpc.named_parameters())
    mpc.control_high = nn.Parameter(torch.tensor(0.7))
    mpc(X).cost.sum().backward()
    assert mpc.control_high.grad is not None


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_module_that_was_compiled_by_others_is_refused_when_the_controller_is_made() -> None:
    class Drift(nn.Module):
        def forward(self, state: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
            return state + control

    with pytest.raises(ValueError, match=r"TorchScript.*plain module"):
        MPC(torch.jit.script(Drift()), cost(), 5)
    with pytest.raises(ValueError, match=r"torch\.compile.*plain module"):
        MPC(torch.compile(Drift()), cost(), 5)
