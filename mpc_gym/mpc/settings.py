"""The settings of a controller: attributes that are checked whenever they are set."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mpc_gym.checks import (
    check_bounds,
    check_count,
    check_module,
    check_number,
    check_option,
    check_size,
    found,
    real_tensor,
)
from mpc_gym.compiled.purity import check_not_compiled
from mpc_gym.models.base import refuse_gradient
from mpc_gym.mpc.checks import check_stages, infer_sizes

Bound = float | Tensor | None


class CheckedSettings(nn.Module):
    """Holds the arguments of `MPC`, and refuses what they cannot be, at first and later."""

    dynamics: nn.Module
    cost: nn.Module
    horizon: int
    control_low: Tensor
    control_high: Tensor
    constraints: nn.Module | None
    terminal_constraints: nn.Module | None
    terminal_equalities: nn.Module | None
    soft: Tensor | None
    smoothing: Tensor
    n_state: int | None
    n_ctrl: int

    def __setattr__(self, name: str, value: Any) -> None:
        """A setting may be changed later, and is checked as the constructor checks it."""
        if name in ("control_low", "control_high"):
            self._set_bound(name, value)
        elif name == "soft":
            self._set_soft(value)
        elif name == "smoothing":
            self._set_smoothing(value)
        else:
            check = _CHECKS.get(name)
            super().__setattr__(name, value if check is None else check(self, name, value))

    def _set_bound(self, name: str, bound: Bound) -> None:
        learned = isinstance(bound, nn.Parameter) or getattr(bound, "requires_grad", False)
        given = (-math.inf if name == "control_low" else math.inf) if bound is None else bound
        value = real_tensor(name, given, None if learned else torch.float64)
        self._check_bound_shape(name, value, self.horizon)
        bounds = {"control_low": value, "control_high": value}
        bounds |= {k: getattr(self, k) for k in bounds if k != name and hasattr(self, k)}
        if len({id(each) for each in bounds.values()}) == 2:
            check_bounds(bounds["control_low"], bounds["control_high"])
        for table in (self._parameters, self._buffers):
            table.pop(name, None)
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, value)
        else:
            self.register_buffer(name, value if learned else value.detach().clone())

    def _set_soft(self, soft: float | Tensor | None) -> None:
        value = None
        if soft is not None:
            learned = isinstance(soft, nn.Parameter)
            value = real_tensor("soft", soft, None if learned else torch.float64)
            positive = bool((value > 0).all() & value.isfinite().all())
            if value.ndim > 1 or value.numel() == 0 or not positive:
                raise ValueError(
                    "soft must be a positive number, or one for each row [k], and None for hard "
                    f"constraints, got {found(soft)}"
                )
        for table in (self._parameters, self._buffers):
            table.pop("soft", None)
        if isinstance(value, nn.Parameter):
            self.register_parameter("soft", value)
        else:
            self.register_buffer("soft", value, persistent=False)

    def _set_smoothing(self, smoothing: float) -> None:
        refuse_gradient("smoothing", smoothing)
        value = torch.tensor(check_number("smoothing", smoothing, least=0.0), dtype=torch.float64)
        self.register_buffer("smoothing", value, persistent=False)

    def _is_smoothed(self) -> bool:
        value = self._buffers["smoothing"]  # past nn.Module's search: this is asked at each plan
        assert value is not None
        mu = value.item()
        if not 0.0 <= mu < math.inf:  # it may have been overwritten
            check_number("smoothing", mu, least=0.0)
        return mu > 0.0

    def _checked_constraints(self, name: str, value: nn.Module | None) -> nn.Module | None:
        if value is not None:
            check_module(name, value)
            check_not_compiled(value)
        return value

    def _check_bound_shape(self, name: str, bound: Tensor, horizon: int) -> None:
        if tuple(bound.shape) not in ((), (1,), (self.n_ctrl,), (horizon, self.n_ctrl)):
            raise ValueError(
                f"{name} must be a number, [n_ctrl={self.n_ctrl}] or "
                f"[horizon={horizon}, n_ctrl={self.n_ctrl}], got shape {list(bound.shape)}"
            )

    def _checked_horizon(self, name: str, value: int) -> int:
        horizon = check_size(name, value)
        if self._is_made():
            check_stages(self.cost, horizon)
            self._check_bound_shape("control_low", self.control_low, horizon)
            self._check_bound_shape("control_high", self.control_high, horizon)
        return horizon

    def _checked_module(self, name: str, value: nn.Module) -> nn.Module:
        check_module(name, value)
        check_not_compiled(value)
        if self._is_made():
            modules = {"dynamics": self.dynamics, "cost": self.cost, name: value}
            bounds = (self.control_low, self.control_high)
            n_state, n_ctrl = infer_sizes(modules["dynamics"], modules["cost"], *bounds)
            if n_ctrl != self.n_ctrl:
                raise ValueError(
                    f"{name} is for n_ctrl = {n_ctrl}, but this controller has n_ctrl = "
                    f"{self.n_ctrl}: make another one"
                )
            check_stages(modules["cost"], self.horizon)
            self.n_state = n_state
        return value

    def _checked_option(self, name: str, value: str) -> str:
        check_option(name, value, _OPTIONS[name])
        settings = {**vars(self), name: value}
        if settings.get("backend") == "native" and settings.get("differentiate") == "unrolled":
            raise ValueError("differentiate='unrolled' needs backend='torch' (or 'auto')")
        return value

    def _is_made(self) -> bool:
        return "_compiled" in vars(self)


_CHECKS: dict[str, Callable[[CheckedSettings, str, Any], Any]] = {
    "dynamics": CheckedSettings._checked_module,
    "cost": CheckedSettings._checked_module,
    "constraints": CheckedSettings._checked_constraints,
    "terminal_constraints": CheckedSettings._checked_constraints,
    "terminal_equalities": CheckedSettings._checked_constraints,
    "horizon": CheckedSettings._checked_horizon,
    "hessian": CheckedSettings._checked_option,
    "differentiate": CheckedSettings._checked_option,
    "backend": CheckedSettings._checked_option,
    "tolerance": lambda _, name, value: check_number(name, value, above=0.0),
    "max_iterations": lambda _, name, value: check_count(name, value),
    "starts": lambda _, name, value: check_size(name, value),
    "expected_unconverged": lambda _, name, value: check_number(name, value, least=0.0, most=1.0),
}
_OPTIONS = {
    "hessian": ("exact", "gauss-newton"),
    "differentiate": ("implicit", "unrolled"),
    "backend": ("auto", "native", "torch"),
}
