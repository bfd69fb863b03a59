"""A quadrotor in a vertical plane, as differentiable modules.

    x'' = -T / m sin(theta) - d / m x',   z'' = T / m cos(theta) - g - d / m z',
    theta'' = (a / I) (u_right - u_left),   T = 2 trim + u_left + u_right

integrated by one step of the fourth-order Runge-Kutta method of length dt; theta = 0 is level.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.checks import check_number, found, real_tensor
from mpc_gym.models.base import Dynamics, angle, physical_parameter
from mpc_gym.models.runge_kutta import runge_kutta


class PlanarQuadrotorDynamics(Dynamics):
    """A body with two rotors, which lift it and turn it.

    State `(x, z, cos theta, sin theta, x_dot, z_dot, theta_dot)`, control `(left, right)`: the
    thrust of each rotor beyond `trim` [N]. theta grows counter-clockwise. Arm and inertia act on
    the motion by their ratio alone, and cannot be told apart from trajectories.

    Args:
        gravity: [m/s^2].
        mass: [kg], positive.
        inertia: moment of inertia about the middle [kg m^2], positive.
        arm: from the middle to each rotor [m], positive.
        drag: force against the velocity [N s/m].
        trim: thrust of each rotor where the control is zero [N]; that which carries the default
            mass in the default gravity.
        dt: time step [s].

    Raises:
        ValueError: a parameter is not finite, or mass, inertia, arm or dt is not positive.
    """

    n_state = 7
    n_ctrl = 2
    positive_parameters = ("mass", "inertia", "arm")
    unit_pairs = ((2, 3),)

    def __init__(
        self,
        gravity: float = 9.81,
        mass: float = 1.0,
        inertia: float = 0.02,
        arm: float = 0.2,
        drag: float = 0.1,
        trim: float = 4.905,
        dt: float = 0.05,
    ) -> None:
        super().__init__()
        self.gravity = physical_parameter("gravity", gravity)
        self.mass = physical_parameter("mass", mass, positive=True)
        self.inertia = physical_parameter("inertia", inertia, positive=True)
        self.arm = physical_parameter("arm", arm, positive=True)
        self.drag = physical_parameter("drag", drag)
        self.trim = check_number("trim", trim)
        self.dt = check_number("dt", dt, above=0.0)

    def forward(
        self, state: Float[Tensor, "*batch 7"], control: Float[Tensor, "*batch 2"]
    ) -> Float[Tensor, "*batch 7"]:
        """The state one step of `dt` later."""
        x, z, cosine, sine, x_dot, z_dot, spin = state.unbind(-1)
        left, right = control.unbind(-1)
        lift = (2.0 * self.trim + left + right) / self.mass
        turn = self.arm / self.inertia * (right - left)
        damping = self.drag / self.mass

        def derivative(y: Tensor) -> Tensor:
            _, _, theta, x_dot, z_dot, spin = y.unbind(-1)
            x_acceleration = -lift * torch.sin(theta) - damping * x_dot
            z_acceleration = lift * torch.cos(theta) - self.gravity - damping * z_dot
            return torch.stack((x_dot, z_dot, spin, x_acceleration, z_acceleration, turn), -1)

        start = torch.stack((x, z, angle(cosine, sine), x_dot, z_dot, spin), -1)
        x, z, theta, *rates = runge_kutta(derivative, start, self.dt, 1).unbind(-1)
        next_state = torch.stack((x, z, torch.cos(theta), torch.sin(theta), *rates), -1)
        return next_state.to(state.dtype)  # a single float32 state was promoted by the parameters

    def extra_repr(self) -> str:
        """The settings that are not parameters."""
        return f"trim={self.trim}, dt={self.dt}"


class DiscObstacle(nn.Module):
    """A disc that a position keeps out of, as constraints of an `MPC`.

    The position is the first two entries of the state, as of the planar quadrotor and the car.

    Args:
        radius: that the position keeps from the centre [m], positive. It and the centre are buffers
            that may be overwritten, and no part of the state dict: facts of the environment, and
            nothing that is learned.
        centre: of the disc [m].

    Raises:
        ValueError: a number is not finite, or the radius is not positive.
    """

    radius: Float[Tensor, ""]
    centre: Float[Tensor, "2"]

    def __init__(self, radius: float, centre: tuple[float, float]) -> None:
        super().__init__()
        value = torch.tensor(check_number("radius", radius, above=0.0), dtype=torch.float64)
        middle = real_tensor("centre", centre, torch.float64)
        if middle.shape != (2,) or not bool(middle.isfinite().all()):
            raise ValueError(f"centre must be two finite numbers, got {found(centre)}")
        self.register_buffer("radius", value, persistent=False)
        self.register_buffer("centre", middle.clone(), persistent=False)

    def forward(
        self,
        state: Float[Tensor, "*batch n_state"],
        control: Float[Tensor, "*batch n_ctrl"],  # noqa: ARG002
    ) -> Float[Tensor, "*batch 1"]:
        """How deep inside it is [m], to first order; not positive outside.

        Half of (r^2 - distance^2) / r: smooth at the centre too, where the distance is not.
        """
        offset = state[..., :2] - self.centre
        depth = (self.radius**2 - offset.square().sum(-1)) / (2.0 * self.radius)
        return depth.unsqueeze(-1)

    def extra_repr(self) -> str:
        """Where it is."""
        return f"radius={self.radius.item():g}, centre={tuple(self.centre.tolist())}"
