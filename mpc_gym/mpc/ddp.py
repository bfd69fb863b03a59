"""Box-constrained differential dynamic programming, in readable PyTorch.

Solves the problem stated in `problem.py` after Tassa, Mansard & Todorov (2014), "Control-limited
differential dynamic programming", ICRA, with the exact second derivatives of the dynamics. With
v, V the gradient and Hessian of the value at stage t + 1 and F = [A B] the Jacobian of f,

    q = grad l + F' v,    Q = hess l + F' V F + sum_i v_i hess f_i,

each stage minimises 1/2 k' Q_uu k + q_u' k within the bounds; K = -Q_uu^-1 Q_ux on the controls
that are free there and zero on the clamped ones. The forward pass applies
u + alpha k + K (x_new - x), clipped, for the first alpha in 1, 1/2, 1/4 ... that decreases the
cost enough. Where Q_uu is not positive definite or no alpha does, the iteration is done again
without the last term of Q (Gauss-Newton), and only then with Q_uu + mu s I, where s is the largest
entry of hess l: the iterates do not depend on the unit of the cost.

Every instance of the batch has its own step length, mode and regularisation, and leaves the
iteration when max |k| <= tolerance, after taking that last step, which makes the error that is
left quadratic in the tolerance. Everything is built from differentiable operations, so that
autograd through the iterations ("unrolled" differentiation) works too.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mpc_gym.mpc.boxqp import masked, solve_box_qp
from mpc_gym.mpc.problem import Expansion, Problem

STEP_LENGTHS = tuple(0.5**i for i in range(10))
SUFFICIENT_DECREASE = 1e-4
COST_ROUNDING = 1e-12  # of |cost| + s: rounding error, by which an accepted step may raise it
MU_MIN, MU_MAX, MU_FACTOR = 1e-4, 1e12, 8.0


@dataclass
class Solution:
    """States, controls and cost at the last iterate of every instance."""

    X: Float[Tensor, "batch time n_state"]
    U: Float[Tensor, "batch time n_ctrl"]
    cost: Float[Tensor, " batch"]
    converged: Bool[Tensor, " batch"]
    iterations: Int[Tensor, " batch"]

    @classmethod
    def unsolved(
        cls, x_init: Float[Tensor, "batch n_state"], U: Float[Tensor, "batch time n_ctrl"]
    ) -> "Solution":
        """Where nothing can be solved: states and cost NaN, controls U."""
        batch, horizon = U.shape[:2]
        return cls(
            X=x_init.new_full((batch, horizon, x_init.shape[1]), torch.nan),
            U=U,
            cost=x_init.new_full((batch,), torch.nan),
            converged=torch.zeros(batch, dtype=torch.bool, device=U.device),
            iterations=torch.zeros(batch, dtype=torch.long, device=U.device),
        )

    def rows(self, index: Int[Tensor, " rows"]) -> "Solution":
        """Some instances of the batch."""
        return Solution(*(value[index] for value in vars(self).values()))

    def with_rows(self, index: Int[Tensor, " rows"], other: "Solution") -> "Solution":
        """The same with some instances replaced by those of another solution."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Solution(*(mine.index_copy(0, index, theirs) for mine, theirs in pairs))


@dataclass
class Gains:
    """The result of a backward pass."""

    k: Float[Tensor, "batch time n_ctrl"]
    K: Float[Tensor, "batch time n_ctrl n_state"]
    slope: Float[Tensor, " batch"]  # derivative of the cost along k: sum of q_u' k
    convex: Bool[Tensor, " batch"]  # the program of every stage was convex
    scale: Float[Tensor, " batch"]  # s, the size of the cost's Hessian

    def rows(self, index: Int[Tensor, " rows"]) -> "Gains":
        """Some instances of the batch."""
        return Gains(
            self.k[index],
            self.K[index],
            self.slope[index],
            self.convex[index],
            self.scale[index],
        )


