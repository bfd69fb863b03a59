"""The pendulum that swings up: Gymnasium's Pendulum-v1 over a differentiable model, and in wind."""

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.vector import DiffVectorEnv
from mpc_gym.models import PendulumCost, PendulumDynamics

if TYPE_CHECKING:
    from mpc_gym.rendering import Canvas, Scene
    from mpc_gym.rendering.palette import Colour

MAX_SPEED = 8.0
MAX_TORQUE = 2.0

# Of a picture, in lengths of the rod.
REACH = 1.35
ROD = 0.10
BOB = 0.12
PIVOT = 0.055
GUIDE_LINE = 0.008
TRAIL = 0.045
TORQUE_RADIUS = 0.42
TORQUE_ARROW = 0.035
LONGEST_TORQUE = math.radians(120)
PIVOT_AT = (0.0, 0.0)


class DiffPendulumEnv(DiffEnv):
    r"""A pendulum to be swung up and held upright by a torque too weak to lift it at once.

    ## Description

    A uniform rod turns about one end under gravity and a torque applied there. The angle
    `theta` is 0 upright and grows counter-clockwise. With the default arguments this is
    Gymnasium's `Pendulum-v1`: the same dynamics, spaces, limits, reward and start states (drawn by
    the same random numbers), so scores compare. What is added are the modules
    `env.unwrapped.dynamics` and `env.unwrapped.cost`, which can be differentiated and planned with.

    Every `dt` = 0.05 s,

        theta_dot <- clip(theta_dot + dt (3 g / (2 l) sin(theta + wind) + 3 / (m l^2) torque
                                          - damping theta_dot), -8, 8)
        theta     <- theta + dt theta_dot

    ## Action space

    | Num | Action | Min  | Max | Unit |
    |-----|--------|------|-----|------|
    | 0   | torque | -2.0 | 2.0 | N m  |

    A `Box` of shape `(1,)`, float32. Actions out of the limits are clipped.

    ## Observation space

    | Num | Observation      | Min  | Max | Unit  |
    |-----|------------------|------|-----|-------|
    | 0   | cos(theta)       | -1.0 | 1.0 |       |
    | 1   | sin(theta)       | -1.0 | 1.0 |       |
    | 2   | angular velocity | -8.0 | 8.0 | rad/s |

    A `Box` of shape `(3,)`, float32, that names its environment (`EnvBox`).

    ## Reward

    `-(theta^2 + 0.1 theta_dot^2 + 0.001 torque^2)` with `theta` in [-pi, pi], of the state before
    the step and the clipped torque. It lies in [-16.27, 0].

    ## Start state

    `theta` is uniform in [-pi, pi], the angular velocity in [-1, 1].
    `reset(options={"state": [cos(theta), sin(theta), theta_dot]})` starts from a state of choice,
    `reset(options={"parameters": {"length": (0.8, 1.2)}})` draws parameters (see `DiffEnv.reset`).

    ## End of the episode

    It is truncated after 200 steps. It never terminates.

    ## Arguments

    Given to `gymnasium.make`, such as `gymnasium.make("DiffPendulum-v0", length=1.2)`.

    Args:
        render_mode: None, "rgb_array", "rgb_array_list" or "human".
        gravity: [m/s^2].
        mass: of the rod [kg], positive.
        length: of the rod [m], positive.
        damping: of the angular speed [1/s].
        wind: angle by which the direction of gravity is turned [rad].
        width: of a frame [pixels].
        height: of a frame [pixels].

    Raises:
        ValueError: an argument is not finite, or is not positive where it must be.
    """

    env_id = "DiffPendulum-v0"
    start_limit = (np.pi, 1.0)
    # Pendulum-v1 multiplies a float32 torque by 3 / (m l^2) = 3 in float32. The motion is chaotic:
    # without the same rounding the two part by more than 1e-5 within 200 steps.
    float32_gain = 3.0

    dynamics: PendulumDynamics
    cost: PendulumCost

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        gravity: float = 10.0,
        mass: float = 1.0,
        length: float = 1.0,
        damping: float = 0.0,
        wind: float = 0.0,
        width: int = 500,
        height: int = 500,
    ) -> None:
        super().__init__(
            physics={
                "gravity": gravity,
                "mass": mass,
                "length": length,
                "damping": damping,
                "wind": wind,
            },
            cost=PendulumCost(),
            state_limit=np.array([1.0, 1.0, MAX_SPEED]),
            control_limit=np.array([MAX_TORQUE]),
            render_mode=render_mode,
            width=width,
            height=height,
        )

    @staticmethod
    def make_dynamics(**physics: float) -> PendulumDynamics:
        """The dynamics with these physical parameters."""
        return PendulumDynamics(**physics, max_speed=MAX_SPEED)

    @staticmethod
    def states_from(
        coordinates: Float[np.ndarray, "*batch 2"],
    ) -> Float[NDArray[np.float64], "*batch 3"]:
        """States, from theta and theta_dot."""
        theta, speed = coordinates[..., 0], coordinates[..., 1]
        return np.stack((np.cos(theta), np.sin(theta), speed), -1)

    @staticmethod
    def draw(
        scene: "Scene",
        physics: Mapping[str, float],  # noqa: ARG004  (the rod fills the frame, however long it is)
        width: int,
        height: int,
    ) -> NDArray[np.uint8]:
        """A frame [height, width, 3]: rod, trail, ghosts of the plan, an arrow for the torque."""
        from mpc_gym.rendering import Canvas, palette, shapes
        from mpc_gym.rendering.scene import ghosts, interpolated_angles

        canvas = Canvas(width, height, PIVOT_AT, REACH)
        canvas.ring(PIVOT_AT, 1.0, GUIDE_LINE, palette.GUIDE)
        canvas.rod((0.0, 1.0 - 2 * BOB), (0.0, 1.0 + 2 * BOB), GUIDE_LINE, palette.GUIDE)
        theta = interpolated_angles(scene.trail[:, 0], scene.trail[:, 1])
        shapes.draw_trail(canvas, np.stack((-np.sin(theta), np.cos(theta)), -1), TRAIL)
        for ghost, opacity in ghosts(scene.plan_states):
            colour = palette.blend(palette.PLAN, opacity)
            _draw_body(canvas, ghost, 0.6 * ROD, 0.8 * BOB, (colour, colour))
        _draw_body(canvas, scene.state, ROD, BOB, (palette.BODY, palette.INK))
        if scene.control is not None:
            shapes.torque_arrow(
                canvas,
                PIVOT_AT,
                TORQUE_RADIUS,
                start=math.atan2(scene.state[0], -scene.state[1]),
                fraction=float(scene.control[0]) / MAX_TORQUE,
                longest=LONGEST_TORQUE,
                thickness=TORQUE_ARROW,
                colour=palette.ACTION,
            )
        canvas.disc(PIVOT_AT, PIVOT, palette.INK)
        canvas.caption(scene.caption, palette.blend(palette.INK, palette.CAPTION_OPACITY))
        return canvas.to_array()


