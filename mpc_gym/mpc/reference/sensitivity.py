"""The derivative of the optimum, from its optimality conditions (implicit function theorem).

At a solution, with costates lambda_{T-1} = l_x, lambda_t = l_x + A' lambda_{t+1}, and for a loss
whose gradient is g_t on z_t = (x_t, u_t) and w on the optimal cost, solve

    minimise   sum_t 1/2 d_t' H_t d_t + g_t' d_t       H_t = hess l + sum_i lambda_{t+1,i} hess f_i
    subject to d_t = (dx_t, du_t),  dx_0 = 0,  dx_{t+1} = F_t d_t,  du_t = 0 where clamped

with costates mu_t. Differentiating the KKT conditions of the control problem gives

    d loss / d theta  = d/d theta sum_t [ w l + grad l . d_t + lambda_{t+1}' F d_t
                                          + (mu_{t+1} + w lambda_{t+1})' f ]
    d loss / d x_init = mu_0 + w lambda_0
    d loss / d bound  = g_u + (H d)_u + B' mu_{t+1} + w (l_u + B' lambda_{t+1})   where clamped.

Amos et al. (2018) drop the second-order term of H (`exact=False` here). The cost of all this does
not depend on how many iterations the solution took.

The costates are found with the gains K of that problem, as lambda_t = l_x + A' lambda_{t+1}
+ K' (l_u + B' lambda_{t+1}). What is added is zero at a solution. But A' alone amplifies roundings
over a long horizon as an unstable system does its states, and (A + B K)' does not: of a pendulum
held at an angle for 300 stages, the derivative was wrong by five orders of magnitude without it.
"""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mpc_gym.compiled.autograd import independent, recording
from mpc_gym.mpc.backend import Gradients
from mpc_gym.mpc.problem import Problem
from mpc_gym.mpc.reference.boxqp import masked

# Distance at which a control counts as being at its bound, relative to its size, and to the range
# of its bounds where that is less: in no unit of the control is it anything else.
BOUND_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Linearisation:
    """The optimality conditions of a solution, linearised, and their Riccati recursion."""

    F: Float[Tensor, "batch stages n_state N"]
    H: Float[Tensor, "batch time N N"]
    costate: Float[Tensor, "batch time n_state"]
    stationarity: Float[Tensor, "batch time n_ctrl"]  # l_u + B' lambda_{t+1}
    at_low: Bool[Tensor, "batch time n_ctrl"]
    at_high: Bool[Tensor, "batch time n_ctrl"]
    free: Bool[Tensor, "batch time n_ctrl"]  # where the solution depends on the control
    Q_uu: Float[Tensor, "batch time n_ctrl n_ctrl"]  # on the free controls, elsewhere identity
    Q_ux: Float[Tensor, "batch time n_ctrl n_state"]  # zero but for the free ones, and so is K
    K: Float[Tensor, "batch time n_ctrl n_state"]
    V: Float[Tensor, "batch time n_state n_state"]
    regular: Bool[Tensor, " batch"]


