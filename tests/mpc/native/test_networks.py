"""Plans with networks inside, natively and by the reference."""

import pytest
import torch
from llvmlite.binding import get_host_cpu_features
from torch import Tensor, nn

from mpc_gym.models import NeuralDynamics, QuadraticCost
from mpc_gym.mpc import MPC

N, M, HORIZON, LIMIT = 4, 2, 6, 0.01


class PerStage(nn.Module):
    """A quadratic cost, and the outputs of a network of its own for each stage."""

    per_stage_parameters = ("first", "last")

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in {"first": (30, N + M), "last": (30,)}.items():
            values = torch.randn(HORIZON, *shape, generator=generator, dtype=torch.float64)
            setattr(self, name, nn.Parameter(values / 3))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        z = torch.cat((state, control), -1)
        h = torch.tanh((self.first @ z.unsqueeze(-1)).squeeze(-1))
        return (z**2).sum(-1) + (self.last * h).sum(-1)


class NeuralCost(nn.Module):
    """A quadratic cost, the square of a network's outputs, and of a context."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(N + 3, 24), nn.SiLU(), nn.Linear(24, 12)).double()

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        features = self.layers(torch.cat((state, context), -1))
        return (state**2).sum(-1) + (control**2).sum(-1) + (features**2).sum(-1)


def dense() -> nn.Module:
    torch.manual_seed(2)
    return NeuralDynamics(N, M, hidden=(32, 24)).double()


def quadratic() -> nn.Module:
    return QuadraticCost(torch.ones(N + M, dtype=torch.float64))


@pytest.mark.parametrize(
    ("dynamics", "cost", "n_context"),
    [(dense, quadratic, 0), (dense, PerStage, 0), (dense, NeuralCost, 3)],
)
def test_plans_and_gradients_are_those_of_the_reference(dynamics, cost, n_context):
    generator = torch.Generator().manual_seed(3)
    modules = dynamics(), cost()
    parameters = [p for module in modules for p in module.parameters()]
    x = torch.randn(18, N, generator=generator, dtype=torch.float64)
    context = torch.randn(18, n_context, generator=generator, dtype=torch.float64)
    results = []
    for backend in ("native", "torch"):
        mpc = MPC(*modules, HORIZON, -LIMIT, LIMIT, backend=backend)
        start, given = x.clone().requires_grad_(), context.clone().requires_grad_()
        plan = mpc(start, context=given) if n_context else mpc(start)
        assert plan.converged.all()
        assert (plan.controls.abs() == LIMIT).any()
        loss = (plan.controls**2).sum() + plan.states.sin().sum() + plan.cost.sum()
        wanted = [start, *([given] if n_context else []), *parameters]
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        results.append((plan, gradients))
    (ours, found), (theirs, expected) = results
    torch.testing.assert_close(ours.controls, theirs.controls, rtol=1e-9, atol=1e-9)
    assert ours.iterations.tolist() == theirs.iterations.tolist()
    for a, b in zip(found, expected, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * (1 + float(b.abs().max())))


@pytest.mark.parametrize("m", [2, 5])
def test_with_several_controls_and_a_network_a_plan_does_not_depend_on_its_batch(m):
    torch.manual_seed(4)
    dynamics = NeuralDynamics(N, m, hidden=(24,)).double()
    mpc = MPC(dynamics, QuadraticCost(torch.ones(N + m).double()), HORIZON, -LIMIT, LIMIT)
    x = torch.randn(21, N, dtype=torch.float64)
    with torch.no_grad():
        together = mpc(x).controls
        alone = torch.cat([mpc(row.unsqueeze(0)).controls for row in x])
    # where a register holds fewer numbers than there are lanes, compilers may order sums otherwise
    exact = "avx512f" in get_host_cpu_features() and get_host_cpu_features()["avx512f"]
    torch.testing.assert_close(together, alone, rtol=0.0, atol=0.0 if exact else 1e-13)
