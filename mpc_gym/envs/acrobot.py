"""The acrobot that swings up: two links, and a motor at the elbow between them."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.spaces import UNLIMITED
from mpc_gym.envs.vector import DiffVectorEnv
from mpc_gym.models import AcrobotCost, AcrobotDynamics

if TYPE_CHECKING:
    from mpc_gym.rendering import Canvas, Scene
    from mpc_gym.rendering.palette import Colour

MAX_TORQUE = 6.0

# Of a picture, in halves of the length of both links.
REACH = 2.5
LINK = 0.15
TIP = 0.11
GUIDE_LINE = 0.014
TRAIL = 0.07
TORQUE_RADIUS = 0.5
TORQUE_ARROW = 0.06
LONGEST_TORQUE = math.radians(120)
SHOULDER = (0.0, 0.0)


class DiffAcrobotEnv(DiffEnv):
    r"""Two links that hang from a shoulder, to be swung up by a motor at the elbow alone.

    ## Description

    The acrobot of Sutton (1996), that of Gymnasium's `Acrobot-v1`: the same equations, masses,
    lengths and moments of inertia, and the same observation. What differs is the task. The torque
    is continuous and up to 6 N m instead of -1, 0 or 1; a step takes 0.05 s instead of 0.2 s; the
    speeds are not clipped; and the links are to stand upright, not only to reach a line. Gravity
    pulls at the horizontal links with 19.6 N m, so that they have to be swung. The modules that
    make the next state and the reward, `env.unwrapped.dynamics` and `env.unwrapped.cost`, can be
    differentiated and planned with.

    `theta1` is the angle of the upper link, 0 where it hangs down; `theta2` that of the lower link
    from the upper one, 0 where they are in line. Both grow counter-clockwise. The equations are at
    the head of `mpc_gym/models/acrobot.py`; a step is one of the fourth-order Runge-Kutta method.

    ## Action space

    | Num | Action                                         | Min  | Max | Unit |
    |-----|------------------------------------------------|------|-----|------|
    | 0   | torque at the elbow, to increase theta2 if > 0 | -6.0 | 6.0 | N m  |

    A `Box` of shape `(1,)`, float32. Actions out of the limits are clipped.

    ## Observation space

    | Num | Observation                    | Min     | Max    | Unit  |
    |-----|--------------------------------|---------|--------|-------|
    | 0   | cos(theta1)                    | -1.0    | 1.0    |       |
    | 1   | sin(theta1)                    | -1.0    | 1.0    |       |
    | 2   | cos(theta2)                    | -1.0    | 1.0    |       |
    | 3   | sin(theta2)                    | -1.0    | 1.0    |       |
    | 4   | angular velocity of theta1     | -3.4e38 | 3.4e38 | rad/s |
    | 5   | angular velocity of theta2     | -3.4e38 | 3.4e38 | rad/s |

    A `Box` of shape `(6,)`, float32, that names its environment (`EnvBox`). Two entries have no
    limit but that of float32.

    ## Reward

    `-(2 + cos(theta1) + cos(theta1 + theta2) + 0.01 theta1_dot^2 + 0.01 theta2_dot^2 + 0.001
    torque^2)`, of the state before the step and the clipped torque. At most 0, where both links
    stand upright at rest; -4 where they hang.

    ## Start state

    `theta1` and `theta2` are uniform in [-0.5, 0.5], their velocities too.
    `reset(options={"state": [cos(theta1), sin(theta1), cos(theta2), sin(theta2), theta1_dot,
    theta2_dot]})` starts from a state of choice,
    `reset(options={"parameters": {"lower_mass": (0.8, 1.2)}})` draws parameters (see
    `DiffEnv.reset`).

    ## End of the episode

    It is truncated after 200 steps. It never terminates.

    ## Planning

    A plan has to see the swing-up: `make_mpc("DiffAcrobot-v0", horizon=40, starts=8)`. With 20
    steps it stays hanging.

    ## Arguments

    Given to `gymnasium.make`, such as `gymnasium.make("DiffAcrobot-v0", lower_mass=1.2)`.

    Args:
        render_mode: None, "rgb_array", "rgb_array_list" or "human".
        gravity: [m/s^2].
        upper_mass: [kg], positive.
        lower_mass: [kg], positive.
        upper_length: from shoulder to elbow [m], positive.
        upper_centre: from shoulder to the upper link's centre of mass [m], positive.
        lower_centre: from elbow to the lower link's centre of mass [m], positive; a picture shows
            it as the middle of the link.
        upper_inertia: about its centre of mass [kg m^2], positive.
        lower_inertia: about its centre of mass [kg m^2], positive.
        shoulder_damping: torque against theta1_dot [N m s].
        elbow_damping: torque against theta2_dot [N m s].
        width: of a frame [pixels].
        height: of a frame [pixels].

    Raises:
        ValueError: an argument is not finite, or is not positive where it must be.
    """

    env_id = "DiffAcrobot-v0"
    horizon = 40
    start_limit = (0.5, 0.5, 0.5, 0.5)

    dynamics: AcrobotDynamics
    cost: AcrobotCost

    def __init__(
        self,
        render_mode: str | None = None,
        *,
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
        width: int = 500,
        height: int = 500,
    ) -> None:
        super().__init__(
            physics={
                "gravity": gravity,
                "upper_mass": upper_mass,
                "lower_mass": lower_mass,
                "upper_length": upper_length,
                "upper_centre": upper_centre,
                "lower_centre": lower_centre,
                "upper_inertia": upper_inertia,
                "lower_inertia": lower_inertia,
                "shoulder_damping": shoulder_damping,
                "elbow_damping": elbow_damping,
            },
            cost=AcrobotCost(),
            state_limit=np.array([1.0, 1.0, 1.0, 1.0, UNLIMITED, UNLIMITED]),
            control_limit=np.array([MAX_TORQUE]),
            render_mode=render_mode,
            width=width,
            height=height,
        )

    @staticmethod
    def make_dynamics(**physics: Any) -> AcrobotDynamics:
        """The dynamics with these physical parameters."""
        return AcrobotDynamics(**physics)

    @staticmethod
    def states_from(
        coordinates: Float[np.ndarray, "*batch 4"],
    ) -> Float[NDArray[np.float64], "*batch 6"]:
        """States, from theta1, theta2, theta1_dot and theta2_dot."""
        theta1, theta2, speed1, speed2 = (coordinates[..., i] for i in range(4))
        angles = (np.cos(theta1), np.sin(theta1), np.cos(theta2), np.sin(theta2))
        return np.stack((*angles, speed1, speed2), -1)

    @staticmethod
    def draw(
        scene: "Scene", physics: Mapping[str, float], width: int, height: int
    ) -> NDArray[np.uint8]:
        """A frame [height, width, 3]: links, trail of the tip, ghosts of the plan, the torque."""
        from mpc_gym.rendering import Canvas, palette, shapes
        from mpc_gym.rendering.scene import ghosts, interpolated_angles

        lengths = np.array([physics["upper_length"], 2 * physics["lower_centre"]])
        lengths *= 2 / lengths.sum()
        canvas = Canvas(width, height, SHOULDER, REACH)
        canvas.ring(SHOULDER, 2.0, GUIDE_LINE, palette.GUIDE)
        canvas.rod((0.0, 2.0 - TIP), (0.0, 2.0 + TIP), GUIDE_LINE, palette.GUIDE)
        past = scene.trail
        upper = interpolated_angles(past[:, 0], past[:, 1])
        lower = upper + interpolated_angles(past[:, 2], past[:, 3])
        tips = np.stack((np.sin(upper), -np.cos(upper)), -1) * lengths[0]
        tips += np.stack((np.sin(lower), -np.cos(lower)), -1) * lengths[1]
        shapes.draw_trail(canvas, tips, TRAIL)
        for ghost, opacity in ghosts(scene.plan_states):
            colour = palette.blend(palette.PLAN, opacity)
            _draw_links(canvas, _joints(ghost, lengths), 0.6 * LINK, (colour, colour))
        elbow, tip = joints = _joints(scene.state, lengths)
        _draw_links(canvas, joints, LINK, (palette.BODY, palette.INK))
        if scene.control is not None:
            shapes.torque_arrow(
                canvas,
                elbow,
                TORQUE_RADIUS,
                start=math.atan2(tip[1] - elbow[1], tip[0] - elbow[0]),
                fraction=float(scene.control[0]) / MAX_TORQUE,
                longest=LONGEST_TORQUE,
                thickness=TORQUE_ARROW,
                colour=palette.ACTION,
            )
        canvas.disc(SHOULDER, 0.5 * LINK, palette.INK)
        canvas.caption(scene.caption, palette.blend(palette.INK, palette.CAPTION_OPACITY))
        return canvas.to_array()


class DiffAcrobotVectorEnv(DiffVectorEnv):
    """Many `DiffAcrobot-v0`."""

    env_class = DiffAcrobotEnv


def _joints(
    state: Float[np.ndarray, "6"], lengths: Float[np.ndarray, "2"]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the elbow and the tip are."""
    cos1, sin1, cos2, sin2 = state[:4].tolist()
    upper, lower = lengths.tolist()
    elbow = (upper * sin1, -upper * cos1)
    sine, cosine = sin1 * cos2 + cos1 * sin2, cos1 * cos2 - sin1 * sin2
    return elbow, (elbow[0] + lower * sine, elbow[1] - lower * cosine)


def _draw_links(
    canvas: "Canvas",
    joints: tuple[tuple[float, float], tuple[float, float]],
    thickness: float,
    colours: "tuple[Colour, Colour]",
) -> None:
    """Both links, and the elbow and the tip, in a colour each."""
    elbow, tip = joints
    canvas.rod(SHOULDER, elbow, thickness, colours[0])
    canvas.rod(elbow, tip, thickness, colours[0])
    canvas.disc(elbow, 0.4 * thickness, colours[1])
    canvas.disc(tip, TIP * thickness / LINK, colours[1])
