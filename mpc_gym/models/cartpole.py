"""The cart-pole of Amos et al. (2018), section 5, with angle as (cos, sin) and a continuous force.

Equations of motion: Barto, Sutton & Anderson (1983), in the frictionless form that Gymnasium's
CartPole uses (Florian 2007); one explicit Euler step of length dt; theta = 0 upright.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.checks import check_number
from mpc_gym.models.base import Dynamics, angle, physical_parameter


class CartPoleDynamics(Dynamics):
    """A pole that swings freely on a cart, which is pushed by a force.

    State `(x, x_dot, cos theta, sin theta, theta_dot)`, control `(force,)` [N].

    Args:
        gravity: [m/s^2].
        cart_mass: [kg], positive.
        pole_mass: [kg], positive.
        pole_length: half the length of the pole, from pivot to its centre of mass [m], positive.
        dt: integration step [s].

    Raises:
        ValueError: a parameter is not finite, or a mass, the length or dt is not positive.
    """

    n_state = 5
    n_ctrl = 1
    positive_parameters = ("cart_mass", "pole_mass", "pole_length")
    unit_pairs = ((2, 3),)

    def __init__(
        self,
        gravity: float = 9.8,
        cart_mass: float = 1.0,
        pole_mass: float = 0.1,
        pole_length: float = 0.5,
        dt: float = 0.05,
    ) -> None:
        super().__init__()
        self.gravity = physical_parameter("gravity", gravity)
        self.cart_mass = physical_parameter("cart_mass", cart_mass, positive=True)
        self.pole_mass = physical_parameter("pole_mass", pole_mass, positive=True)
        self.pole_length = physical_parameter("pole_length", pole_length, positive=True)
        self.dt = check_number("dt", dt, above=0.0)

    def forward(
        self, state: Float[Tensor, "*batch 5"], control: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch 5"]:
        """The state one step of `dt` later."""
        position, velocity, cosine, sine, speed = state.unbind(-1)
        force = control[..., 0]
        total_mass = self.cart_mass + self.pole_mass
        pole_moment = self.pole_mass * self.pole_length

        push = (force + pole_moment * speed**2 * sine) / total_mass
        angular_acceleration = (self.gravity * sine - cosine * push) / (
            self.pole_length * (4.0 / 3.0 - self.pole_mass * cosine**2 / total_mass)
        )
        acceleration = push - pole_moment * angular_acceleration * cosine / total_mass

        theta = angle(cosine, sine) + self.dt * speed
        next_state = torch.stack(
            (
                position + self.dt * velocity,
                velocity + self.dt * acceleration,
                torch.cos(theta),
                torch.sin(theta),
                speed + self.dt * angular_acceleration,
            ),
            -1,
        )
        return next_state.to(state.dtype)  # a single float32 state was promoted by the parameters

    def extra_repr(self) -> str:
        """The settings that are not parameters."""
        return f"dt={self.dt}"


class CartPoleTrack(nn.Module):
    """The track of a cart-pole: its position stays within +-limit, as constraints of an `MPC`.

    Args:
        limit: half the length of the track, which is centred at the origin [m], positive. It is a
            buffer that may be overwritten, and no part of the state dict: like the limits of a
            control it is a fact of the environment, and nothing that is learned.

    Raises:
        ValueError: the limit is not finite, or not positive.
    """

    limit: Float[Tensor, ""]

    def __init__(self, limit: float) -> None:
        super().__init__()
        value = torch.tensor(check_number("limit", limit, above=0.0), dtype=torch.float64)
        self.register_buffer("limit", value, persistent=False)

    def forward(
        self,
        state: Float[Tensor, "*batch 5"],
        control: Float[Tensor, "*batch 1"],  # noqa: ARG002
    ) -> Float[Tensor, "*batch 2"]:
        """By how much it is beyond the right and the left end [m]; not positive on the track."""
        position = state[..., 0]
        return torch.stack((position - self.limit, -position - self.limit), -1)

    def extra_repr(self) -> str:
        """Half the length of the track."""
        return f"limit={self.limit.item():g}"
