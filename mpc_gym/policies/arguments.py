"""Checks that a policy can be rebuilt, in this process or another, from its arguments alone."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any


def check_plain_data(name: str, value: object) -> None:
    """Refuse what does not survive being written down: only numbers, text, and nests of them.

    Raises:
        TypeError: `value`, or something inside it, is another kind of object.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_plain_data(f"{name}[{key!r}]", item)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            check_plain_data(f"{name}[{i}]", item)
    else:
        raise TypeError(
            f"{name} must be plain data (a number, a text, or a list, tuple or dict of them), so "
            f"that the policy can be saved and rebuilt; got {type(value).__name__}. To plan with "
            "modules or tensors of your own, pass mpc= a function that makes the MPC"
        )


def check_importable(name: str, function: Callable[..., object]) -> None:
    """Refuse a function that another process could not find by its name.

    Raises:
        TypeError: `function` is a lambda, a closure, a method or an instance.
    """
    module_name = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if isinstance(module_name, str) and isinstance(path, str):
        found: Any = sys.modules.get(module_name) or importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is function:
            return
    raise TypeError(
        f"{name} must be a function (or class) that can be imported by its name, so that the "
        f"policy can be saved and rebuilt; got {function!r}. Define it with `def` at the top "
        "level of a module"
    )


def check_call(function: Callable[..., object], options: Mapping[str, object]) -> None:
    """Check that `function` takes `options` as keyword arguments.

    Raises:
        TypeError: it does not.
    """
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        raise TypeError(
            f"mpc={function.__qualname__} cannot be called with the options "
            f"{sorted(options)}: {error}. Options of the policy are handed to this function; "
            "leave them out, or let the function take them"
        ) from error
