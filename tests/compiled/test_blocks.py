"""Operations on blocks: what is wide, against PyTorch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mpc_gym.compiled import Program, blocks, compile_module, derive, entries, trace
from mpc_gym.compiled.evaluate import evaluate
from mpc_gym.compiled.program import ALIASES, elements

ACTIVATIONS = (nn.Tanh, nn.SiLU, nn.ReLU, nn.Softplus, nn.GELU, nn.ELU, nn.Sigmoid, nn.Mish)
N, M = 4, 2


class Network(nn.Module):
    """Layers of any widths, with a residual and a normalisation where two neighbours are alike."""

    def __init__(self, widths: tuple[int, ...], activation: type[nn.Module], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleList(
            nn.Linear(*pair, dtype=torch.float64)
            for pair in zip((N + M, *widths), (*widths, N), strict=True)
        )
        self.norm = nn.ModuleList(nn.LayerNorm(w, dtype=torch.float64) for w in widths)
        self.activation = activation()

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        h = torch.cat((state, control), -1)
        for layer, norm in zip(self.layers[:-1], self.norm, strict=True):
            following = self.activation(layer(h))
            h = norm(h + following) if h.shape == following.shape else following
        return state + 0.3 * self.layers[-1](h)


class Gated(nn.Module):
    """A recurrent cell, an attention over its entries, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRUCell(N, 24, dtype=torch.float64)
        self.first = nn.Linear(M, 24, dtype=torch.float64)
        self.last = nn.Linear(24 + M, N, dtype=torch.float64)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        h = self.cell(state, torch.tanh(self.first(control)))
        h = h * torch.softmax(h[..., 4:].sum(-1, keepdim=True) * h, -1)
        return self.last(torch.cat((h, control), -1))


class Ensemble(nn.Module):
    """The mean of several networks, as products of stacked matrices."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = {"first": (3, 20, N + M), "last": (3, N, 20)}
        for name, shape in shapes.items():
            values = torch.randn(shape, generator=generator, dtype=torch.float64)
            setattr(self, name, nn.Parameter(values / 4))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        z = torch.cat((state, control), -1)
        h = torch.tanh(torch.einsum("ehi,...i->...eh", self.first, z))
        return torch.einsum("eoh,...eh->...o", self.last, h)


class Normalised(nn.Module):
    """A batch normalisation as it is after training, with statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        first, last = nn.Linear(N + M, 24), nn.Linear(24, N)
        self.layers = nn.Sequential(first, nn.BatchNorm1d(24), nn.Tanh(), last).double()
        self.layers(torch.randn(50, N + M, dtype=torch.float64))
        self.eval()

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        z = torch.cat((state, control), -1)
        found = self.layers(z.reshape(-1, N + M))
        return found.reshape(*z.shape[:-1], N)


class Energy(nn.Module):
    """A scalar: the squared length of what a layer makes of its input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(N + M, 40, dtype=torch.float64)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.layer(torch.cat((state, control), -1)).sin().square().sum(-1)


class Sliced(nn.Module):
    """Pieces of a column that begin at the same entry, and columns of the same pieces."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = (nn.Linear(N + M, n, dtype=torch.float64) for n in (26, 24))
        self.function = function

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        z = torch.cat((state, control), -1)
        return self.function(self.a(z), self.b(z))


SLICES = {
    "longer after shorter": lambda a, b: (
        a[..., :8].exp().sum(-1) + b.sum(-1) * a[..., :16].tanh().sum(-1)
    ),
    "shorter after longer": lambda a, b: (
        a[..., :16].tanh().sum(-1) + b[..., 3] * a[..., :8].sum(-1) ** 2
    ),
    "cut in other places": lambda a, b: (
        (torch.cat((a, b), -1) + torch.cat((b.sin(), a.cos()), -1)).tanh().sum(-1)
    ),
}


