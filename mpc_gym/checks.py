"""Checks of what a user hands in: one for each kind of argument, so that a mistake reads alike.

Each refuses with the argument's name, what it must be, and what was found. A number or a count is
returned as Python's own, so that what is kept of it can be written to a file.

Deliberately accepted: numbers and integers of NumPy, and single numbers in an array or tensor.
Refused although Python would take them: True and False, text that looks like a number, and integers
that nothing could be made of.
"""

import math
import os
import reprlib
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

LARGEST_COUNT = 2**31 - 1
LARGEST_SIZE = 10**6  # of what memory is proportional to, such as a horizon or a layer
LARGEST_SEED = 2**63 - 1  # that PyTorch takes

Kind = TypeVar("Kind")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200
_short.maxlist = _short.maxtuple = _short.maxdict = 10


def found(value: object) -> str:
    """How a message shows a value that is wrong: in one line, however large it is."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} of shape {list(shape)}, {getattr(value, 'dtype', '')}"
    try:
        return _short.repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return f"{type(value).__name__} of more than 4,000 digits"


def check_count(name: str, value: object, least: int = 1, most: int = LARGEST_COUNT) -> int:
    """The integer.

    Raises:
        ValueError: it is none, or not between `least` and `most`.
    """
    if type(value) is int and least <= value <= most:
        return value  # at once: a controller asks at each plan
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be an integer of at least {least}, got {found(value)}")
    if value < least:
        wanted = "not be negative" if least == 0 else f"be at least {least}"
        raise ValueError(f"{name} must {wanted}, got {found(value)}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, got {found(value)}")
    return int(value)


def check_size(name: str, value: object, least: int = 1) -> int:
    """The integer, of which memory must hold as much.

    Raises:
        ValueError: it is none, or not between `least` and a million.
    """
    return check_count(name, value, least, LARGEST_SIZE)


def check_seed(name: str, value: object) -> int:
    """The seed.

    Raises:
        ValueError: it is no integer that a generator takes.
    """
    return check_count(name, value, 0, LARGEST_SEED)


def check_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> float:
    """The number.

    Raises:
        ValueError: it is no finite number, or not within the limits given.
    """
    number = as_float(value)
    if number is not None and math.isfinite(number):
        low = (above is None or number > above) and (least is None or number >= least)
        high = (below is None or number < below) and (most is None or number <= most)
        if low and high:
            return number
    raise ValueError(f"{name} must {_limits(above, least, below, most)}, got {found(value)}")


def check_flag(name: str, value: object) -> bool:
    """The truth value.

    Raises:
        ValueError: it is neither True nor False.
    """
    if value is not True and value is not False and not isinstance(value, np.bool_):
        raise ValueError(f"{name} must be True or False, got {found(value)}")
    return bool(value)


def check_option(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse what is not one of some words.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str) or value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {choices}, got {found(value)}")


def check_instance(
    name: str, value: object, kinds: type[Kind] | tuple[type[Any], ...], wanted: str
) -> None:
    """Refuse what is of another class.

    Args:
        name: of the argument.
        value: what was given for it.
        kinds: the classes.
        wanted: in words, such as "a torch.nn.Module".

    Raises:
        TypeError: it is an instance of none of them.
    """
    if isinstance(value, kinds):
        return
    remedy = ""
    if isinstance(value, type) and issubclass(value, kinds):
        remedy = f", the class itself; make one of it: {value.__name__}(...)"
    raise TypeError(f"{name} must be {wanted}, got {type(value).__name__}{remedy}: {found(value)}")


def check_names(name: str, values: object) -> None:
    """Refuse what is no list of names, such as a single one.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(values, list | tuple) or not all(isinstance(each, str) for each in values):
        raise TypeError(f"{name} must be a list of names, got {found(values)}")


def check_module(name: str, value: object) -> None:
    """Refuse what is no module.

    Raises:
        TypeError: it is none.
    """
    check_instance(name, value, nn.Module, "a torch.nn.Module")


def check_path(name: str, value: object) -> Path:
    """The path.

    Raises:
        TypeError: it is neither text nor a path.
        ValueError: it is empty, or holds a null character.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a path, as text or a pathlib.Path, got {found(value)}")
    path = Path(text)
    if not text or "\0" in text or any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise ValueError(
            f"{name} must be a path, whose parts have at most 255 bytes, got {found(value)}"
        )
    return path


def real_tensor(name: str, value: object, dtype: torch.dtype | None = None) -> Tensor:
    """A number, nested sequence, array or tensor as a tensor, which may be the given one.

    Args:
        name: of the argument.
        value: what was given for it.
        dtype: of the tensor; None: that of the value, or the default for Python's numbers.

    Raises:
        TypeError: it is not made of real numbers, or it is a sparse tensor.
    """
    wanted = f"{name} must be an array, dense tensor or list of real numbers, or one number"
    try:
        if isinstance(value, np.ndarray) or (
            isinstance(value, list | tuple) and any(isinstance(part, np.ndarray) for part in value)
        ):
            value = np.array(value)  # PyTorch takes no view backwards, and is slow with a list
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"{wanted}, got {found(value)}") from error
    if isinstance(value, bytes | bytearray | memoryview) or not _is_real(tensor):
        raise TypeError(f"{wanted}, got {found(value)}")
    return tensor if dtype is None else torch.as_tensor(value, dtype=dtype)


def check_floating(name: str, value: object) -> None:
    """Refuse what is no dense tensor of floating-point numbers.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}; use torch.tensor")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {value.dtype}; use {name}.double()")
    if not _is_real(value):
        raise TypeError(f"{name} must be a dense tensor, got {value.layout} on {value.device}")


def as_float(value: object) -> float | None:
    """A number, or a single one in an array, as Python's float; None if it is no number.

    It is infinite where it is too large.
    """
    if isinstance(value, np.ndarray) or (isinstance(value, Tensor) and _is_real(value)):
        value = value.item() if value.ndim == 0 else None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_bounds(low: Tensor, high: Tensor) -> None:
    """Raise a ValueError unless low <= high, with a number between them, and neither is NaN."""
    if bool(((low <= high) & (low < math.inf) & (high > -math.inf)).all()):
        return
    for name, bound in (("control_low", low), ("control_high", high)):
        if bool(bound.isnan().any()):
            raise ValueError(f"{name} must not be NaN; use None for no bound")
    if bool((low == math.inf).any()) or bool((high == -math.inf).any()):
        raise ValueError(
            "control_low must be below +inf and control_high above -inf, got "
            f"control_low = {low.tolist()} and control_high = {high.tolist()}"
        )
    if bool((low > high).any()):
        raise ValueError(
            "control_low must not exceed control_high, got "
            f"control_low = {low.tolist()} and control_high = {high.tolist()}"
        )


def _limits(
    above: float | None, least: float | None, below: float | None, most: float | None
) -> str:
    if least is not None and most is not None:
        return f"be between {least:g} and {most:g}"
    if above is not None and below is not None:
        return f"be between {above:g} and {below:g}, both excluded"
    words = "be a finite number"
    if least is not None:
        words = "be a number that is not negative" if least == 0 else f"be at least {least:g}"
    if above is not None:
        words = "be a positive number" if above == 0 else f"be a number above {above:g}"
    return words if most is None else f"{words} of at most {most:g}"


def _is_real(tensor: Tensor) -> bool:
    kind = tensor.dtype
    return (
        tensor.layout == torch.strided
        and not (kind == torch.bool or kind.is_complex or tensor.is_quantized)
        and not tensor.is_meta
    )
