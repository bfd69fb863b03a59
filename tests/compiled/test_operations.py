"""One row an operation: its value and derivatives against PyTorch's own."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.compiled.interpreter import derivatives, torch_derivatives

Row = Callable[[Tensor], Tensor]

M = torch.tensor([[1.0, -2.0, 0.5, 0.0], [0.3, 0.0, -1.0, 2.0]], dtype=torch.float64)
S = torch.tensor(np.arange(16.0).reshape(4, 4) / 7 - 1, dtype=torch.float64)
INDEX = torch.tensor([2, 0, 2])
MASK = torch.tensor([True, False, True, True])


def in_place(z: Tensor) -> Tensor:
    y = z.clone()
    y[0] = torch.sin(z[1])
    y[1:3] += z[0] * z[3]
    y.mul_(z[2])
    return y


def diagonal_in_place(z: Tensor) -> Tensor:
    y = torch.zeros(4, 4, dtype=z.dtype)
    y.diagonal().copy_(z * z)
    return y[:2].sum(0) + y.trace()


ROWS: dict[str, Row] = {
    "abs": lambda z: z.abs() * z,
    "acos": lambda z: torch.acos(z / 4),
    "acosh": lambda z: torch.acosh(2 + z * z),
    "add": lambda z: torch.add(z, z.flip(0), alpha=2.5) + 3,
    "addcdiv": lambda z: torch.addcdiv(z, z.flip(0), 2 + z * z, value=0.5),
    "addcmul": lambda z: torch.addcmul(z, z.flip(0), z, value=0.5),
    "addmm": lambda z: torch.addmm(S, z[:, None], z[None, :], beta=0.5, alpha=2.0)[0],
    "addmv": lambda z: torch.addmv(z[:2], M, z * z),
    "amax": lambda z: torch.amax(z * z.flip(0) + S, 0),
    "amin": lambda z: torch.amin(z * z + S, (0, 1)),
    "arange": lambda z: torch.arange(4) * z * z + torch.arange(1, 9, 2),
    "asin": lambda z: torch.asin(z / 4),
    "asinh": torch.asinh,
    "atan": torch.atan,
    "atan2": lambda z: torch.atan2(z, z.roll(1)),
    "atanh": lambda z: torch.atanh(z / 4),
    "baddbmm": lambda z: torch.baddbmm(S[None], (z * S)[None], (z * z * S)[None])[0, 0],
    "bmm": lambda z: torch.bmm((z * S)[None], (z * z * S)[None])[0, 1],
    "cat": lambda z: torch.cat((z * z, z[:1], torch.ones(2))),
    "ceil": lambda z: z.ceil() * z,
    "celu": lambda z: F.celu(z, 0.5),
    "chunk": lambda z: z.chunk(2)[1] * z.chunk(2)[0],
    "clamp": lambda z: z.clamp(-1.0, 0.8) * z,
    "clamp.Tensor": lambda z: z.clamp(-z.flip(0).abs(), 0.3 * z * z),
    "clone": lambda z: z.clone() * z.detach(),
    "copysign": lambda z: torch.copysign(z * z + 1, torch.tensor([1.0, -1.0, -1.0, 1.0])),
    "cos": torch.cos,
    "cosh": torch.cosh,
    "cosine_similarity": lambda z: F.cosine_similarity(z, z * z, dim=0),
    "cross": lambda z: torch.linalg.cross(z[:3], z[1:] ** 2),
    "cumprod": lambda z: z.cumprod(0),
    "cumsum": lambda z: (z * z).cumsum(0),
    "diag": lambda z: (torch.diag(z * z) @ S)[0],
    "diag_embed": lambda z: torch.diag_embed(z * z, offset=1)[1],
    "diagonal": lambda z: (z * z[:, None]).diagonal(1),
    "diagonal in place": diagonal_in_place,
    "diff": lambda z: torch.diff(z * z),
    "div": lambda z: z / (2 + z.flip(0) ** 2) + z / 3 + 1 / (z + 9),
    "div.floor": lambda z: torch.div(z, 0.7, rounding_mode="floor") * z,
    "div.trunc": lambda z: torch.div(z, z.flip(0), rounding_mode="trunc") * z,
    "dot": lambda z: torch.dot(z, z.flip(0) ** 2),
    "einsum": lambda z: torch.einsum("i,ij,j->i", z, S, z * z),
    "elu": lambda z: F.elu(z, 1.3),
    "erf": torch.erf,
    "erfc": torch.erfc,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expand": lambda z: (z[:1].expand(3, 4) * z).sum(0),
    "expm1": torch.expm1,
    "eye": lambda z: (torch.eye(4) * z * z).sum(0),
    "flatten": lambda z: (z * z[:, None]).flatten()[3:9],
    "flip": lambda z: z.flip(0) * z,
    "float": lambda z: z.to(torch.float64) * z,
    "floor": lambda z: z.floor() * z,
    "floor_divide": lambda z: torch.floor_divide(z.detach(), 0.3) * z,
    "fmod": lambda z: torch.fmod(z, 0.4) * z + torch.fmod(z, z.flip(0)),
    "frac": lambda z: torch.frac(3 * z) * z,
    "full": lambda z: torch.full((4,), 2.5) * z * z + torch.full_like(z, 3.0),
    "gather": lambda z: torch.gather(z * z, 0, INDEX),
    "gelu": F.gelu,
    "gelu tanh": lambda z: F.gelu(z, approximate="tanh"),
    "hardsigmoid": lambda z: F.hardsigmoid(z.detach()) * z,
    "hardswish": F.hardswish,
    "hardtanh": lambda z: F.hardtanh(z, -1.0, 0.9) * z,
    "huber": lambda z: F.huber_loss(z, z.flip(0) * 0.1, delta=0.5),
    "hypot": lambda z: torch.hypot(z, z.flip(0)),
    "in place": in_place,
    "index": lambda z: z[INDEX] * z[[0, 1, 3]],
    "index mask": lambda z: z[MASK] ** 2,
    "index_put": lambda z: torch.index_put(z, (INDEX[:2],), z[:2] ** 2),
    "index_select": lambda z: torch.index_select(z * z, 0, INDEX),
    "isfinite": lambda z: torch.isfinite(z) * z * z,
    "isnan": lambda z: torch.where(torch.isnan(z) | torch.isinf(z), 0.0, z * z),
    "kron": lambda z: torch.kron(z[:2], z[2:]),
    "layer_norm": lambda z: F.layer_norm(z, (4,), z * z, z, 1e-5),
    "leaky_relu": lambda z: F.leaky_relu(z, 0.1) * z,
    "lerp": lambda z: torch.lerp(z, z * z, 0.3) + torch.lerp(z, z.flip(0), z),
    "linear": lambda z: F.linear(z * z, M, z[:2]),
    "linspace": lambda z: torch.linspace(0.0, 1.0, 4) * z * z,
    "log": lambda z: torch.log(3 + z),
    "log10": lambda z: torch.log10(3 + z),
    "log1p": lambda z: torch.log1p(z * z),
    "log2": lambda z: torch.log2(3 + z),
    "log_softmax": lambda z: F.log_softmax(z * z, 0),
    "logaddexp": lambda z: torch.logaddexp(z, z * z),
    "logical": lambda z: torch.where((z > 0) & ~(z > 1) | (z < -1) ^ (z != 0), z * z, z),
    "logsigmoid": F.logsigmoid,
    "logsumexp": lambda z: torch.logsumexp(z * S, 1),
    "masked_fill": lambda z: z.masked_fill(z > 0, 2.0) * z,
    "matmul": lambda z: (z * S) @ (z * z),
    "max": lambda z: (z * z).max(),
    "max.dim": lambda z: (z * S).max(1).values * z,
    "maximum": lambda z: torch.maximum(z, z.flip(0) ** 2),
    "mean": lambda z: (z * z).mean() + (z * S).mean(0, keepdim=True)[0] * z,
    "min": lambda z: (z * z).min(),
    "min.dim": lambda z: (z * S).min(0).values * z,
    "minimum": lambda z: torch.minimum(z, z.flip(0) ** 2),
    "mish": F.mish,
    "mm": lambda z: ((z * S).mm(z * z * S))[2],
    "mse_loss": lambda z: F.mse_loss(z, z.flip(0) ** 2),
    "mul": lambda z: z * z.flip(0) * 2.5,
    "mv": lambda z: (z * S).mv(z),
    "nan_to_num": lambda z: torch.nan_to_num(z) * z,
    "neg": lambda z: -z * z,
    "norm": lambda z: torch.linalg.norm(z) * z,
    "norm 1": lambda z: torch.linalg.vector_norm(z, 1) * z,
    "norm 3": lambda z: torch.linalg.vector_norm(z * S, 3, dim=1),
    "norm inf": lambda z: torch.linalg.vector_norm(z, math.inf) * z,
    "normalize": lambda z: F.normalize(z, dim=0),
    "ones": lambda z: torch.ones(4) * z * z + torch.ones_like(z) + z.new_ones(4),
    "outer": lambda z: torch.outer(z[:2], z[2:] ** 2),
    "pad": lambda z: F.pad(z * z, (1, 2), value=0.5) + F.pad(z, (2, 1)),
    "permute": lambda z: (z * S).permute(1, 0)[0] * z,
    "pow": lambda z: z**3 + (3 + z) ** 2.5 + (3 + z) ** -0.5 + z**20 + (3 + z) ** -2,
    "pow.Scalar": lambda z: 2.0**z,
    "pow.Tensor": lambda z: (3 + z) ** z.flip(0),
    "prelu": lambda z: F.prelu(z, torch.tensor([0.2], dtype=z.dtype)) * z,
    "prod": lambda z: z.prod() + (z * S + 2).prod(1),
    "reciprocal": lambda z: torch.reciprocal(3 + z),
    "relu": lambda z: F.relu(z) * z,
    "relu6": lambda z: F.relu6(4 * z) * z,
    "remainder": lambda z: torch.remainder(z, 0.3) * z + (z + math.pi) % (2 * math.pi),
    "remainder.Tensor": lambda z: torch.remainder(3 * z, z.flip(0)),
    "repeat": lambda z: z.repeat(2)[1:6] ** 2,
    "reshape": lambda z: (z * S).reshape(2, 8)[:, 3] * z[:2],
    "roll": lambda z: z.roll(1) * z + z.roll((3,), (0,)),
    "round": lambda z: z.round() * z,
    "rsqrt": lambda z: torch.rsqrt(3 + z),
    "rsub": lambda z: 2 - z * z,
    "scatter": lambda z: torch.zeros(4, dtype=z.dtype).scatter(0, INDEX[:2], z[:2] ** 2),
    "select_scatter": lambda z: torch.select_scatter(S * z, z * z, 0, 1)[1],
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "sign": lambda z: z.sign() * z + z.sgn(),
    "silu": F.silu,
    "sin": torch.sin,
    "sinc": torch.sinc,
    "sinh": torch.sinh,
    "slice": lambda z: z[1:4:2] * z[:2],
    "slice_scatter": lambda z: torch.slice_scatter(z, z[:2] ** 2, 0, 1, 3),
    "smooth_l1": lambda z: F.smooth_l1_loss(z, z.flip(0)),
    "softmax": lambda z: torch.softmax(z * S, 1)[0],
    "softplus": lambda z: F.softplus(z * 3, beta=2.0, threshold=3.0),
    "softsign": F.softsign,
    "split": lambda z: torch.stack(z.split(2)).prod(0) + z.split([1, 3])[0],
    "sqrt": lambda z: torch.sqrt(3 + z),
    "square": torch.square,
    "squeeze": lambda z: z[:, None].squeeze(-1) ** 2 + z[None, :, None].squeeze(),
    "stack": lambda z: torch.stack((z, z * z), -1)[2],
    "std": lambda z: torch.std(z) + (z * S).std(1),
    "sub": lambda z: torch.sub(z, z.flip(0) ** 2, alpha=0.5),
    "sum": lambda z: (z * S).sum(1) * z.sum(),
    "tan": lambda z: torch.tan(z / 2),
    "tanh": torch.tanh,
    "tanhshrink": F.tanhshrink,
    "threshold": lambda z: F.threshold(z, 0.1, 5.0) * z,
    "tile": lambda z: torch.tile(z, (2,)) ** 2,
    "trace": lambda z: torch.trace(z * z[:, None] * S),
    "transpose": lambda z: (z * S).transpose(0, 1)[2] * z,
    "tril": lambda z: (torch.tril(z * z * S, -1)).sum(1),
    "triu": lambda z: (torch.triu(z * z * S)).sum(1),
    "trunc": lambda z: z.trunc() * z,
    "unbind": lambda z: torch.stack([a * a for a in z.unbind(-1)]),
    "unflatten": lambda z: z.unflatten(0, (2, 2)).prod(1),
    "unsqueeze": lambda z: (z[..., None] * z.unsqueeze(0))[1],
    "var": lambda z: torch.var(z) + (z * S).var(1, correction=0),
    "view": lambda z: (z * z).view(2, 2).t().reshape(-1),
    "where": lambda z: torch.where(z > 0.2, z.sin(), z**2),
    "xlogy": lambda z: torch.xlogy(z, 3 + z),
    "zeros": lambda z: torch.zeros(4) + z * z + torch.zeros_like(z) + z.new_zeros(4),
    "zeros +=": lambda z: torch.zeros(4, dtype=z.dtype).add_(z).clamp_(min=-1.0) * z,
}


class RowModule(nn.Module):
    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.row(torch.cat((state, control), -1))


@pytest.mark.parametrize("name", ROWS)
def test_operation_has_the_value_and_derivatives_that_pytorch_gives(name: str) -> None:
    state = torch.tensor([0.7, -1.3, 1.9], dtype=torch.float64)
    control = torch.tensor([-0.4], dtype=torch.float64)
    weights = np.random.default_rng(0).normal(size=32).tolist()
    module = RowModule(ROWS[name])
    found = derivatives(module, state, control, weights)
    expected = torch_derivatives(module, state, control, weights)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


KINKS: dict[str, Row] = {
    "abs": torch.abs,
    "amax": lambda z: torch.amax(z, 0),
    "amin of three": lambda z: torch.amin(torch.stack((z, -z, z * z)), 0),
    "clamp": lambda z: z.clamp(-1.0, 1.0) + z.clamp(max=1.0) + z.clamp(min=0.0),
    "elu": F.elu,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "logsigmoid": F.logsigmoid,
    "max": torch.max,
    "max.dim": lambda z: torch.max(z, 0).values,
    "maximum": lambda z: torch.maximum(z, torch.ones(4)) + torch.maximum(z, z * z),
    "minimum": lambda z: torch.minimum(z, torch.zeros(4)) + torch.minimum(z, z * z),
    "norm": lambda z: torch.linalg.norm(z * torch.tensor([0.0, 0.0, 1.0, 0.0])),
    "norm 1": lambda z: torch.linalg.vector_norm(z, 1),
    "prod": torch.prod,
    "relu": F.relu,
    "relu6": F.relu6,
    "round": torch.round,
    "sign": torch.sign,
    "softplus": lambda z: F.softplus(z, threshold=1.0),
    "square root of a square": lambda z: torch.linalg.norm(z[2:3]),
}


@pytest.mark.parametrize("name", KINKS)
def test_derivative_at_a_kink_is_the_one_that_pytorch_takes(name: str) -> None:
    state = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    control = torch.tensor([1.0], dtype=torch.float64)
    module = RowModule(KINKS[name])
    found = derivatives(module, state, control, [1.0] * 4)
    expected = torch_derivatives(module, state, control, [1.0] * 4)
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-14)


EXTREMES: dict[str, Row] = {
    "clamp": lambda z: z.clamp(-1.0, 1.0),
    "elu": F.elu,
    "logsigmoid": F.logsigmoid,
    "logsumexp": lambda z: torch.logsumexp(z, 0),
    "maximum": lambda z: torch.maximum(z, torch.zeros(4)),
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softmax": lambda z: torch.softmax(z, 0),
    "softplus": F.softplus,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("name", EXTREMES)
def test_large_arguments_overflow_neither_the_value_nor_the_derivative(name: str) -> None:
    state = torch.tensor([800.0, -800.0, 0.5], dtype=torch.float64)
    control = torch.tensor([-1e4], dtype=torch.float64)
    module = RowModule(EXTREMES[name])
    found = derivatives(module, state, control, [1.0] * 4)
    expected = torch_derivatives(module, state, control, [1.0] * 4)
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("name", ["clamp", "hardtanh", "maximum", "max", "relu", "amin of three"])
def test_nan_passes_through_what_compares(name: str) -> None:
    state = torch.tensor([math.nan, 0.2, 0.1], dtype=torch.float64)
    control = torch.tensor([0.3], dtype=torch.float64)
    found, _, _ = derivatives(RowModule(KINKS[name]), state, control, [1.0] * 4)
    expected = KINKS[name](torch.cat((state, control)))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected.reshape(-1).numpy()))