def linearise(
    problem: Problem,
    X: Float[Tensor, "batch time n_state"],
    U: Float[Tensor, "batch time n_ctrl"],
    *,
    exact: bool,
) -> Linearisation:
    """Costates, Hessian of the Lagrangian, active bounds and gains at a solution (X, U).

    The reduced Hessian need not be positive definite (the solution may be a saddle), so it is
    factorised by LU. Where it is singular there is no derivative.
    """
    n = X.shape[-1]
    expansion = problem.expand(X, U, second_order=exact)
    near = nearness(U, problem.low, problem.high)
    fixed = problem.low == problem.high
    lam, V = X.new_zeros(X[:, 0].shape), X.new_zeros(len(X), n, n)
    regular = torch.ones(len(X), dtype=torch.bool, device=X.device)
    stages: list[tuple[Tensor, ...]] = []
    for t in reversed(range(X.shape[1])):
        gradient, H = expansion.l_z[:, t], expansion.l_zz[:, t]
        Q = H
        if t < X.shape[1] - 1:
            F = expansion.F[:, t]
            gradient = gradient + (F.mT @ lam.unsqueeze(-1)).squeeze(-1)
            if expansion.f_zz is not None:
                H = H + torch.einsum("bi,bijk->bjk", lam, expansion.f_zz[:, t])
            Q = H + F.mT @ V @ F
        force = gradient[:, n:]
        rests = fixed[t] & (force == 0)
        at_low = (U[:, t] <= problem.low[t] + near[:, t]) & ((force > 0) | rests)
        at_high = (U[:, t] >= problem.high[t] - near[:, t]) & (force < 0)
        free = ~(at_low | at_high) & (Q[:, n:] != 0).any(-1)
        Q_ux = torch.where(free.unsqueeze(-1), Q[:, n:, :n], 0.0)
        Q_uu = masked(Q[:, n:, n:], free)
        K, info = torch.linalg.solve_ex(Q_uu, -Q_ux)
        if bool(info.any()):  # what is not used must not spoil a derivative of the rest
            regular = regular & (info == 0)
            identity = torch.eye(Q_uu.shape[-1], dtype=Q_uu.dtype, device=Q_uu.device)
            Q_uu = torch.where((info == 0)[:, None, None], Q_uu, identity)
            K = torch.linalg.solve_ex(Q_uu, -Q_ux).result
        V = Q[:, :n, :n] + Q_ux.mT @ K
        lam = gradient[:, :n] + (K.mT @ force.unsqueeze(-1)).squeeze(-1)
        stages.append((H, lam, force, at_low, at_high, free, Q_uu, Q_ux, K, V))
    names = [field.name for field in fields(Linearisation)][1:-1]
    columns = (torch.stack(each, 1) for each in zip(*stages[::-1], strict=True))
    return Linearisation(F=expansion.F, regular=regular, **dict(zip(names, columns, strict=True)))


def gradients(
    problem: Problem,
    X: Float[Tensor, "batch time n_state"],
    U: Float[Tensor, "batch time n_ctrl"],
    g_X: Float[Tensor, "batch time n_state"],
    g_U: Float[Tensor, "batch time n_ctrl"],
    g_cost: Float[Tensor, " batch"],
    *,
    exact: bool,
) -> Gradients:
    """Derivatives of a loss with respect to everything the solution (X, U) depends on."""
    n = X.shape[-1]
    lin = linearise(problem, X, U, exact=exact)
    g = torch.cat((g_X, g_U), -1)
    d, mu, regular = _solve_lq(lin, g)
    w = torch.where(regular, g_cost, 0.0)[:, None, None]
    clamped_force = (
        g_U
        + (lin.H[..., n:, :] @ d.unsqueeze(-1)).squeeze(-1)
        + _transpose_times(lin.F, mu)[..., n:]
        + w * lin.stationarity
    )
    clamped_force = torch.where(regular[:, None, None], clamped_force, 0.0)
    context, dynamics, cost = _parameter_gradients(problem, X, U, d, lin.costate, mu, w)
    return Gradients(
        x_init=mu[:, 0] + w[:, 0] * lin.costate[:, 0],
        low=torch.where(lin.at_low, clamped_force, 0.0).sum(0),
        high=torch.where(lin.at_high, clamped_force, 0.0).sum(0),
        context=context,
        dynamics=dynamics,
        cost=cost,
    )


def first_step(
    problem: Problem,
    X: Float[Tensor, "batch time n_state"],
    U: Float[Tensor, "batch time n_ctrl"],
    *,
    exact: bool,
) -> Float[Tensor, "batch n_ctrl"]:
    """`-Q''^-1 Q'` of the optimal cost Q as a function of the first controls; 0 where singular.

    (X, U) is a solution of the problem with tighter bounds on the first stage.
    """
    n = X.shape[-1]
    lin = linearise(problem, X, U, exact=exact)
    g = torch.zeros_like(torch.cat((X, U), -1))
    g[:, 0, n:] = lin.stationarity[:, 0]
    return _solve_lq(lin, g)[0][:, 0, n:]


def nearness(
    u: Float[Tensor, "*batch n_ctrl"],
    low: Float[Tensor, "*stages n_ctrl"],
    high: Float[Tensor, "*stages n_ctrl"],
) -> Float[Tensor, "*batch n_ctrl"]:
    """How far from a bound a control still counts as being there."""
    return BOUND_TOLERANCE * torch.minimum(u.abs(), high - low)


