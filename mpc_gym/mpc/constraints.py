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

With smoothing mu > 0, an inequality's multiplier p and slack s = -c have the product mu instead:

    psi(c) = min over s > 0 of  lam (c + s) + rho (c + s)^2 / 2 - mu log s

whose derivative is p = (a + sqrt(a^2 + 4 rho mu)) / 2 = mu / s, where a = lam + rho c.

The derivative. The plan z is a function of the multipliers and of all parameters; at the end the
multipliers are lam = p(lam + rho c(z)), and so a function of the parameters, too. For a loss with
gradient g in z, let C be the active rows' derivative by z. What v does the iteration

    v <- v + z_lam' (g + rho C' v)      on the active rows, zero on the others

end at (it contracts by 1 / (1 + rho s), where s is their stiffness C H^-1 C')? Then the derivative
of the loss is that of a plan with fixed multipliers and the gradient g + rho C' v, together with
that of rho v' c by the constraints' parameters. A row is active where lam + rho c > 0: one that is
zero with a multiplier of zero counts as inactive. With smoothing each inequality is active in part,
by dp/da = p / sqrt(a^2 + 4 rho mu), and the iteration is v <- dp/da (v + z_lam' (g + rho C' v)).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mpc_gym.functional import LOCK
from mpc_gym.models.base import takes_context
from mpc_gym.mpc.model_checks import check_constraint
from mpc_gym.mpc.problem import RowFunction


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

    def only(self, name: str) -> Rows:
        """Those of one module."""
        return Rows(*(getattr(self, each) if each == name else None for each in self.NAMES))

    @property
    def shown_as(self) -> str:
        """See `RowFunction`."""
        return " or ".join(type(part).__name__ for part in self.children())

    def forward(self, state: Tensor, control: Tensor, context: Tensor | None = None) -> Tensor:
        """All of them, [..., k]."""
        found: list[Tensor] = []
        if self.constraints is not None:
            given = (state, control, context) if self.takes_context else (state, control)
            found.append(self.constraints(*given))
        last = (self.terminal_constraints, self.terminal_equalities)
        found += [module(state) for module in last if module is not None]
        return found[0] if len(found) == 1 else torch.cat(found, -1)


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

        A row depends on the control where a control that is no number spoils it, and another
        changes it.

        Raises:
            TypeError: a module takes other arguments, or returns no float64 tensor.
            ValueError: it fails, does not map each row on its own, or returns another shape than
                [..., k].
        """
        parts = {name: rows.only(name) for name in rows.NAMES if getattr(rows, name) is not None}
        widths = {}
        for name, part in parts.items():
            widths[name] = _checked_width(name, part, x_init, U, context)
        asked = torch.zeros(U.shape[1], sum(widths.values()), dtype=torch.bool, device=U.device)
        asked[-1] = True
        width = widths.get("constraints", 0)
        if width:
            c = RowFunction.of(parts["constraints"])
            x, u = _probe(x_init), _probe(U[:, 0])
            given = None if context is None else _probe(context[:, 0])
            now = c(x, u, given)
            spoilt = c(x, torch.full_like(u, torch.nan), given).isnan() & ~now.isnan()
            change = torch.linspace(0.5, 1.5, u.shape[-1], dtype=u.dtype, device=u.device)
            changed = (c(x, u + change, given) != now) | (c(x, u - change, given) != now)
            asked[1:, :width] = True
            asked[0, :width] |= (spoilt & changed).any(0)
        return cls(asked, len(asked[0]) - widths.get("terminal_equalities", 0))

    def violation(self, c: Float[Tensor, "batch time k"]) -> Float[Tensor, "batch time k"]:
        """By how much the values of the rows are not what is asked."""
        split = self.inequalities
        wrong = torch.cat((c[..., :split].clamp(min=0.0), c[..., split:].abs()), -1)
        return torch.where(self.asked, wrong, 0.0)


def _probe(values: Float[Tensor, "batch n"]) -> Float[Tensor, "more n"]:
    """The values without what is no number, and zeros, as there may be none."""
    return torch.cat((values.nan_to_num(0.0, 0.0, 0.0), values.new_zeros(1, values.shape[1])))


def _checked_width(name: str, part: Rows, x_init: Tensor, U: Tensor, context: Tensor | None) -> int:
    """The number of rows of a module, which is called and checked."""
    X = x_init.unsqueeze(1).expand(-1, U.shape[1], -1)
    function = RowFunction.of(part)
    try:
        found: object = function(X, U, context)
    except TypeError as error:
        takes = "the state and the control" if name == "constraints" else "the state alone"
        raise TypeError(f"{name} must take {takes}: {error}") from error
    except (RuntimeError, IndexError, ValueError) as error:
        raise ValueError(
            f"{name} fails on states {list(X.shape)} and controls {list(U.shape)}: {error}"
        ) from error
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
    with LOCK:
        check_constraint(name, function, x_init, U, context)
    return found.shape[-1]
