"""A car as a bicycle that does not slip (Kong, Pfeiffer, Schildbach & Borrelli 2015, section II).

    x' = v cos(psi + beta),   y' = v sin(psi + beta),   psi' = v sin(beta) / rear,
    v' = acceleration - drag v,   tan(beta) = rear / (front + rear) tan(steering)

integrated by one step of the fourth-order Runge-Kutta method of length dt; psi = 0 is along x.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.checks import check_number
from mpc_gym.models.base import Cost, Dynamics, angle, physical_parameter
from mpc_gym.models.runge_kutta import runge_kutta


class CarDynamics(Dynamics):
    """A small car that is driven and steered; it goes backwards, too.

    State `(x, y, cos psi, sin psi, v)`: the position of its centre of mass, its heading, which
    grows counter-clockwise, and its speed. Control `(acceleration, steering)` [m/s^2, rad], where
    steering is the angle of the front wheels, to the left if > 0.

    Args:
        front: from the centre of mass to the front axle [m], positive.
        rear: from the centre of mass to the rear axle [m], positive.
        drag: of the speed [1/s].
        dt: time step [s].

    Raises:
        ValueError: a parameter is not finite, or front, rear or dt is not positive.
    """

    n_state = 5
    n_ctrl = 2
    positive_parameters = ("front", "rear")
    unit_pairs = ((2, 3),)

    def __init__(
        self, front: float = 0.16, rear: float = 0.17, drag: float = 0.2, dt: float = 0.05
    ) -> None:
        super().__init__()
        self.front = physical_parameter("front", front, positive=True)
        self.rear = physical_parameter("rear", rear, positive=True)
        self.drag = physical_parameter("drag", drag)
        self.dt = check_number("dt", dt, above=0.0)

    def forward(
        self, state: Float[Tensor, "*batch 5"], control: Float[Tensor, "*batch 2"]
    ) -> Float[Tensor, "*batch 5"]:
        """The state one step of `dt` later."""
        x, y, cosine, sine, speed = state.unbind(-1)
        acceleration, steering = control.unbind(-1)
        slip = torch.atan(self.rear / (self.front + self.rear) * torch.tan(steering))
        curvature = torch.sin(slip) / self.rear

        def derivative(q: Tensor) -> Tensor:
            _, _, heading, speed = q.unbind(-1)
            course = heading + slip
            forward = acceleration - self.drag * speed
            rows = (
                speed * torch.cos(course),
                speed * torch.sin(course),
                speed * curvature,
                forward,
            )
            return torch.stack(rows, -1)

        start = torch.stack((x, y, angle(cosine, sine), speed), -1)
        x, y, heading, speed = runge_kutta(derivative, start, self.dt, 1).unbind(-1)
        next_state = torch.stack((x, y, torch.cos(heading), torch.sin(heading), speed), -1)
        return next_state.to(state.dtype)  # a single float32 state was promoted by the parameters

    def extra_repr(self) -> str:
        """The settings that are not parameters."""
        return f"dt={self.dt}"


class ParkingCost(Cost):
    """To stand at the origin along x: smooth, and such that it pays to get there exactly.

        along_weight x^2 + side_weight (sqrt(y^2 + w^2) - w) + heading_weight (1 - cos psi)
        + speed_weight v^2 + acceleration_weight acceleration^2 + steering_weight steering^2

    with w = 0.1 m. A car cannot move sideways. To be rid of an offset y it has to leave x and psi,
    which costs in proportion to |y|; were the offset's own cost y^2, a car that is near enough
    would rather stay where it is (Mueller & Worthmann 2017: "Quadratic costs do not always work in
    MPC"). All weights are learnable.

    Args:
        along_weight: of x^2 [1/m^2].
        side_weight: of |y|, rounded off within about w of zero [1/m].
        heading_weight: of 1 - cos psi.
        speed_weight: of v^2 [s^2/m^2].
        acceleration_weight: of acceleration^2 [s^4/m^2].
        steering_weight: of steering^2 [1/rad^2].

    Raises:
        ValueError: a weight is not finite.
    """

    rounding = 0.1  # w [m]
    positive_parameters = (
        "along_weight",
        "side_weight",
        "heading_weight",
        "speed_weight",
        "acceleration_weight",
        "steering_weight",
    )

    def __init__(
        self,
        along_weight: float = 1.0,
        side_weight: float = 5.0,
        heading_weight: float = 2.0,
        speed_weight: float = 0.05,
        acceleration_weight: float = 0.01,
        steering_weight: float = 0.01,
    ) -> None:
        super().__init__()
        self.along_weight = physical_parameter("along_weight", along_weight)
        self.side_weight = physical_parameter("side_weight", side_weight)
        self.heading_weight = physical_parameter("heading_weight", heading_weight)
        self.speed_weight = physical_parameter("speed_weight", speed_weight)
        self.acceleration_weight = physical_parameter("acceleration_weight", acceleration_weight)
        self.steering_weight = physical_parameter("steering_weight", steering_weight)

    def forward(
        self, state: Float[Tensor, "*batch 5"], control: Float[Tensor, "*batch 2"]
    ) -> Float[Tensor, "*batch"]:
        """The cost of each row."""
        x, y, cosine, _, speed = state.unbind(-1)
        acceleration, steering = control.unbind(-1)
        side = torch.sqrt(y**2 + self.rounding**2) - self.rounding
        total = (
            self.along_weight * x**2
            + self.side_weight * side
            + self.heading_weight * (1.0 - cosine)
            + self.speed_weight * speed**2
            + self.acceleration_weight * acceleration**2
            + self.steering_weight * steering**2
        )
        return total.to(state.dtype)


class RoadWalls(nn.Module):
    """Walls along a straight road: the four corners of a car stay between them.

    Args:
        half_width: of the road, which lies along x about y = 0 [m], positive. It is a buffer that
            may be overwritten, and no part of the state dict: a fact of the environment, and
            nothing that is learned.
        length: of the car, whose position is its middle [m], positive.
        width: of the car [m], positive.

    Raises:
        ValueError: an argument is not finite, or not positive.
    """

    half_width: Float[Tensor, ""]

    def __init__(self, half_width: float, length: float, width: float) -> None:
        super().__init__()
        value = torch.tensor(check_number("half_width", half_width, above=0.0), dtype=torch.float64)
        self.register_buffer("half_width", value, persistent=False)
        self.length = check_number("length", length, above=0.0)
        self.width = check_number("width", width, above=0.0)

    def forward(
        self,
        state: Float[Tensor, "*batch 5"],
        control: Float[Tensor, "*batch 2"],  # noqa: ARG002
    ) -> Float[Tensor, "*batch 8"]:
        """By how much each corner is beyond either wall [m]; not positive on the road."""
        _, y, cosine, sine, _ = state.unbind(-1)
        corners = [
            y + along * self.length / 2.0 * sine + across * self.width / 2.0 * cosine
            for along in (1.0, -1.0)
            for across in (1.0, -1.0)
        ]
        return torch.stack([side * y - self.half_width for y in corners for side in (1, -1)], -1)

    def extra_repr(self) -> str:
        """The road and the car."""
        return f"half_width={self.half_width.item():g}, length={self.length}, width={self.width}"
