"""The acrobot: a double pendulum with a motor at its elbow alone (Spong 1995; Sutton 1996).

    (a + 2 b cos t2) t1'' + (d + b cos t2) t2'' = b sin t2 (2 t1' + t2') t2'
                                                  - e sin t1 - f sin(t1 + t2) - k1 t1'
    (d + b cos t2) t1'' + d t2'' = u - b sin t2 t1'^2 - f sin(t1 + t2) - k2 t2'

    a = m1 c1^2 + m2 (l1^2 + c2^2) + I1 + I2,   b = m2 l1 c2,   d = m2 c2^2 + I2,
    e = (m1 c1 + m2 l1) g,                      f = m2 c2 g

with mass m, length l, distance c from the joint above to the centre of mass, moment of inertia I
about it, and damping k of that joint, of the upper (1) and the lower link (2). t1 = 0 hangs down,
and t2, the angle between the links, is 0 where they are in line: the angles of Gymnasium's
Acrobot-v1.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mpc_gym.checks import check_count, check_number
from mpc_gym.models.base import Cost, Dynamics, angle, physical_parameter
from mpc_gym.models.runge_kutta import runge_kutta


class AcrobotDynamics(Dynamics):
    """Two links that swing from a shoulder, driven by a torque at the elbow between them.

    State `(cos theta1, sin theta1, cos theta2, sin theta2, theta1_dot, theta2_dot)`, control
    `(torque,)` [N m]. theta1 is the angle of the upper link, 0 where it hangs down; theta2 that of
    the lower link from the upper one, 0 where they are in line. Both grow counter-clockwise. Only
    the five numbers a, b, d, e, f at the head of this file and the damping act on the motion.

    The parameters are those of Sutton (1996). `dt=0.2, max_shoulder_speed=4 * pi,
    max_elbow_speed=9 * pi` makes a step that of Gymnasium's `Acrobot-v1`, where the torque is -1, 0
    or 1 N m. Spong (1995) has two rods: `lower_length=2`, which is to say `lower_centre=1.0,
    upper_inertia=0.083, lower_inertia=0.33`.

    Args:
        gravity: [m/s^2].
        upper_mass: [kg], positive.
        lower_mass: [kg], positive.
        upper_length: from shoulder to elbow [m], positive. (That of the lower link moves nothing.)
        upper_centre: from shoulder to the upper link's centre of mass [m], positive.
        lower_centre: from elbow to the lower link's centre of mass [m], positive.
        upper_inertia: about its centre of mass [kg m^2], positive.
        lower_inertia: about its centre of mass [kg m^2], positive.
        shoulder_damping: torque against theta1_dot [N m s].
        elbow_damping: torque against theta2_dot [N m s].
        max_shoulder_speed: theta1_dot is clipped to +- this at the end of a step [rad/s]; None: no
            clip. Where it is clipped, the derivative of the next speed is zero.
        max_elbow_speed: the same for theta2_dot.
        dt: time step [s].
        substeps: steps of the fourth-order Runge-Kutta method in it, under a constant torque.

    Raises:
        ValueError: a parameter is not finite; a mass, length, distance, moment of inertia, speed or
            dt is not positive; or `substeps` is no positive integer.
    """

    n_state = 6
    n_ctrl = 1
    positive_parameters = (
        "upper_mass",
        "lower_mass",
        "upper_length",
        "upper_centre",
        "lower_centre",
        "upper_inertia",
        "lower_inertia",
    )
    unit_pairs = ((0, 1), (2, 3))

    def __init__(
        self,
        gravity: float = 9.8,
        upper_mass: float = 1.0,
        lower_mass: float = 1.0,
        upper_length: float = 1.0,
        upper_centre: float = 0.5,
        lower_centre: float = 0.5,
        upper_inertia: float = 1.0,
        lower_inertia: float = 1.0,
        shoulder_damping: float = 0.0,
        elbow_damping: float = 0.0,
        max_shoulder_speed: float | None = None,
        max_elbow_speed: float | None = None,
        dt: float = 0.05,
        substeps: int = 1,
    ) -> None:
        super().__init__()
        self.gravity = physical_parameter("gravity", gravity)
        self.upper_mass = physical_parameter("upper_mass", upper_mass, positive=True)
        self.lower_mass = physical_parameter("lower_mass", lower_mass, positive=True)
        self.upper_length = physical_parameter("upper_length", upper_length, positive=True)
        self.upper_centre = physical_parameter("upper_centre", upper_centre, positive=True)
        self.lower_centre = physical_parameter("lower_centre", lower_centre, positive=True)
        self.upper_inertia = physical_parameter("upper_inertia", upper_inertia, positive=True)
        self.lower_inertia = physical_parameter("lower_inertia", lower_inertia, positive=True)
        self.shoulder_damping = physical_parameter("shoulder_damping", shoulder_damping)
        self.elbow_damping = physical_parameter("elbow_damping", elbow_damping)
        self.max_shoulder_speed = _speed("max_shoulder_speed", max_shoulder_speed)
        self.max_elbow_speed = _speed("max_elbow_speed", max_elbow_speed)
        self.dt = check_number("dt", dt, above=0.0)
        self.substeps = check_count("substeps", substeps)

    def forward(
        self, state: Float[Tensor, "*batch 6"], control: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch 6"]:
        """The state one step of `dt` later."""
        cos1, sin1, cos2, sin2, speed1, speed2 = state.unbind(-1)
        torque = control[..., 0]
        start = torch.stack((angle(cos1, sin1), angle(cos2, sin2), speed1, speed2), -1)
        end = runge_kutta(lambda y: self._derivative(y, torque), start, self.dt, self.substeps)
        theta1, theta2, speed1, speed2 = end.unbind(-1)
        next_state = torch.stack(
            (
                torch.cos(theta1),
                torch.sin(theta1),
                torch.cos(theta2),
                torch.sin(theta2),
                _clipped(speed1, self.max_shoulder_speed),
                _clipped(speed2, self.max_elbow_speed),
            ),
            -1,
        )
        return next_state.to(state.dtype)  # a single float32 state was promoted by the parameters

    def _derivative(
        self, y: Float[Tensor, "*batch 4"], torque: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch 4"]:
        """Of (theta1, theta2, theta1_dot, theta2_dot)."""
        theta1, theta2, speed1, speed2 = y.unbind(-1)
        a = (
            self.upper_mass * self.upper_centre**2
            + self.lower_mass * (self.upper_length**2 + self.lower_centre**2)
            + self.upper_inertia
            + self.lower_inertia
        )
        b = self.lower_mass * self.upper_length * self.lower_centre
        d = self.lower_mass * self.lower_centre**2 + self.lower_inertia
        e = self.gravity * (
            self.upper_mass * self.upper_centre + self.lower_mass * self.upper_length
        )
        f = self.gravity * self.lower_mass * self.lower_centre
        cosine, sine = torch.cos(theta2), torch.sin(theta2)
        pull = f * torch.sin(theta1 + theta2)
        load1 = (
            b * sine * (2.0 * speed1 + speed2) * speed2
            - e * torch.sin(theta1)
            - pull
            - self.shoulder_damping * speed1
        )
        load2 = torque - b * sine * speed1**2 - pull - self.elbow_damping * speed2
        coupling = d + b * cosine
        determinant = (a + 2.0 * b * cosine) * d - coupling**2
        acceleration1 = (d * load1 - coupling * load2) / determinant
        acceleration2 = ((a + 2.0 * b * cosine) * load2 - coupling * load1) / determinant
        return torch.stack((speed1, speed2, acceleration1, acceleration2), -1)

    def extra_repr(self) -> str:
        """The settings that are not parameters."""
        return (
            f"max_shoulder_speed={self.max_shoulder_speed}, "
            f"max_elbow_speed={self.max_elbow_speed}, dt={self.dt}, substeps={self.substeps}"
        )


class AcrobotCost(Cost):
    """To stand upright: how far both links are from pointing up, and the speeds and the torque.

        height_weight (2 + cos theta1 + cos(theta1 + theta2))
        + shoulder_weight theta1_dot^2 + elbow_weight theta2_dot^2 + torque_weight torque^2

    A cost of theta2 would punish the bend that the swing-up needs. All weights are learnable.

    Args:
        height_weight: of what is missing of the height of the tip, in links of length 1.
        shoulder_weight: of theta1_dot^2 [s^2/rad^2].
        elbow_weight: of theta2_dot^2 [s^2/rad^2].
        torque_weight: of torque^2 [1/(N m)^2].

    Raises:
        ValueError: a weight is not finite.
    """

    positive_parameters = ("height_weight", "shoulder_weight", "elbow_weight", "torque_weight")

    def __init__(
        self,
        height_weight: float = 1.0,
        shoulder_weight: float = 0.01,
        elbow_weight: float = 0.01,
        torque_weight: float = 0.001,
    ) -> None:
        super().__init__()
        self.height_weight = physical_parameter("height_weight", height_weight)
        self.shoulder_weight = physical_parameter("shoulder_weight", shoulder_weight)
        self.elbow_weight = physical_parameter("elbow_weight", elbow_weight)
        self.torque_weight = physical_parameter("torque_weight", torque_weight)

    def forward(
        self, state: Float[Tensor, "*batch 6"], control: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch"]:
        """The cost of each row."""
        cos1, sin1, cos2, sin2, speed1, speed2 = state.unbind(-1)
        lower = cos1 * cos2 - sin1 * sin2  # cos(theta1 + theta2)
        total = (
            self.height_weight * (2.0 + cos1 + lower)
            + self.shoulder_weight * speed1**2
            + self.elbow_weight * speed2**2
            + self.torque_weight * control[..., 0] ** 2
        )
        return total.to(state.dtype)


def _speed(name: str, value: float | None) -> float | None:
    return None if value is None else check_number(name, value, above=0.0)


def _clipped(speed: Float[Tensor, "*batch"], limit: float | None) -> Float[Tensor, "*batch"]:
    return speed if limit is None else speed.clamp(-limit, limit)
