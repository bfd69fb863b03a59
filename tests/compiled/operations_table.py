"""The table of operations: one row a function of PyTorch, on z [4] with entries within +-2.

`NOT_COMPILED` names the rows that compiled code refuses, `NOT_DIFFERENTIATED` those of which
PyTorch lacks a derivative, so that the reference refuses them. All others are right on both.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


SPARSE = torch.tensor(
    [[0.0, 1, 0, 0], [-1, 0, 0.5, 0], [0, 0.2, 0, 1], [0.3, 0, 0, 0]], dtype=torch.float64
)
EYE = torch.eye(4, dtype=torch.float64)
TARGET = torch.tensor([0.2, 0.9, 0.4, 0.6], dtype=torch.float64)
SIGNS = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)


def definite(z: Tensor) -> Tensor:
    """A positive definite matrix."""
    return torch.outer(z, z) + EYE * (1 + z * z)


def regular(z: Tensor) -> Tensor:
    """An invertible matrix, not symmetric."""
    return EYE * 3 + S * z + torch.outer(z, z) * 0.3


def within_unit(z: Tensor) -> Tensor:
    """Numbers between 0.1 and 0.9."""
    return 0.5 + 0.4 * torch.tanh(z)


def positive(z: Tensor) -> Tensor:
    """Numbers above 0.5."""
    return 0.5 + z * z


def fixed(layer: nn.Module) -> nn.Module:
    """A layer in float64 whose parameters are constants."""
    return layer.double().eval().requires_grad_(False)


with torch.random.fork_rng():
    torch.manual_seed(0)
    ATTENTION = fixed(nn.MultiheadAttention(2, 1, batch_first=True))
    ENCODER = fixed(nn.TransformerEncoderLayer(2, 1, 4, batch_first=True))
    GRU_CELL, LSTM_CELL, RNN_CELL = (fixed(c(2, 2)) for c in (nn.GRUCell, nn.LSTMCell, nn.RNNCell))
    GRU, LSTM, RNN = (fixed(c(2, 2, batch_first=True)) for c in (nn.GRU, nn.LSTM, nn.RNN))
    BILINEAR = fixed(nn.Bilinear(2, 2, 3))
    BATCH_NORM = fixed(nn.BatchNorm1d(4))
    CONVOLUTION, CONVOLUTION_2D = fixed(nn.Conv1d(1, 2, 2)), fixed(nn.Conv2d(1, 1, 2))
    TRANSPOSED = fixed(nn.ConvTranspose1d(1, 1, 2))
    EMBEDDING = fixed(nn.Embedding(3, 4))
    WEIGHT_NORM = fixed(torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))


def cubed_where_positive(z: Tensor) -> Tensor:
    y = z * z
    y[z > 0] = z[z > 0] ** 3
    return y


def assigned_where_positive(z: Tensor) -> Tensor:
    y = z * z * z
    y[z > 0] = 0.0
    return y


def assigned_slices(z: Tensor) -> Tensor:
    y = torch.zeros(2, 4, dtype=z.dtype)
    y[0] = z * z
    y[1, ::2] = z[1] * z[:2]
    return y.sum(0)


def gradient_inside(z: Tensor) -> Tensor:
    with torch.enable_grad():
        y = z if z.requires_grad else z.requires_grad_()
        return torch.autograd.grad((y.sin() * y).sum(), y, create_graph=True)[0]


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
    "clone": lambda z: z.clone() * z,
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
    "hardsigmoid": lambda z: F.hardsigmoid(z) * z,
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
    "silu in place": lambda z: F.silu(z * 1.0, inplace=True) + z.clone().sgn_(),
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
    "tril in place": lambda z: torch.outer(z, z).tril_().sum(0) + torch.outer(z, z).triu_(1)[0],
    "fill in place": lambda z: z.clone().fill_(2.0) * z + torch.empty(4, dtype=z.dtype).fill_(z[0]),
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
    "absolute": lambda z: torch.absolute(z) * z,
    "aminmax": lambda z: torch.stack(torch.aminmax(z * z)),
    "angle": lambda z: torch.angle(z) * z,
    "arccosh": lambda z: torch.arccosh(1.5 + z * z),
    "atleast_2d": lambda z: torch.atleast_2d(z * z)[0],
    "block_diag": lambda z: torch.block_diag(z[:2, None], z[None, 2:] ** 2).sum(1),
    "broadcast_to": lambda z: torch.broadcast_to(z * z, (3, 4)).sum(0),
    "cartesian_prod": lambda z: torch.cartesian_prod(z[:2], z[2:] ** 2).prod(1),
    "cdist": lambda z: torch.cdist(z[None, :2], z[None, 2:] ** 2)[0],
    "cdist 1": lambda z: torch.cdist(z[None, :2], z[None, 2:] ** 2, p=1.0)[0],
    "chain_matmul": lambda z: torch.linalg.multi_dot((M, S * z, z)),
    "cholesky": lambda z: torch.linalg.cholesky(definite(z)).sum(1),
    "cholesky_ex": lambda z: torch.linalg.cholesky_ex(definite(z)).L.sum(1),
    "cholesky_inverse": lambda z: torch.cholesky_inverse(torch.linalg.cholesky(definite(z)))[0],
    "cholesky_solve": lambda z: torch.cholesky_solve(
        z[:, None], torch.linalg.cholesky(definite(z))
    )[:, 0],
    "clip": lambda z: torch.clip(z, -0.5, 0.5) * z,
    "column_stack": lambda z: torch.column_stack((z, z * z)).prod(1),
    "combinations": lambda z: torch.combinations(z).prod(1),
    "complex": lambda z: torch.complex(z, z * z).abs(),
    "conj": lambda z: (torch.complex(z, z * z) * torch.complex(z, z * z).conj()).real,
    "corrcoef": lambda z: torch.corrcoef(torch.stack((z, z * z, z.sin())))[0],
    "cosine_embedding_loss": lambda z: F.cosine_embedding_loss(
        z[None], (z * z)[None], torch.ones(1)
    ),
    "cov": lambda z: torch.cov(torch.stack((z, z * z)))[0],
    "cross_entropy": lambda z: F.cross_entropy((z * S), torch.tensor([0, 2, 1, 3])),
    "cross_entropy probabilities": lambda z: F.cross_entropy((z * S), TARGET.expand(4, 4)),
    "cummax": lambda z: torch.cummax(z * z, 0).values,
    "cummin": lambda z: torch.cummin(z * z, 0).values,
    "cumulative_trapezoid": lambda z: torch.cumulative_trapezoid(z * z),
    "deg2rad": lambda z: torch.deg2rad(z) * z,
    "det": lambda z: torch.linalg.det(regular(z)),
    "det 2": lambda z: torch.det((z.outer(z) + S)[:2, :2]),
    "diagflat": lambda z: torch.diagflat(z * z).sum(0),
    "diagonal_scatter": lambda z: torch.diagonal_scatter(S, z * z)[1],
    "digamma": lambda z: torch.digamma(1.5 + z * z),
    "dist": lambda z: torch.dist(z, z * z + 1),
    "dstack": lambda z: torch.dstack((z, z * z)).prod(-1)[0],
    "eig": lambda z: torch.linalg.eigvals(regular(z)).abs().sum(),
    "eigh": lambda z: torch.linalg.eigh(definite(z) + S + S.T).eigenvectors.abs().sum(0),
    "eigvalsh": lambda z: torch.linalg.eigvalsh(
        definite(z) + torch.diag(torch.arange(4.0).double())
    ),
    "einsum matrix": lambda z: torch.einsum("ij,jk,k->i", S * z, S, z * z),
    "embedding": lambda z: EMBEDDING(torch.tensor([0, 2]))[1] * z * z,
    "erfinv": lambda z: torch.erfinv(0.8 * torch.tanh(z)),
    "expand_as": lambda z: z[:1].expand_as(z) * z,
    "fft": lambda z: torch.fft.fft(z * z).abs(),
    "rfft": lambda z: torch.fft.irfft(torch.fft.rfft(z * z), 4),
    "fix": lambda z: torch.fix(z) * z,
    "flipud": lambda z: torch.flipud(z * z) * z,
    "float_power": lambda z: torch.float_power(positive(z), 1.7),
    "fmax": lambda z: torch.fmax(z, z * z - 1) * z,
    "fmin": lambda z: torch.fmin(z, z * z - 1) * z,
    "frexp": lambda z: torch.frexp(z)[0] * z,
    "frobenius norm": lambda z: torch.linalg.matrix_norm(S * z),
    "gammaln": lambda z: torch.special.gammaln(1.5 + z * z),
    "gammainc": lambda z: torch.special.gammainc(torch.full((4,), 2.0).double(), positive(z)),
    "gammaincc": lambda z: torch.special.gammaincc(torch.full((4,), 2.0).double(), positive(z)),
    "gaussian_nll_loss": lambda z: F.gaussian_nll_loss(z, TARGET, positive(z)),
    "glu": F.glu,
    "gradient": lambda z: torch.gradient(z * z)[0],
    "grid_sample": lambda z: F.grid_sample(
        S[None, None], (0.5 * torch.tanh(z)).reshape(1, 2, 1, 2), align_corners=True
    ).flatten(),
    "group_norm": lambda z: F.group_norm(z[None] * TARGET, 2)[0],
    "hardshrink": lambda z: F.hardshrink(z) * z,
    "heaviside": lambda z: torch.heaviside(z, torch.ones(4).double()) * z * z,
    "hinge_embedding_loss": lambda z: F.hinge_embedding_loss(z * z, SIGNS),
    "hstack": lambda z: torch.hstack((z, z * z)),
    "hsplit": lambda z: torch.hsplit(z * z, 2)[1],
    "i0": torch.special.i0,
    "i0e": torch.special.i0e,
    "i1": torch.special.i1,
    "i1e": torch.special.i1e,
    "bessel_j0": torch.special.bessel_j0,
    "bessel_j1": torch.special.bessel_j1,
    "bessel_y0": lambda z: torch.special.bessel_y0(positive(z)),
    "airy_ai": torch.special.airy_ai,
    "modified_bessel_i0": torch.special.modified_bessel_i0,
    "chebyshev": lambda z: torch.special.chebyshev_polynomial_t(z, torch.tensor(3)),
    "erfcx": torch.special.erfcx,
    "index_add": lambda z: torch.zeros(4).double().index_add(0, INDEX, z[:3] ** 2),
    "index_copy": lambda z: z.index_copy(0, torch.tensor([2, 0]), z[:2] ** 2),
    "index_fill": lambda z: z.index_fill(0, torch.tensor([2, 0]), 3.0) * z,
    "index_put accumulate": lambda z: (
        torch.zeros(4).double().index_put((INDEX,), z[:3] ** 2, accumulate=True)
    ),
    "inner": lambda z: torch.inner(z, z * z),
    "instance_norm": lambda z: F.instance_norm(torch.stack((z, z * z))[None])[0, 1],
    "interpolate": lambda z: F.interpolate(
        z[None, None] ** 2, size=7, mode="linear", align_corners=True
    )[0, 0],
    "interpolate nearest": lambda z: F.interpolate(z[None, None] ** 2, size=7)[0, 0],
    "inv": lambda z: torch.linalg.inv(regular(z))[0],
    "inv 2": lambda z: torch.linalg.inv(regular(z)[:2, :2])[0],
    "isclose": lambda z: torch.isclose(z, z * z) * z + z * z,
    "item assignment": assigned_slices,
    "kl_div": lambda z: F.kl_div(F.log_softmax(z, 0), TARGET / TARGET.sum(), reduction="sum"),
    "kthvalue": lambda z: torch.kthvalue(z * z, 2).values,
    "l1_loss": lambda z: F.l1_loss(z, TARGET) * z,
    "ldexp": lambda z: torch.ldexp(z, torch.tensor(2)) * z,
    "lgamma": lambda z: torch.lgamma(1.5 + z * z),
    "local_response_norm": lambda z: F.local_response_norm(z[None, :, None], 2)[0, :, 0],
    "log_ndtr": torch.special.log_ndtr,
    "logaddexp2": lambda z: torch.logaddexp2(z, z * z),
    "logcumsumexp": lambda z: torch.logcumsumexp(z * z, 0),
    "logdet": lambda z: torch.logdet(definite(z)),
    "logit": lambda z: torch.logit(within_unit(z)),
    "lstsq": lambda z: torch.linalg.lstsq(regular(z)[:, :2], z[:, None]).solution[:, 0],
    "lu": lambda z: torch.linalg.lu(regular(z)).U.sum(1),
    "lu_solve": lambda z: torch.linalg.lu_solve(*torch.linalg.lu_factor(regular(z)), z[:, None])[
        :, 0
    ],
    "margin_ranking_loss": lambda z: F.margin_ranking_loss(z, z * z, SIGNS),
    "mask assignment": cubed_where_positive,
    "mask assignment of a number": assigned_where_positive,
    "masked_scatter": lambda z: z.masked_scatter(
        torch.tensor([True, False, True, False]), z[:2] ** 2
    ),
    "masked_select": lambda z: torch.masked_select(z * z, torch.tensor([True, False, True, True])),
    "matrix_exp": lambda z: torch.linalg.matrix_exp(SPARSE * z)[0],
    "matrix_power": lambda z: torch.linalg.matrix_power(S * z, 3)[0],
    "matrix_power -1": lambda z: torch.linalg.matrix_power(regular(z), -1)[0],
    "median": lambda z: torch.median(z * z),
    "meshgrid": lambda z: torch.meshgrid(z[:2], z[2:] ** 2, indexing="ij")[1].prod(0),
    "movedim": lambda z: torch.movedim(S * z, 0, 1)[0] * z,
    "msort": lambda z: torch.msort(z * z),
    "multi_margin_loss": lambda z: F.multi_margin_loss(z[None] ** 2, torch.tensor([1])),
    "multilabel_soft_margin_loss": lambda z: F.multilabel_soft_margin_loss(z[None], TARGET[None]),
    "mvlgamma": lambda z: torch.mvlgamma(3 + z * z, 2),
    "nanmean": lambda z: torch.nanmean(z * z),
    "nansum": lambda z: torch.nansum(z * z),
    "narrow": lambda z: z.narrow(0, 1, 2) ** 2,
    "ndtr": torch.special.ndtr,
    "ndtri": lambda z: torch.special.ndtri(within_unit(z)),
    "nextafter": lambda z: torch.nextafter(z, z * z) * z,
    "nll_loss": lambda z: F.nll_loss(F.log_softmax(z * S, 1), torch.tensor([0, 2, 1, 3])),
    "norm -inf": lambda z: torch.linalg.vector_norm(positive(z), -math.inf) * z,
    "norm 0.5": lambda z: torch.linalg.vector_norm(positive(z), 0.5) * z,
    "norm fro old": lambda z: torch.norm(z) * z,
    "nuclear norm": lambda z: torch.linalg.matrix_norm(regular(z), "nuc"),
    "pairwise_distance": lambda z: F.pairwise_distance(z[None], z[None] ** 2),
    "pdist": lambda z: F.pdist(z * S),
    "pinv": lambda z: torch.linalg.pinv(regular(z))[0],
    "poisson_nll_loss": lambda z: F.poisson_nll_loss(z, TARGET),
    "polar": lambda z: torch.polar(positive(z), z).real,
    "polygamma": lambda z: torch.polygamma(1, 1.5 + z * z),
    "positive": lambda z: torch.positive(z) * z,
    "put": lambda z: z.put(torch.tensor([1, 3]), z[:2] ** 2),
    "qr": lambda z: torch.linalg.qr(regular(z)).R.abs().sum(1),
    "quantile": lambda z: torch.quantile(z * z, 0.3),
    "rad2deg": lambda z: torch.rad2deg(z) * z * 1e-2,
    "ravel": lambda z: (S * z).ravel()[3:9] ** 2,
    "renorm": lambda z: torch.renorm(S * z, 2, 0, 0.5).sum(1),
    "repeat_interleave": lambda z: torch.repeat_interleave(z * z, 2)[1:6],
    "rms_norm": lambda z: F.rms_norm(z, (4,)),
    "rot90": lambda z: torch.rot90(S * z)[0] * z,
    "rrelu": lambda z: F.rrelu(z) * z,
    "scaled_dot_product_attention": lambda z: F.scaled_dot_product_attention(
        *(z.reshape(1, 2, 2),) * 3
    ).flatten(),
    "scatter_add": lambda z: torch.zeros(4).double().scatter_add(0, INDEX, z[:3] ** 2),
    "scatter_reduce": lambda z: torch.ones(4).double().scatter_reduce(0, INDEX, z[:3] ** 2, "prod"),
    "searchsorted": lambda z: (
        torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]).double(), z) * z * z
    ),
    "slogdet": lambda z: torch.linalg.slogdet(regular(z)).logabsdet,
    "soft_margin_loss": lambda z: F.soft_margin_loss(z, SIGNS),
    "softmin": lambda z: F.softmin(z * z, 0),
    "softshrink": lambda z: F.softshrink(z) * z,
    "solve": lambda z: torch.linalg.solve(regular(z), z * z),
    "solve 2": lambda z: torch.linalg.solve(regular(z)[:2, :2], z[2:]),
    "solve constant matrix": lambda z: torch.linalg.solve(S + 4 * EYE, z * z),
    "solve_triangular": lambda z: torch.linalg.solve_triangular(
        torch.tril(regular(z)), z[:, None], upper=False
    )[:, 0],
    "sort": lambda z: torch.sort(z * z).values * z,
    "sparse": lambda z: torch.sparse.mm(S.to_sparse(), z[:, None])[:, 0] * z,
    "special.entr": lambda z: torch.special.entr(positive(z)),
    "special.exp2": torch.special.exp2,
    "special.expit": torch.special.expit,
    "special.log_softmax": lambda z: torch.special.log_softmax(z * z, 0),
    "special.xlog1py": lambda z: torch.special.xlog1py(z, positive(z)),
    "special.zeta": lambda z: torch.special.zeta(2 + z * z, 1.5),
    "std_mean": lambda z: torch.stack(torch.std_mean(z * z)),
    "svd": lambda z: torch.linalg.svd(regular(z)).S,
    "svdvals": lambda z: torch.linalg.svdvals(regular(z)),
    "swapaxes": lambda z: torch.swapaxes(S * z, 0, 1)[1] * z,
    "take": lambda z: torch.take(S * z * z, torch.tensor([1, 7, 9])),
    "take_along_dim": lambda z: torch.take_along_dim(z * z, INDEX, 0),
    "tensor_split": lambda z: torch.tensor_split(z * z, 3)[1],
    "tensordot": lambda z: torch.tensordot(S * z, z * z, 1),
    "tensorinv": lambda z: torch.linalg.tensorinv(regular(z), 1)[0],
    "topk": lambda z: torch.topk(z * z, 2).values,
    "trapezoid": lambda z: torch.trapezoid(z * z),
    "triplet_margin_loss": lambda z: F.triplet_margin_loss(z[None], z[None] ** 2, z.flip(0)[None]),
    "true_divide": lambda z: torch.true_divide(z, positive(z)),
    "unfold": lambda z: (z * z).unfold(0, 2, 1).sum(1),
    "vander": lambda z: torch.linalg.vander(z).sum(0),
    "var_mean": lambda z: torch.stack(torch.var_mean(z * z)),
    "vdot": lambda z: torch.vdot(z, z * z),
    "vecdot": lambda z: torch.linalg.vecdot(z, z * z),
    "view_as": lambda z: (z * z).view_as(torch.zeros(2, 2)).prod(1),
    "vstack": lambda z: torch.vstack((z, z * z)).prod(0),
    "bce": lambda z: F.binary_cross_entropy(within_unit(z), TARGET),
    "bce_with_logits": lambda z: F.binary_cross_entropy_with_logits(z, TARGET),
    "avg_pool1d": lambda z: F.avg_pool1d(z[None, None] ** 2, 2)[0, 0],
    "adaptive_avg_pool1d": lambda z: F.adaptive_avg_pool1d(z[None, None] ** 2, 2)[0, 0],
    "max_pool1d": lambda z: F.max_pool1d(z[None, None] ** 2, 2)[0, 0],
    "lp_pool1d": lambda z: F.lp_pool1d(z[None, None], 2.0, 2)[0, 0],
    "conv1d": lambda z: CONVOLUTION(z[None, None] ** 2).flatten(),
    "conv2d": lambda z: CONVOLUTION_2D((z * z[:, None])[None, None]).flatten(),
    "conv_transpose1d": lambda z: TRANSPOSED(z[None, None] ** 2).flatten(),
    "bilinear": lambda z: BILINEAR(z[:2], z[2:]),
    "batch_norm": lambda z: BATCH_NORM(z[None] ** 2)[0],
    "MultiheadAttention": lambda z: ATTENTION(*(z.reshape(1, 2, 2),) * 3)[0].flatten(),
    "TransformerEncoderLayer": lambda z: ENCODER(z.reshape(1, 2, 2)).flatten(),
    "GRUCell": lambda z: GRU_CELL(z[:2], z[2:]),
    "LSTMCell": lambda z: LSTM_CELL(z[:2], (z[2:], z[2:]))[0],
    "RNNCell": lambda z: RNN_CELL(z[:2], z[2:]),
    "LSTM": lambda z: LSTM(z.reshape(1, 2, 2))[0].flatten(),
    "RNN": lambda z: RNN(z.reshape(1, 2, 2))[0].flatten(),
    "weight_norm": lambda z: WEIGHT_NORM(z) ** 2,
    "func.grad": torch.func.grad(lambda y: (y.sin() * y).sum()),
    "func.jacrev": lambda z: torch.func.jacrev(lambda y: y.sin() * y)(z).sum(0),
    "func.vmap": torch.func.vmap(lambda y: y.sin() * y),
    "autograd.grad": gradient_inside,
    "pixel_shuffle": lambda z: F.pixel_shuffle((z**2).reshape(1, 4, 1, 1), 2).flatten(),
    "unfold images": lambda z: F.unfold((z * z[:, None])[None, None], 2)[0, 0],
    "channel_shuffle": lambda z: F.channel_shuffle((z**2).reshape(1, 4, 1, 1), 2).flatten(),
    "dropout": lambda z: F.dropout(z, 0.5, training=False) * z,
    "one_hot": lambda z: F.one_hot(torch.tensor(2), 4) * z * z,
    "bucketize": lambda z: torch.bucketize(z, torch.tensor([-1.0, 0.0, 1.0]).double()) * z * z,
    "mode": lambda z: torch.mode(z * z)[0],
    "nanmedian": lambda z: torch.nanmedian(z * z),
    "argmax": lambda z: torch.argmax(z) * z * z,
    "argsort": lambda z: (z * z)[torch.argsort(z)],
    "rsub tensor": lambda z: torch.rsub(z, z * z, alpha=2),
    "square_": lambda z: z.clone().square_().sin_(),
    "hermite": lambda z: torch.special.hermite_polynomial_h(z, torch.tensor(3)),
    "legendre": lambda z: torch.special.legendre_polynomial_p(z, torch.tensor(3)),
    "as_strided": lambda z: torch.as_strided(z * z, (2, 2), (1, 1)).sum(1),
    "orthogonal": lambda z: torch.linalg.householder_product(regular(z)[:, :2], within_unit(z)[:2])[
        0
    ],
}

NOT_COMPILED = frozenset(
    {
        "adaptive_avg_pool1d",
        "airy_ai",
        "argsort",
        "as_strided",
        "hermite",
        "bessel_j0",
        "bessel_j1",
        "bessel_y0",
        "bilinear",
        "chebyshev",
        "complex",
        "conj",
        "conv_transpose1d",
        "corrcoef",
        "cov",
        "digamma",
        "eig",
        "eigh",
        "eigvalsh",
        "erfcx",
        "erfinv",
        "fft",
        "frexp",
        "gammainc",
        "gammaincc",
        "gammaln",
        "gaussian_nll_loss",
        "grid_sample",
        "i0",
        "i0e",
        "i1",
        "i1e",
        "legendre",
        "lgamma",
        "log_ndtr",
        "logcumsumexp",
        "lstsq",
        "lu",
        "lu_solve",
        "mask assignment",
        "matrix_exp",
        "max_pool1d",
        "mode",
        "modified_bessel_i0",
        "mvlgamma",
        "nanmedian",
        "ndtri",
        "nextafter",
        "nuclear norm",
        "orthogonal",
        "pdist",
        "pinv",
        "polar",
        "polygamma",
        "qr",
        "quantile",
        "rfft",
        "rrelu",
        "scatter_reduce",
        "sparse",
        "special.zeta",
        "svd",
        "svdvals",
    }
)


def _is_differentiated(row: Row) -> bool:
    """Whether this version of PyTorch has both derivatives of a row."""
    z = torch.full((4,), 0.3, dtype=torch.float64)
    try:
        torch.autograd.functional.hessian(lambda z: row(z).sum(), z)
    except RuntimeError as error:  # NotImplementedError among them
        return "not implemented" not in str(error)
    return True


# which the oldest PyTorch that is supported lacks
LATER = frozenset({"aminmax", "grid_sample", "nextafter"})
NOT_DIFFERENTIATED = frozenset(
    {
        "airy_ai",
        "hermite",
        "bessel_j0",
        "bessel_j1",
        "bessel_y0",
        "cdist",
        "cdist 1",
        "chebyshev",
        "hardsigmoid",
        "heaviside",
        "legendre",
        "modified_bessel_i0",
        "multi_margin_loss",
        "pdist",
        "special.zeta",
    }
) | {name for name in LATER if not _is_differentiated(ROWS[name])}


def random_points(count: int) -> Tensor:
    """Points [count, 4] of the table."""
    generator = torch.Generator().manual_seed(3)
    return 4 * torch.rand(count, 4, dtype=torch.float64, generator=generator) - 2


def difference(function: Callable[[Tensor], Tensor], at: Tensor, along: Tensor) -> Tensor:
    """The directional derivative of a function, by central differences of fourth order."""
    h = 1e-4
    near = function(at + h * along) - function(at - h * along)
    far = function(at + 2 * h * along) - function(at - 2 * h * along)
    return (8 * near - far) / (12 * h)
