"""Vehicles: a quadrotor in the plane, a car among soft discs, a quadrotor in space."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.problems import Array
from benchmarks.system_models.system import GoalCost, Parameters, System, runge_kutta, within

GRAVITY = 9.81  # [m/s^2]


class PlanarQuadrotor(Parameters):
    """A body with two rotors in a vertical plane.

    State: position x, z [m], tilt [rad], and their rates. Control: thrust of the left and of the
    right rotor beyond half the weight [N].

    Args:
        mass: [kg].
        inertia: [kg m^2].
        arm: distance of the rotors from the centre [m].
        drag: [N s/m].
    """

    n_state, n_ctrl = 6, 2
    step = 0.05  # [s]

    def __init__(self) -> None:
        super().__init__(mass=1.0, inertia=0.05, arm=0.2, drag=0.1)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The state one step later."""
        left, right = control.unbind(-1)
        lift = GRAVITY + (left + right) / self.mass
        turn = self.arm * (right - left) / self.inertia
        damping = self.drag / self.mass

        def rate(x: Tensor) -> Tensor:
            _, _, tilt, dx, dz, spin = x.unbind(-1)
            return torch.stack(
                (
                    dx,
                    dz,
                    spin,
                    -lift * torch.sin(tilt) - damping * dx,
                    lift * torch.cos(tilt) - GRAVITY - damping * dz,
                    turn,
                ),
                -1,
            )

        return runge_kutta(rate, state, self.step)


class SteeredQuadrotor(PlanarQuadrotor):
    """The planar quadrotor with one control: what the right rotor gains, the left one loses."""

    n_ctrl = 1

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The state one step later."""
        return super().forward(state, torch.cat((-control, control), -1))


class Bicycle(Parameters):
    """A car as a kinematic bicycle with its reference point on the rear axle; explicit Euler.

    State: position x, y [m], heading [rad], speed [m/s]. Control: acceleration [m/s^2], steering
    angle [rad].

    Args:
        wheelbase: [m].
    """

    n_state, n_ctrl = 4, 2
    step = 0.1  # [s]

    def __init__(self) -> None:
        super().__init__(wheelbase=2.5)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The state one step later."""
        _, _, heading, speed = state.unbind(-1)
        acceleration, steering = control.unbind(-1)
        rate = torch.stack(
            (
                speed * torch.cos(heading),
                speed * torch.sin(heading),
                speed * torch.tan(steering) / self.wheelbase,
                acceleration,
            ),
            -1,
        )
        return state + self.step * rate


