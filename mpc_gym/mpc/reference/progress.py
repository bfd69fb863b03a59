"""Where every instance of a batch stands in the iteration of `ddp.py`, and what it does next."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mpc_gym.mpc.plan import Plan

# A Gauss-Newton step in the place of an exact one may be longer than 1 after one that has brought
# this share of alpha times the slope: a parabola with its minimum at 1 brings half of it. Measured
# on eight systems, with horizons from 20 to 400: 0.6 and 0.9 are as good.
STRAIGHT, LONGEST_STEP = 0.75, 64.0
MU_MIN, MU_MAX, MU_FACTOR = 1e-3, 1e12, 8.0
# Where a model has kinks, no step that crosses one is foreseen: an instance is given up after so
# many iterations in turn that were no full Newton step and gained less than this share of the
# cost's size.
IDLE_STEPS, IDLE_GAIN = 3, 1e-2

# What a backward pass is for: the next step; to see whether the exact program is convex where a
# step of a convex one was small; or where none decreased the cost.
STEP, SETTLED, STUCK = range(3)


@dataclass
class Progress:
    """Where every instance of a batch stands."""

    plan: Plan
    second_order: Bool[Tensor, " batch"]  # exact, rather than Gauss-Newton
    mu: Float[Tensor, " batch"]
    stride: Float[Tensor, " batch"]  # first step length of a Gauss-Newton step
    aim: Int[Tensor, " batch"]  # STEP, SETTLED or STUCK
    active: Bool[Tensor, " batch"]
    idle: Int[Tensor, " batch"]  # iterations in turn that gained nothing
    kinked: bool

    def adopt(self, index: Tensor, X: Tensor, U: Tensor, cost: Tensor) -> None:
        """Replace the iterates of some instances."""
        found = self.plan
        self.plan = replace(
            found,
            states=found.states.index_copy(0, index, X),
            controls=found.controls.index_copy(0, index, U),
            cost=found.cost.index_copy(0, index, cost),
        )

    def finish(self, index: Tensor, *, converged: bool | Tensor) -> None:
        """No more iterations for some instances."""
        self.active[index] = False
        self.plan.converged[index] = converged

    def note_gain(self, index: Tensor, gained: Tensor) -> None:
        """Give instances up which have gained nothing for some iterations, if there are kinks."""
        self.idle[index] = torch.where(gained, 0, self.idle[index] + 1)
        if self.kinked:
            self.finish(index[self.idle[index] >= IDLE_STEPS], converged=False)

    def lengthen(self, index: Tensor, alpha: Tensor, straight: Tensor, exact: bool) -> None:
        """The first length of the next Gauss-Newton steps of instances which took some."""
        longer = torch.where(straight & (alpha >= 1), 2 * alpha, 0.5 * alpha)
        stride = longer.clamp(min=1.0, max=LONGEST_STEP)
        replaced = self.second_order[index] != exact
        self.stride[index] = torch.where(replaced, stride, self.stride[index])

    def accepted(self, index: Tensor, exact: bool) -> None:
        """Go on with the exact Hessian and less regularisation."""
        mu = self.mu[index]
        self.mu[index] = torch.where(mu > MU_MIN, mu / MU_FACTOR, 0.0)
        self.second_order[index] = exact
        self.aim[index] = STEP

    def refused(self, index: Tensor, exact: bool) -> None:
        """From exact to Gauss-Newton, from there to more and more regularisation."""
        mode, mu = self.second_order[index], self.mu[index]
        self.mu[index] = torch.where(mode, mu, (mu * MU_FACTOR).clamp(min=MU_MIN))
        self.second_order[index] = False
        self.aim[index] = STEP
        self.look_down(index[self.mu[index] > MU_MAX], STUCK, exact)

    def look_down(self, index: Tensor, aim: int, exact: bool) -> None:
        """Ask for the exact program as it is, which may not be convex."""
        self.aim[index], self.second_order[index], self.mu[index] = aim, exact, 0.0