def _transpose_times(F: Tensor, costate: Tensor) -> Float[Tensor, "batch time N"]:
    """F_t' costate_{t+1}, zero at the last stage."""
    product = (F.mT @ costate[:, 1:].unsqueeze(-1)).squeeze(-1)
    return torch.cat((product, product.new_zeros(product.shape[0], 1, F.shape[-1])), 1)


def _solve_lq(lin: Linearisation, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Directions d, costates mu and whether the problem was regular; if not, d = mu = 0."""
    batch, T = g.shape[:2]
    n = lin.costate.shape[-1]
    v = g.new_zeros(batch, n)
    k, values = [], []
    for t in reversed(range(T)):
        q = g[:, t]
        if t < T - 1:
            q = q + (lin.F[:, t].mT @ v.unsqueeze(-1)).squeeze(-1)
        q_u = torch.where(lin.free[:, t], q[:, n:], 0.0).unsqueeze(-1)
        k.append(-torch.linalg.solve_ex(lin.Q_uu[:, t], q_u).result.squeeze(-1))
        v = q[:, :n] + (lin.Q_ux[:, t].mT @ k[-1].unsqueeze(-1)).squeeze(-1)
        values.append(v)
    dx = g.new_zeros(batch, n)
    d, mu = [], []
    for t in range(T):
        du = k[T - 1 - t] + (lin.K[:, t] @ dx.unsqueeze(-1)).squeeze(-1)
        mu.append(values[T - 1 - t] + (lin.V[:, t] @ dx.unsqueeze(-1)).squeeze(-1))
        d.append(torch.cat((dx, du), -1))
        if t < T - 1:
            dx = (lin.F[:, t] @ d[-1].unsqueeze(-1)).squeeze(-1)
    directions, costates = torch.stack(d, 1), torch.stack(mu, 1)
    regular = directions.isfinite().all(-1).all(-1) & costates.isfinite().all(-1).all(-1)
    regular = lin.regular & regular
    keep = regular[:, None, None]
    return torch.where(keep, directions, 0.0), torch.where(keep, costates, 0.0), regular


def _parameter_gradients(
    problem: Problem, X: Tensor, U: Tensor, d: Tensor, lam: Tensor, mu: Tensor, w: Tensor
) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
    """Derivatives with respect to context, the dynamics' parameters and the cost's.

    Trajectory, directions and costates are held.
    """
    n = X.shape[-1]
    keep = torch.is_grad_enabled()
    with recording():
        dynamics, cost = (
            [independent(p) if p.is_floating_point() else p for p in function.parameters()]
            for function in (problem.f, problem.l)
        )
        context = None if problem.context is None else independent(problem.context)
        inputs = [*dynamics, *cost, *([] if context is None else [context])]
        wanted = [value for value in inputs if value.requires_grad]
        if not wanted:
            return None, [*map(torch.zeros_like, dynamics)], [*map(torch.zeros_like, cost)]
        free = replace(
            problem,
            f=problem.f.with_parameters(dynamics),
            l=problem.l.with_parameters(cost),
            context=context,
        )
        Z = independent(torch.cat((X, U), -1))
        ell = free.l(Z[..., :n], Z[..., n:], context)
        stages = slice(0, problem.horizon - 1)
        f = free.f(Z[:, stages, :n], Z[:, stages, n:], free.context_at(stages))
        lagrangian = ell.sum() + (lam[:, 1:] * f).sum()
        (slope,) = torch.autograd.grad(lagrangian, Z, create_graph=True, materialize_grads=True)
        total = (w[..., 0] * ell).sum() + ((mu + w * lam)[:, 1:] * f).sum() + (slope * d).sum()
        slopes = iter(torch.autograd.grad(total, wanted, create_graph=keep, materialize_grads=True))
        found = [
            next(slopes) if value.requires_grad else torch.zeros_like(value) for value in inputs
        ]
    parameters = len(dynamics) + len(cost)
    return (
        None if context is None else found[-1],
        found[: len(dynamics)],
        found[len(dynamics) : parameters],
    )
