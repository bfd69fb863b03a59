"""What the environments have in common: the model steps them, and the reward is minus its cost.

    x_{t+1} = f(x_t, u_t),   r_t = -l(x_t, u_t),   u_t = the action, clipped to its limits

The state is kept in float64; the observation is the same state in float32.
"""

import copy
import weakref
from abc import abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray
from torch import nn

from mpc_gym.checks import check_count, check_number
from mpc_gym.envs.checks import (
    LARGEST_PICTURE,
    as_array,
    check_render_mode,
    check_seed,
    checked_options,
    checked_physics,
    checked_state,
    plan_states,
)
from mpc_gym.envs.outermost import find_outermost, take_attributes
from mpc_gym.envs.randomisation import Ranges, draw_parameters, parameter_ranges
from mpc_gym.envs.spaces import EnvBox
from mpc_gym.envs.transition import Transition
from mpc_gym.models import Dynamics
from mpc_gym.models.base import unit_pairs

if TYPE_CHECKING:
    from mpc_gym.rendering import Memory, Scene, Window

RENDER_MODES = ("human", "rgb_array")
RESET_NEEDED = "Cannot step or draw the environment before calling env.reset()"


class DiffEnv(gym.Env[NDArray[Any], NDArray[Any]]):
    """An environment over a differentiable model.

    `env.unwrapped.dynamics` and `env.unwrapped.cost` are the PyTorch modules that make the next
    state and the reward, which is minus the cost of the state before the step and of the clipped
    action. They are compiled, so that a step runs at native speed, and agree with what PyTorch
    makes of the modules to rounding. A parameter changed in place, or replaced by another, counts
    from the next step on; anything else about the modules from the next reset on. Modules that
    cannot be compiled run in PyTorch.

    Each physical parameter is also an attribute, a number: `env.unwrapped.mass = 2.0` writes it
    into the dynamics, checked as the constructor checks it.

    A subclass makes the dynamics, the start states and the frames, and may say when an episode has
    terminated; `DiffPendulumEnv` is one to copy.

    Args:
        physics: the arguments of `make_dynamics`, which are also the constructor's.
        cost: [..., n_state], [..., n_ctrl] -> [...].
        state_limit: the observation space is +- this, [n_state].
        control_limit: the action space is +- this, [n_ctrl].
        settings: further arguments of the constructor that a controller has to know of.
        constraints: what a controller for this environment keeps to, as `MPC` takes it.
        end_cost: what it costs to come to a state in which the episode terminates.
        render_mode: None, "rgb_array", or "human": a window, drawn at each step. (Through
            `gymnasium.make` also "rgb_array_list".)
        width: of a frame [pixels].
        height: of a frame [pixels].

    Raises:
        ValueError: the render mode is unknown, width or height is not positive, or the physics is
            impossible.
        DependencyNotInstalled: the render mode is "human", and pygame is missing.
    """

    # Those that work here: Gymnasium's checker tries each that is listed.
    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": [m for m in RENDER_MODES if m != "human" or find_spec("pygame")],
        "render_fps": 20,
    }
    env_id: ClassVar[str]
    start_limit: tuple[float, ...]
    """Start coordinates are uniform in +- this; see `start_states`."""
    horizon: int = 20
    """Time steps of a plan that can solve the task; what `make_mpc` takes by default."""
    float32_gain: ClassVar[float] = 0.0
    """See `Transition`."""

    dynamics: Dynamics
    cost: nn.Module
    observation_space: EnvBox
    action_space: gym.spaces.Box
    _window: "Window | None"

    def __init__(
        self,
        *,
        physics: Mapping[str, float],
        cost: nn.Module,
        state_limit: Float[np.ndarray, " n_state"],
        control_limit: Float[np.ndarray, " n_ctrl"],
        settings: Mapping[str, float] | None = None,
        constraints: nn.Module | None = None,
        end_cost: float = 0.0,
        render_mode: str | None = None,
        width: int = 500,
        height: int = 500,
    ) -> None:
        check_render_mode(render_mode, RENDER_MODES)
        physics = {name: check_number(name, value) for name, value in physics.items()}
        self.given_physics = physics
        self.settings = dict(settings or {})
        self._physics_names = frozenset(physics)
        self.dynamics = self.make_dynamics(**physics)
        self.cost = cost
        self.constraints = constraints
        self.end_cost = end_cost
        high = np.asarray(state_limit, dtype=np.float32)
        self.observation_space = EnvBox(-high, high, self.env_id, {**physics, **self.settings})
        force = np.asarray(control_limit, dtype=np.float32)
        self.action_space = gym.spaces.Box(-force, force, dtype=np.float32)
        self._control_shape = force.shape
        self.render_mode = render_mode
        self.width = check_count("width", width, 1, LARGEST_PICTURE)
        self.height = check_count("height", height, 1, LARGEST_PICTURE)
        self._state: NDArray[np.float64] | None = None
        self._ranges: Ranges = {}
        self._memory: Memory | None = None
        self._transition: Transition | None = None
        self._outermost: weakref.ref[gym.Wrapper[Any, Any, Any, Any]] | None = None
        self._window = None
        if render_mode == "human":
            from mpc_gym.rendering import Window

            self._window = Window(self.env_id, self.metadata["render_fps"])

    @property
    def state(self) -> NDArray[np.float64]:
        """The model's state [n_state], a copy.

        Raises:
            ResetNeeded: the environment has not been reset yet.
        """
        if self._state is None:
            raise ResetNeeded(RESET_NEEDED)
        state: NDArray[np.float64] = self._state[0].copy()
        return state

    @property
    def physics(self) -> dict[str, float]:
        """The present value of each physical parameter that the constructor takes."""
        self._update_settings()
        return {name: getattr(self.dynamics, name).item() for name in self.given_physics}

    def set_physics(self, values: Mapping[str, float]) -> None:
        """Give physical parameters other values, from the next step on.

        Raises:
            ValueError: there is no such parameter, or its value is impossible.
        """
        checked = checked_physics(values, self.physics, self.make_dynamics)
        self._write_physics(checked)

    def checked_state(self, name: str, state: ArrayLike) -> Float[NDArray[np.float64], " n_state"]:
        """A state of this environment, as a copy; the one check of what is given as a state.

        Args:
            name: of the argument.
            state: [n_state], finite, within the limits of the observation space, and with the
                cosine and the sine of an angle where the dynamics have `unit_pairs`.

        Raises:
            ValueError: it is none.
        """
        return checked_state(name, state, self.observation_space, unit_pairs(self.dynamics))

    def is_state(self, state: ArrayLike) -> bool:
        """Whether an array is a state of this environment, from which it can start."""
        try:
            self.checked_state("state", state)
        except ValueError:
            return False
        return True

    def terminated(
        self, states: Float[NDArray[np.float64], "batch n_state"]
    ) -> Bool[NDArray[np.bool_], " batch"]:
        """Whether an episode ends that has come to each of these states; here never."""
        return np.zeros(len(states), dtype=bool)

    def nominal_dynamics(self) -> Dynamics:
        """What a controller for this environment knows of its dynamics: here all, as a copy."""
        return copy.deepcopy(self.dynamics)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: of `self.np_random`, from which the start state and then the parameters are drawn.
            options: `"state"`: start from this model state [n_state] instead. `"parameters"`: a
                mapping from names of physical parameters to ranges (low, high), or to values. From
                now on they are drawn anew at each reset, automatic ones too, until other ranges
                are given; those no longer named, all for `{}`, go back to the constructor's values.

        Returns:
            The observation, and `{"parameters": {name: value}}` with what was drawn, if any.

        Raises:
            ValueError: an option is unknown, the state is not one of this environment, or a range
                is impossible.
        """
        given = checked_options(options, ("state", "parameters"))
        self._outermost = find_outermost(self)
        self._take_settings()
        super().reset(seed=check_seed(seed))
        if "parameters" in given:
            defaults = self.given_physics
            ranges = parameter_ranges(given["parameters"], defaults, self.make_dynamics)
            self._write_physics({name: defaults[name] for name in self._ranges if name in defaults})
            self._ranges = ranges
        if "state" in given:
            state = self.checked_state("options['state']", given["state"])
        else:
            state = self.start_states(self.np_random.random(len(self.start_limit)))
        drawn = draw_parameters(self._ranges, self.np_random)
        self._write_physics(drawn)
        self._state = state[np.newaxis]
        self.retrace()
        if self.render_mode is not None:
            from mpc_gym.rendering import Memory  # which imports Pillow

            self._memory = Memory(state)
        if self._window is not None:
            self.render()
        return state.astype(np.float32), {"parameters": drawn} if drawn else {}

    def step(
        self, action: ArrayLike
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Apply an action [n_ctrl] for one time step; out of its limits it is clipped.

        Raises:
            ValueError: the action has the wrong shape, or contains NaN.
            ResetNeeded: the environment has not been reset yet.
        """
        if self._state is None:
            raise ResetNeeded(RESET_NEEDED)
        if self._outermost is not None:
            self._take_settings()
        actions = as_array("action", action, self._control_shape)
        following, costs, controls = self.transition(self._state, actions[np.newaxis])
        self._state = following
        state = following[0]
        terminated = bool(self.terminated(following)[0])
        reward = -costs.item() - self.end_cost * terminated
        if self._memory is not None:
            self._memory.add(controls[0], reward, state)
        if self._window is not None:
            self.render()
        return state.astype(np.float32), reward, terminated, False, {}

    @property
    def transition(self) -> Transition:
        """The compiled step of the present modules."""
        made = self._transition
        if made is None or not self._steps_my_modules(made):
            made = self.retrace()
        return made

    def retrace(self) -> Transition:
        """Look at the modules again, and compile them if more than parameters has changed.

        Modules that equal others in all but parameters share their compiled step.
        """
        made = self._transition
        if made is not None and self._steps_my_modules(made) and made.is_current():
            return made
        self._transition = Transition(
            self.dynamics,
            self.cost,
            len(self.observation_space.low),
            self.action_space.low.astype(np.float64),
            self.action_space.high.astype(np.float64),
            self.float32_gain,
        )
        return self._transition

    def render(self) -> NDArray[np.uint8] | None:
        """A frame [height, width, 3]: state, last control, trail, and the plan shown, if any.

        With render mode "human" the frame appears in the window, and None is returned.

        Raises:
            ResetNeeded: the environment has not been reset yet.
        """
        if self.render_mode is None:
            gym.logger.warn(
                "render() draws nothing without a render mode; "
                f'give one: gym.make("{self.env_id}", render_mode="rgb_array")'
            )
            return None
        if self._memory is None:
            raise ResetNeeded(RESET_NEEDED)
        scene = self._memory.scene(self.time_step)
        frame = self.draw(scene, {**self.settings, **self.physics}, self.width, self.height)
        if self._window is None:
            return frame
        self._window.show(frame)
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()

    def show_plan(self, plan: Any) -> None:
        """Draw these predicted states in each frame, until another plan, None or the next reset.

        Args:
            plan: a `Plan` of one instance, or its states: [time, n_state] or [1, time, n_state],
                array or tensor; None for nothing.

        Raises:
            ValueError: the states have another shape.
        """
        states = plan_states(plan, len(self.observation_space.low))
        if self._memory is not None:
            self._memory.plan_states = states

    @property
    def time_step(self) -> float:
        """[s]."""
        return 1.0 / float(self.metadata["render_fps"])

    @staticmethod
    @abstractmethod
    def make_dynamics(**physics: float) -> Dynamics:
        """The dynamics with these physical parameters.

        Raises:
            ValueError: a parameter is impossible.
        """

    def start_states(
        self, fractions: Float[np.ndarray, "*batch n_coordinates"]
    ) -> Float[NDArray[np.float64], "*batch n_state"]:
        """Start states, made from numbers that are uniform in [0, 1)."""
        limit = np.array(self.start_limit)
        return self.states_from(2.0 * limit * fractions - limit)

    @staticmethod
    @abstractmethod
    def states_from(
        coordinates: Float[np.ndarray, "*batch n_coordinates"],
    ) -> Float[NDArray[np.float64], "*batch n_state"]:
        """States, from coordinates in which the angle is a number."""

    @staticmethod
    @abstractmethod
    def draw(
        scene: "Scene", physics: Mapping[str, float], width: int, height: int
    ) -> NDArray[np.uint8]:
        """A frame [height, width, 3]; `physics` holds the settings too."""

    def __getstate__(self) -> dict[str, Any]:
        # A copy, perhaps in another process, gets its native code from the cache.
        return {**self.__dict__, "_transition": None, "_outermost": None}

    def _steps_my_modules(self, transition: Transition) -> bool:
        return transition.dynamics is self.dynamics and transition.cost is self.cost

    def __getattr__(self, name: str) -> Any:
        # Not found otherwise; `__dict__` may be empty still, while a copy is made.
        if name in self.__dict__.get("_physics_names", ()):
            self._update_settings()
            return getattr(self.dynamics, name).item()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_physics_names", ()):
            self.set_physics({name: value})
        else:
            super().__setattr__(name, value)

    def _update_settings(self) -> None:
        """Take what was set on a wrapper since the last step, or before the first reset."""
        self._outermost = self._outermost or find_outermost(self)
        self._take_settings()

    def _take_settings(self) -> None:
        """Physical parameters that were set on the outermost wrapper."""
        wrapper = None if self._outermost is None else self._outermost()
        settings = {} if wrapper is None else take_attributes(wrapper, self._physics_names)
        if settings:
            self.set_physics(settings)

    def _write_physics(self, values: Mapping[str, float]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                getattr(self.dynamics, name).fill_(value)
