"""Mechanisms: an arm with seven joints, a chain of masses, an acrobot, a block on a floor."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.problems import Array
from benchmarks.system_models.system import GoalCost, Parameters, System, runge_kutta, within
from benchmarks.system_models.vehicles import GRAVITY

JOINTS = 7


class Arm(Parameters):
    """An arm whose joints are moved by their accelerations; semi-implicit Euler.

    State: angles [rad] and angular velocities [rad/s] of seven joints. Control: their
    accelerations [rad/s^2].

    Args:
        damping: [1/s], [7].
    """

    n_state, n_ctrl = 2 * JOINTS, JOINTS
    step = 0.05  # [s]

    def __init__(self) -> None:
        super().__init__(damping=(0.1,) * JOINTS)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The state one step later."""
        angles, speeds = state[..., :JOINTS], state[..., JOINTS:]
        speeds = speeds + self.step * (control - self.damping * speeds)
        return torch.cat((angles + self.step * speeds, speeds), -1)


class ReachCost(GoalCost):
    """The hand has to reach a place; angles, velocities and accelerations are to be small.

    The joints turn about the vertical and the lateral axis in turns, as those of common
    light-weight arms do.

    Args:
        links: distance of each joint from the one before, and of the hand from the last [m], [8].
        place: where the hand is to be [m], [3].
        price: of the squared distance [1/m^2].
    """

    def __init__(self) -> None:
        super().__init__(
            goal=(0.0,) * (2 * JOINTS),
            weights=(0.01,) * JOINTS + (0.05,) * JOINTS,
            penalties=(0.01,) * JOINTS,
            links=(0.34, 0.0, 0.4, 0.0, 0.4, 0.0, 0.13, 0.1),
            place=(0.4, 0.3, 0.5),
            price=20.0,
        )

    def hand(self, angles: Tensor) -> Tensor:
        """Where the hand is [m], by forward kinematics from the hand to the base."""
        x = y = torch.zeros_like(angles[..., 0])
        z = self.links[JOINTS].expand_as(x)
        for joint in reversed(range(JOINTS)):
            cosine, sine = torch.cos(angles[..., joint]), torch.sin(angles[..., joint])
            if joint % 2:
                x, z = cosine * x + sine * z, cosine * z - sine * x
            else:
                x, y = cosine * x - sine * y, sine * x + cosine * y
            z = z + self.links[joint]
        return torch.stack((x, y, z), -1)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The stage cost."""
        missed = (self.hand(state[..., :JOINTS]) - self.place).square().sum(-1)
        price: Tensor = 0.5 * self.price * missed
        return super().forward(state, control) + price


class Chain(Parameters):
    """Masses that hang on springs between a fixed point and a point that is moved.

    After Wirsching, Bock & Diehl (2006). State: positions of the free masses and of the moved
    point [m], then the velocities of the masses [m/s]. Control: velocity of the moved point [m/s].

    Args:
        mass: of each [kg].
        stiffness: [N/m].
        rest: length of an unloaded spring [m].
        masses: number of free masses.
    """

    n_ctrl = 3
    step = 0.1  # [s]

    def __init__(self, masses: int) -> None:
        super().__init__(mass=0.03, stiffness=1.0, rest=0.033)
        self.masses = masses
        self.n_state = 3 * (2 * masses + 1)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The state one step later."""
        moved = 3 * (self.masses + 1)
        fall = torch.zeros(3, dtype=state.dtype)
        fall[2] = -GRAVITY

        def rate(x: Tensor) -> Tensor:
            places = x[..., :moved].reshape(*x.shape[:-1], -1, 3)
            before = torch.cat((torch.zeros_like(places[..., :1, :]), places[..., :-1, :]), -2)
            along = places - before
            length = along.square().sum(-1, keepdim=True).sqrt()
            force = self.stiffness * (1 - self.rest / length) * along
            pull = (force[..., 1:, :] - force[..., :-1, :]) / self.mass + fall
            return torch.cat((x[..., moved:], control, pull.flatten(-2)), -1)

        return runge_kutta(rate, state, self.step)


