"""Checks of what a user hands to an environment."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from mpc_gym.checks import check_count, check_number, found, real_tensor
from mpc_gym.envs.spaces import EnvBox

LARGEST_PICTURE = 8192  # [pixels] a side
LARGEST_SEED = 2**128 - 1
UNIT_TOLERANCE = 1e-5  # what float32 leaves of cos^2 + sin^2 = 1, with room to spare


def as_array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A float64 copy of `value`, of that shape.

    Raises:
        ValueError: it has another shape, or is not made of numbers.
    """
    array = numbers(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array


def numbers(name: str, value: object) -> NDArray[np.float64]:
    """A float64 copy of an array, tensor or nested sequence of real numbers.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":  # as it is at each step
        return np.array(value, dtype=np.float64)
    try:
        return np.array(real_tensor(name, value, torch.float64).detach().cpu().numpy())
    except TypeError as error:
        raise ValueError(str(error)) from error


def check_render_mode(value: object, modes: Sequence[str]) -> None:
    """Refuse a render mode that is not one of these.

    Raises:
        ValueError: it is none of them, nor None.
    """
    if value is not None and not (isinstance(value, str) and value in modes):
        raise ValueError(f"render_mode must be None or one of {tuple(modes)}, got {found(value)}")


def check_seed(value: object) -> int | None:
    """The seed of an environment, which may be as large as those of the operating system.

    Raises:
        ValueError: it is no integer, or negative.
    """
    return None if value is None else check_count("seed", value, 0, LARGEST_SEED)


def checked_state(
    name: str, value: ArrayLike, space: EnvBox, unit_pairs: Sequence[tuple[int, int]]
) -> Float[NDArray[np.float64], " n_state"]:
    """A state, as a copy; see `DiffEnv.checked_state`.

    Args:
        name: of the argument.
        value: that was given for it.
        space: of the observations.
        unit_pairs: of entries that are the cosine and the sine of an angle.

    Raises:
        ValueError: it is not finite, not within the limits of the space, or a pair is of no angle.
    """
    state = as_array(name, value, space.shape)
    given = state.tolist()
    if not np.isfinite(state).all():
        raise ValueError(f"{name} must be finite, got {given}")
    for cosine, sine in unit_pairs:
        squares = state[cosine] ** 2 + state[sine] ** 2
        if abs(squares - 1.0) > UNIT_TOLERANCE:
            raise ValueError(
                f"{name} must hold cos(theta) and sin(theta) of one angle at entries {cosine} and "
                f"{sine}, got {given}, where cos^2 + sin^2 = {squares:.6g}"
            )
    if (state < space.low).any() or (state > space.high).any():
        raise ValueError(
            f"{name} must lie between {space.low.tolist()} and {space.high.tolist()}, got {given}"
        )
    return state


def checked_physics(
    values: Mapping[str, Any], physics: Mapping[str, float], build: Callable[..., object]
) -> dict[str, float]:
    """New values of physical parameters.

    Args:
        values: the new ones.
        physics: all parameters that exist, with their present values.
        build: makes the dynamics from all parameters, and raises ValueError where it cannot.

    Raises:
        ValueError: there is no such parameter, or its value is no number or impossible.
    """
    unknown = [name for name in values if name not in physics]
    if unknown:
        raise ValueError(f"no physical parameter {unknown}; there are {[*physics]}")
    checked = {name: check_number(name, value) for name, value in values.items()}
    build(**{**physics, **checked})
    return checked


def checked_options(options: object, known: Sequence[str]) -> Mapping[str, Any]:
    """The options of `reset`; none for None.

    Raises:
        ValueError: it is no mapping, or there is one that does not exist.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ValueError(f"options must be a mapping or None, got {found(options)}")
    unknown = [name for name in options if name not in known]
    if unknown:
        names = ", ".join(map(repr, known))
        raise ValueError(f"options: unknown reset option {unknown}; these exist: {names}")
    return options


def plan_states(plan: Any, n_state: int) -> Float[NDArray[np.float64], "time n_state"] | None:
    """The states of a `Plan` of one instance, or of an array or tensor of them, as a copy.

    Raises:
        ValueError: they are no numbers, or their shape is neither [time, n_state] nor
            [1, time, n_state].
    """
    if plan is None:
        return None
    array = numbers("plan", getattr(plan, "states", plan))
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.shape[1] != n_state:
        raise ValueError(
            f"plan must hold the states of one instance, [time, {n_state}], "
            f"got {list(array.shape)}; choose one of a batch, such as plan.states[0]"
        )
    return array
