"""Random control problems, and a judge of plans that shares nothing with the solver.

All problems of one size share a model, whose numbers are the context of each instance, so that
thousands of problems are compiled once. The judge differentiates the rollout by reverse-mode
autograd: dense gradient and Hessian in all controls.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from mpc_gym.models import Dynamics
from mpc_gym.mpc import MPC
from mpc_gym.mpc.plan import Plan

FLOAT = torch.float64
DENSE = 24  # controls of a problem, up to which the judge looks at the Hessian
GRADIENT_TOLERANCE = 1e-6  # relative to the terms that the gradient is summed from
STEP_TOLERANCE = 1e-4  # of a Newton step, relative to the control's unit
CURVATURE_TOLERANCE = 1e-6  # relative to the largest entry of the Hessian in the controls' units


@dataclass(frozen=True)
class Size:
    """How an instance's numbers are laid out in its context."""

    n: int
    m: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        n, m = self.n, self.m
        vectors = dict.fromkeys(("sine", "tanh", "product", "q", "cosine"), (n,))
        return {
            "A": (n, n), "B": (n, m), "bilinear": (n, m), "Q": (n,), "R": (m,), "r": (m,),
            "quartic": (1,), "cost_unit": (1,), "control_unit": (m,), **vectors,
        }  # fmt: skip

    @property
    def count(self) -> int:
        return sum(torch.Size(shape).numel() for shape in self.shapes().values())

    def read(self, context: Tensor) -> dict[str, Tensor]:
        found, start = {}, 0
        for name, shape in self.shapes().items():
            stop = start + torch.Size(shape).numel()
            found[name] = context[..., start:stop].reshape(*context.shape[:-1], *shape)
            start = stop
        return found

    def write(self, values: dict[str, Tensor]) -> Tensor:
        return torch.cat([values[name].flatten(1) for name in self.shapes()], 1)


class FuzzDynamics(Dynamics):
    def __init__(self, size: Size) -> None:
        super().__init__(size.n, size.m)
        self.size = size

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        p = self.size.read(context)
        u = control / p["control_unit"]
        linear = (p["A"] * state[..., None, :]).sum(-1) + (p["B"] * u[..., None, :]).sum(-1)
        neighbour = torch.cat((state[..., 1:], state[..., :1]), -1)
        curved = p["sine"] * torch.sin(state) + p["tanh"] * torch.tanh(3 * neighbour)
        products = p["product"] * torch.sin(state) * neighbour
        return linear + curved + products + state * (p["bilinear"] * u[..., None, :]).sum(-1)


