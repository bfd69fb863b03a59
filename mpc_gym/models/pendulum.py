"""The pendulum of Gymnasium's Pendulum-v1, as differentiable modules.

    theta'' = 3 g / (2 l) sin(theta + wind) + 3 / (m l^2) u - damping theta'

integrated by one semi-implicit Euler step of length dt, theta = 0 upright. Without wind and
damping this is `Pendulum-v1`; with `damping=1.0, wind=0.1` and no speed limit it is the expert of
Amos et al. (2018), section 5.4.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.checks import check_number
from mpc_gym.models.base import Cost, Dynamics, angle, physical_parameter


class PendulumDynamics(Dynamics):
    """A rod that swings about its end, driven by a torque there.

    State `(cos theta, sin theta, theta_dot)`, control `(torque,)` [N m]. Only the combinations
    gravity / length, 1 / (mass length^2), damping and wind act on the motion, so gravity, mass and
    length cannot be told apart from trajectories alone.

    Args:
        gravity: [m/s^2].
        mass: of the rod [kg], positive.
        length: of the rod [m], positive.
        damping: of the angular speed [1/s].
        wind: angle by which the direction of gravity is turned [rad].
        max_speed: the angular speed is clipped to +- this [rad/s]; None: no clip. Where it is
            clipped, the derivative of the next speed is zero.
        dt: integration step [s].

    Raises:
        ValueError: a parameter is not finite, or mass, length, max_speed or dt is not positive.
    """

    n_state = 3
    n_ctrl = 1
    positive_parameters = ("mass", "length")
    unit_pairs = ((0, 1),)

    def __init__(
        self,
        gravity: float = 10.0,
        mass: float = 1.0,
        length: float = 1.0,
        damping: float = 0.0,
        wind: float = 0.0,
        max_speed: float | None = 8.0,
        dt: float = 0.05,
    ) -> None:
        super().__init__()
        self.gravity = physical_parameter("gravity", gravity)
        self.mass = physical_parameter("mass", mass, positive=True)
        self.length = physical_parameter("length", length, positive=True)
        self.damping = physical_parameter("damping", damping)
        self.wind = physical_parameter("wind", wind)
        self.max_speed = (
            None if max_speed is None else check_number("max_speed", max_speed, above=0.0)
        )
        self.dt = check_number("dt", dt, above=0.0)

    def forward(
        self, state: Float[Tensor, "*batch 3"], control: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch 3"]:
        """The state one step of `dt` later."""
        cosine, sine, speed = state.unbind(-1)
        torque = control[..., 0]
        pull = sine * torch.cos(self.wind) + cosine * torch.sin(self.wind)  # sin(theta + wind)
        acceleration = (
            1.5 * self.gravity / self.length * pull
            + 3.0 / (self.mass * self.length**2) * torque
            - self.damping * speed
        )
        speed = speed + self.dt * acceleration
        if self.max_speed is not None:
            speed = speed.clamp(-self.max_speed, self.max_speed)
        theta = angle(cosine, sine) + self.dt * speed
        next_state = torch.stack((torch.cos(theta), torch.sin(theta), speed), -1)
        return next_state.to(state.dtype)  # a single float32 state was promoted by the parameters

    def extra_repr(self) -> str:
        """The settings that are not parameters."""
        return f"max_speed={self.max_speed}, dt={self.dt}"


class PendulumCost(Cost):
    """Gymnasium's cost of the pendulum: theta^2 + 0.1 theta_dot^2 + 0.001 torque^2.

    theta lies in [-pi, pi]; the weights are learnable.

    Args:
        angle_weight: of theta^2 [1/rad^2].
        speed_weight: of theta_dot^2 [s^2/rad^2].
        torque_weight: of torque^2 [1/(N m)^2].

    Raises:
        ValueError: a weight is not finite.
    """

    positive_parameters = ("angle_weight", "speed_weight", "torque_weight")

    def __init__(
        self, angle_weight: float = 1.0, speed_weight: float = 0.1, torque_weight: float = 0.001
    ) -> None:
        super().__init__()
        self.angle_weight = physical_parameter("angle_weight", angle_weight)
        self.speed_weight = physical_parameter("speed_weight", speed_weight)
        self.torque_weight = physical_parameter("torque_weight", torque_weight)

    def forward(
        self, state: Float[Tensor, "*batch 3"], control: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch"]:
        """The cost of one time step."""
        cosine, sine, speed = state.unbind(-1)
        torque = control[..., 0]
        cost = (
            self.angle_weight * angle(cosine, sine) ** 2
            + self.speed_weight * speed**2
            + self.torque_weight * torque**2
        )
        return cost.to(state.dtype)