def solve(
    problem: Problem,
    x_init: Float[Tensor, "batch n_state"],
    U: Float[Tensor, "batch time n_ctrl"],
    *,
    exact: bool,
    tolerance: float,
    max_iterations: int,
) -> Solution:
    """Minimise from the controls U (within the bounds).

    Args:
        exact: use the second derivatives of the dynamics; otherwise Gauss-Newton throughout.
        tolerance: largest change of a control at convergence.
        max_iterations: after which an instance is given up as not converged.
    """
    X = problem.rollout(x_init, U)
    cost = problem.total_cost(X, U)
    batch = x_init.shape[0]
    converged = torch.zeros(batch, dtype=torch.bool, device=U.device)
    iterations = torch.zeros(batch, dtype=torch.long, device=U.device)
    second_order = torch.full_like(converged, exact)
    mu = torch.zeros_like(cost, requires_grad=False)
    active = cost.isfinite().nonzero()[:, 0]
    for _ in range(max_iterations):
        if active.numel() == 0:
            break
        rows = problem.rows(active)
        x, u, J = X[active], U[active], cost[active]
        expansion = rows.expand(x, u, second_order=exact)
        gains, mode, damping = _convex_gains(rows, expansion, u, second_order[active], mu[active])
        x_new, u_new, J_new, accepted = _line_search(rows, x, u, J, gains)
        X = X.index_copy(0, active, x_new)
        U = U.index_copy(0, active, u_new)
        cost = cost.index_copy(0, active, J_new)
        done = (gains.k.abs().amax((1, 2)) <= tolerance) & (damping == 0)
        lowered = torch.where(damping > MU_MIN, damping / MU_FACTOR, 0.0)
        raised = torch.where(mode, damping, (damping * MU_FACTOR).clamp(min=MU_MIN))
        mu[active] = torch.where(accepted, lowered, raised).detach()
        second_order[active] = accepted & exact
        iterations[active] += 1
        converged[active] = done
        active = active[~done & (mu[active] <= MU_MAX)]
    return Solution(X, U, cost, converged, iterations)


def _convex_gains(
    problem: Problem, expansion: Expansion, U: Tensor, second_order: Tensor, mu: Tensor
) -> tuple[Gains, Tensor, Tensor]:
    """Gains from a convex expansion, with the mode and the regularisation that made it so."""
    gains = _backward_pass(problem, expansion, U, second_order, mu)
    while bool((failed := ~gains.convex & (mu <= MU_MAX)).any()):
        mu = torch.where(failed & ~second_order, (mu * MU_FACTOR).clamp(min=MU_MIN), mu)
        second_order = second_order & ~failed
        gains = _backward_pass(problem, expansion, U, second_order, mu)
    return gains, second_order, mu


def _backward_pass(
    problem: Problem, expansion: Expansion, U: Tensor, second_order: Tensor, mu: Tensor
) -> Gains:
    batch, T, m = U.shape
    n = expansion.l_z.shape[-1] - m
    v = U.new_zeros(batch, n)
    V = U.new_zeros(batch, n, n)
    slope = U.new_zeros(batch)
    convex = torch.ones_like(second_order)
    scale = expansion.l_zz.detach().abs().amax((1, 2, 3))
    scale = torch.where(scale == 0, 1.0, scale)
    damping = (mu * scale)[:, None, None] * torch.eye(m, dtype=U.dtype, device=U.device)
    k: list[Tensor] = []
    K: list[Tensor] = []
    for t in reversed(range(T)):
        q, Q = expansion.l_z[:, t], expansion.l_zz[:, t]
        if t < T - 1:
            F = expansion.F[:, t]
            q = q + (F.mT @ v.unsqueeze(-1)).squeeze(-1)
            Q = Q + F.mT @ V @ F
            if expansion.f_zz is not None:
                curvature = torch.einsum("bi,bijk->bjk", v, expansion.f_zz[:, t])
                Q = Q + torch.where(second_order[:, None, None], curvature, 0.0)
        q_x, q_u = q[:, :n], q[:, n:]
        Q_xx, Q_ux, Q_uu = Q[:, :n, :n], Q[:, n:, :n], Q[:, n:, n:]
        damped = Q_uu + damping
        k_t, free, positive = solve_box_qp(
            damped, q_u, problem.low[t] - U[:, t], problem.high[t] - U[:, t]
        )
        convex = convex & positive
        free_ux = torch.where(free.unsqueeze(-1), Q_ux, 0.0)
        K_t = -torch.linalg.solve_ex(masked(damped, free), free_ux).result
        slope = slope + (q_u * k_t).sum(-1)
        force = (Q_uu @ k_t.unsqueeze(-1)).squeeze(-1) + q_u
        v = q_x + (K_t.mT @ force.unsqueeze(-1) + Q_ux.mT @ k_t.unsqueeze(-1)).squeeze(-1)
        cross = K_t.mT @ Q_ux
        V = Q_xx + K_t.mT @ Q_uu @ K_t + cross + cross.mT
        V = 0.5 * (V + V.mT)
        k.append(k_t)
        K.append(K_t)
    return Gains(torch.stack(k[::-1], 1), torch.stack(K[::-1], 1), slope, convex, scale)


