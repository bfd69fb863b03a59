"""Learnable terms that are added to a stage cost.

Each is a stage cost around another one, and they nest in any order. All start at zero, so that a
wrapped cost is the cost it wraps until something is learned.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.checks import check_module, check_size
from mpc_gym.models.base import (
    Cost,
    cost_size,
    per_stage_parameters,
    positive_parameters,
    takes_context,
)


class WrappedCost(Cost):
    """A stage cost made of another one, which is its submodule `cost`.

    It passes on what the inner cost says of itself: whether it takes a context, its size, and the
    names of its parameters that change with time or must stay positive, which gain the prefix
    "cost.".

    Args:
        cost: the inner stage cost.
    """

    def __init__(self, cost: nn.Module) -> None:
        super().__init__()
        self.cost = cost
        self.size = cost_size(cost)
        self.takes_context = takes_context(cost)
        self.positive_parameters = tuple(f"cost.{name}" for name in positive_parameters(cost))

    @property
    def per_stage_parameters(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the inner cost, as it is now."""
        return tuple(f"cost.{name}" for name in per_stage_parameters(self.cost))

    def inner(
        self,
        state: Float[Tensor, "*batch n_state"],
        control: Float[Tensor, "*batch n_ctrl"],
        context: Float[Tensor, "*batch n_context"] | None,
    ) -> Float[Tensor, "*batch"]:
        """The inner cost."""
        arguments = (state, control) if context is None else (state, control, context)
        cost: Tensor = self.cost(*arguments)
        return cost


class LinearCost(WrappedCost):
    """`cost(x, u) + p' (x, u)`.

    Args:
        cost: the inner stage cost.
        n_state: number of states.
        n_ctrl: number of controls.

    Attributes:
        p: [n_state + n_ctrl], zero at first.

    Raises:
        ValueError: a size is not positive, or the inner cost is for others.
    """

    def __init__(self, cost: nn.Module, n_state: int, n_ctrl: int) -> None:
        check_sizes(cost, n_state=n_state, n_ctrl=n_ctrl)
        super().__init__(cost)
        self.size = n_state + n_ctrl
        self.p = nn.Parameter(torch.zeros(n_state + n_ctrl, dtype=torch.float64))

    def forward(
        self,
        state: Float[Tensor, "*batch n_state"],
        control: Float[Tensor, "*batch n_ctrl"],
        context: Float[Tensor, "*batch n_context"] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """The cost of each row; `context` is the inner cost's, if it takes one."""
        tau = torch.cat((state, control), -1)
        return self.inner(state, control, context) + (self.p.to(tau.dtype) * tau).sum(-1)


class TerminalCost(WrappedCost):
    """`cost(x_t, u_t)`, plus `1/2 x' P x + q' x` at the last stage.

    A learned value of the last state makes a short horizon far-sighted. P need not be positive
    definite. Called on whole trajectories, `[..., horizon, n_state]`.

    Args:
        cost: the inner stage cost.
        horizon: number of stages.
        n_state: number of states.

    Attributes:
        curvature: [n_state, n_state], zero at first; P is its symmetric part.
        q: [n_state], zero at first.

    Raises:
        ValueError: a size is not positive, or the inner cost is for fewer states.
    """

    last: Tensor

    def __init__(self, cost: nn.Module, horizon: int, n_state: int) -> None:
        check_sizes(cost, horizon=horizon, n_state=n_state)
        super().__init__(cost)
        # Not a Cholesky factor, whose gradient at zero would be zero
        self.curvature = nn.Parameter(torch.zeros(n_state, n_state, dtype=torch.float64))
        self.q = nn.Parameter(torch.zeros(n_state, dtype=torch.float64))
        last = torch.zeros(horizon, dtype=torch.float64)
        last[-1] = 1.0
        # no part of the state, which fits a controller of any horizon
        self.register_buffer("last", last, persistent=False)

    @property
    def per_stage_parameters(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the inner cost, and where its last stage is."""
        return (*super().per_stage_parameters, "last")

    @property
    def matrix(self) -> Float[Tensor, "n_state n_state"]:
        """The symmetric matrix P."""
        return 0.5 * (self.curvature + self.curvature.mT)

    def forward(
        self,
        state: Float[Tensor, "*batch n_state"],
        control: Float[Tensor, "*batch n_ctrl"],
        context: Float[Tensor, "*batch n_context"] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """The cost of each time step; `context` is the inner cost's, if it takes one."""
        curvature, q = self.curvature.to(state.dtype), self.q.to(state.dtype)
        # a quadratic form is that of the symmetric part
        value = ((0.5 * (state @ curvature) + q) * state).sum(-1)
        return self.inner(state, control, context) + self.last.to(state.dtype) * value


def check_sizes(cost: nn.Module, **sizes: int) -> None:
    """Refuse sizes that are not positive, or do not fit the size of the inner cost.

    Raises:
        TypeError: the cost is no module.
        ValueError: they do not; n_ctrl may be missing among `sizes`.
    """
    check_module("cost", cost)
    for name, value in sizes.items():
        check_size(name, value)
    size = cost_size(cost)
    if size is None:
        return
    n_state, n_ctrl = sizes["n_state"], sizes.get("n_ctrl")
    if n_state >= size or n_ctrl not in (None, size - n_state):
        given = f"n_state = {n_state}" + ("" if n_ctrl is None else f" and n_ctrl = {n_ctrl}")
        raise ValueError(f"cost is for n_state + n_ctrl = {size}, got {given}")