class Acrobot(Parameters):
    """Two rods with a motor at the elbow, after Spong (1995); angles are not wrapped.

    State: angle of the first rod, 0 upright, angle of the second one relative to it [rad], and
    their rates [rad/s]. Control: torque at the elbow [N m].

    Args:
        mass: of each rod [kg].
        length: of each rod [m]; its centre is in its middle.
        inertia: of each rod about its centre [kg m^2].
    """

    n_state, n_ctrl = 4, 1
    step = 0.05  # [s]

    def __init__(self) -> None:
        super().__init__(mass=1.0, length=1.0, inertia=1.0 / 12.0)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The state one step later."""
        torque = control[..., 0]
        mass, length, half = self.mass, self.length, self.length / 2
        own = mass * half * half + self.inertia

        def rate(x: Tensor) -> Tensor:
            first, second, fast, faster = x.unbind(-1)
            coupling = mass * length * half * torch.cos(second)
            swing = mass * length * half * torch.sin(second)
            a = 2 * own + mass * length * length + 2 * coupling
            b = own + coupling
            of_second = mass * GRAVITY * half * torch.sin(first + second)
            of_first = mass * GRAVITY * (half + length) * torch.sin(first) + of_second
            push = swing * faster * (2 * fast + faster) + of_first
            bend = torque - swing * fast * fast + of_second
            determinant = a * own - b * b
            return torch.stack(
                (
                    fast,
                    faster,
                    (own * push - b * bend) / determinant,
                    (a * bend - b * push) / determinant,
                ),
                -1,
            )

        return runge_kutta(rate, state, self.step)


class Contact(Parameters):
    """A block above a floor that pushes back like a stiff spring and rubs; semi-implicit Euler.

    State: position x, height [m], and their rates. Control: force along x and upwards [N], too weak
    to lift the block. The force of the floor has a kink where the block touches it.

    Args:
        mass: [kg].
        stiffness: of the floor [N/m].
        friction: coefficient of the friction, whose direction is smoothed over 0.1 m/s.
    """

    n_state, n_ctrl = 4, 2
    step = 0.02  # [s]

    def __init__(self) -> None:
        super().__init__(mass=1.0, stiffness=2000.0, friction=0.3)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The state one step later."""
        place, speed = state[..., :2], state[..., 2:]
        push = self.stiffness * torch.relu(-state[..., 1])
        rub = -self.friction * push * torch.tanh(10 * state[..., 2])
        force = control + torch.stack((rub, push - self.mass * GRAVITY), -1)
        speed = speed + self.step * force / self.mass
        return torch.cat((place + self.step * speed, speed), -1)


def chain(name: str, masses: int) -> System:
    """A chain that is to come to rest where it is stretched along x, without sagging."""
    count = masses + 1
    line = np.outer(np.arange(1, count + 1) / count, (1.0, 0.0, 0.0))

    def draw(random: np.random.Generator, batch: int) -> Array:
        places = line + random.uniform(-0.1, 0.1, (batch, count, 3))
        places[:, :, 2] -= 0.1 * count * np.sin(np.pi * np.arange(1, count + 1) / count)
        speeds = random.uniform(-0.5, 0.5, (batch, 3 * masses))
        return np.concatenate((places.reshape(batch, -1), speeds), 1)

    goal = (*line.ravel().tolist(), *(0.0,) * (3 * masses))
    weights = (0.1,) * (3 * masses) + (2.5,) * 3 + (0.25,) * (3 * masses)
    return System(
        name,
        40,
        (1.0,) * 3,
        partial(Chain, masses),
        lambda: GoalCost(goal, weights, (0.1,) * 3),
        draw,
    )


ARM = System("arm", 30, (5.0,) * JOINTS, Arm, ReachCost, within(*(1.0,) * JOINTS, *(0.5,) * JOINTS))
CHAIN = chain("chain of masses", 2)
LONG_CHAIN = chain("long chain of masses", 5)
ACROBOT = System(
    "acrobot",
    60,
    (5.0,),
    Acrobot,
    lambda: GoalCost((0.0,) * 4, (1.0, 1.0, 0.1, 0.1), (0.01,)),
    within(np.pi, 1.0, 0.5, 0.5),
)
CONTACT = System(
    "stiff contact",
    40,
    (5.0, 5.0),
    Contact,
    lambda: GoalCost((0.0,) * 4, (1.0, 1.0, 0.1, 0.1), (0.01, 0.01)),
    within(0.5, 0.2, 1.0, 0.5, centre=(0.0, 0.3, 0.0, 0.0)),
)
