"""The kinks of a model, and the same model with its kinks rounded.

What makes a kink is a function of PyTorch. While `Kinks` is entered, such a function is another
one, smooth and within a width of it:

    max(a, b)  ->  (a + b + hypot(a - b, w)) / 2,      |a|  ->  hypot(a, w)

(Chen & Harker 1993; Kanzow 1996), and so relu, leaky relu, clamp, hardtanh and minimum, which are
made of these; a norm has w^2 added under its root. A choice by a comparison, `where(a > b, p, q)`,
becomes a blend of p and q with the weights (1 +- (a - b) / hypot(a - b, w)) / 2. The width w of
each is in units of its argument: so much of the largest gap |a - b| along a plan. As w falls to
zero, the limit of the
rounded model's stationary points is stationary for the model in the sense of Clarke (Chen 2012,
Smoothing methods for nonsmooth, nonconvex minimization).

Not rounded: kinks of parameters or the context alone; functions whose value jumps (sign, floor);
kinks inside other functions (prelu, softshrink, losses, sorting, max over a dimension, norms over
several); what is done in place (`relu_`); masks that are not the comparison itself, or are no
argument of `torch.where`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mpc_gym.models.base import Cost, cost_size, dynamics_sizes, per_stage_parameters, takes_context
from mpc_gym.mpc.problem import RowFunction


class Kinks(TorchFunctionMode):
    """Rounds the kinks of what is evaluated inside, or measures them.

    Args:
        widths: of the kinks in the order in which they are met, with the batch dimensions of
            states; None: leave all as it is, and note the gaps.
        chosen: which of them are rounded; the others are left as they are, and have widths, too.

    Attributes:
        gaps: |a - b| of each kink.
    """

    def __init__(
        self, widths: Float[Tensor, "*batch k"] | None = None, chosen: Sequence[bool] = ()
    ) -> None:
        super().__init__()
        self._widths, self._chosen = widths, chosen
        self._met = 0
        self._compared: dict[int, tuple[Tensor, Tensor]] = {}  # a - b, by condition
        self.gaps: list[Tensor] = []

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: Any = None
    ) -> Any:
        """The rounded value of a function that has kinks; that of any other as it is."""
        named = named or {}
        name = getattr(function, "__name__", "")
        rounded = _ROUNDED.get(name)
        if rounded is not None and arguments:
            value = rounded(self, *arguments, **named)
            if value is not None:
                return value
        value = function(*arguments, **named)
        if name in _COMPARISONS and len(arguments) == 2:
            self._note(value, *arguments, sign=_COMPARISONS[name])
        elif arguments and (name.endswith("_") or name.startswith("__i")):  # it may be a mask
            self._compared.pop(id(arguments[0]), None)
        return value

    def larger(self, a: Any, b: Any) -> Tensor | None:
        """max(a, b)."""
        spread = self._rounded(a - b)
        return None if spread is None else 0.5 * (a + b + spread)

    def smaller(self, a: Any, b: Any) -> Tensor | None:
        """min(a, b)."""
        spread = self._rounded(a - b)
        return None if spread is None else 0.5 * (a + b - spread)

    def absolute(self, a: Any) -> Tensor | None:
        """|a|."""
        return self._rounded(a)

    def blend(self, condition: Any, a: Any, b: Any) -> Tensor | None:
        """`where(condition, a, b)` of a condition that is a comparison."""
        compared = self._compared.get(id(condition))
        if compared is None:
            return None
        gap = compared[1]
        spread = self._rounded(gap)
        if spread is None:
            return None
        a, b = torch.as_tensor(a).to(spread), torch.as_tensor(b).to(spread)
        a, b = torch.where(a.isfinite(), a, b), torch.where(b.isfinite(), b, a)
        blended: Tensor = 0.5 * (a + b + gap / spread * (a - b))
        return blended

    def norm(self, x: Tensor, order: Any, axis: Any, keepdim: bool) -> Tensor | None:
        """The sum of absolute values, or the Euclidean norm."""
        if not isinstance(axis, int):  # of a matrix, or of all
            return None
        if order == 1:
            entries = self._rounded(x)
            return None if entries is None else entries.sum(axis, keepdim)
        if order not in (None, 2, "fro"):
            return None
        square = (x * x).sum(axis, keepdim)
        width = self._next(square.sqrt())
        return None if width is None else torch.sqrt(square + width * width)

    def _rounded(self, gap: Any) -> Tensor | None:
        """Hypot of the gap and its width; None where this kink is left as it is."""
        if not isinstance(gap, Tensor) or not gap.is_floating_point():
            return None
        width = self._next(gap)
        return None if width is None else torch.hypot(gap, width.expand_as(gap))

    def _next(self, gap: Tensor) -> Tensor | None:
        """The width of this kink."""
        index, self._met = self._met, self._met + 1
        if self._widths is None:
            self.gaps.append(gap.detach().abs())
            return None
        if index >= len(self._chosen) or not self._chosen[index]:
            return None
        batch = self._widths.shape[:-1]
        return self._widths[..., index].reshape((*batch, *(1,) * (gap.ndim - len(batch))))

    def _note(self, condition: Any, a: Any, b: Any, *, sign: float) -> None:
        sides = [each for each in (a, b) if not isinstance(each, int | float)]
        if all(isinstance(each, Tensor) and each.is_floating_point() for each in sides):
            # the condition is kept, so that its id stays its own
            self._compared[id(condition)] = condition, sign * (a - b)


def _clamp(kinks: Kinks, x: Any, *bounds: Any, **named: Any) -> Tensor | None:
    low, high = (*bounds, None, None)[:2]
    return _between(kinks, x, named.get("min", low), named.get("max", high))


def _hardtanh(kinks: Kinks, x: Any, *bounds: Any, **named: Any) -> Tensor | None:
    low, high = (*bounds, -1.0, 1.0)[:2] if len(bounds) != 1 else (*bounds, 1.0)
    return _between(kinks, x, named.get("min_val", low), named.get("max_val", high))


def _between(kinks: Kinks, x: Any, low: Any, high: Any) -> Tensor | None:
    found: Tensor | None = x
    for bound, limited in ((low, kinks.larger), (high, kinks.smaller)):
        if bound is not None:
            limit = limited(x if found is None else found, bound)
            found = None if found is None else limit
    return found


def _leaky_relu(kinks: Kinks, x: Any, *slopes: Any, **named: Any) -> Tensor | None:
    slope = named.get("negative_slope", slopes[0] if slopes else 0.01)
    positive = kinks.larger(x, 0.0)
    return None if positive is None else slope * x + (1.0 - slope) * positive


def _larger(kinks: Kinks, a: Any, *others: Any, **named: Any) -> Tensor | None:
    other = named.get("other", others[0] if others else None)  # not an axis
    return kinks.larger(a, other) if isinstance(other, Tensor) else None


def _smaller(kinks: Kinks, a: Any, *others: Any, **named: Any) -> Tensor | None:
    other = named.get("other", others[0] if others else None)
    return kinks.smaller(a, other) if isinstance(other, Tensor) else None


def _absolute(kinks: Kinks, a: Any) -> Tensor | None:
    return kinks.absolute(a)


def _relu(kinks: Kinks, x: Any, *_: Any, **__: Any) -> Tensor | None:
    return kinks.larger(x, 0.0)


def _where(kinks: Kinks, condition: Any, *choices: Any, **named: Any) -> Tensor | None:
    choices = (*choices, *named.values())
    return kinks.blend(condition, *choices) if len(choices) == 2 else None


def _norm(
    kinks: Kinks, x: Any, p: Any = None, dim: Any = None, keepdim: bool = False, **named: Any
) -> Tensor | None:
    return kinks.norm(x, named.get("ord", p), dim, keepdim)


# by name, of torch, torch.nn.functional and torch.Tensor alike
_ROUNDED: dict[str, Callable[..., Tensor | None]] = {
    "relu": _relu,
    "relu6": lambda kinks, x, *_, **__: _between(kinks, x, 0.0, 6.0),
    "leaky_relu": _leaky_relu,
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp,
    "clamp_max": lambda kinks, x, *high, **named: _clamp(kinks, x, None, *high, **named),
    "maximum": _larger,
    "max": _larger,
    "minimum": _smaller,
    "min": _smaller,
    "abs": _absolute,
    "absolute": _absolute,
    "__abs__": _absolute,
    "where": _where,
    "norm": _norm,
    "linalg_norm": _norm,
    "linalg_vector_norm": _norm,
}
_COMPARISONS = {
    **dict.fromkeys(("gt", "ge", "greater", "greater_equal", "__gt__", "__ge__"), 1.0),
    **dict.fromkeys(("lt", "le", "less", "less_equal", "__lt__", "__le__"), -1.0),
}


class RoundedDynamics(nn.Module):
    """Dynamics with rounded kinks.

    Args:
        module: the dynamics.
        n_context: entries of its context, which come first in that of these dynamics.
        first: where the widths of its kinks begin in that context.
        chosen: which of its kinks are rounded.
    """

    takes_context = True

    def __init__(
        self, module: nn.Module, n_context: int, first: int, chosen: tuple[bool, ...]
    ) -> None:
        super().__init__()
        self.module, self.n_context, self.first, self.chosen = module, n_context, first, chosen
        self.n_state, self.n_ctrl = dynamics_sizes(module)

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        """The next state."""
        return _rounded(self, state, control, context)


class RoundedCost(Cost):
    """A cost, or constraints, with rounded kinks; as `RoundedDynamics`."""

    takes_context = True

    def __init__(
        self, module: nn.Module, n_context: int, first: int, chosen: tuple[bool, ...]
    ) -> None:
        super().__init__()
        self.module, self.n_context, self.first, self.chosen = module, n_context, first, chosen
        self.size = cost_size(module)
        self.per_stage_parameters = tuple(f"module.{name}" for name in per_stage_parameters(module))

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        """The cost, or the rows."""
        return _rounded(self, state, control, context)


def _rounded(
    part: RoundedDynamics | RoundedCost, state: Tensor, control: Tensor, context: Tensor
) -> Tensor:
    own = (context[..., : part.n_context],) if takes_context(part.module) else ()
    with Kinks(context[..., part.first : part.first + len(part.chosen)], part.chosen):
        value: Tensor = part.module(state, control, *own)
    return value


def gaps(
    module: nn.Module,
    states: Float[Tensor, "batch time n_state"],
    controls: Float[Tensor, "batch time n_ctrl"],
    context: Float[Tensor, "batch time n_context"] | None,
) -> list[Float[Tensor, "batch n"] | None]:
    """|a - b| of each kink along trajectories; None where no state or control enters it.

    Such a one, of parameters or the context alone, is a choice that no plan makes.
    """
    evaluate, found = RowFunction.of(module), []
    for factor, offset in ((1.0, 0.0), (1.1, 0.1)):
        with torch.no_grad(), Kinks() as kinks:
            evaluate(factor * states + offset, factor * controls + offset, context)
        found.append(kinks.gaps)
    batch = states.shape[:2]
    return [
        gap.flatten(1) if gap.shape[:2] == batch and not torch.equal(gap, moved) else None
        for gap, moved in zip(*found, strict=False)
    ]
