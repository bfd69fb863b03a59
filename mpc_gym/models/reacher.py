"""The cost of Gymnasium's Reacher, for two links that lie flat (`ChainDynamics`)."""

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.checks import check_number
from mpc_gym.models.base import Cost, physical_parameter

LENGTHS = (0.1, 0.11)  # from hinge to hinge, and from there to the fingertip [m]


class ReacherCost(Cost):
    """The distance from the fingertip to a target, and the effort: minus the reward, smoothed.

        distance_weight (sqrt(d^2 + width^2) - width) + effort_weight (u_1^2 + u_2^2)

    The context is the target, (x, y) [m]. The environment's distance has a kink at the target,
    which is rounded over `width`.

    Args:
        distance_weight: [1/m].
        effort_weight: of the squared commands.
        width: [m], positive.

    Raises:
        ValueError: a weight is not finite, or the width is not positive.
    """

    takes_context = True
    positive_parameters = ("distance_weight", "effort_weight")

    def __init__(
        self, distance_weight: float = 1.0, effort_weight: float = 1.0, width: float = 0.003
    ) -> None:
        super().__init__()
        self.distance_weight = physical_parameter("distance_weight", distance_weight)
        self.effort_weight = physical_parameter("effort_weight", effort_weight)
        self.width = check_number("width", width, above=0.0)

    def forward(
        self,
        state: Float[Tensor, "*batch 6"],
        control: Float[Tensor, "*batch 2"],
        context: Float[Tensor, "*batch 2"],
    ) -> Float[Tensor, "*batch"]:
        """The cost of one time step."""
        cos1, sin1, cos2, sin2 = state[..., :4].unbind(-1)
        first, second = LENGTHS
        across = first * cos1 + second * (cos1 * cos2 - sin1 * sin2) - context[..., 0]
        along = first * sin1 + second * (sin1 * cos2 + cos1 * sin2) - context[..., 1]
        distance = torch.sqrt(across**2 + along**2 + self.width**2) - self.width
        effort = control.square().sum(-1)
        return (self.distance_weight * distance + self.effort_weight * effort).to(state.dtype)
