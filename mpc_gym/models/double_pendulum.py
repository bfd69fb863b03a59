"""The cost of Gymnasium's InvertedDoublePendulum, for two links on a cart (`ChainDynamics`)."""

from jaxtyping import Float
from torch import Tensor

from mpc_gym.checks import check_number
from mpc_gym.models.base import Cost, physical_parameter


class DoublePendulumCost(Cost):
    """The tip at the centre and as high as it gets, at rest.

        position_weight x^2 + (y - 2)^2 + lower_weight theta_1'^2 + upper_weight theta_2'^2

    with x and y of the tip, and the angular speeds of the two hinges. With the weights 0.01, 0.001
    and 0.005 it is minus the environment's reward but for a constant. Where nothing is far from
    upright that is flat, and plans of a second let the cart drift; with the larger ones here they
    do not, and earn more. (The tip is at most at 1.2, and a step's reward at most 10 - 0.64.)

    Args:
        position_weight: [1/m^2].
        lower_weight: of the first hinge [s^2/rad^2].
        upper_weight: of the second hinge [s^2/rad^2].
        length: of each link [m], a fact of the geometry and no parameter.

    Raises:
        ValueError: a weight is not finite, or the length is not positive.
    """

    positive_parameters = ("position_weight", "lower_weight", "upper_weight")

    def __init__(
        self,
        position_weight: float = 0.2,
        lower_weight: float = 0.003,
        upper_weight: float = 0.015,
        length: float = 0.6,
    ) -> None:
        super().__init__()
        self.position_weight = physical_parameter("position_weight", position_weight)
        self.lower_weight = physical_parameter("lower_weight", lower_weight)
        self.upper_weight = physical_parameter("upper_weight", upper_weight)
        self.length = check_number("length", length, above=0.0)

    def forward(
        self,
        state: Float[Tensor, "*batch 8"],
        control: Float[Tensor, "*batch 1"],  # noqa: ARG002
    ) -> Float[Tensor, "*batch"]:
        """The cost of one time step."""
        position, cos1, sin1, cos2, sin2, _, lower_speed, upper_speed = state.unbind(-1)
        tip = position + self.length * (sin1 + sin1 * cos2 + cos1 * sin2)
        height = self.length * (cos1 + cos1 * cos2 - sin1 * sin2)
        cost = (
            self.position_weight * tip**2
            + (height - 2.0) ** 2
            + self.lower_weight * lower_speed**2
            + self.upper_weight * upper_speed**2
        )
        return cost.to(state.dtype)
