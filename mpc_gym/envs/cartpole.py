"""The cart-pole with a continuous force, whose pole starts anywhere."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray

from mpc_gym.checks import check_number
from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.spaces import UNLIMITED
from mpc_gym.envs.vector import DiffVectorEnv
from mpc_gym.models import CartPoleDynamics, CartPoleTrack, QuadraticCost

if TYPE_CHECKING:
    from mpc_gym.rendering import Canvas, Scene
    from mpc_gym.rendering.palette import Colour

MAX_FORCE = 100.0
LEAVING_COST = 1000.0
LEAVING_TOLERANCE = 1e-6  # of the track: observations are float32, constraints kept to 1e-7

# Of a picture, in lengths of the pole.
REACH = 1.7
CART_WIDTH = 0.46
CART_HEIGHT = 0.24
WHEEL = 0.07
POLE = 0.075
TIP = 0.055
RAIL = 0.012
TRAIL = 0.035
TICK = 0.05
TEXT = 0.11
FORCE_ARROW = 0.045
LONGEST_FORCE = 1.0
CAMERA_MARGIN = 1.1  # the pole stays in view where it lies to the side
BUFFER = 0.08


def goal_cost() -> QuadraticCost:
    """The cost of Amos et al. (2018), section 5: upright at the origin, at rest, with no force."""
    return QuadraticCost.from_goal(
        goal_state=torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64),
        goal_weights=torch.tensor([0.1, 0.1, 1.0, 1.0, 0.1], dtype=torch.float64),
        control_penalty=0.001,
    )


class DiffCartPoleEnv(DiffEnv):
    r"""A pole on a cart, to be swung up and held upright by pushing the cart.

    ## Description

    The cart-pole of Amos et al., "Differentiable MPC for End-to-end Planning and Control" (2018):
    Barto, Sutton and Anderson's cart and pole without friction, pushed by a continuous force, on a
    track without end, or on one that ends at +- `track`. The angle `theta` is 0 upright. The
    modules that make the next state and the reward, `env.unwrapped.dynamics` and
    `env.unwrapped.cost`, can be differentiated and planned with.

    With half length `l`, pole mass `m` and total mass `M`, every `dt` = 0.05 s (explicit Euler),

        push        = (force + m l theta_dot^2 sin(theta)) / M
        theta''     = (g sin(theta) - cos(theta) push) / (l (4/3 - m cos(theta)^2 / M))
        x''         = push - m l theta'' cos(theta) / M

    ## Action space

    | Num | Action                     | Min    | Max   | Unit |
    |-----|----------------------------|--------|-------|------|
    | 0   | force, to the right if > 0 | -100.0 | 100.0 | N    |

    A `Box` of shape `(1,)`, float32. Actions out of the limits are clipped.

    ## Observation space

    | Num | Observation             | Min      | Max     | Unit  |
    |-----|-------------------------|----------|---------|-------|
    | 0   | position of the cart    | -3.4e38  | 3.4e38  | m     |
    | 1   | velocity of the cart    | -3.4e38  | 3.4e38  | m/s   |
    | 2   | cos(theta)              | -1.0     | 1.0     |       |
    | 3   | sin(theta)              | -1.0     | 1.0     |       |
    | 4   | angular velocity        | -3.4e38  | 3.4e38  | rad/s |

    A `Box` of shape `(5,)`, float32, that names its environment (`EnvBox`). Three entries have no
    limit but that of float32.

    ## Reward

    `cos(theta) - 0.5 - 0.05 (x^2 + x_dot^2 + theta_dot^2) - 0.0005 force^2`, of the state before
    the step and the clipped force: minus the quadratic cost of the paper, with goal
    (0, 0, 1, 0, 0), goal weights (0.1, 0.1, 1, 1, 0.1) and control penalty 0.001. At most 0.5.

    The step that leaves the track earns 1,000 less. Most rewards are negative before the pole is
    up, so that an episode which ends early would be the better one, and what learns from rewards
    would learn to leave (PPO does). 1,000 is more than 200 steps cost a cart that is not pushed at
    all (916 in the worst of 500 start states on a track of 2.4 m) or is held in the middle (481).

    ## Start state

    `x` and `x_dot` are uniform in [-0.5, 0.5], `theta` in [-pi, pi], `theta_dot` in [-1, 1]; on a
    track, `x` within half of it, in [-track / 2, track / 2], where that is less.
    `reset(options={"state": [x, x_dot, cos(theta), sin(theta), theta_dot]})` starts from a state of
    choice, `reset(options={"parameters": {"pole_length": (0.4, 0.6)}})` draws parameters (see
    `DiffEnv.reset`).

    ## End of the episode

    It terminates when the cart leaves its track: when `|x| > track` (by more than rounding, a
    millionth of it). Without a track it never does. It is truncated after 200 steps.

    ## Track

    `env.unwrapped.constraints`, a `CartPoleTrack`, is what a controller has to know of it: plans of
    `make_mpc(env)` and of planning policies keep `|x| <= track` at every stage. From a state in
    which the track will be left whatever is done, they leave it by as little as possible.

    ## Arguments

    Given to `gymnasium.make`, such as `gymnasium.make("DiffCartPole-v0", pole_length=0.7)`.

    Args:
        render_mode: None, "rgb_array", "rgb_array_list" or "human".
        gravity: [m/s^2].
        cart_mass: [kg], positive.
        pole_mass: [kg], positive.
        pole_length: half the length of the pole, from pivot to its centre of mass [m], positive.
        track: half the length of the track [m], positive; None, as in the paper: it has no end.
        width: of a frame [pixels].
        height: of a frame [pixels].

    Raises:
        ValueError: an argument is not finite, or is not positive where it must be.
    """

    env_id = "DiffCartPole-v0"
    start_limit: tuple[float, ...] = (0.5, 0.5, np.pi, 1.0)

    dynamics: CartPoleDynamics
    cost: QuadraticCost

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        gravity: float = 9.8,
        cart_mass: float = 1.0,
        pole_mass: float = 0.1,
        pole_length: float = 0.5,
        track: float | None = None,
        width: int = 500,
        height: int = 500,
    ) -> None:
        on_track: dict[str, Any] = {}
        if track is not None:
            track = check_number("track", track, above=0.0)
            position, *others = self.start_limit
            self.start_limit = (min(position, track / 2), *others)
            on_track = {
                "settings": {"track": track},
                "constraints": CartPoleTrack(track),
                "end_cost": LEAVING_COST,
            }
        super().__init__(
            physics={
                "gravity": gravity,
                "cart_mass": cart_mass,
                "pole_mass": pole_mass,
                "pole_length": pole_length,
            },
            cost=goal_cost(),
            state_limit=np.array([UNLIMITED, UNLIMITED, 1.0, 1.0, UNLIMITED]),
            control_limit=np.array([MAX_FORCE]),
            render_mode=render_mode,
            width=width,
            height=height,
            **on_track,
        )

    @property
    def track(self) -> float | None:
        """Half the length of the track [m]; None: it has no end."""
        return self.settings.get("track")

    def terminated(
        self, states: Float[NDArray[np.float64], "batch 5"]
    ) -> Bool[NDArray[np.bool_], " batch"]:
        """Whether the cart has left the track in each of these states."""
        if self.track is None:
            return super().terminated(states)
        # a position that is NaN is on no track
        left: NDArray[np.bool_] = ~(np.abs(states[:, 0]) <= self.track * (1 + LEAVING_TOLERANCE))
        return left

    def checked_state(self, name: str, state: ArrayLike) -> Float[NDArray[np.float64], "5"]:
        """As in `DiffEnv`; where there is a track, the cart is on it."""
        checked = super().checked_state(name, state)
        if self.track is not None and self.terminated(checked[np.newaxis])[0]:
            raise ValueError(
                f"{name} must have the cart on its track, within +-{self.track:g} m, got a "
                f"position of {checked[0]:g} m in {checked.tolist()}"
            )
        return checked

    @staticmethod
    def make_dynamics(**physics: float) -> CartPoleDynamics:
        """The dynamics with these physical parameters."""
        return CartPoleDynamics(**physics)

    @staticmethod
    def states_from(
        coordinates: Float[np.ndarray, "*batch 4"],
    ) -> Float[NDArray[np.float64], "*batch 5"]:
        """States, from x, x_dot, theta and theta_dot."""
        position, velocity, theta, speed = (coordinates[..., i] for i in range(4))
        return np.stack((position, velocity, np.cos(theta), np.sin(theta), speed), -1)

    @staticmethod
    def draw(
        scene: "Scene", physics: Mapping[str, float], width: int, height: int
    ) -> NDArray[np.uint8]:
        """A frame [height, width, 3]: cart and pole, trail, ghosts of the plan, an arrow.

        The camera stays until the cart comes near an edge, then follows. The length of the arrow
        grows with the square root of the force: the small forces that hold the pole stay visible
        beside those that swing it up.
        """
        from mpc_gym.rendering import Canvas, palette, shapes
        from mpc_gym.rendering.scene import ghosts, interpolated, interpolated_angles

        unit = 2 * physics["pole_length"]  # [m]
        position = float(scene.state[0]) / unit
        half_width = REACH * width / min(width, height)
        stay = max(half_width - CAMERA_MARGIN, 0.0)
        camera = position - min(max(position, -stay), stay)
        canvas = Canvas(width, height, (camera, 0.0), REACH)
        _draw_track(canvas, camera, unit, physics.get("track"))
        theta = interpolated_angles(scene.trail[:, 2], scene.trail[:, 3])
        x = interpolated(scene.trail[:, 0]) / unit
        shapes.draw_trail(canvas, np.stack((x + np.sin(theta), np.cos(theta)), -1), TRAIL)
        for ghost, opacity in ghosts(scene.plan_states):
            colour = palette.blend(palette.PLAN, opacity)
            _draw_cart(canvas, float(ghost[0]) / unit, palette.blend(palette.PLAN, 0.5 * opacity))
            _draw_pole(canvas, ghost, unit, 0.7 * POLE, (colour, colour))
        _draw_cart(canvas, position, palette.INK)
        _draw_pole(canvas, scene.state, unit, POLE, (palette.BODY, palette.INK))
        if scene.control is not None:
            force = float(scene.control[0])
            fraction = math.copysign(math.sqrt(abs(force) / MAX_FORCE), force)
            side = (position + math.copysign(CART_WIDTH / 2, fraction), 0.0)
            shapes.force_arrow(canvas, side, fraction, LONGEST_FORCE, FORCE_ARROW, palette.ACTION)
        canvas.caption(scene.caption, palette.blend(palette.INK, palette.CAPTION_OPACITY))
        return canvas.to_array()


class DiffCartPoleVectorEnv(DiffVectorEnv):
    """Many `DiffCartPole-v0`."""

    env_class = DiffCartPoleEnv


def _draw_track(canvas: "Canvas", camera: float, unit: float, track: float | None) -> None:
    """The rail, with a tick and its position in metres at every multiple of a step.

    At each end of the track stands a buffer, which the cart touches where its middle is there.
    """
    from mpc_gym.rendering.palette import GUIDE, INK, blend

    rail = -CART_HEIGHT / 2 - WHEEL
    left, right = camera - canvas.half_width, camera + canvas.half_width
    end = math.inf if track is None else track / unit
    for side in (-1, 1):
        stop = end + (CART_WIDTH + BUFFER) / 2
        if left < side * stop < right:
            canvas.box((side * stop, rail / 2), BUFFER, -rail, 0.0, blend(INK, 0.5))
    edge = end + CART_WIDTH / 2 + BUFFER
    canvas.rod((max(left, -edge), rail), (min(right, edge), rail), RAIL, GUIDE)
    step = _round_step(unit)
    for count in range(math.floor(left * unit / step), math.ceil(right * unit / step) + 1):
        x = count * step / unit
        if abs(x) > end:
            continue
        canvas.rod((x, rail - TICK), (x, rail), RAIL, GUIDE)
        canvas.text((x, rail - TICK - TEXT), f"{count * step:g}", TEXT, blend(INK, 0.5))


def _round_step(length: float) -> float:
    """The largest of ..., 0.5, 1, 2, 5, 10, ... that is not above `length`."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(factor * power for factor in (1.0, 2.0, 5.0) if factor * power <= length)


def _draw_cart(canvas: "Canvas", position: float, colour: "Colour") -> None:
    for side in (-1, 1):
        wheel = (position + side * CART_WIDTH * 0.3, -CART_HEIGHT / 2)
        canvas.disc(wheel, WHEEL, colour)
    canvas.box((position, 0.0), CART_WIDTH, CART_HEIGHT, 0.04, colour)


def _draw_pole(
    canvas: "Canvas",
    state: Float[np.ndarray, "5"],
    unit: float,
    thickness: float,
    colours: "tuple[Colour, Colour]",
) -> None:
    """The pole, and its ends, in a colour each."""
    pivot = (float(state[0]) / unit, 0.0)
    tip = (pivot[0] + float(state[3]), float(state[2]))
    canvas.rod(pivot, tip, thickness, colours[0])
    canvas.disc(tip, TIP * thickness / POLE, colours[1])
    canvas.disc(pivot, 0.4 * thickness, colours[1])
