"""Domain randomisation: physical parameters drawn anew at each reset."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mpc_gym.checks import as_float, found

Ranges = dict[str, tuple[float, float]]


def parameter_ranges(
    given: Any, physics: Mapping[str, float], build: Callable[..., object]
) -> Ranges:
    """The ranges of `options["parameters"]`, in the order of `physics`.

    Args:
        given: a mapping from a parameter's name to a range (low, high), or to a value.
        physics: the parameters that exist, with their values.
        build: makes the dynamics from all parameters, and raises ValueError where it cannot.

    Raises:
        ValueError: a name is unknown, a range is none, or holds an impossible value.
    """
    if not isinstance(given, Mapping):
        raise ValueError(
            "options['parameters'] must be a mapping from name to (low, high), such as "
            f"{{'{next(iter(physics))}': (0.8, 1.2)}}, got {found(given)}"
        )
    unknown = [name for name in given if name not in physics]
    if unknown:
        raise ValueError(f"options['parameters']: no parameter {unknown}; there are {[*physics]}")
    ranges = {name: _range(name, given[name]) for name in physics if name in given}
    try:
        for name, bounds in ranges.items():
            for bound in bounds:
                build(**{**physics, name: bound})
    except ValueError as error:
        raise ValueError(f"options['parameters']: {error}") from error
    return ranges


def draw_parameters(ranges: Ranges, random: np.random.Generator) -> dict[str, float]:
    """A value from each range, uniformly."""
    drawn = random.random(len(ranges)).tolist()
    return {
        name: low + (high - low) * fraction
        for (name, (low, high)), fraction in zip(ranges.items(), drawn, strict=True)
    }


def _range(name: str, value: Any) -> tuple[float, float]:
    full = f"options['parameters'][{name!r}]"
    single = as_float(value)
    pair = value if isinstance(value, list | tuple | np.ndarray) and single is None else ()
    bounds = [as_float(bound) for bound in pair] if single is None else [single, single]
    low, high = bounds if len(bounds) == 2 else (None, None)
    if low is None or high is None:
        raise ValueError(f"{full} must be (low, high) or a number, got {found(value)}")
    if not low <= high:
        raise ValueError(f"{full} must be (low, high) with low <= high, got {found(value)}")
    return low, high
