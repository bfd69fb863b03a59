"""Whether a model fits the environment that a policy is for: its spaces, and each observation.

The plan starts from the observation and its controls are the actions, so both must be the model's:
as many numbers, in the same units. Of the units the spaces tell only their limits. So these are
compared, which finds what a wrapper has scaled. SB3's `VecNormalize` leaves the spaces as they
were, so each observation is checked too: in NumPy, which takes a third of PyTorch's time for one.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from mpc_gym.checks import real_tensor
from mpc_gym.envs.registration import ENTRY_POINTS
from mpc_gym.envs.spaces import EnvBox
from mpc_gym.known import KNOWN
from mpc_gym.mpc import MPC

Env = gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | VecEnv | str
ROUNDING = 1e-6  # relative: spaces are float32
ANGLE_TOLERANCE = 1e-3  # of cos^2 + sin^2 = 1: rounding stays far below, normalising far above


def box(name: str, space: gym.Space[Any]) -> spaces.Box:
    """The space, which must be one of vectors of numbers.

    Raises:
        ValueError: it is not.
    """
    if isinstance(space, spaces.Box):
        return space
    if name == "action_space":
        reason = (
            "a plan's controls are continuous. Take an environment with continuous actions, or "
            "for discrete ones PPO(DiscreteMPCPolicy, ...) with the control of each"
        )
    else:
        reason = (
            "a plan starts from the model's state. Say what of it that is, with "
            "policy_kwargs=dict(state=function), or let a wrapper of the environment give that as "
            "one vector (gymnasium.wrappers.TransformObservation)"
        )
    raise ValueError(f"{name} must be a Box, got {space}: {reason}")


def no_model(space: gym.Space[Any], env_id: str | None, wrappers: Sequence[str]) -> ValueError:
    """What to say where nobody has said whose model to plan with.

    Args:
        space: of the observations.
        env_id: of the environment, None where it is not known.
        wrappers: of the environment, their names.
    """
    if env_id in ENTRY_POINTS:
        return ValueError(
            f"a wrapper has replaced the observation space of {env_id}: behind "
            f"{', '.join(wrappers)} it is {space}. A plan starts from the model's state, as the "
            "environment gives it: remove the wrapper. If it leaves the numbers as they are, say "
            f'so with policy_kwargs=dict(mpc="{env_id}")'
        )
    ids = [each for each in ENTRY_POINTS if each != "DiffCartpole-v0"]  # an older spelling
    remedy = (
        f'policy_kwargs=dict(mpc="{ids[0]}") for the model of an environment of this package '
        f"({', '.join(ids)}) or of one that is known ({', '.join(KNOWN)}), or dict(mpc=function) "
        "for a model of your own, with a function that returns an MPC"
    )
    if env_id in KNOWN:
        return ValueError(
            f"{env_id} does not say whose model to plan with. Its own is known here: "
            f'policy_kwargs=dict(mpc="{env_id}")'
        )
    if env_id is not None:
        return ValueError(f"{env_id} does not say whose model to plan with. Say it: {remedy}")
    return ValueError(
        "the environment does not say whose model to plan with: its observation space is "
        f"{space}. Say it: {remedy}. Is it an environment of this package in a wrapper? Then the "
        "wrapper has replaced the observation, which must be the model's state: remove it"
    )


def check_dimensions(
    mpc: MPC, observation_space: spaces.Box | None, action_space: spaces.Box
) -> None:
    """Refuse spaces of another size than the model's.

    Args:
        mpc: with the model.
        observation_space: None where the state is not the observation.
        action_space: of the controls.

    Raises:
        ValueError: they are.
    """
    follows = ", or say how the state follows from them with state=..."
    for name, space, size, meaning, more in (
        ("observation_space", observation_space, mpc.n_state, "states", follows),
        ("action_space", action_space, mpc.n_ctrl, "controls", ""),
    ):
        # n_state is None for a model that takes any state
        if space is not None and size not in (None, spaces.flatdim(space)):
            raise ValueError(
                f"{name} must be a Box of {size} numbers, the {meaning} of the MPC's model, got "
                f"{space}. Choose another model with policy_kwargs=dict(mpc=...), or remove the "
                f"wrapper that has changed them{more}"
            )


def check_actions(mpc: MPC, space: spaces.Box) -> None:
    """Refuse actions in other limits than those of the model's controls.

    An action space without a limit says nothing of its units.

    Raises:
        ValueError: a limit differs, beyond rounding.
    """
    low, high = _control_limits(mpc)
    if (_differs(low, space.low.ravel()) | _differs(high, space.high.ravel())).any():
        raise _other_units(low, high, space)


def check_own_actions(mpc: MPC, space: spaces.Box) -> None:
    """As `check_actions`, for an MPC of the user's own, which may hold some controls back.

    Its bounds must be within the limits, and be equal to them for at least one control: where all
    bounds are tighter, it is more likely that the actions are scaled.

    Raises:
        ValueError: they are not.
    """
    low, high = _control_limits(mpc)
    differ = _differs(low, space.low.ravel()) | _differs(high, space.high.ravel())
    beyond = (low < space.low.ravel()) | (high > space.high.ravel())
    if differ.all() or (differ & beyond).any():
        raise _other_units(low, high, space)


def control_range(scale: tuple[ArrayLike, ArrayLike], mpc: MPC, space: spaces.Box) -> spaces.Box:
    """The controls that the limits of an action space stand for.

    Args:
        scale: the lower and the upper ones, each one number or [n_ctrl].
        mpc: whose bounds must lie between them.
        space: of the actions.

    Raises:
        ValueError: the action space has no limits, the scale is no such pair, or a plan's controls
            may lie beyond it.
    """
    if not space.is_bounded():
        raise ValueError(
            "control_scale says which controls the limits of the action space stand for, and it "
            f"has none: {limits(space)}. Leave control_scale out, or limit the actions"
        )
    n_ctrl = mpc.n_ctrl
    pair = [np.asarray(side, dtype=np.float64) for side in scale]
    fits = all(side.shape in ((), (n_ctrl,)) and np.isfinite(side).all() for side in pair)
    if not fits or not (pair[0] < pair[1]).all():
        raise ValueError(
            "control_scale must be (low, high), the controls that the limits of the action space "
            f"stand for, each a finite number or {n_ctrl} of them, with low < high, got {scale}"
        )
    low, high = (np.broadcast_to(side, (n_ctrl,)) for side in pair)
    own_low, own_high = _control_limits(mpc)
    beyond = (own_low < low) & _differs(own_low, low) | (own_high > high) & _differs(own_high, high)
    if beyond.any():
        raise ValueError(
            f"control_scale must hold the MPC's control bounds: it plans with controls in "
            f"[{own_low}, {own_high}], and the limits of the action space stand for "
            f"[{low}, {high}]. No action gives the controls beyond"
        )
    return spaces.Box(low, high, dtype=np.float64)


def check_observations(env_id: str, own: spaces.Box, space: spaces.Box) -> None:
    """Refuse observations in other limits than those of the environment whose model is named.

    Infinite limits say nothing of their units.

    Args:
        env_id: of that environment.
        own: its observation space.
        space: of the same size, of what the policy observes.

    Raises:
        ValueError: a limit differs, beyond rounding.
    """
    limited = np.isfinite(own.low) & np.isfinite(own.high)
    differ = _differs(own.low, space.low.ravel()) | _differs(own.high, space.high.ravel())
    if (limited & differ).any():
        raise ValueError(
            f"observation_space must be that of {env_id}, whose model mpc={env_id!r} plans with: "
            f"that is {limits(own)}, and the observations are in {limits(space)}. Remove the "
            "wrapper that rescales them, if there is one (gymnasium.wrappers.RescaleObservation). "
            "If they are the model's state all the same, say so with mpc=function, a function that "
            f'returns make_mpc("{env_id}", ...)'
        )


def check_env(
    where: object,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    env: Env,
) -> None:
    """Refuse an environment whose spaces are not those that a policy was made for.

    Args:
        where: the policy is, for the message.
        env: an environment, single or vectorised, or its id.

    Raises:
        TypeError: `env` is neither.
        ValueError: a space differs.
    """
    if isinstance(env, str):
        env = gym.make(env)
    if isinstance(env, VectorEnv):
        given = (env.single_observation_space, env.single_action_space)
    elif isinstance(env, gym.Env | VecEnv):
        given = (env.observation_space, env.action_space)
    else:
        raise TypeError(f"env must be an environment or its id, got {type(env).__name__}")
    if given != (observation_space, action_space):
        spec = None if isinstance(env, VecEnv) else env.spec
        raise ValueError(
            f"{where} was saved for another environment: "
            f"{_environment(observation_space, action_space)}. "
            f"env is {_environment(*given, spec.id if spec else None)}"
        )


def check_observation(observation: object, space: gym.Space[Any]) -> None:
    """Refuse what is no observation of a space: an array, or a dict of arrays.

    Raises:
        TypeError: it is not, or an entry of a dict is missing.
        ValueError: see `check_array`.
    """
    if not isinstance(space, spaces.Dict):
        check_array(observation)
        return
    if not isinstance(observation, dict) or observation.keys() != space.spaces.keys():
        names = sorted(observation) if isinstance(observation, dict) else type(observation).__name__
        raise TypeError(
            f"observation must be a dict with entries {sorted(space.spaces)}, got {names}"
        )
    for each in observation.values():
        check_array(each)


def check_array(observation: object) -> None:
    """Refuse what is no array of numbers, such as the observation of a `Dict` space.

    Raises:
        TypeError: it is not.
        ValueError: it is what an environment's `reset` returns, an observation and an info.
    """
    if (
        isinstance(observation, tuple)
        and len(observation) == 2
        and isinstance(observation[1], dict)
    ):
        raise ValueError(
            "observation must be an array, got a tuple of an observation and an info. You are "
            "probably mixing Gym API with SB3's VecEnv API: `obs, info = env.reset()`, but "
            "`obs = vec_env.reset()`"
        )
    if isinstance(observation, dict):
        raise TypeError(
            f"observation must be an array, got a dict with entries {sorted(observation)}. Wrap "
            "the environment in gymnasium.wrappers.FlattenObservation, or choose the entry that "
            "is the model's state"
        )
    if not isinstance(observation, np.ndarray | np.generic):
        real_tensor("observation", observation)
    elif observation.dtype.kind not in "biuf":
        raise TypeError(
            f"observation must be an array of real numbers, got one of {observation.dtype}"
        )


def check_finite(observation: Tensor, name: str = "observation") -> None:
    """Refuse an observation from which no plan can be made.

    Args:
        observation: [..., n], or what it was mapped to.
        name: of it, for the message.

    Raises:
        ValueError: it has an entry that is NaN or infinite.
    """
    finite = np.isfinite(observation.detach().cpu().numpy())
    if not finite.all():
        rows = ~finite.reshape(-1, observation.shape[-1]).all(-1)
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in row(s) "
            f"{rows.nonzero()[0].tolist()} of {len(rows)}"
        )


def check_angles(
    observation: Float[Tensor, "batch n_state"], unit_pairs: Sequence[tuple[int, int]]
) -> None:
    """Refuse an observation that was scaled on its way from the environment.

    Raises:
        ValueError: the cosine and the sine of one of the pairs are those of no angle.
    """
    values = observation.detach().cpu().numpy()
    for cosine, sine in unit_pairs:
        length = values[:, cosine] ** 2 + values[:, sine] ** 2
        wrong = np.abs(length - 1.0) > ANGLE_TOLERANCE
        if wrong.any():
            row = int(wrong.nonzero()[0][0])
            raise ValueError(
                "observation must be the model's state, as the environment gives it, with the "
                f"cosine and sine of an angle at entries {cosine} and {sine}, got "
                f"cos^2 + sin^2 = {length[row]:.4g} in row {row} of {len(wrong)}. Where "
                "VecNormalize wraps the environment, pass it norm_obs=False (norm_reward=True is "
                "fine)"
            )


def limits(space: gym.Space[Any]) -> str:
    """The limits of a `Box` for a message, all of them; another space as it prints itself."""
    if not isinstance(space, gym.spaces.Box):
        return str(space)
    # Box's own text leaves out where its limits differ from axis to axis
    low, high = (
        np.array2string(side, max_line_width=1000, threshold=20) for side in (space.low, space.high)
    )
    return f"[{low}, {high}] {space.dtype}"


def _control_limits(mpc: MPC) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The widest bounds over the horizon, each [n_ctrl]."""
    shape = (mpc.horizon, mpc.n_ctrl)
    low = mpc.control_low.detach().expand(shape).cpu().numpy().min(0)
    high = mpc.control_high.detach().expand(shape).cpu().numpy().max(0)
    return low, high


def _differs(own: NDArray[Any], given: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a limit that is given is not one's own."""
    differs: NDArray[np.bool_] = np.isfinite(given) & ~np.isclose(
        own, given, rtol=ROUNDING, atol=0.0
    )
    return differs


def _other_units(
    low: NDArray[np.float64], high: NDArray[np.float64], space: spaces.Box
) -> ValueError:
    return ValueError(
        "the MPC's control bounds must lie within the action space and reach its limits, so that "
        f"both have the same units: it plans with controls in [{low}, {high}], and the action "
        f"space is {limits(space)}. Are the actions scaled, as by "
        "gymnasium.wrappers.RescaleAction? Then say which controls their limits stand for, with "
        f"policy_kwargs=dict(control_scale=(low, high)), such as the bounds above. If the units "
        "are the same, say so with control_scale=(action_space.low, action_space.high)"
    )


def _environment(
    observation_space: gym.Space[Any], action_space: gym.Space[Any], env_id: str | None = None
) -> str:
    if env_id is None and isinstance(observation_space, EnvBox):
        env_id = observation_space.env_id
    return (
        f"{env_id or 'one without a known id'}, with observations {limits(observation_space)} "
        f"and actions {limits(action_space)}"
    )
