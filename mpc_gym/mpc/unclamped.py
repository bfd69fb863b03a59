"""The first control as it would be without its own bounds, for policies that explore around it.

Where the plan's first control u_0 is held at a bound, its derivative is zero, and a policy whose
action is u_0 learns nothing there. How hard the bound is pressed does depend on the parameters.
Let Q(u) be the optimal cost as a function of the first control alone. Then

    z = u_0 - Q''(u_0)^-1 Q'(u_0)

is u_0 itself where it is free (Q' = 0), and beyond the bound where it is held, by one Newton step
towards the minimum. With Q'' held constant its derivative is that which u_0 would have with its
bounds lifted, so value and derivative of z are continuous where the bound begins to hold: z is the
control of which u_0 is the clipped value.

For more than one control, Q'' is the Hessian in all first controls, and those that are free keep
their value and derivative. Where a bound holds against negative curvature, the step is mirrored, so
that it points beyond the bound.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.mpc.backend import BackendProblem
from mpc_gym.mpc.plan import Plan
from mpc_gym.mpc.reference.sensitivity import nearness


@dataclass(frozen=True)
class Unclamped:
    """The first control without its bounds, and how to differentiate it.

    Attributes:
        control: z.
        sign: +1 or -1 where z has this sign times the derivative of the first control of the
            problem with lifted bounds; 0 where it has the derivative of the plan's control.
    """

    control: Float[Tensor, "batch n_ctrl"]
    sign: Float[Tensor, "batch n_ctrl"]


def unclamp(
    problem: BackendProblem,
    plan: Plan,
    low: Float[Tensor, " n_ctrl"],
    high: Float[Tensor, " n_ctrl"],
) -> Unclamped:
    """Lift the bounds [low, high] of the first stage, where they hold and the plan converged."""
    u = plan.controls[:, 0]
    near = nearness(u, low, high)
    outward = (u >= high - near).double() - (u <= low + near).double()  # fixed controls: 0
    outward = torch.where(plan.converged.unsqueeze(-1), outward, 0.0)
    rows = outward.any(-1).nonzero()[:, 0]
    step = torch.zeros_like(u)
    step[rows] = problem.rows(rows).lifted().first_step(plan.states[rows], plan.controls[rows])
    inward = step * outward < 0
    return Unclamped(
        control=u + outward * step.abs(), sign=outward.abs() * torch.where(inward, -1.0, 1.0)
    )
