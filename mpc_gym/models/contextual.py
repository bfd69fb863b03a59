"""A stage cost whose weights are an argument: the cost map of actor-critic MPC.

Romero, Song & Scaramuzza (2023), "Actor-Critic Model Predictive Control", arXiv 2306.09852: a
network maps the observation to a quadratic cost of each stage. Here it changes the model's own
cost, and a context of zeros leaves that as it is.
"""

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.functional import call_with
from mpc_gym.models.base import (
    is_diagonal,
    per_stage_parameters,
    positive_parameters,
    takes_context,
)
from mpc_gym.models.positive import LogScale, owner, parametrisations
from mpc_gym.models.wrapped import WrappedCost, check_sizes


class ContextualCost(WrappedCost):
    """The inner cost with weights scaled by a context, plus a linear term that is the context's.

    The context has, in this order, for each entry of each positive weight a number that is added
    to its logarithm (of a weight that changes with time, at that stage), then one coefficient for
    each state and control.

    Args:
        cost: the inner stage cost, to which `keep_positive` was applied. It is called with weights
            of shape [..., *shape] in the place of [*shape], which it must apply row by row, as an
            elementwise product with what it computes from state and control does.
        n_state: number of states.
        n_ctrl: number of controls.

    Raises:
        ValueError: `keep_positive` was not applied, a weight is a full matrix, the inner cost
            takes a context itself, a size is not positive, or the inner cost is for others.
    """

    def __init__(self, cost: nn.Module, n_state: int, n_ctrl: int) -> None:
        check_sizes(cost, n_state=n_state, n_ctrl=n_ctrl)
        if takes_context(cost):
            raise ValueError(
                f"cost must not take a context itself, but {type(cost).__name__} does; "
                "ContextualCost can be used once"
            )
        super().__init__(cost)
        self.n_state, self.n_ctrl = n_state, n_ctrl
        self.size = n_state + n_ctrl
        self.takes_context = True
        self._weights = tuple(
            (name, _entry_shape(cost, name)) for name in positive_parameters(cost)
        )

    @property
    def n_context(self) -> int:
        """Number of entries of the context."""
        return sum(math.prod(shape) for _, shape in self._weights) + self.n_state + self.n_ctrl

    @property
    def context_entries(self) -> tuple[str, ...]:
        """What each entry of the context is, as "log C[0]" or "linear control[0]"."""
        logarithms = (
            f"log {name}" + "".join(f"[{i}]" for i in index)
            for name, shape in self._weights
            for index in itertools.product(*map(range, shape))
        )
        return (
            *logarithms,
            *(f"linear state[{i}]" for i in range(self.n_state)),
            *(f"linear control[{i}]" for i in range(self.n_ctrl)),
        )

    def forward(
        self,
        state: Float[Tensor, "*batch n_state"],
        control: Float[Tensor, "*batch n_ctrl"],
        context: Float[Tensor, "*batch n_context"],
    ) -> Float[Tensor, "*batch"]:
        """The cost of each row.

        Raises:
            ValueError: the context has another number of entries.
        """
        if context.shape[-1] != self.n_context:
            raise ValueError(
                f"context must have {self.n_context} entries ({', '.join(self.context_entries)}), "
                f"got {context.shape[-1]}"
            )
        originals = {}
        start = 0
        for name, shape in self._weights:
            stop = start + math.prod(shape)
            shift = context[..., start:stop].reshape((*context.shape[:-1], *shape))
            part, key = owner(self.cost, name)
            learned = parametrisations(part, key)
            assert learned is not None, f"{name} was kept positive"
            originals[_original_name(name)] = learned.original + shift
            start = stop
        cost: Tensor = call_with(self.cost, originals, (state, control))
        tau = torch.cat((state, control), -1)
        return cost + (context[..., start:].to(tau.dtype) * tau).sum(-1)


def _entry_shape(cost: nn.Module, name: str) -> tuple[int, ...]:
    """Shape of the weight's part in the context of one stage."""
    part, key = owner(cost, name)
    if not is_diagonal(part):
        raise ValueError(
            f"cost.{name} must be a weight of each entry, but is a full matrix: "
            "use QuadraticCost.diagonal"
        )
    learned = parametrisations(part, key)
    if learned is None or len(learned) != 1 or not isinstance(learned[0], LogScale):
        raise ValueError(
            f"cost.{name} must be kept positive: pass keep_positive(cost) in the place of cost"
        )
    shape = tuple(getattr(part, key).shape)
    return shape[1:] if name in per_stage_parameters(cost) else shape


def _original_name(name: str) -> str:
    path, _, key = name.rpartition(".")
    return ".".join([*([path] if path else []), "parametrizations", key, "original"])
