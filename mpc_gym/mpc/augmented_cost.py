"""The stage cost of a problem with constraints: the cost, and psi of each row.

See the top of `constraints.py` for psi. Multipliers and penalties come in through the context, so
that they may differ between instances and stages, and change without compiling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.models.base import (
    Cost,
    cost_size,
    dynamics_sizes,
    per_stage_parameters,
    takes_context,
)

if TYPE_CHECKING:
    from mpc_gym.mpc.constraints import Kinds, Rows


class OwnContext(nn.Module):
    """Dynamics that are given the context of an `AugmentedCost`, of which the beginning is theirs.

    Args:
        dynamics: with a context.
        n_context: of so many entries.
    """

    takes_context = True

    def __init__(self, dynamics: nn.Module, n_context: int) -> None:
        super().__init__()
        self.dynamics, self.n_context = dynamics, n_context
        self.n_state, self.n_ctrl = dynamics_sizes(dynamics)

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        """The next state."""
        following: Tensor = self.dynamics(state, control, context[..., : self.n_context])
        return following


class AugmentedCost(Cost):
    """A stage cost with psi of each row.

    The context is that of the cost and the constraints, if they have one, then lam, rho and
    lam^2 / (2 rho) (smoothed: mu), each [k], and w, [inequalities], if they are soft.

    Args:
        cost: the stage cost.
        rows: the constraints.
        kinds: of them.
        soft: whether a violation of the inequalities has a price.
        n_context: entries of the context of cost and constraints.
    """

    takes_context = True

    def __init__(
        self,
        cost: nn.Module,
        rows: Rows,
        kinds: Kinds,
        soft: bool,
        n_context: int,
    ) -> None:
        super().__init__()
        self.cost, self.rows = cost, rows
        self.size = cost_size(cost)
        self.per_stage_parameters = tuple(f"cost.{name}" for name in per_stage_parameters(cost))
        self.n_rows, self.inequalities = kinds.asked.shape[1], kinds.inequalities
        self.n_context = n_context
        self.soft = soft

    @property
    def shown_as(self) -> str:
        """See `RowFunction`."""
        return f"{type(self.cost).__name__} or {self.rows.shown_as}"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the parts of its context."""
        k = self.n_rows
        return self.n_context, k, k, k, self.inequalities if self.soft else 0

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        """The cost, and psi of all rows."""
        split = self.inequalities
        own, lam, rho, third, w = torch.split_with_sizes(context, self.sizes, -1)
        c = self.rows(state, control, own)
        first = slice(0, split)
        bent = self._bent(c[..., first], lam[..., first], rho[..., first], third[..., first], w)
        given = (state, control, own) if takes_context(self.cost) else (state, control)
        cost: Tensor = self.cost(*given) + bent.sum(-1)
        psi = c * (lam + 0.5 * rho * c)
        total: Tensor = cost + psi[..., split:].sum(-1)
        return total

    def _bent(self, c: Tensor, lam: Tensor, rho: Tensor, least: Tensor, w: Tensor) -> Tensor:
        """Psi of the inequalities."""
        p = lam + rho * c
        bent = torch.where(p > 0, c * (lam + 0.5 * rho * c), -least)
        if not self.soft:
            return bent
        beyond = w * c - (w - lam).square() / (2.0 * torch.where(rho > 0, rho, 1.0))
        return torch.where(p > w, beyond, bent)

    def multipliers(
        self,
        a: Float[Tensor, "*batch k"],
        rho: Float[Tensor, "..."],
        w: Float[Tensor, " inequalities"] | None,
        mu: float,
    ) -> Float[Tensor, "*batch k"]:
        """What follows from a = lam + rho c."""
        bent = a[..., : self.inequalities]
        if mu > 0:
            bent = _smoothed(bent, rho[..., : self.inequalities] * mu)[0]
        else:
            bent = bent.clamp(min=0.0)
        if w is not None:
            bent = torch.minimum(bent, w)
        return torch.cat((bent, a[..., self.inequalities :]), -1)

    def active(
        self,
        a: Float[Tensor, "*batch k"],
        rho: Float[Tensor, "..."],
        w: Float[Tensor, " inequalities"] | None,
        mu: float,
    ) -> Float[Tensor, "*batch k"]:
        """Derivative of the multipliers by a = lam + rho c."""
        bent = a[..., : self.inequalities]
        if mu > 0:
            p, root = _smoothed(bent, rho[..., : self.inequalities] * mu)
            part = torch.where(root > 0, p / root, 0.0)
        else:
            part = (bent > 0).to(a.dtype)
        if w is not None:
            part = torch.where(bent < w, part, 0.0)
        return torch.cat((part, torch.ones_like(a[..., self.inequalities :])), -1)


class SmoothedAugmentedCost(AugmentedCost):
    """The same with smoothing mu, which the context has in the place of lam^2 / (2 rho)."""

    def _bent(self, c: Tensor, lam: Tensor, rho: Tensor, mu: Tensor, _w: Tensor) -> Tensor:
        asked = rho > 0
        safe = torch.where(asked, rho, 1.0)
        a = lam + rho * c
        root = (a * a + 4.0 * safe * mu).sqrt()
        pressed = a > 0  # neither sum is a difference
        size = torch.where(pressed, a, -a) + root
        slack = torch.where(pressed, 2.0 * mu / size, size / (2.0 * safe))
        beyond = c + slack
        bent = beyond * (lam + 0.5 * rho * beyond) - mu * torch.log(slack)
        return torch.where(asked, bent, 0.0)


class RowsAndCost(nn.Module):
    """The rows of the constraints in an `AugmentedCost` and the cost itself, given its context."""

    takes_context = True

    def __init__(self, cost: AugmentedCost) -> None:
        super().__init__()
        self.cost = cost

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        """All rows, then the cost, [..., k + 1]."""
        augmented = self.cost
        own = context[..., : augmented.n_context]
        given = (state, control, own) if takes_context(augmented.cost) else (state, control)
        cost = augmented.cost(*given)
        return torch.cat((augmented.rows(state, control, own), cost.unsqueeze(-1)), -1)


def _smoothed(a: Tensor, rho_mu: Tensor) -> tuple[Tensor, Tensor]:
    """p, and the square root in it."""
    root = (a.square() + 4.0 * rho_mu).sqrt()
    size = a.abs() + root
    return torch.where(a > 0, 0.5 * size, 2.0 * rho_mu / torch.where(size > 0, size, 1.0)), root
