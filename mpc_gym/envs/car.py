"""A small car that parks, perhaps on a road between walls."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mpc_gym.checks import check_number
from mpc_gym.envs.constrained import CRASH_COST, ConstrainedEnv
from mpc_gym.envs.spaces import UNLIMITED
from mpc_gym.envs.vector import DiffVectorEnv
from mpc_gym.models import CarDynamics, ParkingCost, RoadWalls

if TYPE_CHECKING:
    from mpc_gym.rendering import Canvas, Scene
    from mpc_gym.rendering.palette import Colour

MAX_ACCELERATION = 2.0
MAX_STEERING = 0.5
LENGTH, WIDTH = 0.50, 0.24  # of the car [m]
HALF_DIAGONAL = math.hypot(LENGTH, WIDTH) / 2
BRAKING = 0.07  # to stand, from the highest speed of start states [m]
NARROWEST = 0.4  # half a road on which the car can stand across [m]

# Of a picture [m].
REACH = 1.6
MARGIN = 0.1
GRID = 0.5
GRID_LINE = 0.008
WALL = 0.05
TRAIL = 0.035
WHEEL = (0.11, 0.05)
TRACK = 0.25  # between the wheels of an axle
PLACE = 1.16  # the parking place, in sizes of the car
FORCE_ARROW = 0.035
LONGEST_FORCE = 0.5


class DiffCarEnv(ConstrainedEnv):
    r"""A small car, to be parked at the origin, along x.

    ## Description

    A car of the size of a toy (0.5 m by 0.24 m) that drives both ways, as a bicycle whose wheels
    do not slip (Kong, Pfeiffer, Schildbach & Borrelli 2015). It cannot move sideways, and turns
    within a radius of 0.6 m: to stand beside the place is to have to leave it first. The modules
    that make the next state and the reward, `env.unwrapped.dynamics` and `env.unwrapped.cost`, can
    be differentiated and planned with.

    Every `dt` = 0.05 s (fourth-order Runge-Kutta), with `tan(beta) = rear / (front + rear)
    tan(steering)`,

        x'   = v cos(psi + beta)
        y'   = v sin(psi + beta)
        psi' = v sin(beta) / rear
        v'   = acceleration - drag v

    ## Action space

    | Num | Action                                        | Min  | Max | Unit  |
    |-----|-----------------------------------------------|------|-----|-------|
    | 0   | acceleration, forwards if > 0                 | -2.0 | 2.0 | m/s^2 |
    | 1   | angle of the front wheels, to the left if > 0 | -0.5 | 0.5 | rad   |

    A `Box` of shape `(2,)`, float32. Actions out of the limits are clipped.

    ## Observation space

    | Num | Observation | Min     | Max    | Unit |
    |-----|-------------|---------|--------|------|
    | 0   | x           | -3.4e38 | 3.4e38 | m    |
    | 1   | y           | -3.4e38 | 3.4e38 | m    |
    | 2   | cos(psi)    | -1.0    | 1.0    |      |
    | 3   | sin(psi)    | -1.0    | 1.0    |      |
    | 4   | speed v     | -3.4e38 | 3.4e38 | m/s  |

    A `Box` of shape `(5,)`, float32, that names its environment (`EnvBox`). Three entries have no
    limit but that of float32.

    ## Reward

    `-(x^2 + 5 (sqrt(y^2 + 0.01) - 0.1) + 2 (1 - cos(psi)) + 0.05 v^2 + 0.01 (acceleration^2 +
    steering^2))`, of the state before the step and the clipped action: minus a `ParkingCost`, whose
    docstring says why y does not count as y^2. At most 0.

    The step that hits a wall earns 2,000 less: more than 200 steps cost a car that stands still at
    the worst of its start states (1,900). One that drives away along the road loses more still.

    ## Start state

    `x` and `y` are uniform in [-1, 1], `psi` in [-pi, pi], `v` in [-0.5, 0.5]. On a road, `y` is
    nearer to the middle, such that the car can stop before it touches a wall, whatever its heading.
    `reset(options={"state": [x, y, cos(psi), sin(psi), v]})` starts from a state of choice,
    `reset(options={"parameters": {"front": (0.1, 0.2)}})` draws parameters (see `DiffEnv.reset`).

    ## End of the episode

    It terminates where a corner of the car is beyond a wall (by more than rounding, a millionth of
    a metre). Without a road it never does. It is truncated after 200 steps.

    ## Road

    `env.unwrapped.constraints`, `RoadWalls`, is what a controller has to know of the walls at
    y = +- `road`: plans of `make_mpc(env)` and of planning policies keep the car between them at
    every stage. It has to turn round there, forwards and backwards.

    ## Planning

    `make_mpc("DiffCar-v0", horizon=40, starts=8)` looks far enough ahead to turn round.

    ## Arguments

    Given to `gymnasium.make`, such as `gymnasium.make("DiffCar-v0", road=0.5)`.

    Args:
        render_mode: None, "rgb_array", "rgb_array_list" or "human".
        front: from the centre of mass to the front axle [m], positive.
        rear: from the centre of mass to the rear axle [m], positive.
        drag: of the speed [1/s].
        road: half the width of the road [m], at least 0.4; None: there are no walls.
        width: of a frame [pixels].
        height: of a frame [pixels].

    Raises:
        ValueError: an argument is not finite, or not within its limits.
    """

    env_id = "DiffCar-v0"
    horizon = 40
    start_limit: tuple[float, ...] = (1.0, 1.0, np.pi, 0.5)
    place = "on the road"

    dynamics: CarDynamics
    cost: ParkingCost

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        front: float = 0.16,
        rear: float = 0.17,
        drag: float = 0.2,
        road: float | None = None,
        width: int = 500,
        height: int = 500,
    ) -> None:
        on_road: dict[str, Any] = {}
        if road is not None:
            road = check_number("road", road, above=0.0)
            if road < NARROWEST:
                raise ValueError(f"road must be at least {NARROWEST} m for the car, got {road:g}")
            x, y, *others = self.start_limit
            self.start_limit = (x, min(y, road - HALF_DIAGONAL - BRAKING), *others)
            on_road = {
                "settings": {"road": road},
                "constraints": RoadWalls(road, LENGTH, WIDTH),
                "end_cost": CRASH_COST,
            }
        super().__init__(
            physics={"front": front, "rear": rear, "drag": drag},
            cost=ParkingCost(),
            state_limit=np.array([UNLIMITED, UNLIMITED, 1.0, 1.0, UNLIMITED]),
            control_limit=np.array([MAX_ACCELERATION, MAX_STEERING]),
            render_mode=render_mode,
            width=width,
            height=height,
            **on_road,
        )

    @staticmethod
    def make_dynamics(**physics: float) -> CarDynamics:
        """The dynamics with these physical parameters."""
        return CarDynamics(**physics)

    @staticmethod
    def states_from(
        coordinates: Float[np.ndarray, "*batch 4"],
    ) -> Float[NDArray[np.float64], "*batch 5"]:
        """States, from x, y, psi and v."""
        x, y, heading, speed = (coordinates[..., i] for i in range(4))
        return np.stack((x, y, np.cos(heading), np.sin(heading), speed), -1)

    @staticmethod
    def draw(
        scene: "Scene", physics: Mapping[str, float], width: int, height: int
    ) -> NDArray[np.uint8]:
        """A frame [height, width, 3]: car, place, trail, ghosts of the plan, an arrow, from above.

        The camera stays until the car comes near an edge, then follows. The arrow is the
        acceleration; the front wheels are turned as they are steered.
        """
        from mpc_gym.rendering import Canvas, palette, shapes
        from mpc_gym.rendering.scene import camera, ghosts, interpolated

        half_size = np.array([width, height]) * REACH / min(width, height)
        stay = np.maximum(half_size - HALF_DIAGONAL - MARGIN, 0.0)
        canvas = Canvas(width, height, camera(scene.state[:2], (0.0, 0.0), stay), REACH)
        shapes.draw_grid(canvas, GRID, GRID_LINE)
        canvas.box((0.0, 0.0), PLACE * LENGTH, PLACE * WIDTH, 0.02, palette.GUIDE)
        _draw_walls(canvas, physics.get("road"))
        path = [interpolated(scene.trail[:, i]) for i in range(2)]
        shapes.draw_trail(canvas, np.stack(path, -1), TRAIL)
        for ghost, opacity in ghosts(scene.plan_states):
            _draw_car(canvas, ghost, palette.blend(palette.PLAN, opacity))
        acceleration, steering = (0.0, 0.0) if scene.control is None else scene.control.tolist()
        _draw_wheels(canvas, scene.state, physics, steering, palette.INK)
        _draw_car(canvas, scene.state, palette.BODY)
        heading = _heading(scene.state)
        side = math.copysign(LENGTH / 2, acceleration)
        (tail,) = shapes.placed(((side, 0.0),), _position(scene.state), heading)
        fraction = acceleration / MAX_ACCELERATION
        shapes.force_arrow(
            canvas, tail, fraction, LONGEST_FORCE, FORCE_ARROW, palette.ACTION, heading
        )
        canvas.caption(scene.caption, palette.blend(palette.INK, palette.CAPTION_OPACITY))
        return canvas.to_array()


class DiffCarVectorEnv(DiffVectorEnv):
    """Many `DiffCar-v0`."""

    env_class = DiffCarEnv


def _position(state: Float[np.ndarray, "5"]) -> tuple[float, float]:
    return float(state[0]), float(state[1])


def _heading(state: Float[np.ndarray, "5"]) -> float:
    return math.atan2(state[3], state[2])


def _draw_walls(canvas: "Canvas", road: float | None) -> None:
    from mpc_gym.rendering.palette import INK, blend

    if road is None:
        return
    for side in (-1, 1):
        middle = (canvas.centre[0], side * (road + WALL / 2))
        canvas.box(middle, 2 * canvas.half_width, WALL, 0.0, blend(INK, 0.5))


def _draw_car(canvas: "Canvas", state: Float[np.ndarray, "5"], colour: "Colour") -> None:
    """The body, whose nose is narrower than its tail."""
    from mpc_gym.rendering.shapes import placed

    tail, nose, half = -LENGTH / 2, LENGTH / 2, WIDTH / 2
    outline = (
        (tail, -half),
        (0.6 * nose, -half),
        (nose, -0.6 * half),
        (nose, 0.6 * half),
        (0.6 * nose, half),
        (tail, half),
    )
    canvas.polygon(placed(outline, _position(state), _heading(state)), colour)


def _draw_wheels(
    canvas: "Canvas",
    state: Float[np.ndarray, "5"],
    physics: Mapping[str, float],
    steering: float,
    colour: "Colour",
) -> None:
    """The four wheels, which stick out of the body, those in front as they are steered."""
    from mpc_gym.rendering.shapes import placed

    half_length, half_width = WHEEL[0] / 2, WHEEL[1] / 2
    tyre = (
        (-half_length, -half_width),
        (half_length, -half_width),
        (half_length, half_width),
        (-half_length, half_width),
    )
    heading = _heading(state)
    axles = ((physics["front"], steering), (-physics["rear"], 0.0))
    for along, turned in axles:
        hubs = ((along, TRACK / 2), (along, -TRACK / 2))
        for hub in placed(hubs, _position(state), heading):
            canvas.polygon(placed(tyre, hub, heading + turned), colour)
