"""Rigid links in a plane, each hinged to the one before, the first to a cart or a fixed pivot.

Link i has the angle phi_i from the vertical (upright: zero), mass m_i, its centre of mass at the
distance a_i from its hinge, the next hinge at l_i, and the inertia I_i about its centre. With

    h_i = m_i a_i + l_i (m_{i+1} + ... + m_n),   c_ij = l_i h_j  (i < j),   c_ji = c_ij,
    c_ii = I_i + m_i a_i^2 + l_i^2 (m_{i+1} + ... + m_n),   m = m_cart + m_1 + ... + m_n,

kinetic and potential energy are

    T = 1/2 sum_ij c_ij cos(phi_i - phi_j) phi_i' phi_j' + x' sum_i h_i cos(phi_i) phi_i' + m x'^2/2
    V = g sum_i h_i cos(phi_i)

and Lagrange's equations

    sum_j c_ij cos(phi_i - phi_j) phi_j'' + h_i cos(phi_i) x''
        = g h_i sin(phi_i) - sum_j c_ij sin(phi_i - phi_j) phi_j'^2 + t_i - t_{i+1}
    m x'' + sum_i h_i cos(phi_i) phi_i'' = f + sum_i h_i sin(phi_i) phi_i'^2.

Hinge i turns by theta_i = phi_i - phi_{i-1} and has the torque t_i = u_i - d_i theta_i' -
A_i theta_i'', with damping d_i and the inertia A_i of its motor (the armature). On the cart acts
f = u_0 - d_0 x'.
"""

from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor, nn

from mpc_gym.checks import check_count, check_number, check_size, found, real_tensor
from mpc_gym.models.base import Dynamics, physical_parameter, refuse_gradient
from mpc_gym.models.runge_kutta import runge_kutta

Scalar = Tensor | float


