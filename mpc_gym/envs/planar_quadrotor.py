"""A quadrotor in a vertical plane that flies to a point, perhaps round an obstacle."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from mpc_gym.checks import check_number
from mpc_gym.envs.constrained import CRASH_COST, ConstrainedEnv
from mpc_gym.envs.spaces import UNLIMITED
from mpc_gym.envs.vector import DiffVectorEnv
from mpc_gym.models import DiscObstacle, PlanarQuadrotorDynamics, QuadraticCost

if TYPE_CHECKING:
    from mpc_gym.rendering import Canvas, Scene
    from mpc_gym.rendering.palette import Colour

MAX_THRUST = 3.0
OBSTACLE_AT = (-1.5, 0.0)
LARGEST_OBSTACLE = 0.9  # which spares the goal, and can be avoided from all start states
BEHIND = 3.5  # how far to the left of the goal start states are, behind the obstacle [m]

# Of a picture [m], but for the parts of the body, which are in arms.
REACH, REACH_ROUND = 2.0, 2.7  # without and with an obstacle
BETWEEN = (-1.8, 0.0)  # start states and goal, with an obstacle
MARGIN = 0.3
GRID = 1.0
GRID_LINE = 0.012
GOAL = 0.10
TRAIL = 0.05
FORCE_ARROW = 0.045
LONGEST_FORCE = 0.9
FRAME = 0.28
MAST = 0.35
BLADE = 0.62


def hover_cost() -> QuadraticCost:
    """At the origin, level, at rest, with the thrust that carries the weight."""
    return QuadraticCost.from_goal(
        goal_state=torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64),
        goal_weights=torch.tensor([1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1], dtype=torch.float64),
        control_penalty=torch.tensor([0.01, 0.01], dtype=torch.float64),
    )


class DiffPlanarQuadrotorEnv(ConstrainedEnv):
    r"""A body with two rotors, to be flown to the origin and held there.

    ## Description

    A quadrotor seen from the side. Each rotor pushes along the body's own axis, so that it has to
    lean to move sideways. The modules that make the next state and the reward,
    `env.unwrapped.dynamics` and `env.unwrapped.cost`, can be differentiated and planned with.

    With the total thrust `T = 2 trim + left + right` and `trim` = 4.905 N, half the default weight,
    every `dt` = 0.05 s (fourth-order Runge-Kutta),

        x''     = -T / mass sin(theta) - drag / mass x'
        z''     =  T / mass cos(theta) - gravity - drag / mass z'
        theta'' = arm / inertia (right - left)

    `theta` is 0 where the body is level and grows counter-clockwise.

    ## Action space

    | Num | Action                                | Min  | Max | Unit |
    |-----|---------------------------------------|------|-----|------|
    | 0   | thrust of the left rotor beyond trim  | -3.0 | 3.0 | N    |
    | 1   | thrust of the right rotor beyond trim | -3.0 | 3.0 | N    |

    A `Box` of shape `(2,)`, float32. Actions out of the limits are clipped.

    ## Observation space

    | Num | Observation      | Min     | Max    | Unit  |
    |-----|------------------|---------|--------|-------|
    | 0   | x, to the right  | -3.4e38 | 3.4e38 | m     |
    | 1   | z, upwards       | -3.4e38 | 3.4e38 | m     |
    | 2   | cos(theta)       | -1.0    | 1.0    |       |
    | 3   | sin(theta)       | -1.0    | 1.0    |       |
    | 4   | velocity of x    | -3.4e38 | 3.4e38 | m/s   |
    | 5   | velocity of z    | -3.4e38 | 3.4e38 | m/s   |
    | 6   | angular velocity | -3.4e38 | 3.4e38 | rad/s |

    A `Box` of shape `(7,)`, float32, that names its environment (`EnvBox`). Five entries have no
    limit but that of float32.

    ## Reward

    `cos(theta) - 0.5 - 0.5 (x^2 + z^2) - 0.05 (x_dot^2 + z_dot^2 + theta_dot^2) - 0.005 (left^2 +
    right^2)`, of the state before the step and the clipped action: minus a quadratic cost, with
    goal (0, 0, 1, 0, 0, 0, 0), goal weights (1, 1, 1, 1, 0.1, 0.1, 0.1) and control penalty 0.01.
    At most 0.5.

    The step that hits the obstacle earns 2,000 less: more than 200 steps cost a quadrotor that
    hovers where it starts farthest away (1,525). One that falls or flies away loses more still.

    ## Start state

    `x` and `z` are uniform in [-1.5, 1.5], `theta` in [-1, 1], and the velocities in [-0.5, 0.5].
    With an obstacle `x` is in [-4, -3], behind it, and `z` in [-0.5, 0.5].
    `reset(options={"state": [...]})` starts from a state of choice,
    `reset(options={"parameters": {"mass": (0.8, 1.2)}})` draws parameters (see `DiffEnv.reset`).

    ## End of the episode

    It terminates where the middle of the body comes nearer than `obstacle` to the point (-1.5, 0)
    (by more than rounding, a millionth of a metre). Without an obstacle it never does. It is
    truncated after 200 steps.

    ## Obstacle

    `env.unwrapped.constraints`, a `DiscObstacle`, is what a controller has to know of it: plans of
    `make_mpc(env)` and of planning policies keep the middle of the body outside at every stage.
    `horizon=30, starts=8` plans far enough to see the way round. A picture shows the disc, by one
    arm smaller than `obstacle`: the body does not touch it, however it leans.

    ## Arguments

    Given to `gymnasium.make`, such as `gymnasium.make("DiffPlanarQuadrotor-v0", obstacle=0.7)`.

    Args:
        render_mode: None, "rgb_array", "rgb_array_list" or "human".
        gravity: [m/s^2].
        mass: [kg], positive.
        inertia: moment of inertia about the middle [kg m^2], positive.
        arm: from the middle to each rotor [m], positive.
        drag: force against the velocity [N s/m].
        obstacle: how near the middle of the body may come to (-1.5, 0) [m], positive and at most
            0.9; None: there is no obstacle.
        width: of a frame [pixels].
        height: of a frame [pixels].

    Raises:
        ValueError: an argument is not finite, or not within its limits.
    """

    env_id = "DiffPlanarQuadrotor-v0"
    start_limit: tuple[float, ...] = (1.5, 1.5, 1.0, 0.5, 0.5, 0.5)
    place = "outside the obstacle"

    dynamics: PlanarQuadrotorDynamics
    cost: QuadraticCost

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        gravity: float = 9.81,
        mass: float = 1.0,
        inertia: float = 0.02,
        arm: float = 0.2,
        drag: float = 0.1,
        obstacle: float | None = None,
        width: int = 500,
        height: int = 500,
    ) -> None:
        with_obstacle: dict[str, Any] = {}
        if obstacle is not None:
            obstacle = check_number("obstacle", obstacle, above=0.0, most=LARGEST_OBSTACLE)
            self.start_limit = (0.5, 0.5, *self.start_limit[2:])
            self.horizon = 30
            with_obstacle = {
                "settings": {"obstacle": obstacle},
                "constraints": DiscObstacle(obstacle, OBSTACLE_AT),
                "end_cost": CRASH_COST,
            }
        limits = [UNLIMITED, UNLIMITED, 1.0, 1.0, UNLIMITED, UNLIMITED, UNLIMITED]
        super().__init__(
            physics={
                "gravity": gravity,
                "mass": mass,
                "inertia": inertia,
                "arm": arm,
                "drag": drag,
            },
            cost=hover_cost(),
            state_limit=np.array(limits),
            control_limit=np.array([MAX_THRUST, MAX_THRUST]),
            render_mode=render_mode,
            width=width,
            height=height,
            **with_obstacle,
        )

    @staticmethod
    def make_dynamics(**physics: float) -> PlanarQuadrotorDynamics:
        """The dynamics with these physical parameters."""
        return PlanarQuadrotorDynamics(**physics)

    def start_states(
        self, fractions: Float[np.ndarray, "*batch 6"]
    ) -> Float[NDArray[np.float64], "*batch 7"]:
        """As in `DiffEnv`; behind the obstacle, if there is one."""
        states = super().start_states(fractions)
        if self.constraints is not None:
            states[..., 0] -= BEHIND
        return states

    @staticmethod
    def states_from(
        coordinates: Float[np.ndarray, "*batch 6"],
    ) -> Float[NDArray[np.float64], "*batch 7"]:
        """States, from x, z, theta and their velocities."""
        x, z, theta, *velocities = (coordinates[..., i] for i in range(6))
        return np.stack((x, z, np.cos(theta), np.sin(theta), *velocities), -1)

    @staticmethod
    def draw(
        scene: "Scene", physics: Mapping[str, float], width: int, height: int
    ) -> NDArray[np.uint8]:
        """A frame [height, width, 3]: body, goal, trail, ghosts of the plan, an arrow a rotor.

        The camera stays until the body comes near an edge, then follows. An arrow is the thrust of
        a rotor beyond trim, downwards where it is less.
        """
        from mpc_gym.rendering import Canvas, palette, shapes
        from mpc_gym.rendering.scene import camera, ghosts, interpolated

        arm = physics["arm"]
        obstacle = physics.get("obstacle")
        middle, reach = ((0.0, 0.0), REACH) if obstacle is None else (BETWEEN, REACH_ROUND)
        half_size = np.array([width, height]) * reach / min(width, height)
        stay = np.maximum(half_size - arm - MARGIN, 0.0)
        canvas = Canvas(width, height, camera(scene.state[:2], middle, stay), reach)
        shapes.draw_grid(canvas, GRID, GRID_LINE)
        if obstacle is not None:
            canvas.disc(
                OBSTACLE_AT, max(obstacle - arm, GRID_LINE), palette.blend(palette.INK, 0.5)
            )
        canvas.ring((0.0, 0.0), GOAL, 2 * GRID_LINE, palette.blend(palette.INK, 0.5))
        path = [interpolated(scene.trail[:, i]) for i in range(2)]
        shapes.draw_trail(canvas, np.stack(path, -1), TRAIL)
        for ghost, opacity in ghosts(scene.plan_states):
            colour = palette.blend(palette.PLAN, opacity)
            _draw_body(canvas, ghost, arm, 0.7, (colour, colour))
        if scene.control is not None:
            for rotor, thrust in zip(_rotors(scene.state, arm), scene.control, strict=True):
                shapes.force_arrow(
                    canvas,
                    rotor,
                    float(thrust) / MAX_THRUST,
                    LONGEST_FORCE,
                    FORCE_ARROW,
                    palette.ACTION,
                    _tilt(scene.state) + math.pi / 2,
                )
        _draw_body(canvas, scene.state, arm, 1.0, (palette.BODY, palette.INK))
        canvas.caption(scene.caption, palette.blend(palette.INK, palette.CAPTION_OPACITY))
        return canvas.to_array()


class DiffPlanarQuadrotorVectorEnv(DiffVectorEnv):
    """Many `DiffPlanarQuadrotor-v0`."""

    env_class = DiffPlanarQuadrotorEnv


def _tilt(state: Float[np.ndarray, "7"]) -> float:
    return math.atan2(state[3], state[2])


def _rotors(state: Float[np.ndarray, "7"], arm: float) -> list[tuple[float, float]]:
    """Where the left and the right rotor are."""
    from mpc_gym.rendering.shapes import placed

    x, z = state[:2].tolist()
    height = MAST * arm
    return placed(((-arm, height), (arm, height)), (x, z), _tilt(state))


def _draw_body(
    canvas: "Canvas",
    state: Float[np.ndarray, "7"],
    arm: float,
    thickness: float,
    colours: "tuple[Colour, Colour]",
) -> None:
    """The frame and its masts, and the blades of the rotors, in a colour each."""
    from mpc_gym.rendering.shapes import placed

    x, z = state[:2].tolist()
    left, right = placed(((-arm, 0.0), (arm, 0.0)), (x, z), _tilt(state))
    frame = FRAME * arm * thickness
    canvas.rod(left, right, frame, colours[0])
    canvas.disc((x, z), frame, colours[0])
    blade = ((-BLADE * arm, 0.0), (BLADE * arm, 0.0))
    for foot, rotor in zip((left, right), _rotors(state, arm), strict=True):
        canvas.rod(foot, rotor, 0.5 * frame, colours[1])
        near, far = placed(blade, rotor, _tilt(state))
        canvas.rod(near, far, 0.5 * frame, colours[1])
