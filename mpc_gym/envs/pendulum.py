"""The pendulum that swings up: Gymnasium's Pendulum-v1 over a differentiable model."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.scene import Scene
from mpc_gym.models import PendulumCost, PendulumDynamics

MAX_SPEED = 8.0
MAX_TORQUE = 2.0


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
        scene: Scene,
        physics: Mapping[str, float],  # noqa: ARG004  (the rod fills the frame, however long it is)
        width: int,
        height: int,
    ) -> NDArray[np.uint8]:
        """A frame [height, width, 3]."""
        from mpc_gym.rendering import draw_pendulum

        return draw_pendulum(
            scene.state,
            scene.control,
            scene.plan_states,
            scene.trail,
            caption=scene.caption,
            max_torque=MAX_TORQUE,
            width=width,
            height=height,
        )