class ChainDynamics(Dynamics):
    """Links in a plane, on a cart or on a fixed pivot, driven at some of their joints.

    State `(x, cos theta_1, sin theta_1, ..., cos theta_n, sin theta_n, x', theta_1', ...,
    theta_n')`, each angle relative to the link before and the first to the vertical; without a cart
    there is no x and no x'. Control: the commands of the motors, each of which times its gear is a
    force [N] or a torque [N m]. Mass, centre and inertia act on the motion only in the combinations
    above, and a motion tells ratios of forces and inertias alone, so that not all parameters can be
    told apart.

    Args:
        link_mass: of each link [kg], positive.
        link_centre: from its hinge to its centre of mass [m], positive.
        link_inertia: about its centre of mass [kg m^2], positive.
        link_length: from its hinge to that of the next link [m], [n - 1]: a fact of the geometry,
            and no parameter.
        damping: of each joint, that of the cart first [N s/m, then N m s], not negative.
        gear: of each motor [N or N m], positive.
        motors: the joint of each motor, counted as in the state.
        cart_mass: [kg], positive; None: a fixed pivot.
        gravity: [m/s^2]; 0 for links that lie flat.
        armature: inertia of the motor of each hinge [kg m^2], not negative.
        dt: time step [s].
        substeps: steps of the fourth-order Runge-Kutta method in it, under constant commands.

    Raises:
        TypeError, ValueError: a number is not finite, not positive where it must be, or there are
            not as many as links, joints or motors.
    """

    positive_parameters: Collection[str] = (
        "link_mass",
        "link_centre",
        "link_inertia",
        "damping",
        "gear",
    )
    cart_mass: nn.Parameter | None

    def __init__(
        self,
        link_mass: ArrayLike,
        link_centre: ArrayLike,
        link_inertia: ArrayLike,
        *,
        link_length: ArrayLike = (),
        damping: ArrayLike,
        gear: ArrayLike,
        motors: Sequence[int],
        cart_mass: float | None = None,
        gravity: float = 9.81,
        armature: float = 0.0,
        dt: float,
        substeps: int = 1,
    ) -> None:
        masses = real_tensor("link_mass", link_mass)
        if masses.ndim != 1 or len(masses) == 0:
            raise ValueError(f"link_mass must be [n], one for each link, got {found(link_mass)}")
        count = len(masses)
        self._cart = int(cart_mass is not None)
        super().__init__(n_state=2 * self._cart + 3 * count, n_ctrl=len(motors))
        if cart_mass is None:
            self.register_parameter("cart_mass", None)
        else:
            self.cart_mass = physical_parameter("cart_mass", cart_mass, positive=True)
            self.positive_parameters = ("cart_mass", *self.positive_parameters)
        self.unit_pairs = tuple((self._cart + 2 * i, self._cart + 2 * i + 1) for i in range(count))
        self.link_mass = _positive("link_mass", link_mass, count)
        self.link_centre = _positive("link_centre", link_centre, count)
        self.link_inertia = _positive("link_inertia", link_inertia, count)
        refuse_gradient("damping", damping)
        self.damping = nn.Parameter(_numbers("damping", damping, self._cart + count))
        self.gear = _positive("gear", gear, len(motors))
        self.gravity = physical_parameter("gravity", gravity)
        self.link_length = _numbers("link_length", link_length, count - 1).tolist()
        self.armature = check_number("armature", armature, least=0.0)
        last = self._cart + count - 1
        self.motors = tuple(check_count("motors", joint, 0, last) for joint in motors)
        self.dt = check_number("dt", dt, above=0.0)
        self.substeps = check_size("substeps", substeps)

    def forward(
        self, state: Float[Tensor, "*batch n_state"], control: Float[Tensor, "*batch n_ctrl"]
    ) -> Float[Tensor, "*batch n_state"]:
        """The state one step of `dt` later."""
        cart, links = self._cart, len(self.link_mass)
        placed, velocities = state[..., : cart + 2 * links], state[..., cart + 2 * links :]
        angles = torch.atan2(placed[..., cart + 1 :: 2], placed[..., cart::2])
        start = torch.cat((placed[..., :cart], angles, velocities), -1)
        force = control * self.gear
        end = runge_kutta(lambda y: self._derivative(y, force), start, self.dt, self.substeps)
        angles = end[..., cart : cart + links]
        turned = torch.stack((torch.cos(angles), torch.sin(angles)), -1).flatten(-2)
        next_state = torch.cat((end[..., :cart], turned, end[..., cart + links :]), -1)
        return next_state.to(state.dtype)  # a single float32 state was promoted by the parameters

    def _derivative(self, y: Tensor, force: Tensor) -> Tensor:
        """Of joint positions and velocities."""
        cart = self._cart
        joints = cart + len(self.link_mass)
        positions, velocities = y[..., :joints].unbind(-1), y[..., joints:].unbind(-1)
        torques = [-self.damping[k] * velocities[k] for k in range(joints)]
        for motor, joint in enumerate(self.motors):
            torques[joint] = torques[joint] + force[..., motor]
        # in the plane, not relative to the link before
        angles, speeds = (list(accumulate(each[cart:])) for each in (positions, velocities))
        matrix, right = self._links(angles, speeds, torques[cart:])
        if cart:
            matrix, right = self._with_cart(matrix, right, angles, speeds, torques[0])
        found = _solved(matrix, right)
        relative = [b - a for a, b in pairwise(found[cart:])]
        return torch.stack((*velocities, *found[: cart + 1], *relative), -1)

    def _levers(self) -> tuple[list[Tensor], list[Tensor]]:
        """h and the diagonal of c."""
        levers, inertias = [], []
        lengths = [*self.link_length, 0.0]  # that of the last link bears nothing
        for i, length in enumerate(lengths):
            mass, centre = self.link_mass[i], self.link_centre[i]
            lever = mass * centre
            inertia = self.link_inertia[i] + mass * centre**2
            for carried in self.link_mass[i + 1 :]:
                lever = lever + length * carried
                inertia = inertia + length**2 * carried
            levers.append(lever)
            inertias.append(inertia)
        return levers, inertias

    def _links(
        self, angles: list[Tensor], speeds: list[Tensor], torques: list[Tensor]
    ) -> tuple[list[list[Scalar]], list[Scalar]]:
        """Matrix and right side of the equations of the links, without x''."""
        levers, inertias = self._levers()
        count = len(angles)
        matrix: list[list[Scalar]] = [[0.0] * count for _ in range(count)]
        right: list[Scalar] = []
        for i in range(count):
            matrix[i][i] = inertias[i] + self.armature
            turning = self.gravity * levers[i] * torch.sin(angles[i]) + torques[i]
            if i + 1 < count:
                matrix[i][i] = matrix[i][i] + self.armature
                turning = turning - torques[i + 1]
            right.append(turning)
        for i in range(count):
            for j in range(i + 1, count):
                coupling = self.link_length[i] * levers[j]
                between = angles[i] - angles[j]
                shared = coupling * torch.cos(between)
                if j == i + 1:
                    shared = shared - self.armature
                matrix[i][j] = matrix[j][i] = shared
                sine = coupling * torch.sin(between)
                right[i] = right[i] - sine * speeds[j] ** 2
                right[j] = right[j] + sine * speeds[i] ** 2
        return matrix, right

    def _with_cart(
        self,
        matrix: list[list[Scalar]],
        right: list[Scalar],
        angles: list[Tensor],
        speeds: list[Tensor],
        force: Tensor,
    ) -> tuple[list[list[Scalar]], list[Scalar]]:
        """The same with x'', as the first unknown."""
        assert self.cart_mass is not None
        levers, _ = self._levers()
        total: Tensor = self.cart_mass
        shared = []
        for lever, angle, speed, mass in zip(levers, angles, speeds, self.link_mass, strict=True):
            total = total + mass
            shared.append(lever * torch.cos(angle))
            force = force + lever * torch.sin(angle) * speed**2
        first: list[Scalar] = [total, *shared]
        rest = [[each, *row] for each, row in zip(shared, matrix, strict=True)]
        return [first, *rest], [force, *right]


def _solved(matrix: list[list[Scalar]], right: list[Scalar]) -> list[Tensor]:
    """x of M x = b for a positive definite M, which needs no pivots."""
    count = len(right)
    for k in range(count):
        for i in range(k + 1, count):
            factor = matrix[i][k] / matrix[k][k]
            matrix[i] = [a - factor * b for a, b in zip(matrix[i], matrix[k], strict=True)]
            right[i] = right[i] - factor * right[k]
    solution: list[Tensor] = []
    for i in reversed(range(count)):
        known = right[i]
        for column, value in zip(matrix[i][i + 1 :], solution, strict=True):
            known = known - column * value
        solution.insert(0, torch.as_tensor(known / matrix[i][i]))
    return solution


def _positive(name: str, values: ArrayLike, count: int) -> nn.Parameter:
    refuse_gradient(name, values)
    numbers = _numbers(name, values, count)
    if not (numbers > 0).all():
        raise ValueError(f"{name} must be positive in every entry, got {found(values)}")
    return nn.Parameter(numbers)


def _numbers(name: str, values: ArrayLike, count: int) -> Float[Tensor, " count"]:
    numbers = real_tensor(name, values, torch.float64)
    if numbers.shape != (count,) or not numbers.isfinite().all() or (numbers < 0).any():
        raise ValueError(
            f"{name} must be {count} finite numbers, none negative, got {found(values)}"
        )
    return numbers