def _line_search(
    problem: Problem, X: Tensor, U: Tensor, cost: Tensor, gains: Gains
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first sufficient step of each instance, and whether there was one.

    The full step is tried for all; where it fails, the shorter ones are tried side by side.
    """
    X_new, U_new, cost_new, accepted = _try_steps(problem, X, U, cost, gains, STEP_LENGTHS[:1])
    retry = (~accepted & gains.convex).nonzero()[:, 0]
    if retry.numel():
        shorter = _try_steps(
            problem.rows(retry),
            X[retry],
            U[retry],
            cost[retry],
            gains.rows(retry),
            STEP_LENGTHS[1:],
        )
        X_new = X_new.index_copy(0, retry, shorter[0])
        U_new = U_new.index_copy(0, retry, shorter[1])
        cost_new = cost_new.index_copy(0, retry, shorter[2])
        accepted = accepted.index_copy(0, retry, shorter[3])
    return X_new, U_new, cost_new, accepted


def _try_steps(
    problem: Problem,
    X: Tensor,
    U: Tensor,
    cost: Tensor,
    gains: Gains,
    step_lengths: tuple[float, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Roll out every step length; keep the first sufficient one, else the iterate as it is."""
    batch = U.shape[0]
    copies = len(step_lengths)
    index = torch.arange(batch, device=U.device).repeat(copies)  # (copies * batch,)
    alpha = torch.tensor(step_lengths, dtype=U.dtype, device=U.device).repeat_interleave(batch)
    X_try, U_try = _feedback_rollout(problem.rows(index), X[index], U[index], gains, index, alpha)
    cost_try = problem.rows(index).total_cost(X_try, U_try)
    enough = SUFFICIENT_DECREASE * alpha * gains.slope[index]
    slack = COST_ROUNDING * (gains.scale + cost.abs())[index]
    sufficient = (cost_try <= cost[index] + enough + slack) & gains.convex[index]
    sufficient = sufficient.reshape(copies, batch)
    accepted = sufficient.any(0)
    chosen = sufficient.int().argmax(0) * batch + torch.arange(batch, device=U.device)
    keep = accepted[:, None, None]
    return (
        torch.where(keep, X_try[chosen], X),
        torch.where(keep, U_try[chosen], U),
        torch.where(accepted, cost_try[chosen], cost),
        accepted,
    )


def _feedback_rollout(
    problem: Problem, X: Tensor, U: Tensor, gains: Gains, index: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor]:
    """States and controls under u + alpha k + K (x_new - x), clipped to the bounds."""
    U_ff = U + alpha[:, None, None] * gains.k[index]
    K = gains.K[index]
    x = X[:, 0]
    states, controls = [], []
    for t in range(problem.horizon):
        u = U_ff[:, t] + (K[:, t] @ (x - X[:, t]).unsqueeze(-1)).squeeze(-1)
        u = torch.minimum(torch.maximum(u, problem.low[t]), problem.high[t])
        states.append(x)
        controls.append(u)
        if t < problem.horizon - 1:
            x = problem.f(x, u, problem.context_at(t))
    return torch.stack(states, 1), torch.stack(controls, 1)
