"""The pendulum in wind and with friction, of which a controller's usual model knows nothing."""

import copy

import torch

from mpc_gym.envs.pendulum import DiffPendulumEnv
from mpc_gym.models import PendulumDynamics


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
    the step and the clipped torque. It lies in [-16.27, 0]. The goal is upright as without wind,
    and holding the rod there takes a torque.

    ## Start state

    `theta` is uniform in [-pi, pi], the angular velocity in [-1, 1].
    `reset(options={"state": [cos(theta), sin(theta), theta_dot]})` starts from a state of choice,
    `reset(options={"parameters": {"wind": (0.0, 0.2)}})` draws parameters (see `DiffEnv.reset`).

    ## End of the episode

    It is truncated after 200 steps. It never terminates.

    ## Arguments

    Given to `gymnasium.make`, such as `gymnasium.make("DiffPendulumWindy-v0", wind=0.2)`.

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

    env_id = "DiffPendulumWindy-v0"

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        gravity: float = 10.0,
        mass: float = 1.0,
        length: float = 1.0,
        damping: float = 1.0,
        wind: float = 0.1,
        width: int = 500,
        height: int = 500,
    ) -> None:
        super().__init__(
            render_mode,
            gravity=gravity,
            mass=mass,
            length=length,
            damping=damping,
            wind=wind,
            width=width,
            height=height,
        )

    def nominal_dynamics(self) -> PendulumDynamics:
        """The plain pendulum, without damping and wind."""
        dynamics = copy.deepcopy(self.dynamics)
        with torch.no_grad():
            dynamics.damping.zero_()
            dynamics.wind.zero_()
        return dynamics
