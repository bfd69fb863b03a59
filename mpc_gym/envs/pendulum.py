"""The pendulum that swings up: Gymnasium's Pendulum-v1 over a differentiable model."""

import numpy as np
from numpy.typing import NDArray

from mpc_gym.envs.base import DiffEnv
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
    `reset(options={"state": [cos(theta), sin(theta), theta_dot]})` starts from a state of choice.

    ## End of the episode

    It is truncated after 200 steps. It never terminates.

    ## Arguments

    Given to `gymnasium.make`, such as `gymnasium.make("DiffPendulum-v0", length=1.2)`.

    Args:
        render_mode: None or "rgb_array".
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
    cosine_index = 0

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
        physics = {
            "gravity": float(gravity),
            "mass": float(mass),
            "length": float(length),
            "damping": float(damping),
            "wind": float(wind),
        }
        super().__init__(
            dynamics=PendulumDynamics(**physics, max_speed=MAX_SPEED),
            cost=PendulumCost(),
            state_limit=np.array([1.0, 1.0, MAX_SPEED]),
            control_limit=np.array([MAX_TORQUE]),
            physics=physics,
            render_mode=render_mode,
            width=width,
            height=height,
        )

    def _draw_start_state(self) -> NDArray[np.float64]:
        limit = np.array([np.pi, 1.0])
        theta, speed = self.np_random.uniform(-limit, limit)
        return np.array([np.cos(theta), np.sin(theta), speed])

    def _next_state(
        self, state: NDArray[np.float64], control: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        # Pendulum-v1 multiplies a float32 torque by 3 / (m l^2) = 3 in float32. The motion is
        # chaotic: without the same rounding the two part by more than 1e-5 within 200 steps.
        torque = np.float32(control[0])
        if torque == control[0]:
            control = np.array([float(3.0 * torque) / 3.0])
        return super()._next_state(state, control)

    def _draw_frame(
        self,
        state: NDArray[np.float64],
        control: NDArray[np.float64] | None,
        plan_states: NDArray[np.float64] | None,
    ) -> NDArray[np.uint8]:
        from mpc_gym.rendering import draw_pendulum

        return draw_pendulum(
            state,
            control,
            plan_states,
            max_torque=MAX_TORQUE,
            width=self.width,
            height=self.height,
        )