class FuzzCost(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        p = self.size.read(context)
        u = control / p["control_unit"]
        of_state = 0.5 * p["Q"] * state.square() + p["q"] * state
        of_state = of_state + p["cosine"] * torch.cos(state)
        of_control = 0.5 * p["R"] * u.square() + p["r"] * u + p["quartic"] * u.square().square()
        return p["cost_unit"][..., 0] * (of_state.sum(-1) + of_control.sum(-1))


@dataclass
class Problems:
    """A batch of problems that share size, horizon and bounds."""

    size: Size
    x_init: Tensor
    guess: Tensor
    context: Tensor
    low: Tensor  # (time, n_ctrl)
    high: Tensor

    def mpc(self, dynamics: nn.Module, cost: nn.Module, **options: object) -> MPC:
        return MPC(dynamics, cost, len(self.low), self.low, self.high, **options)

    def cost(self, modules: tuple[nn.Module, nn.Module], U: Tensor) -> tuple[Tensor, Tensor]:
        """The total cost of each, and the sum of the stages' absolute costs."""
        dynamics, cost = modules
        x, total, size = self.x_init, 0.0, 0.0
        for t in range(U.shape[1]):
            stage = cost(x, U[:, t], self.context)
            total, size = total + stage, size + stage.abs()
            x = dynamics(x, U[:, t], self.context)
        return total, size


def random_problems(size: Size, count: int, generator: torch.Generator) -> Problems:
    """Stable and unstable, convex and not, with units from 1e-8 to 1e8, and all kinds of bounds."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=FLOAT)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=FLOAT)

    def some(share: float, *shape: int) -> Tensor:
        return (uniform(count, *(1 for _ in shape[1:])) < share).to(FLOAT) * normal(*shape)

    n, m = size.n, size.m
    horizon = int(torch.randint(1, 13, (), generator=generator))
    if float(uniform()) < 0.15:
        horizon = int(torch.randint(13, 61, (), generator=generator))
    radius = 0.4 + 1.4 * uniform(count, 1, 1) ** 2
    A = normal(count, n, n)
    A = radius * A / torch.linalg.eigvals(A).abs().amax(-1)[:, None, None]
    indefinite = (uniform(count, 1) < 0.25).to(FLOAT)
    values = {
        "A": A, "B": normal(count, n, m), "bilinear": 0.3 * some(0.3, count, n, m),
        "Q": uniform(count, n) - 0.7 * indefinite, "R": 10 ** (-4 * uniform(count, m)),
        "q": normal(count, n), "r": some(0.5, count, m), "quartic": 0.1 * some(0.3, count, 1).abs(),
        "cosine": some(0.3, count, n), "sine": some(0.4, count, n),
        "tanh": 0.5 * some(0.4, count, n), "product": 0.3 * some(0.4, count, n),
        "cost_unit": 10 ** (16 * uniform(count, 1) - 8),
        "control_unit": (10 ** (16 * uniform(m) - 8)).expand(count, m),
    }  # fmt: skip
    low, high = -3 * uniform(horizon, m), 3 * uniform(horizon, m)
    kind = uniform(m)
    low = torch.where(kind < 0.25, -torch.inf, low)
    high = torch.where((kind < 0.2) | (kind > 0.9), torch.inf, high)
    fixed = uniform(horizon, m) < 0.05
    low = torch.where(fixed & high.isfinite(), high, low)
    unit = values["control_unit"][0]
    guess = normal(count, horizon, m) * (uniform(count, 1, 1) < 0.8) * unit
    return Problems(size, normal(count, n), guess, size.write(values), low * unit, high * unit)


@dataclass
class Verdict:
    """What the judge says of each plan of a batch."""

    stationary: Tensor  # the first- and second-order conditions hold
    dearer: Tensor  # it costs more than the rollout of its guess
    finite: Tensor


def judge(problems: Problems, modules: tuple[nn.Module, nn.Module], plan: Plan) -> Verdict:
    """Look at plans without trusting anything that the solver says of them."""
    low, high = problems.low, problems.high
    U = plan.controls.detach()
    inside = ((low <= U) & (high >= U)).flatten(1).all(1)
    finite = inside & U.flatten(1).isfinite().all(1)
    total, size = problems.cost(modules, U)
    # where no other rollout of its controls finds the cost of a plan, it has that of the solver's
    found = (total - plan.cost).abs() <= 1e-6 * size
    cost = torch.where(found, total, plan.cost)
    before, size_before, known = _cost_of_guess(problems, modules)
    rounding = 1e-12 * (torch.where(size.isfinite(), size, 0.0) + size_before)
    first, second = _conditions(problems, modules, U, size)
    alone = found & first & second
    # a system that amplifies roundings of its controls makes them up again as their gradient, or
    # as another cost; then states and controls of a plan have to be an optimum together
    doubtful = (plan.converged & finite & ~alone).nonzero()[:, 0].tolist()
    joint = torch.zeros_like(found)
    for row in doubtful:
        joint[row] = _is_optimal_with_states(problems, modules, plan, row)
    return Verdict(
        stationary=finite & (alone | joint),
        dearer=known & ~(cost <= before + rounding),
        finite=finite,
    )


def _cost_of_guess(
    problems: Problems, modules: tuple[nn.Module, nn.Module]
) -> tuple[Tensor, Tensor, Tensor]:
    """Costs of the guesses, the sizes of their terms, and whether there is such a cost.

    There is none where eight rollouts, each off by some roundings, do not agree on it.
    """
    guess = torch.minimum(torch.maximum(problems.guess, problems.low), problems.high)
    rollouts = [
        replace(problems, x_init=problems.x_init * factor).cost(modules, guess * factor)
        for factor in (1 + i * 2.0**-52 for i in range(8))
    ]
    costs, sizes = (torch.stack(each) for each in zip(*rollouts, strict=True))
    known = costs.isfinite().all(0) & (costs.amax(0) - costs.amin(0) <= 1e-6 * sizes[0])
    return costs[0], sizes[0], known


def _conditions(
    problems: Problems, modules: tuple[nn.Module, nn.Module], U: Tensor, size: Tensor
) -> tuple[Tensor, Tensor]:
    low, high = problems.low, problems.high
    batch, count = len(U), U[0].numel()
    live = U.clone().requires_grad_()
    gradient = torch.autograd.grad(
        problems.cost(modules, live)[0].sum(), live, create_graph=count <= DENSE
    )[0]
    g = gradient.detach()
    held = (low == high) | ((low >= U) & (g > 0)) | ((high <= U) & (g < 0))
    free = ~held.flatten(1)
    if count > DENSE:
        terms = _gradient_terms(problems, modules, U)
        noise = (_gradient(problems, modules, U * (1 + 4e-16)) - g).abs()
        unit = U.abs().amax(1, keepdim=True)
        least = 1e-12 * size[:, None, None]  # a gradient of no effect within the size of the plan
        small = held | (g.abs() <= GRADIENT_TOLERANCE * terms) | (g.abs() * unit <= least)
        small = small | (g.abs() <= 10 * noise)  # no neighbouring float64 is better
        return small.flatten(1).all(1), torch.ones(batch, dtype=torch.bool)
    rows = [
        torch.autograd.grad(entry.sum(), live, retain_graph=True)[0].flatten(1)
        for entry in gradient.flatten(1).unbind(1)
    ]
    unit = torch.minimum(high - low, U.abs().amax(1, keepdim=True)).flatten(1)
    unit = torch.where(
        unit > 0, unit, problems.size.read(problems.context)["control_unit"].repeat(1, len(low))
    )
    H = torch.stack(rows, 1) * unit[:, :, None] * unit[:, None, :]
    both = free[:, :, None] & free[:, None, :]
    H = torch.where(both, 0.5 * (H + H.mT), 0.0)
    scaled = torch.where(free, g.flatten(1) * unit, 0.0)
    known = H.flatten(1).isfinite().all(1) & scaled.isfinite().all(1)
    H, scaled = torch.where(known[:, None, None], H, 0.0), torch.where(known[:, None], scaled, 0.0)
    # in the unit of the cost, or the eigenvalues of a large one are not found
    largest_entry = H.abs().amax((1, 2)).clamp(min=1e-300)
    H, scaled, size = (
        H / largest_entry[:, None, None],
        scaled / largest_entry[:, None],
        size / largest_entry,
    )
    values, vectors = torch.linalg.eigh(H)
    largest = values.abs().amax(1, keepdim=True)
    convex = (values >= -CURVATURE_TOLERANCE * torch.maximum(largest, 1e-6 * size[:, None])).all(1)
    along = (vectors.mT @ scaled[:, :, None])[:, :, 0].abs()
    curvature = torch.maximum(values.abs(), 1e-9 * torch.maximum(largest, size[:, None]))
    step = along / curvature
    gain = along * step
    small = (step <= STEP_TOLERANCE) | (gain <= 1e-12 * size[:, None])
    return small.all(1) & known, convex & known


def _is_optimal_with_states(
    problems: Problems, modules: tuple[nn.Module, nn.Module], plan: Plan, row: int
) -> bool:
    """Whether a plan's states follow from one another, and costates make it stationary.

    The costates are those of least squares: found backwards, they would be amplified as states are.
    """
    index = torch.tensor([row])
    one = replace(problems, x_init=problems.x_init[index], context=problems.context[index])
    X, U = plan.states[row].detach(), plan.controls[row].detach()
    (T, n), m = X.shape, U.shape[1]
    p = problems.size.read(problems.context[row])
    unit, cost_unit = p["control_unit"].expand(T, m), p["cost_unit"]
    dynamics, cost = modules
    context = one.context.expand(T, -1)
    following = dynamics(X, U, context).detach()
    f_x, f_u = _slopes(dynamics, X, U, context=context)
    l_x, l_u = _slopes(cost, X, U, context=context)
    f_u, l_x, l_u = f_u * unit[:, None, :], l_x[:, 0] / cost_unit, l_u[:, 0] * unit / cost_unit
    terms = X.abs() @ torch.ones(n, 1, dtype=FLOAT) + f_u.abs().sum(-1) + 1.0
    steps = ((X[1:] - following[:-1]).abs() <= 1e-12 * terms[:-1]).all()
    inside = (problems.low < U) & (problems.high > U)
    # unknown: costates of stages 1 to T - 1; equations: those of the states, then of the controls
    of_states = torch.zeros(T - 1, n, T - 1, n, dtype=FLOAT)
    of_controls = torch.zeros(T, m, T - 1, n, dtype=FLOAT)
    for t in range(T - 1):
        of_states[t, :, t] -= torch.eye(n, dtype=FLOAT)
        if t:
            of_states[t - 1, :, t] += f_x[t].mT
        of_controls[t, :, t] = f_u[t].mT
    A = torch.cat((of_states.flatten(0, 1), of_controls[inside])).flatten(1)
    b = torch.cat((l_x[1:].flatten(), l_u[inside]))
    lam = torch.linalg.lstsq(A, -b.unsqueeze(-1), driver="gelsd").solution[:, 0]
    sizes = b.abs() + A.abs() @ lam.abs()
    size = cost(X, U, context).abs().sum() / cost_unit
    stationary = ((A @ lam + b).abs() <= GRADIENT_TOLERANCE * sizes + 1e-12 * size).all()
    force = l_u + (of_controls.flatten(2) @ lam)
    least = GRADIENT_TOLERANCE * (l_u.abs() + of_controls.flatten(2).abs() @ lam.abs())
    pushed = (force >= -least) | (problems.low < U)
    pushed &= (force <= least) | (problems.high > U)
    pushed |= problems.low == problems.high
    return bool(steps & stationary & pushed.all()) and T * m > DENSE


def _gradient(problems: Problems, modules: tuple[nn.Module, nn.Module], U: Tensor) -> Tensor:
    live = U.clone().requires_grad_()
    return torch.autograd.grad(problems.cost(modules, live)[0].sum(), live)[0]


def _gradient_terms(problems: Problems, modules: tuple[nn.Module, nn.Module], U: Tensor) -> Tensor:
    """Absolute values summed as the gradient is: |dl/du| + |df/du|' (|dl/dx| + |df/dx|' ...)."""
    dynamics, cost = modules
    X = [problems.x_init]
    for t in range(U.shape[1] - 1):
        X.append(dynamics(X[-1], U[:, t], problems.context))
    slopes = partial(_slopes, context=problems.context)
    costate = torch.zeros_like(problems.x_init)
    terms = []
    for t in reversed(range(U.shape[1])):
        l_x, l_u = slopes(cost, X[t], U[:, t])
        f_x, f_u = slopes(dynamics, X[t], U[:, t])
        terms.append(l_u[:, 0].abs() + (f_u.abs() * costate[:, :, None]).sum(1))
        costate = l_x[:, 0].abs() + (f_x.abs() * costate[:, :, None]).sum(1)
    return torch.stack(terms[::-1], 1)


def _slopes(module: nn.Module, x: Tensor, u: Tensor, *, context: Tensor) -> tuple[Tensor, Tensor]:
    """Jacobians [batch, outputs, inputs] of a module."""
    x, u = x.detach().requires_grad_(), u.detach().requires_grad_()
    out = module(x, u, context).reshape(len(x), -1)
    rows = [
        torch.autograd.grad(entry.sum(), (x, u), retain_graph=True, materialize_grads=True)
        for entry in out.unbind(1)
    ]
    return torch.stack([row[0] for row in rows], 1), torch.stack([row[1] for row in rows], 1)
