"""What the environments have in common: a model that is stepped, and a cost whose minus is earned.

    x_{t+1} = f(x_t, u_t),   r_t = -l(x_t, u_t),   u_t = the action, clipped to its limits

The state is kept in float64; the observation is the same state in float32.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mpc_gym.envs.spaces import EnvBox
from mpc_gym.models import Dynamics

UNIT_TOLERANCE = 1e-5  # what float32 leaves of cos^2 + sin^2 = 1, with room to spare


class DiffEnv(gym.Env[NDArray[Any], NDArray[Any]]):
    """An environment over a differentiable model.

    `env.unwrapped.dynamics` and `env.unwrapped.cost` are the PyTorch modules that make the next
    state and the reward: the reward is exactly minus the cost of the state before the step and of
    the clipped action. A subclass builds them, draws start states and draws frames.

    Args:
        dynamics: [..., n_state], [..., n_ctrl] -> [..., n_state].
        cost: [..., n_state], [..., n_ctrl] -> [...].
        state_limit: the observation space is +- this, [n_state].
        control_limit: the action space is +- this, [n_ctrl].
        physics: the constructor's physical arguments, by which the observation space names the
            environment.
        render_mode: None or one of `metadata["render_modes"]`.
        width: of a frame [pixels].
        height: of a frame [pixels].

    Raises:
        ValueError: the render mode is unknown, or width or height is not positive.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    env_id: ClassVar[str]
    cosine_index: ClassVar[int]
    """Where in the state the cosine of the angle stands; its sine follows."""

    dynamics: Dynamics
    cost: nn.Module
    observation_space: EnvBox
    action_space: gym.spaces.Box

    def __init__(
        self,
        *,
        dynamics: Dynamics,
        cost: nn.Module,
        state_limit: Float[np.ndarray, " n_state"],
        control_limit: Float[np.ndarray, " n_ctrl"],
        physics: Mapping[str, float],
        render_mode: str | None = None,
        width: int = 500,
        height: int = 500,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"render_mode must be None or one of {self.metadata['render_modes']}, "
                f"got {render_mode!r}"
            )
        if not (width > 0 and height > 0):
            raise ValueError(f"width and height must be positive, got {width} and {height}")
        self.dynamics = dynamics
        self.cost = cost
        high = np.asarray(state_limit, dtype=np.float32)
        self.observation_space = EnvBox(-high, high, self.env_id, physics)
        force = np.asarray(control_limit, dtype=np.float32)
        self.action_space = gym.spaces.Box(-force, force, dtype=np.float32)
        self.render_mode = render_mode
        self.width = width
        self.height = height
        self._state: NDArray[np.float64] | None = None
        self._control: NDArray[np.float64] | None = None
        self._plan_states: NDArray[np.float64] | None = None

    @property
    def state(self) -> NDArray[np.float64]:
        """The model's state [n_state], a copy.

        Raises:
            ResetNeeded: the environment has not been reset yet.
        """
        if self._state is None:
            raise ResetNeeded("Cannot step or draw the environment before calling env.reset()")
        return np.array(self._state)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: of `self.np_random`, from which the start state is drawn.
            options: `{"state": [...]}` starts from this model state [n_state] instead.

        Raises:
            ValueError: an option is unknown, or the state is not one of this environment.
        """
        super().reset(seed=seed)
        options = options or {}
        unknown = set(options) - {"state"}
        if unknown:
            raise ValueError(f"unknown reset option {sorted(unknown)}; this one exists: 'state'")
        if "state" in options:
            self._state = self._checked_state(options["state"])
        else:
            self._state = self._draw_start_state()
        self._control = None
        self._plan_states = None
        return self._observation(), {}

    def step(
        self, action: ArrayLike
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Apply an action [n_ctrl] for one time step; out of its limits it is clipped.

        Raises:
            ValueError: the action has the wrong shape, or contains NaN.
            ResetNeeded: the environment has not been reset yet.
        """
        state = self.state
        control = self._clipped_control(action)
        reward = self._reward(state, control)
        self._state = self._next_state(state, control)
        self._control = control
        return self._observation(), reward, False, False, {}

    def render(self) -> NDArray[np.uint8] | None:
        """A frame [height, width, 3]: the state, the last control and the plan shown, if any."""
        if self.render_mode is None:
            gym.logger.warn(
                "render() draws nothing without a render mode; "
                f'give one: gym.make("{self.env_id}", render_mode="rgb_array")'
            )
            return None
        return self._draw_frame(self.state, self._control, self._plan_states)

    def show_plan(self, plan: Any) -> None:
        """Draw these predicted states in each frame, until another plan, None or the next reset.

        Args:
            plan: a `Plan` of one instance, or its states: [time, n_state] or [1, time, n_state],
                array or tensor; None for nothing.

        Raises:
            ValueError: the states have another shape.
        """
        if plan is None:
            self._plan_states = None
            return
        states = torch.as_tensor(getattr(plan, "states", plan)).detach().cpu().double().numpy()
        if states.ndim == 3 and states.shape[0] == 1:
            states = states[0]
        n_state = self.dynamics.n_state
        if states.ndim != 2 or states.shape[1] != n_state:
            raise ValueError(
                f"plan must hold the states of one instance, [time, {n_state}], "
                f"got {list(states.shape)}; choose one of a batch, such as plan.states[0]"
            )
        self._plan_states = states.copy()

    @abstractmethod
    def _draw_start_state(self) -> NDArray[np.float64]:
        """A state from the start distribution, drawn from `self.np_random`."""

    @abstractmethod
    def _draw_frame(
        self,
        state: NDArray[np.float64],
        control: NDArray[np.float64] | None,
        plan_states: NDArray[np.float64] | None,
    ) -> NDArray[np.uint8]:
        """A frame [height, width, 3]."""

    def _next_state(
        self, state: NDArray[np.float64], control: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        with torch.no_grad():
            following: Tensor = self.dynamics(torch.from_numpy(state), torch.from_numpy(control))
        return following.numpy()

    def _reward(self, state: NDArray[np.float64], control: NDArray[np.float64]) -> float:
        with torch.no_grad():
            return -float(self.cost(torch.from_numpy(state), torch.from_numpy(control)))

    def _observation(self) -> NDArray[np.float32]:
        return self.state.astype(np.float32)

    def _clipped_control(self, action: ArrayLike) -> NDArray[np.float64]:
        low, high = self.action_space.low, self.action_space.high
        control = _as_array("action", action, low.shape)
        if np.isnan(control).any():
            raise ValueError(f"action must be a number, got {control.tolist()}")
        return np.clip(control, low, high)

    def _checked_state(self, value: ArrayLike) -> NDArray[np.float64]:
        state = _as_array("options['state']", value, self.observation_space.shape)
        found = state.tolist()
        if not np.isfinite(state).all():
            raise ValueError(f"options['state'] must be finite, got {found}")
        cosine, sine = state[self.cosine_index : self.cosine_index + 2]
        if abs(cosine**2 + sine**2 - 1.0) > UNIT_TOLERANCE:
            raise ValueError(
                f"options['state'] must hold cos(theta) and sin(theta) of one angle at entries "
                f"{self.cosine_index} and {self.cosine_index + 1}, got {found}, "
                f"where cos^2 + sin^2 = {cosine**2 + sine**2:.6g}"
            )
        low, high = self.observation_space.low, self.observation_space.high
        if (state < low).any() or (state > high).any():
            raise ValueError(
                f"options['state'] must lie between {low.tolist()} and {high.tolist()}, got {found}"
            )
        return state


def _as_array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A float64 copy of `value`, of that shape."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of {shape} numbers, got {value!r}") from error
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array
