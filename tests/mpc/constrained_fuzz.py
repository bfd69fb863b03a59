"""Random problems with constraints, and a judge of plans in NumPy alone.

    x_{t+1} = A x + B u + s sin(x),   l = 1/2 x' Q x + q' x + 1/2 r |u|^2
    a x + curve x_1^2 <= h   at every stage but the first,   b x + d u <= g   at every stage

All numbers are the context of an instance, so that problems of one size are compiled once. The
judge differentiates by complex steps: with J analytic, dJ/du = imag J(u + i h) / h (Squire & Trapp,
1998).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mpc_gym import MPC
from mpc_gym.mpc.plan import Plan
from tests.mpc.exact import Instance, distance

Array = NDArray[np.float64]
STEP = 1e-30
LIMIT = 2.0
SMALL = 1e-5  # a gradient relative to its terms, beyond which more digits are needed


@dataclass(frozen=True)
class Size:
    """Numbers of states, controls, rows of the state, and rows of state and control."""

    n: int
    m: int
    of_state: int
    mixed: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        n, m, j, k = self.n, self.m, self.of_state, self.mixed
        return {
            "A": (n, n), "B": (n, m), "s": (n,), "Q": (n,), "q": (n,), "r": (1,),
            "a": (j, n), "curve": (j,), "h": (j,), "b": (k, n), "d": (k, m), "g": (k,),
        }  # fmt: skip

    def read(self, context):
        """The numbers by name, from a tensor or an array [..., n_context]."""
        found, start = {}, 0
        for name, shape in self.shapes().items():
            stop = start + int(np.prod(shape))
            found[name] = context[..., start:stop].reshape(*context.shape[:-1], *shape)
            start = stop
        return found

    def write(self, values: dict[str, Array]) -> Tensor:
        count = len(values["A"])
        return torch.tensor(
            np.concatenate([values[name].reshape(count, -1) for name in self.shapes()], 1)
        )


def step(p, x, u, sin):
    linear = (p["A"] * x[..., None, :]).sum(-1) + (p["B"] * u[..., None, :]).sum(-1)
    return linear + p["s"] * sin(x)


def stage_cost(p, x, u):
    return (0.5 * p["Q"] * x * x + p["q"] * x).sum(-1) + 0.5 * p["r"][..., 0] * (u * u).sum(-1)


def row_values(p, x, u, concatenate):
    of_state = (p["a"] * x[..., None, :]).sum(-1) + p["curve"] * x[..., :1] * x[..., :1] - p["h"]
    mixed = (p["b"] * x[..., None, :]).sum(-1) + (p["d"] * u[..., None, :]).sum(-1) - p["g"]
    return concatenate((of_state, mixed), -1)


class FuzzDynamics(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size, self.n_state, self.n_ctrl = size, size.n, size.m

    def forward(self, state, control, context):
        return step(self.size.read(context), state, control, torch.sin)


class FuzzCost(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def forward(self, state, control, context):
        return stage_cost(self.size.read(context), state, control)


class FuzzRows(FuzzCost):
    def forward(self, state, control, context):
        return row_values(self.size.read(context), state, control, torch.cat)


@cache
def controller(size: Size, horizon: int, backend: str, soft: bool) -> MPC:
    """One for all problems of a size and kind, so that it is compiled once."""
    modules, rows = (FuzzDynamics(size), FuzzCost(size)), FuzzRows(size)
    return MPC(*modules, horizon, -LIMIT, LIMIT, constraints=rows, backend=backend)


@dataclass
class Problems:
    size: Size
    x_init: Array
    values: dict[str, Array]
    horizon: int

    def plan(self, backend: str, w: float | None, index=slice(None)) -> Plan:
        """Plans of some instances; w: the price of soft constraints."""
        mpc = controller(self.size, self.horizon, backend, w is not None)
        mpc.soft = w
        context = self.size.write(self.values)
        with torch.no_grad():
            return mpc(torch.tensor(self.x_init)[index], context=context[index])

    def only(self, rows: list[int]) -> "Problems":
        """Some of the instances."""
        values = {name: value[rows] for name, value in self.values.items()}
        return Problems(self.size, self.x_init[rows], values, self.horizon)

    def asked(self) -> NDArray[np.bool_]:
        """At which stages the rows are, [time, rows]."""
        asked = np.ones((self.horizon, self.size.of_state + self.size.mixed), dtype=bool)
        asked[0, : self.size.of_state] = self.horizon == 1
        return asked

    def roll(self, i: int, U: Array) -> tuple[Array, Array]:
        """Total cost [...] and rows [..., time, k] of instance i under controls [..., time, m]."""
        p = {name: value[i] for name, value in self.values.items()}
        x = np.broadcast_to(self.x_init[i], (*U.shape[:-2], self.size.n))
        cost, rows = 0.0, []
        for t in range(self.horizon):
            u = U[..., t, :]
            cost = cost + stage_cost(p, x, u)
            rows.append(row_values(p, x, u, np.concatenate))
            x = step(p, x, u, np.sin)
        return cost, np.stack(rows, -2)


def random_problems(size: Size, horizon: int, count: int, seed: int, *, convex: bool) -> Problems:
    """Some feasible with room to spare, by construction: at random controls no row is above -0.05.

    Those that are convex are linear in dynamics and rows.
    """
    random = np.random.default_rng(seed)
    n, m, j, k = size.n, size.m, size.of_state, size.mixed
    A = random.normal(size=(count, n, n))
    radius = random.uniform(0.3, 1.15, (count, 1, 1))
    A = radius * A / np.abs(np.linalg.eigvals(A)).max(-1)[:, None, None]
    bent = 0.0 if convex else 0.5
    values = {
        "A": A, "B": random.normal(size=(count, n, m)),
        "s": bent * random.normal(size=(count, n)), "Q": random.uniform(0, 2, (count, n)),
        "q": random.normal(size=(count, n)), "r": 10 ** random.uniform(-3, 1, (count, 1)),
        "a": random.normal(size=(count, j, n)), "curve": bent * random.normal(size=(count, j)),
        "h": np.zeros((count, j)), "b": random.normal(size=(count, k, n)),
        "d": random.normal(size=(count, k, m)), "g": np.zeros((count, k)),
    }  # fmt: skip
    problems = Problems(size, random.normal(size=(count, n)), values, horizon)
    U = random.uniform(-0.8 * LIMIT, 0.8 * LIMIT, (count, horizon, m))
    for i in range(count):
        _, rows = problems.roll(i, U[i])
        highest = np.where(problems.asked(), rows, -np.inf).max(0)
        highest = np.where(np.isfinite(highest), highest, 0.0) + random.uniform(0.05, 0.5, j + k)
        values["h"][i], values["g"][i] = highest[:j], highest[j:]
    return problems


def wrong(problems: Problems, plan: Plan, i: int, w: float | None) -> dict[str, float]:
    """By how much instance i of the plans does not satisfy the KKT conditions, relative."""
    U, lam = plan.controls[i].numpy(), plan.multipliers[i].numpy()
    asked = problems.asked()
    cost, rows = problems.roll(i, U)
    T, m = U.shape
    directions = np.eye(T * m).reshape(T * m, T, m)
    costs, steps = problems.roll(i, U + 1j * STEP * directions)
    of_cost = costs.imag / STEP
    of_rows = np.where(asked, steps.imag / STEP, 0.0)
    # a control is as exact as the range of its bounds, and its cost at least as curved as r u^2 / 2
    terms = np.abs(of_cost) + (np.abs(of_rows) * np.abs(lam)).sum((1, 2))
    terms = terms + problems.values["r"][i] * LIMIT
    gradient = of_cost + (of_rows * lam).sum((1, 2))
    low, high = U.ravel() == -LIMIT, U.ravel() == LIMIT
    held = (low & (gradient > 0)) | (high & (gradient < 0))
    # multipliers are as exact as the rows times the penalty, which rounding limits: others, near
    # by, may fit the plan better
    active = (lam > 0) & (lam < (np.inf if w is None else w))
    free = of_rows[:, active][~(low | high)]
    change = np.linalg.lstsq(free, -gradient[~(low | high)], rcond=1e-10)[0]
    gradient = gradient + of_rows[:, active] @ change
    relative = (np.abs(np.where(held, 0.0, gradient)) / terms).max()
    if relative > SMALL:  # a gradient as small as that of a control off by so much of its range
        values = {name: value[i] for name, value in problems.values.items()}
        instance = Instance(values, problems.x_init[i], asked)
        free_controls = ~(low | high).reshape(T, m)
        relative = min(relative, distance(instance, U, lam, free_controls, active) / LIMIT)
    found = {
        "cost": abs(cost - plan.cost[i].item()) / (1 + abs(cost)),
        "gradient": relative,
        "multipliers": np.abs(change).max(initial=0.0) / (1 + abs(cost) + lam.max()),
        "bounds": max(np.abs(U).max() - LIMIT, 0.0),
        "violation": abs(np.where(asked, rows, 0.0).clip(0).max() - plan.violation[i].item()),
        "not asked": np.abs(np.where(asked, 0.0, lam)).max(),
        "sign": np.abs(lam.clip(max=0.0)).max(),
        "complementarity": np.where(asked & (lam > 0), np.maximum(-rows, 0.0), 0.0).max(),
    }
    if w is None:
        found["feasibility"] = np.where(asked, rows, 0.0).clip(0).max()
    else:
        found["price"] = (lam - w).clip(0).max() / w
        unpaid = np.where(asked & (lam < w * (1 - 1e-9)), rows, 0.0)
        found["feasibility"] = unpaid.clip(0).max()
    return found
