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
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mpc_gym.compiled.autograd import independent, recording
from mpc_gym.mpc.backend import Gradients
from mpc_gym.mpc.problem import Expansion, Problem
from mpc_gym.mpc.reference.boxqp import masked

# Distance at which a control counts as being at its bound, relative to its size, and to the range
# of its bounds where that is less: in no unit of the control is it anything else.
BOUND_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Linearisation:
    """The optimality conditions of a solution, linearised."""

    F: Float[Tensor, "batch stages n_state N"]
    H: Float[Tensor, "batch time N N"]
    costate: Float[Tensor, "batch time n_state"]
    stationarity: Float[Tensor, "batch time n_ctrl"]  # l_u + B' lambda_{t+1}
    at_low: Bool[Tensor, "batch time n_ctrl"]
    at_high: Bool[Tensor, "batch time n_ctrl"]


def linearise(
    problem: Problem,
    X: Float[Tensor, "batch time n_state"],
    U: Float[Tensor, "batch time n_ctrl"],
    *,
    exact: bool,
) -> Linearisation:
    """Costates, Hessian of the Lagrangian and active bounds at a solution (X, U)."""
    n = X.shape[-1]
    expansion = problem.expand(X, U, second_order=exact)
    lam = _costates(expansion, n)
    H = expansion.l_zz
    if expansion.f_zz is not None:
        curvature = torch.einsum("bti,btijk->btjk", lam[:, 1:], expansion.f_zz)
        H = torch.cat((H[:, :-1] + curvature, H[:, -1:]), 1)
    stationarity = expansion.l_z[..., n:] + _transpose_times(expansion.F, lam)[..., n:]
    near = nearness(U, problem.low, problem.high)
    fixed = problem.low == problem.high
    return Linearisation(
        F=expansion.F,
        H=H,
        costate=lam,
        stationarity=stationarity,
        at_low=(U <= problem.low + near) & ((stationarity > 0) | (fixed & (stationarity == 0))),
        at_high=(U >= problem.high - near) & (stationarity < 0),
    )


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


def _costates(expansion: Expansion, n: int) -> Float[Tensor, "batch time n_state"]:
    lam = [expansion.l_z[:, -1, :n]]
    for t in reversed(range(expansion.F.shape[1])):
        A = expansion.F[:, t, :, :n]
        lam.append(expansion.l_z[:, t, :n] + (A.mT @ lam[-1].unsqueeze(-1)).squeeze(-1))
    return torch.stack(lam[::-1], 1)


def _transpose_times(F: Tensor, costate: Tensor) -> Float[Tensor, "batch time N"]:
    """F_t' costate_{t+1}, zero at the last stage."""
    product = (F.mT @ costate[:, 1:].unsqueeze(-1)).squeeze(-1)
    return torch.cat((product, product.new_zeros(product.shape[0], 1, F.shape[-1])), 1)


def _solve_lq(lin: Linearisation, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Directions d, costates mu and whether the problem was regular, by a Riccati recursion.

    The reduced Hessian need not be positive definite (the solution may be a saddle), so it is
    factorised by LU. Where it is singular the derivative does not exist, and d = mu = 0.
    """
    batch, T = g.shape[:2]
    n = lin.costate.shape[-1]
    free = ~(lin.at_low | lin.at_high)
    V, v = g.new_zeros(batch, n, n), g.new_zeros(batch, n)
    regular = torch.ones(batch, dtype=torch.bool, device=g.device)
    k, K, values = [], [], []
    for t in reversed(range(T)):
        Q, q = lin.H[:, t], g[:, t]
        if t < T - 1:
            F = lin.F[:, t]
            Q = Q + F.mT @ V @ F
            q = q + (F.mT @ v.unsqueeze(-1)).squeeze(-1)
        free_t = free[:, t] & (Q[:, n:] != 0).any(-1)  # where the solution depends on the control
        Q_ux = torch.where(free_t.unsqueeze(-1), Q[:, n:, :n], 0.0)
        q_u = torch.where(free_t, q[:, n:], 0.0)
        right = torch.cat((q_u.unsqueeze(-1), Q_ux), -1)
        Q_uu = masked(Q[:, n:, n:], free_t)
        gains, info = torch.linalg.solve_ex(Q_uu, right)
        if bool(info.any()):  # what is not used must not spoil a derivative of the rest
            regular = regular & (info == 0)
            identity = torch.eye(Q_uu.shape[-1], dtype=Q_uu.dtype, device=Q_uu.device)
            Q_uu = torch.where((info == 0)[:, None, None], Q_uu, identity)
            gains = torch.linalg.solve_ex(Q_uu, right).result
        k_t, K_t = -gains[..., 0], -gains[..., 1:]
        V = Q[:, :n, :n] + Q_ux.mT @ K_t
        v = q[:, :n] + (Q_ux.mT @ k_t.unsqueeze(-1)).squeeze(-1)
        k.append(k_t)
        K.append(K_t)
        values.append((V, v))
    dx = g.new_zeros(batch, n)
    d, mu = [], []
    for t in range(T):
        V, v = values[T - 1 - t]
        du = k[T - 1 - t] + (K[T - 1 - t] @ dx.unsqueeze(-1)).squeeze(-1)
        mu.append(v + (V @ dx.unsqueeze(-1)).squeeze(-1))
        d.append(torch.cat((dx, du), -1))
        if t < T - 1:
            dx = (lin.F[:, t] @ d[-1].unsqueeze(-1)).squeeze(-1)
    directions, costates = torch.stack(d, 1), torch.stack(mu, 1)
    regular = regular & directions.isfinite().all(-1).all(-1) & costates.isfinite().all(-1).all(-1)
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