class DiffPendulumVectorEnv(DiffVectorEnv):
    """Many `DiffPendulum-v0`."""

    env_class = DiffPendulumEnv


class DiffPendulumWindyEnv(DiffPendulumEnv):
    r"""The pendulum of `DiffPendulum-v0` with friction, and gravity turned as if by wind.

    ## Description

    The expert of Amos et al., "Differentiable MPC for End-to-end Planning and Control" (2018),
    section 5.4: a pendulum whose angular speed is damped and whose gravity is turned by an angle.
    A controller that plans with the plain pendulum cannot be exact here, whatever gravity, mass
    and length it learns: its model class does not hold the truth.

    So there are two models. `make_mpc("DiffPendulumWindy-v0")`, like a policy, plans with the plain
    pendulum, whose `damping` and `wind` are 0. `make_mpc("DiffPendulumWindy-v0", model="true")` is
    the expert, which plans with the dynamics that the environment has.

    The equations of motion, the action and observation spaces, the reward, the start states and the
    end of the episode are those of `DiffPendulum-v0`. The goal is upright as without wind, and
    holding the rod there takes a torque.

    ## Arguments

    Given to `gymnasium.make`, such as `gymnasium.make("DiffPendulumWindy-v0", wind=0.2)`.

    Args:
        render_mode: None, "rgb_array", "rgb_array_list" or "human".
        damping: of the angular speed [1/s].
        wind: angle by which the direction of gravity is turned [rad].
        others: gravity, mass, length, width and height, as of `DiffPendulum-v0`.

    Raises:
        ValueError: an argument is not finite, or is not positive where it must be.
    """

    env_id = "DiffPendulumWindy-v0"

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        damping: float = 1.0,
        wind: float = 0.1,
        **others: Any,
    ) -> None:
        super().__init__(render_mode, damping=damping, wind=wind, **others)

    def nominal_dynamics(self) -> PendulumDynamics:
        """The plain pendulum, without damping and wind."""
        dynamics = copy.deepcopy(self.dynamics)
        with torch.no_grad():
            dynamics.damping.zero_()
            dynamics.wind.zero_()
        return dynamics


class DiffPendulumWindyVectorEnv(DiffVectorEnv):
    """Many `DiffPendulumWindy-v0`."""

    env_class = DiffPendulumWindyEnv


def _draw_body(
    canvas: "Canvas",
    state: Float[np.ndarray, "3"],
    rod: float,
    bob: float,
    colours: "tuple[Colour, Colour]",
) -> None:
    """The rod and the bob at its end, in a colour each."""
    tip = (-float(state[1]), float(state[0]))
    canvas.rod(PIVOT_AT, tip, rod, colours[0])
    canvas.disc(tip, bob, colours[1])