class DiscsCost(GoalCost):
    """A goal, and a price for being within soft discs.

    The price of a disc is `price * softplus(radius^2 - distance^2)`.

    Args:
        price: [1/m^2].
        centres: of the discs [m], [discs, 2].
        radii: [m], [discs].
    """

    def __init__(self) -> None:
        super().__init__(
            goal=(12.0, 0.0, 0.0, 4.0),
            weights=(0.1, 1.0, 1.0, 0.1),
            penalties=(0.1, 1.0),
            price=5.0,
            centres=((2.0, 0.3), (6.0, -1.5), (8.0, 1.5)),
            radii=(1.2, 1.0, 1.0),
        )

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The stage cost."""
        apart = (state[..., None, :2] - self.centres).square().sum(-1)
        inside: Tensor = self.price * functional.softplus(self.radii.square() - apart).sum(-1)
        return super().forward(state, control) + inside


class Quadrotor(Parameters):
    """A quadrotor in space, in plus configuration.

    State: position [m], velocity [m/s], attitude as a unit quaternion (scalar first, body to
    world), angular velocity in the body's axes [rad/s]. Control: thrust of the rotors in front, on
    the left, behind, on the right, beyond a quarter of the weight [N].

    Args:
        mass: [kg].
        inertia: about the axes of the body [kg m^2], [3].
        arm: distance of the rotors from the centre [m].
        yaw: torque about the vertical axis for each unit of thrust [m].
    """

    n_state, n_ctrl = 13, 4
    step = 0.05  # [s]

    def __init__(self) -> None:
        super().__init__(mass=1.0, inertia=(0.02, 0.02, 0.04), arm=0.2, yaw=0.05)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The state one step later, its quaternion normalised."""
        front, left, behind, right = control.unbind(-1)
        lift = GRAVITY + control.sum(-1) / self.mass
        torque = (
            self.arm * (left - right),
            self.arm * (behind - front),
            self.yaw * (front - left + behind - right),
        )
        jx, jy, jz = self.inertia.unbind(-1)

        def rate(x: Tensor) -> Tensor:
            _, _, _, vx, vy, vz, w, i, j, k, p, q, r = x.unbind(-1)
            return torch.stack(
                (
                    vx,
                    vy,
                    vz,
                    2 * (i * k + w * j) * lift,
                    2 * (j * k - w * i) * lift,
                    (1 - 2 * (i * i + j * j)) * lift - GRAVITY,
                    -0.5 * (i * p + j * q + k * r),
                    0.5 * (w * p + j * r - k * q),
                    0.5 * (w * q + k * p - i * r),
                    0.5 * (w * r + i * q - j * p),
                    (torque[0] + (jy - jz) * q * r) / jx,
                    (torque[1] + (jz - jx) * p * r) / jy,
                    (torque[2] + (jx - jy) * p * q) / jz,
                ),
                -1,
            )

        reached = runge_kutta(rate, state, self.step)
        attitude = reached[..., 6:10]
        norm = attitude.square().sum(-1, keepdim=True).sqrt()
        return torch.cat((reached[..., :6], attitude / norm, reached[..., 10:]), -1)


def hover_cost(n_ctrl: int) -> GoalCost:
    """Of the planar quadrotor: hover at the origin."""
    return GoalCost((0.0,) * 6, (1.0, 1.0, 1.0, 0.1, 0.1, 0.1), (0.05,) * n_ctrl)


def _in_space(random: np.random.Generator, count: int) -> Array:
    """Within 1.5 m of the origin, turned by up to 1 rad about any axis, slow."""
    axis = random.normal(size=(count, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    angle = random.uniform(0.0, 1.0, (count, 1))
    return np.concatenate(
        (
            random.uniform(-1.5, 1.5, (count, 3)),
            random.uniform(-1.0, 1.0, (count, 3)),
            np.cos(angle / 2),
            np.sin(angle / 2) * axis,
            random.uniform(-1.0, 1.0, (count, 3)),
        ),
        1,
    )


PLANAR_START = within(3.0, 3.0, np.pi, 2.0, 2.0, 2.0)
PLANAR_LIMIT = 4.0  # [N]
PLANAR = System(
    "planar quadrotor",
    40,
    (PLANAR_LIMIT,) * 2,
    PlanarQuadrotor,
    lambda: hover_cost(2),
    PLANAR_START,
)
TWO_CONTROLS = replace(PLANAR, name="two controls", horizon=30)
ONE_CONTROL = System(
    "one control", 30, (PLANAR_LIMIT,), SteeredQuadrotor, lambda: hover_cost(1), PLANAR_START
)
BICYCLE = System(
    "bicycle among soft discs",
    40,
    (3.0, 0.5),
    Bicycle,
    DiscsCost,
    within(1.0, 1.5, 0.3, 1.5, centre=(-3.0, 0.0, 0.0, 4.0)),
)
QUADROTOR = System(
    "quadrotor",
    30,
    (2.0,) * 4,
    Quadrotor,
    lambda: GoalCost(
        (0.0,) * 6 + (1.0, 0.0, 0.0, 0.0) + (0.0,) * 3,
        (1.0,) * 3 + (0.1,) * 3 + (1.0,) * 4 + (0.1,) * 3,
        (0.05,) * 4,
    ),
    _in_space,
)