def check(module: nn.Module, seed: int) -> None:
    """Value and derivatives as compiled are those of PyTorch."""
    generator = torch.Generator().manual_seed(seed)
    x, u = (torch.randn(3, n, generator=generator, dtype=torch.float64) for n in (N, M))
    compiled = compile_module(module, N, M)
    value = module(x, u)
    weights = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    found = compiled.value(x, u), compiled.jacobian(x, u), compiled.hessian(weights, x, u)
    np.testing.assert_allclose(found[0], value.detach(), rtol=1e-12, atol=1e-13)
    for i in range(3):
        z = torch.cat((x[i], u[i]))

        def of(z: Tensor) -> Tensor:
            return module(z[:N], z[N:])

        jacobian = torch.autograd.functional.jacobian(of, z)
        hessian = torch.autograd.functional.hessian(lambda z, w=weights[i]: (w * of(z)).sum(), z)
        for ours, theirs in zip((found[1][i], found[2][i]), (jacobian, hessian), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@settings(max_examples=8)
@given(
    widths=st.lists(st.sampled_from([3, 8, 17, 24, 33]), min_size=1, max_size=3).map(tuple),
    activation=st.sampled_from(ACTIVATIONS),
    seed=st.integers(0, 2**16),
)
def test_networks_of_any_width_have_the_derivatives_of_pytorch(widths, activation, seed):
    check(Network(widths, activation, seed), seed)


@pytest.mark.parametrize("kind", [Gated, Ensemble, Normalised, Energy])
def test_so_have_cells_ensembles_and_sums_of_columns(kind):
    check(kind(), 1)


@pytest.mark.parametrize("name", SLICES)
def test_so_have_pieces_of_columns(name):
    check(Sliced(SLICES[name]), 2)


def test_linear_layers_add_nothing_to_second_derivatives():
    def products(module: nn.Module) -> int:
        graph = trace(module, N, M)
        program = Program()
        x, u = program.inputs("x", N), program.inputs("u", M)
        parameters = {
            name: program.parameters(f"p{i}_", *shape)
            for i, (name, shape) in enumerate(graph.parameter_shapes.items())
        }
        y = elements(graph.evaluate(program, x, u, None, parameters))
        hessian = derive.hessian(program, y, [1.0] * N, [*x, *u])
        live = [program.operations[i].kind for i in program.live(elements(hessian))]
        return live.count("matmul")

    # of the middle layer: its value and tangents, and what it passes back; few numbers go into the
    # first one, and few come back to the last
    assert products(Network((24, 32), nn.Tanh, 0)) == (1 + N + M) + 1


def test_a_column_is_computed_as_one_operation_whatever_its_height():
    def steps(width: int) -> int:
        graph = trace(Network((width, width + 1), nn.Tanh, 0), N, M)
        program = Program()
        x, u = program.inputs("x", N), program.inputs("u", M)
        parameters = {
            name: program.parameters(f"p{i}_", *shape)
            for i, (name, shape) in enumerate(graph.parameter_shapes.items())
        }
        y = elements(graph.evaluate(program, x, u, None, parameters))
        live = program.live(elements(derive.jacobian(program, y, [*x, *u])))
        return sum(program.operations[i].kind not in ALIASES for i in live)

    assert steps(40) == steps(120)


def test_nan_in_a_column_spoils_what_depends_on_it_alone():
    program = Program()
    w = program.parameters("p", 24, 9)
    x = program.inputs("x", 9)
    matrix = entries.of_inputs(w)
    assert matrix is not None
    found = blocks.entries(blocks.product(matrix, entries.stacked(program, x)), (24,))
    values = {f"p{i}": float("nan") if i // 9 == 5 else 1.0 for i in range(24 * 9)}
    values |= {f"x{i}": float(i) for i in range(9)}
    got = evaluate(program, elements(found), values, 1)[:, 0]
    assert np.isnan(got[5])
    assert (np.delete(got, 5) == 36.0).all()
