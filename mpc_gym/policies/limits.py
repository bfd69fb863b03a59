"""From a plan to the mean of a policy, with a derivative where the plan sits at a limit.

A swing-up holds its control at a bound most of the time. There the first control does not change
with the model, so a policy with this mean learns nothing; and the squashed Gaussian of SAC would
need a mean of atanh(1). What changes is how hard the bound is pressed: `Plan.unclamped` is the
control without its own bounds, equal to the plan's where that is free, and differentiable
everywhere. A policy takes it for its mean, with what lies beyond the limit compressed

    u + s log(1 + (z - u) / s)          z the unclamped control, u the plan's, and s a scale,

so that its value and derivative are continuous at the limit, and neither exploration nor learning
is lost where the bound is pressed hard. What the environment carries out is the clipped value, the
plan's control.

Beyond a bound of the MPC that is tighter than the action space nothing is done: there no one clips.

Smoothed plans have a gradient at the limit too. At equal steps SAC and cloning learn less from
them, PPO as much or more (`benchmarks/limits.py`; the numbers are in `docs/policies.md`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.mpc import Plan

GAUSSIAN_SCALE = 0.25  # s of a Gaussian policy, in half ranges of the action
SQUASHED_SCALE = 0.25  # s of a squashed policy, in units of atanh of the action
SQUASHED_LIMIT = 0.99  # up to where a squashed policy's action is the plan's control
LIMIT_TOLERANCE = 1e-6  # relative: the spaces' bounds are float32


@dataclass(frozen=True)
class ActionLimits:
    """The bounds of an action space, in the units of the model's control.

    Attributes:
        low, high: [n_ctrl], infinite where there is no bound.
        action_low, action_high: the same in the units of the action; None: these are the control's.
    """

    low: Float[Tensor, " n_ctrl"]
    high: Float[Tensor, " n_ctrl"]
    action_low: Float[Tensor, " n_ctrl"] | None = None
    action_high: Float[Tensor, " n_ctrl"] | None = None

    def action(self, control: Float[Tensor, "*batch n_ctrl"]) -> Float[Tensor, "*batch n_ctrl"]:
        """What has to be done in the environment for a control to arrive."""
        if self.action_low is None or self.action_high is None:
            return control
        share = (control - self.low) / (self.high - self.low)
        return self.action_low + share * (self.action_high - self.action_low)

    def control(self, action: Float[Tensor, "*batch n_ctrl"]) -> Float[Tensor, "*batch n_ctrl"]:
        """What arrives of an action: the inverse of `action`."""
        if self.action_low is None or self.action_high is None:
            return action
        share = (action - self.action_low) / (self.action_high - self.action_low)
        return self.low + share * (self.high - self.low)

    def gaussian_mean(self, plan: Plan) -> Float[Tensor, "batch n_ctrl"]:
        """The mean of a policy whose actions are clipped, in the units of the action.

        Args:
            plan: with its unclamped control.
        """
        control, beyond = self._beyond(plan)
        return control + _compressed(beyond, GAUSSIAN_SCALE * self._half_range())

    def squashed_mean(self, plan: Plan) -> Float[Tensor, "batch n_ctrl"]:
        """The mean before tanh of a policy that acts in [-1, 1].

        Up to `SQUASHED_LIMIT` it is atanh of the scaled control. From there it goes on linearly in
        the unclamped control, then logarithmically.

        Args:
            plan: with its unclamped control.
        """
        control, beyond = self._beyond(plan)
        scaled = self.scaled(control)
        inner = scaled.clamp(-SQUASHED_LIMIT, SQUASHED_LIMIT)
        outer = scaled - inner + beyond / self._half_range()
        slope = 1 / (1 - SQUASHED_LIMIT**2)
        return torch.atanh(inner) + _compressed(slope * outer, torch.tensor(SQUASHED_SCALE))

    def squashed_action(self, plan: Plan) -> Float[Tensor, "batch n_ctrl"]:
        """The plan's control scaled to [-1, 1], with the derivative of tanh of `squashed_mean`.

        The two differ where the control comes near a limit, by at most 1 - `SQUASHED_LIMIT`.
        """
        smooth = torch.tanh(self.squashed_mean(plan))
        return smooth + (self.scaled(plan.controls[:, 0]) - smooth).detach()

    def scaled(self, control: Float[Tensor, "*batch n_ctrl"]) -> Float[Tensor, "*batch n_ctrl"]:
        """A control in units of half ranges, from -1 to 1."""
        return (2 * (control - self.low) / (self.high - self.low) - 1).clamp(-1, 1)

    def unscaled(self, action: Float[Tensor, "*batch n_ctrl"]) -> Float[Tensor, "*batch n_ctrl"]:
        """A control from an action in [-1, 1]."""
        return self.low + 0.5 * (action + 1) * (self.high - self.low)

    def _half_range(self) -> Float[Tensor, " n_ctrl"]:
        half = (self.high - self.low) / 2
        return torch.where(half.isfinite(), half, 1.0)

    def _beyond(self, plan: Plan) -> tuple[Tensor, Tensor]:
        """The first control, and by how much the unclamped one lies beyond the space's limits."""
        assert plan.unclamped is not None
        control = plan.controls[:, 0]
        near = LIMIT_TOLERANCE * control.detach().abs()
        at_limit = (control <= self.low + near) | (control >= self.high - near)
        return control, torch.where(at_limit, plan.unclamped - control, 0.0)


def _compressed(value: Tensor, scale: Tensor) -> Tensor:
    """`value` near zero; logarithmic in it beyond `scale`."""
    return value.sign() * scale * torch.log1p(value.abs() / scale)
