"""The backward pass of `ddp.py`: gains of an iteration, and what it promises."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mpc_gym.mpc.plan import Plan
from mpc_gym.mpc.problem import Expansion, Problem
from mpc_gym.mpc.reference.boxqp import masked, solve_box_qp

COST_ROUNDING = 4e-15  # of the size of the cost's terms: what no comparison of two costs can tell


@dataclass
class Gains:
    """The result of a backward pass."""

    k: Float[Tensor, "batch time n_ctrl"]
    K: Float[Tensor, "batch time n_ctrl n_state"]
    Q_uu: Float[Tensor, "batch time n_ctrl n_ctrl"]  # without damping
    q_u: Float[Tensor, "batch time n_ctrl"]
    slope: Float[Tensor, " batch"]  # derivative of the cost along k: sum of q_u' k
    change: Float[Tensor, " batch"]  # of the cost by k, to second order
    pull: Float[Tensor, " batch"]  # of the gradient: sum of |q_u u| over the controls that move
    convex: Bool[Tensor, "batch time"]  # the program of the stage was convex, and solved
    size: Float[Tensor, " batch"]  # of the cost's terms

    @property
    def usable(self) -> Bool[Tensor, " batch"]:
        """Whether the programs of all stages were convex."""
        return self.convex.all(1)

    @property
    def noise(self) -> Float[Tensor, " batch"]:
        """How far two costs may differ by rounding."""
        return COST_ROUNDING * self.size

    def rows(self, index: Int[Tensor, " rows"]) -> "Gains":
        """Some instances of the batch."""
        return Gains(*(value[index] for value in vars(self).values()))


def backward_pass(
    problem: Problem, expansion: Expansion, at: Plan, second_order: Tensor, mu: Tensor
) -> Gains:
    """The gains at a plan.

    Args:
        problem: of the plan.
        expansion: of the problem there.
        at: the plan.
        second_order: whether the second derivatives of the dynamics count, [batch].
        mu: regularisation, [batch].
    """
    U = at.controls
    batch, T, m = U.shape
    n = expansion.l_z.shape[-1] - m
    v = U.new_zeros(batch, n)
    V = U.new_zeros(batch, n, n)
    stages: list[tuple[Tensor, ...]] = []
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
        low, high = problem.low[t], problem.high[t]
        damped = Q_uu + torch.diag_embed(_damping(Q_uu, q_u, high - low, mu))
        k, free, positive = solve_box_qp(damped, q_u, low - U[:, t], high - U[:, t])
        free_ux = torch.where(free.unsqueeze(-1), Q_ux, 0.0)
        K = -torch.linalg.solve_ex(masked(damped, free), free_ux).result
        force = (Q_uu @ k.unsqueeze(-1)).squeeze(-1) + q_u
        v = q_x + (K.mT @ force.unsqueeze(-1) + Q_ux.mT @ k.unsqueeze(-1)).squeeze(-1)
        cross = K.mT @ Q_ux
        V = Q_xx + K.mT @ Q_uu @ K + cross + cross.mT
        V = 0.5 * (V + V.mT)
        convex = positive & k.isfinite().all(-1)
        slope, change = (q_u * k).sum(-1), (0.5 * (force + q_u) * k).sum(-1)
        pull = torch.where(k == 0, 0.0, (q_u * U[:, t]).abs()).detach().sum(-1)
        stages.append((k, K, Q_uu, q_u, slope, change, pull, convex))
    k, K, Q_uu, q_u, slopes, changes, pulls, convex = (
        torch.stack(each, 1) for each in zip(*stages[::-1], strict=True)
    )
    size = _cost_size(problem, expansion, at)
    return Gains(k, K, Q_uu, q_u, slopes.sum(1), changes.sum(1), pulls.sum(1), convex, size)


@torch.no_grad()
def _damping(Q_uu: Tensor, q_u: Tensor, ranges: Tensor, mu: Tensor) -> Tensor:
    """mu s: in proportion to a control's curvature, and to that which keeps it in its bounds."""
    bounded = torch.where(ranges > 0, q_u.abs() / ranges, 0.0)
    s = Q_uu.diagonal(dim1=-2, dim2=-1).abs() + bounded
    return mu.unsqueeze(-1) * torch.where(s > 0, s, 1.0)


@torch.no_grad()
def _cost_size(problem: Problem, expansion: Expansion, at: Plan) -> Tensor:
    """Sum of |l|, |z_i dl/dz_i| and 1/2 |z_i z_j d2l/dz_i dz_j| over the stages.

    That of l alone misses that a cost of zero may be a difference of large terms.
    """
    z = torch.cat((at.states, at.controls), -1).abs()
    curved = 0.5 * (expansion.l_zz.abs() @ z.unsqueeze(-1)).squeeze(-1)
    l = problem.l(at.states, at.controls, problem.context)
    size: Tensor = (l.abs() + (z * (expansion.l_z.abs() + curved)).sum(-1)).sum(-1)
    return size
