"""The control problem as the solver sees it: float64, batched, with first and second derivatives.

    minimise    sum_{t=0}^{T-1} l(x_t, u_t)
    subject to  x_0 = x_init,  x_{t+1} = f(x_t, u_t)  (t = 0 .. T-2),  low_t <= u_t <= high_t

Dynamics and cost map every row of a batch on its own (see `Dynamics`), so all stages of all
instances are evaluated in one call, and so are all rows of their derivatives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mpc_gym.compiled.autograd import first_derivatives, second_derivatives
from mpc_gym.functional import WithValues
from mpc_gym.models.base import takes_context

SomeProblem = TypeVar("SomeProblem", bound="Problem")


@dataclass(frozen=True)
class RowFunction:
    """A module evaluated with given values in the place of its parameters and buffers."""

    module: nn.Module
    values: Mapping[str, Tensor]
    takes_context: bool

    @classmethod
    def of(cls, module: nn.Module) -> "RowFunction":
        """The module with its own values, in float64 where they are floating point."""
        named = (*module.named_parameters(), *module.named_buffers())
        values = {k: v.double() if v.is_floating_point() else v for k, v in named}
        return cls(module, values, takes_context(module))

    @property
    def shown_as(self) -> str:
        """The name of the module's class, or of those of the user's that are in it."""
        return getattr(self.module, "shown_as", type(self.module).__name__)

    def __call__(self, x: Tensor, u: Tensor, context: Tensor | None) -> Any:
        """The value at each row, as the module returns it (see `checks.check_model_output`)."""
        given = (x, u, context) if self.takes_context else (x, u)
        # copies: a module may write into its arguments
        arguments = (None if each is None else each.clone() for each in given)
        return self._evaluated(*arguments)

    @cached_property
    def _evaluated(self) -> WithValues:
        return WithValues(self.module, self.values)

    def parameters(self) -> list[Tensor]:
        """The values that stand in for parameters, in the order of `module.named_parameters()`."""
        return [self.values[name] for name, _ in self.module.named_parameters()]

    def with_parameters(self, parameters: Sequence[Tensor]) -> "RowFunction":
        """The same function with other parameters, in the order of `parameters()`."""
        names = [name for name, _ in self.module.named_parameters()]
        return replace(self, values={**self.values, **dict(zip(names, parameters, strict=True))})

    def detached(self) -> "RowFunction":
        """The same function, cut off from autograd and from later changes of the values."""
        return replace(self, values={name: _copy(value) for name, value in self.values.items()})


@dataclass(frozen=True)
class Expansion:
    """Derivatives at every stage, N = n_state + n_ctrl. The last stage has no successor."""

    F: Float[Tensor, "batch stages n_state N"]  # Jacobian of f, t = 0 .. T-2
    f_zz: Float[Tensor, "batch stages n_state N N"] | None  # None: Gauss-Newton
    l_z: Float[Tensor, "batch time N"]
    l_zz: Float[Tensor, "batch time N N"]


@dataclass(frozen=True)
class Problem:
    """A batch of control problems that share model and bounds."""

    f: RowFunction  # dynamics: [..., n_state], [..., n_ctrl] -> [..., n_state]
    l: RowFunction  # stage cost of whole trajectories: [..., T, .] -> [..., T]
    low: Float[Tensor, "time n_ctrl"]
    high: Float[Tensor, "time n_ctrl"]
    context: Float[Tensor, "batch time n_context"] | None

    @property
    def horizon(self) -> int:
        """Number of stages T."""
        return self.low.shape[0]

    def rows(self: SomeProblem, index: Int[Tensor, " rows"]) -> SomeProblem:
        """The same problem for some instances of the batch."""
        return self if self.context is None else replace(self, context=self.context[index])

    def detached(self: SomeProblem) -> SomeProblem:
        """The same problem, cut off from autograd and from later changes of the values."""
        return replace(
            self,
            f=self.f.detached(),
            l=self.l.detached(),
            low=_copy(self.low),
            high=_copy(self.high),
            context=None if self.context is None else _copy(self.context),
        )

    def lifted(self: SomeProblem) -> SomeProblem:
        """The same problem without the bounds of the first stage."""
        first = torch.arange(self.horizon, device=self.low.device).unsqueeze(-1) == 0
        return replace(
            self,
            low=torch.where(first, -torch.inf, self.low),
            high=torch.where(first, torch.inf, self.high),
        )

    def context_at(self, t: int | slice) -> Tensor | None:
        """The context of stage t, [batch, n_context], or of several."""
        return None if self.context is None else self.context[:, t]

    def rollout(
        self, x_init: Float[Tensor, "batch n_state"], U: Float[Tensor, "batch time n_ctrl"]
    ) -> Float[Tensor, "batch time n_state"]:
        """States under the controls U."""
        X = [x_init]
        for t in range(self.horizon - 1):
            X.append(self.f(X[-1], U[:, t], self.context_at(t)))
        return torch.stack(X, 1)

    def total_cost(
        self, X: Float[Tensor, "batch time n_state"], U: Float[Tensor, "batch time n_ctrl"]
    ) -> Float[Tensor, " batch"]:
        """Sum of the stage costs."""
        costs: Tensor = self.l(X, U, self.context)
        return costs.sum(-1)

    def expand(
        self,
        X: Float[Tensor, "batch time n_state"],
        U: Float[Tensor, "batch time n_ctrl"],
        *,
        second_order: bool,
    ) -> Expansion:
        """Derivatives of dynamics and cost along (X, U); `second_order`: of the dynamics too."""
        n = X.shape[-1]
        Z = torch.cat((X, U), -1)
        stages = slice(0, self.horizon - 1)
        at = Z[:, stages], self.context_at(stages)

        def f(z: Tensor, context: Tensor | None) -> Tensor:
            found: Tensor = self.f(z[..., :n], z[..., n:], context)
            return found

        def ell(z: Tensor, context: Tensor | None) -> Tensor:
            found: Tensor = self.l(z[..., :n], z[..., n:], context)
            return found

        l_z, l_zz = second_derivatives(ell, Z, self.context)
        if second_order:
            F, f_zz = second_derivatives(f, *at, outputs=n)
            return Expansion(F, f_zz, l_z, l_zz)
        return Expansion(first_derivatives(f, *at, outputs=n), None, l_z, l_zz)


def _copy(value: Tensor) -> Tensor:
    """A copy that autograd can use, which it cannot use what inference mode has made."""
    with torch.inference_mode(False):
        return value.detach().clone()
