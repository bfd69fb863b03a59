"""Checks of what a user hands to an environment."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mpc_gym.envs.spaces import EnvBox

UNIT_TOLERANCE = 1e-5  # what float32 leaves of cos^2 + sin^2 = 1, with room to spare


def as_array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A float64 copy of `value`, of that shape.

    Raises:
        ValueError: it has another shape, or is not made of numbers.
    """
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of {shape} numbers, got {value!r}") from error
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array


def checked_state(
    value: ArrayLike, space: EnvBox, cosine_index: int
) -> Float[NDArray[np.float64], " n_state"]:
    """A start state, as a copy.

    Raises:
        ValueError: it is not a state of an environment with this observation space, whose angle
            has its cosine at `cosine_index` and its sine after that.
    """
    state = as_array("options['state']", value, space.shape)
    found = state.tolist()
    if not np.isfinite(state).all():
        raise ValueError(f"options['state'] must be finite, got {found}")
    cosine, sine = state[cosine_index : cosine_index + 2]
    if abs(cosine**2 + sine**2 - 1.0) > UNIT_TOLERANCE:
        raise ValueError(
            f"options['state'] must hold cos(theta) and sin(theta) of one angle at entries "
            f"{cosine_index} and {cosine_index + 1}, got {found}, "
            f"where cos^2 + sin^2 = {cosine**2 + sine**2:.6g}"
        )
    if (state < space.low).any() or (state > space.high).any():
        raise ValueError(
            f"options['state'] must lie between {space.low.tolist()} and {space.high.tolist()}, "
            f"got {found}"
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
    unknown = sorted(set(values) - set(physics))
    if unknown:
        raise ValueError(f"no physical parameter {unknown}; there are {[*physics]}")
    checked = {name: _number(name, value) for name, value in values.items()}
    build(**{**physics, **checked})
    return checked


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number, got {value!r}") from error


def check_options(options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse options of `reset` that do not exist.

    Raises:
        ValueError: there is one.
    """
    unknown: Iterable[str] = set(options) - set(known)
    if unknown:
        names = ", ".join(map(repr, known))
        raise ValueError(f"unknown reset option {sorted(unknown)}; these exist: {names}")


def plan_states(plan: Any, n_state: int) -> Float[NDArray[np.float64], "time n_state"] | None:
    """The states of a `Plan` of one instance, or of an array or tensor of them, as a copy.

    Raises:
        ValueError: their shape is neither [time, n_state] nor [1, time, n_state].
    """
    if plan is None:
        return None
    states = getattr(plan, "states", plan)
    if isinstance(states, Tensor):
        states = states.detach().cpu().numpy()
    array = np.array(states, dtype=np.float64)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.shape[1] != n_state:
        raise ValueError(
            f"plan must hold the states of one instance, [time, {n_state}], "
            f"got {list(array.shape)}; choose one of a batch, such as plan.states[0]"
        )
    return array
