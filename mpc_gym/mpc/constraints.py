"""Constraints on states and controls, by an augmented Lagrangian around the solver.

    minimise    sum_t l(x_t, u_t)
    subject to  c(x_t, u_t) <= 0 at every stage (rows without u: not at the first, whose state is
                given),   c_T(x_{T-1}) <= 0,   e(x_{T-1}) = 0,   low <= u_t <= high

With a multiplier lam and a penalty rho > 0 for each row and stage, the solver minimises the cost
and, for each row,

    psi(c) = c (lam + rho c / 2)   where lam + rho c > 0,   -lam^2 / (2 rho)   elsewhere

(for an equality the first throughout), whose derivative is p = max(0, lam + rho c). Then lam takes
the value of p, and so on until neither changes (Hestenes 1969, Powell 1969, Rockafellar 1973;
around DDP: Howell, Jackson & Manchester 2019, "ALTRO"). rho grows where that is slow. A soft
constraint, which may be violated at the price w max(0, c), is the same with p clipped to [0, w].

The derivative. The plan z is a function of the multipliers and of all parameters; at the end the
multipliers are lam = p(lam + rho c(z)), and so a function of the parameters, too. For a loss with
gradient g in z, let C be the active rows' derivative by z. What v does the iteration

    v <- v + z_lam' (g + rho C' v)      on the active rows, zero on the others

end at (it contracts by 1 / (1 + rho s), where s is their stiffness C H^-1 C')? Then the derivative
of the loss is that of a plan with fixed multipliers and the gradient g + rho C' v, together with
that of rho v' c by the constraints' parameters. A row is active where lam + rho c > 0: one that is
zero with a multiplier of zero counts as inactive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mpc_gym.models.base import (
    Cost,
    cost_size,
    dynamics_sizes,
    per_stage_parameters,
    takes_context,
)


class Rows(nn.Module):
    """All rows of a controller's constraints at a stage: c, then c_T, then e.

    Args:
        constraints: c, [..., n_state], [..., n_ctrl] (and the context) -> [..., k]; or None.
        terminal_constraints: c_T, [..., n_state] -> [..., k]; or None.
        terminal_equalities: e, likewise.
    """

    NAMES = ("constraints", "terminal_constraints", "terminal_equalities")

    def __init__(
        self,
        constraints: nn.Module | None,
        terminal_constraints: nn.Module | None,
        terminal_equalities: nn.Module | None,
    ) -> None:
        super().__init__()
        self.constraints = constraints
        self.terminal_constraints = terminal_constraints
        self.terminal_equalities = terminal_equalities
        self.takes_context = constraints is not None and takes_context(constraints)

    def parts(self, state: Tensor, control: Tensor, context: Tensor | None) -> dict[str, Tensor]:
        """c, c_T and e by name, as far as there are."""
        found: dict[str, Tensor] = {}
        for name in self.NAMES:
            module = getattr(self, name)
            if module is not None:
                given: tuple[Tensor | None, ...] = (state,)
                if name == "constraints":
                    given = (state, control, context) if self.takes_context else (state, control)
                found[name] = module(*given)
        return found

    def forward(self, state: Tensor, control: Tensor, context: Tensor | None = None) -> Tensor:
        """All of them, [..., k]."""
        return torch.cat(list(self.parts(state, control, context).values()), -1)


@dataclass(frozen=True)
class Kinds:
    """What is asked of each row.

    Attributes:
        asked: at which stages.
        inequalities: the first so many rows are at most zero, the others zero.
    """

    asked: Bool[Tensor, "time k"]
    inequalities: int

    @classmethod
    @torch.no_grad()
    def of(cls, rows: Rows, x_init: Tensor, U: Tensor, context: Tensor | None) -> Kinds:
        """Those of the rows, from their values at start states [batch, n] and controls U.

        A row depends on the control where that spoils it, if it is no number.

        Raises:
            TypeError: a module returns no float64 tensor.
            ValueError: it returns one of another shape than [..., k].
        """
        horizon = U.shape[1]
        X = x_init.unsqueeze(1).expand(-1, horizon, -1)
        parts = {}
        for name in rows.NAMES:
            if getattr(rows, name) is not None:
                parts[name] = _checked(rows, name, X, U, context)
        widths = {name: part.shape[-1] for name, part in parts.items()}
        asked = torch.zeros(horizon, sum(widths.values()), dtype=torch.bool, device=U.device)
        asked[-1] = True
        width = widths.get("constraints", 0)
        if width:
            spoilt = rows.parts(X[:1, :1], torch.full_like(U[:1, :1], torch.nan), _first(context))
            asked[1:, :width] = True
            asked[0, :width] = spoilt["constraints"][0, 0].isnan()
        return cls(asked, len(asked[0]) - widths.get("terminal_equalities", 0))

    def violation(self, c: Float[Tensor, "batch time k"]) -> Float[Tensor, "batch time k"]:
        """By how much the values of the rows are not what is asked."""
        split = self.inequalities
        wrong = torch.cat((c[..., :split].clamp(min=0.0), c[..., split:].abs()), -1)
        return torch.where(self.asked, wrong, 0.0)


def _first(context: Tensor | None) -> Tensor | None:
    return None if context is None else context[:1, :1]


def _checked(rows: Rows, name: str, X: Tensor, U: Tensor, context: Tensor | None) -> Tensor:
    alone = Rows(**{each: getattr(rows, each) if each == name else None for each in rows.NAMES})
    try:
        found: object = alone.parts(X, U, context)[name]
    except TypeError as error:
        takes = "the state and the control" if name == "constraints" else "the state alone"
        raise TypeError(f"{name} must take {takes}: {error}") from error
    if not isinstance(found, Tensor):
        raise TypeError(f"{name} must return a tensor, got {type(found).__name__}")
    if found.ndim != X.ndim or found.shape[:-1] != X.shape[:-1] or found.shape[-1] == 0:
        raise ValueError(
            f"{name} must map states {list(X.shape)} to {[*X.shape[:-1], 'k']}, a number for each "
            f"row of what must not be positive, got {list(found.shape)}"
        )
    if found.dtype != torch.float64:
        raise TypeError(
            f"{name} must compute in the dtype of its inputs, torch.float64, got {found.dtype}; "
            "cast its constants with .to(state.dtype)"
        )
    return found


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
    lam^2 / (2 rho), each [k].

    Args:
        cost: the stage cost.
        rows: the constraints.
        kinds: of them.
        soft: the price w of the violation of an inequality, a number or one for each; None: hard.
        n_context: entries of the context of cost and constraints.
    """

    takes_context = True

    def __init__(
        self,
        cost: nn.Module,
        rows: Rows,
        kinds: Kinds,
        soft: Float[Tensor, "..."] | None,
        n_context: int,
    ) -> None:
        super().__init__()
        self.cost, self.rows = cost, rows
        self.size = cost_size(cost)
        self.per_stage_parameters = tuple(f"cost.{name}" for name in per_stage_parameters(cost))
        self.n_rows, self.inequalities = kinds.asked.shape[1], kinds.inequalities
        self.n_context = n_context
        if isinstance(soft, nn.Parameter):
            self.soft: Tensor | None = soft
        else:
            self.register_buffer("soft", soft)

    def own(self, state: Tensor, control: Tensor, context: Tensor | None) -> Tensor:
        """The cost alone."""
        given = (state, control, context) if takes_context(self.cost) else (state, control)
        cost: Tensor = self.cost(*given)
        return cost

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        """The cost, and psi of all rows."""
        k = self.n_rows
        sizes = (self.n_context, k, k, k)
        own, lam, rho, least = torch.split_with_sizes(context, sizes, -1)
        c = self.rows(state, control, own)
        p = lam + rho * c
        psi = c * (lam + 0.5 * rho * c)
        first = slice(0, self.inequalities)
        bent = torch.where(p > 0, psi, -least)[..., first]
        if self.soft is not None:
            w, lam, rho = self.soft.to(c.dtype), lam[..., first], rho[..., first]
            beyond = w * c[..., first] - (w - lam).square() / (2.0 * torch.where(rho > 0, rho, 1.0))
            bent = torch.where(p[..., first] > w, beyond, bent)
        cost: Tensor = self.own(state, control, own) + bent.sum(-1)
        total: Tensor = cost + psi[..., self.inequalities :].sum(-1)
        return total

    def multipliers(self, p: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        """What follows from lam + rho c."""
        bent = p[..., : self.inequalities].clamp(min=0.0)
        if self.soft is not None:
            bent = torch.minimum(bent, self.soft.to(p.dtype))
        return torch.cat((bent, p[..., self.inequalities :]), -1)

    def active(self, p: Float[Tensor, "*batch k"]) -> Bool[Tensor, "*batch k"]:
        """Where the multipliers follow lam + rho c."""
        bent = p[..., : self.inequalities] > 0
        if self.soft is not None:
            bent = bent & (p[..., : self.inequalities] < self.soft)
        return torch.cat((bent, torch.ones_like(p[..., self.inequalities :], dtype=torch.bool)), -1)
