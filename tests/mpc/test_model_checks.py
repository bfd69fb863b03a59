"""What is not a function of each row, or has not its own derivatives, is refused by name."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpc_gym.compiled import ImpureModule
from mpc_gym.models import PendulumCost, PendulumDynamics, QuadraticCost
from mpc_gym.mpc import MPC
from mpc_gym.mpc.model_checks import NoSecondDerivative


class Model(nn.Module):
    """Whatever a function makes of state and control."""

    n_state, n_ctrl = 3, 1

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.function(state, control)


def distance(state: Tensor, control: Tensor) -> Tensor:
    return state.square().sum(-1) + 0.1 * control.square().sum(-1)


def plan(backend, dynamics=None, cost=None, constraints=None):
    dynamics, cost = dynamics or PendulumDynamics(), cost or PendulumCost()
    mpc = MPC(dynamics, cost, 6, constraints=constraints, backend=backend)
    x_init = torch.tensor([[0.9, 0.4, -0.5], [0.3, -0.95, 0.8]], dtype=torch.float64)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="solving with the slow PyTorch reference")
        return mpc(x_init)


def before(a: Tensor) -> Tensor:
    return torch.cat((a[..., :1, :], a[..., :-1, :]), -2)


@pytest.fixture(params=["torch", "native", "auto"])
def backend(request):
    return request.param


@pytest.mark.parametrize(
    "coupled",
    [
        lambda x, u: distance(x, u) + 0.1 * (u - before(u)).square().sum(-1),
        lambda x, u: distance(x, u) + 1e-6 * F.pad(u.diff(dim=-2), (0, 0, 0, 1)).square().sum(-1),
        lambda x, u: distance(x - x.mean(-2, keepdim=True), u),
        lambda x, u: distance(x, u).cumsum(-1),
        lambda x, u: distance(x, u) + (x[..., -1:, 0] if x.ndim > 1 else x[..., 0]),
        lambda x, u: distance(x, u) * (1 + (u[..., 3:4, 0] if x.ndim > 1 else u[..., 0])),
    ],
    ids=["difference to the last", "weak difference", "mean", "sum so far", "end", "one stage"],
)
def test_a_cost_that_couples_stages_is_refused(coupled, backend):
    with pytest.raises(ValueError, match=r"cost must map each row .* states and controls of other"):
        plan(backend, cost=Model(coupled))


@pytest.mark.parametrize(
    "coupled",
    [
        lambda x, u: distance(x - x.mean(0, keepdim=True), u),
        lambda x, u: distance(x, u) / distance(x, u).detach().amax(0),
        lambda x, u: distance(F.normalize(x, dim=0), u),
    ],
    ids=["mean", "scaled by the largest", "normalised over the batch"],
)
def test_a_cost_that_couples_instances_is_refused(coupled, backend):
    with pytest.raises(ValueError, match=r"cost must map each row .* other instances of the batch"):
        plan(backend, cost=Model(coupled))


@pytest.mark.parametrize(
    "coupled",
    [
        lambda x, u: 0.9 * x + u - 0.1 * x.mean(0, keepdim=True),
        lambda x, u: 0.9 * x + u + 0.1 * x.flip(0),
        lambda x, u: 0.9 * x + u - (0.1 * x.mean(1, keepdim=True) if x.ndim == 3 else 0.0),
    ],
    ids=["mean over the batch", "other instance", "mean over time"],
)
def test_dynamics_that_couple_rows_are_refused(coupled, backend):
    with pytest.raises(ValueError, match="dynamics must map each row"):
        plan(backend, dynamics=Model(coupled))


def deciding(border: float) -> dict[str, nn.Module]:
    """Models with an `if` on a tensor, which near the first start state takes one side."""

    def moved(x: Tensor, u: Tensor) -> Tensor:
        return 0.9 * x + u if (x[..., 0] > border).any() else 0.8 * x + u

    def priced(x: Tensor, u: Tensor) -> Tensor:
        return distance(x, u) if x[..., 0].amax() > border else 2.0 * distance(x, u)

    def bounded(x: Tensor, u: Tensor) -> Tensor:
        return priced(x, u)[..., None] - 1.0

    return {"dynamics": Model(moved), "cost": Model(priced), "constraints": Model(bounded)}


@pytest.mark.parametrize("name", ["dynamics", "cost", "constraints"])
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_an_if_that_decides_for_all_rows_of_a_plan_is_refused_with_the_remedy(name, backend):
    with pytest.raises(ImpureModule, match=rf"^{name} must map each row .*torch\.where"):
        plan(backend, **{name: deciding(0.5)[name]})


def test_an_if_in_constraints_that_decides_along_the_plan_alone_is_said_by_their_name():
    bounded = deciding(0.4)["constraints"]
    with pytest.raises(ImpureModule, match=r"the value of PendulumCost or Model .*torch\.where"):
        plan("torch", constraints=bounded)


@pytest.mark.parametrize("name", ["dynamics", "cost"])
def test_where_an_if_takes_one_side_all_along_the_plan_it_is_as_good_as_that_side(name):
    found = plan("torch", **{name: deciding(8.0)[name]})
    sides = {
        "dynamics": Model(lambda x, u: 0.8 * x + u),
        "cost": Model(lambda x, u: 2.0 * distance(x, u)),
    }
    expected = plan("torch", **{name: sides[name]})
    assert found.converged.all()
    torch.testing.assert_close(found.controls, expected.controls)


@pytest.mark.parametrize("border", [-1.0, 0.5, 8.0])
def test_a_cost_of_one_stage_that_depends_on_whether_another_is_far_is_refused(border):
    def priced(x: Tensor, u: Tensor) -> Tensor:
        crossed = (x[..., 0] > border).any(-1, keepdim=x.ndim > 1)
        return distance(x, u) * (1.0 + crossed)

    with pytest.raises(ImpureModule, match=r"cost must map each row .* of other stages"):
        plan("torch", cost=Model(priced))


def test_a_model_may_refuse_states_far_from_where_plans_begin():
    def moved(x: Tensor, u: Tensor) -> Tensor:
        assert bool((x.abs() < 5.0).all()), "out of its range"
        return 0.9 * x + 0.1 * u

    assert plan("torch", dynamics=Model(moved)).converged.all()


@pytest.mark.parametrize(
    "part", [nn.BatchNorm1d(3), nn.Dropout(0.2)], ids=lambda p: type(p).__name__
)
def test_a_layer_in_training_mode_is_named_with_the_remedy(part, backend):
    net = nn.Sequential(nn.Linear(4, 3), part, nn.Tanh(), nn.Linear(3, 3)).double()

    class Network(nn.Module):
        n_state, n_ctrl = 3, 1

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, state, control):
            z = torch.cat((state, control), -1)
            return state + 0.1 * self.net(z.reshape(-1, 4)).reshape(state.shape)

    dynamics = Network().train()
    name = type(part).__name__
    with pytest.raises(ImpureModule, match=rf"net\.1 \({name}\) is in training .* eval\(\)"):
        plan(backend, dynamics=dynamics)
    assert plan("auto", dynamics=dynamics.eval(), cost=QuadraticCost(torch.ones(4))).converged.all()


def test_a_cost_that_draws_random_numbers_is_refused(backend):
    with pytest.raises(ImpureModule, match=r"changes from call to call: .* as a context"):
        plan(backend, cost=Model(lambda x, u: distance(x, u) + torch.rand(())))


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return x.round()

    @staticmethod
    def backward(_, gradient):
        return gradient


class HalfBackward(torch.autograd.Function):
    """Its first derivative is right, and the second misses the dependence of what it kept."""

    @staticmethod
    def forward(ctx, x):
        ctx.kept = x.detach().clone()
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.kept.cos()


@pytest.mark.parametrize(
    ("function", "order"),
    [
        (lambda x, u: distance(StraightThrough.apply(x), u), "first"),
        (lambda x, u: distance(x + (x.round() - x).detach(), u), "first"),
        (lambda x, u: (x.detach() * x).sum(-1) + u.square().sum(-1), "first"),
        (lambda x, u: distance(x, u) + torch.special.bessel_j0(x).sum(-1), "first"),
        (lambda x, u: distance(HalfBackward.apply(x), u), "second"),
    ],
    ids=["straight-through", "by detach", "detach", "no derivative in torch", "half a backward"],
)
def test_a_derivative_that_is_not_that_of_the_values_is_refused(function, order):
    for backend in ("torch", "auto"):
        with pytest.raises(ValueError, match=f"cost: the {order} derivative of Model by autograd"):
            plan(backend, cost=Model(function))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, u: F.relu(x).sum(-1) + u.abs().sum(-1),
        lambda x, u: x.abs().amax(-1) + u.square().sum(-1),
        lambda x, u: distance(x.round(), u),
        lambda x, u: distance(torch.remainder(x, 0.3), u),
        lambda x, u: distance(x, u) + torch.sigmoid(1e4 * (x[..., 0] - 0.5)),
        lambda x, u: 1e8 * distance(x, u) + 1e-6 * u[..., 0],
        lambda x, u: 1e-9 * distance(x, u) + 1e6,
        lambda x, u: distance(x.float(), u.float()).double(),
        lambda x, u: distance(x, u) + torch.clamp(x[..., 2], -0.1, 0.1),
        lambda x, u: torch.ones_like(x[..., 0]),
        lambda x, u: torch.sqrt(x[..., 0] + 1e-3),
    ],
)
def test_kinks_steps_scales_and_single_precision_are_not_taken_for_wrong(function):
    plan("torch", cost=Model(function))


def test_a_model_that_changes_is_checked_again(backend):
    class Annealed(nn.Module):
        smoothness = 0.0

        def forward(self, state, control):
            cost = distance(state, control)
            if self.smoothness:
                cost = cost + self.smoothness * (control - before(control)).square().sum(-1)
            return cost

    cost = Annealed()
    assert plan(backend, cost=cost).converged.all()
    cost.smoothness = 0.1
    with pytest.raises(ValueError, match=r"cost must map each row"):
        plan(backend, cost=cost)


def test_what_autograd_cannot_differentiate_twice_is_named_or_compiled():
    def cost(x: Tensor, u: Tensor) -> Tensor:
        return distance(x, u) + F.hardsigmoid(x).sum(-1)

    with pytest.raises(NoSecondDerivative, match="hardsigmoid_backward"):
        plan("torch", cost=Model(cost))
    assert plan("native", cost=Model(cost)).cost.isfinite().all()


def test_a_model_that_writes_into_its_arguments_is_the_function_it_returns(backend):
    def shifted(x: Tensor, u: Tensor) -> Tensor:
        x[..., 0] += 0.1
        return 0.9 * x + u

    def plain(x: Tensor, u: Tensor) -> Tensor:
        return 0.9 * (x + torch.tensor([0.1, 0.0, 0.0], dtype=x.dtype)) + u

    found, expected = (
        plan(backend, dynamics=Model(f), cost=Model(distance)) for f in (shifted, plain)
    )
    assert found.converged.all()
    torch.testing.assert_close(found.controls, expected.controls)


@pytest.mark.parametrize("name", ["dynamics", "cost"])
def test_a_model_that_asks_for_the_number_of_dimensions_is_refused(name, backend):
    """A trace, of a single state, would be another model than the batch's."""

    def moved(x: Tensor, u: Tensor) -> Tensor:
        return x + 0.1 * u if x.ndim == 1 else x + 0.2 * u

    def priced(x: Tensor, u: Tensor) -> Tensor:
        return distance(x, u) if x.ndim > 1 else 2.0 * distance(x, u)

    wrong = {"dynamics": moved, "cost": priced}[name]
    with pytest.raises(ImpureModule, match=rf"{name} .*number of batch dimensions: do not ask"):
        plan(backend, **{name: Model(wrong)})


@pytest.mark.parametrize(
    "as_number",
    [
        lambda x: float(x[..., 0]),
        lambda x: x[..., 0].item(),
        lambda x: int(x[..., 0]),
        lambda x: 1.0 if x[..., 0] > 0 else 2.0,
        lambda x: [1.0, 2.0][(x[..., 0] > 0).long()],
    ],
    ids=["float", "item", "int", "if", "index"],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_state_taken_for_a_number_is_answered_with_the_line_and_the_remedy(
    as_number, batch, backend
):
    mpc = MPC(Model(lambda x, u: x + as_number(x) * u), Model(distance), 6, backend=backend)
    with pytest.raises(
        ImpureModule, match=r"Model takes .*torch\.where.*test_model_checks\.py:\d+"
    ):
        mpc(torch.full((batch, 3), 0.5))
