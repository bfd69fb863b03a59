"""What a solve returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_CASTS = {torch.float32: Tensor.float, torch.float64: Tensor.double}


def cast_to(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """What casts a tensor to this dtype; the common ones sooner than Tensor.to."""
    return _CASTS.get(dtype) or (lambda each: each.to(dtype))


class WarmStart(Tensor):
    """Controls to begin from [batch, horizon, n_ctrl], with multipliers to begin with.

    A new tensor that is made of it, such as `start[rows]` or `start.double()`, has controls alone.

    Attributes:
        multipliers: of the constraints, [batch, time, k].
    """

    multipliers: Float[Tensor, "batch time k"]
    # as nn.Parameter does; PyTorch's stubs disagree with each other
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> "WarmStart":
        copied = WarmStart.of(self.detach().clone(), self.multipliers.clone())
        memo[id(self)] = copied
        return copied

    @classmethod
    def of(cls, controls: Tensor, multipliers: Tensor) -> "WarmStart":
        """The controls, which carry these multipliers."""
        found = controls.as_subclass(cls)
        found.multipliers = multipliers
        return found


class Request(NamedTuple):
    """What a controller is asked for, checked.

    Attributes:
        x_init: start states.
        controls: to begin from, within the bounds.
        multipliers: to begin with, [batch, time, k], not checked; None: zero.
        bounds: of the controls.
        context: of dynamics, cost and constraints.
        starts, max_iterations, unclamped: as of `MPC.forward`.
    """

    x_init: Float[Tensor, "batch n_state"]
    controls: Float[Tensor, "batch time n_ctrl"]
    multipliers: Tensor | None
    bounds: tuple[Float[Tensor, "time n_ctrl"], Float[Tensor, "time n_ctrl"]]
    context: Float[Tensor, "batch time n_context"] | None
    starts: int
    max_iterations: int
    unclamped: bool


@dataclass(frozen=True)
class Plan:
    """Optimal trajectories of a batch, differentiable.

    Attributes:
        states: x_0 = x_init to x_{T-1}.
        controls: u_0 to u_{T-1}; the last enters the cost alone.
        cost: optimal cost.
        converged: whether the controls meet the tolerance. Elsewhere the gradient is zero.
        iterations: of the solver, over the whole horizon (see `windows.py`).
        unclamped: the first control as it would be without its own bounds, where it was asked for:
            beyond a bound that holds, with a derivative there too (see `mpc/unclamped.py`).
        violation: by how much the worst row of the constraints, of all stages, is not satisfied, in
            its own unit; zero without constraints.
        multipliers: of the rows of constraints, terminal constraints and terminal equalities: by
            how much the cost would fall if a row were relaxed by one unit. None without any.
        at_kink: whether the plan lies at kinks of the model (a corner of a relu, an L1 norm held at
            zero). It is the optimum of the model with kinks rounded over 1e-6 of their arguments,
            and so is its derivative (see `mpc/rounded.py`). None where the model has no kinks.
    """

    states: Float[Tensor, "batch time n_state"]
    controls: Float[Tensor, "batch time n_ctrl"]
    cost: Float[Tensor, " batch"]
    converged: Bool[Tensor, " batch"]
    iterations: Int[Tensor, " batch"]
    unclamped: Float[Tensor, "batch n_ctrl"] | None = None
    violation: Float[Tensor, " batch"] | None = None
    multipliers: Float[Tensor, "batch time k"] | None = None
    at_kink: Bool[Tensor, " batch"] | None = None

    def __repr__(self) -> str:
        batch, horizon, n_state = self.states.shape
        sizes = f"batch={batch}, horizon={horizon}, n_state={n_state}"
        cost, iterations = self.cost.detach(), self.iterations
        if batch == 1:
            outcome = (
                f"cost={cost.item():.6g}, converged={bool(self.converged)}, "
                f"iterations={iterations.item()}"
            )
        elif batch:
            outcome = (
                f"cost={cost.min().item():.6g} to {cost.max().item():.6g}, "
                f"converged={int(self.converged.sum())} of {batch}, "
                f"iterations={int(iterations.min())} to {int(iterations.max())}"
            )
        else:
            outcome = "no instance"
        return f"Plan({sizes}, n_ctrl={self.controls.shape[-1]}, {outcome})"

    @classmethod
    def unsolved(
        cls,
        x_init: Float[Tensor, "batch n_state"],
        controls: Float[Tensor, "batch time n_ctrl"],
    ) -> "Plan":
        """Where nothing can be solved: states and cost NaN, these controls."""
        batch, horizon = controls.shape[:2]
        return cls(
            states=x_init.new_full((batch, horizon, x_init.shape[1]), torch.nan),
            controls=controls,
            cost=x_init.new_full((batch,), torch.nan),
            converged=torch.zeros(batch, dtype=torch.bool, device=controls.device),
            iterations=torch.zeros(batch, dtype=torch.long, device=controls.device),
        )

    def to(self, dtype: torch.dtype) -> "Plan":
        """The same in another dtype."""
        if self.cost.dtype == dtype:
            return self
        cast = cast_to(dtype)
        values: Any = (
            cast(each) if each is not None and each.is_floating_point() else each
            for each in vars(self).values()
        )
        return Plan(*values)

    def detached(self) -> "Plan":
        """The same without gradients."""
        values: Any = (None if each is None else each.detach() for each in vars(self).values())
        return Plan(*values)

    def rows(self, index: Int[Tensor, " rows"]) -> "Plan":
        """Some instances of the batch."""
        values: Any = (None if each is None else each[index] for each in vars(self).values())
        return Plan(*values)

    def with_rows(self, index: Int[Tensor, " rows"], other: "Plan") -> "Plan":
        """The same with some instances replaced by those of another plan."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        values: Any = (None if a is None else a.index_copy(0, index, b) for a, b in pairs)
        return Plan(*values)

    def shift(self) -> Float[Tensor, "batch time n_ctrl"]:
        """A warm start for the next time step: without the first control, the last one twice.

        With constraints it carries the multipliers along (see `WarmStart`), moved on likewise.
        """
        controls = _moved_on(self.controls)
        if self.multipliers is None:
            return controls
        return WarmStart.of(controls, _moved_on(self.multipliers))


def _moved_on(values: Float[Tensor, "batch time k"]) -> Float[Tensor, "batch time k"]:
    values = values.detach()
    return torch.cat((values[:, 1:], values[:, -1:]), 1)
