"""Checks that a policy can be rebuilt, in this process or another, from its arguments alone."""

import importlib
import inspect
import io
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy

SCRIPT = "__main__"  # the module of what is defined in a script, or in the cell of a notebook


class Rebuilt(BasePolicy):
    """A policy or actor that is saved as its arguments, and is made anew from them."""

    def save(self, path: str | Path) -> None:
        """As SB3's own `save`, with the functions of a script themselves in the file.

        A plain pickle would have their names, which mean nothing to another script.
        """
        content = {"state_dict": self.state_dict(), "data": self._get_constructor_parameters()}
        torch.save(content, path, pickle_module=cloudpickle)


def plain_data(name: str, value: object) -> Any:
    """The value, of numbers, text, and nests of them, with NumPy's numbers as Python's own.

    Raises:
        TypeError: `value`, or something inside it, does not survive being written down.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain_data(f"{name}[{key!r}]", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain_data(f"{name}[{i}]", item) for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise TypeError(
        f"{name} must be plain data (a number, a text, or a list, tuple or dict of them), so "
        f"that the policy can be saved and rebuilt; got {type(value).__name__}. To plan with "
        "modules or tensors of your own, pass mpc= a function that makes the MPC"
    )


def check_importable(name: str, function: Callable[..., object]) -> None:
    """Refuse a function that another process could not find by its name.

    One that is defined in a script or a notebook is not found by its name either, but SB3 keeps
    what such a function consists of, so that it is there when the file is loaded.

    Raises:
        TypeError: `function` is a lambda, a closure, a method or an instance, or is defined in a
            script and uses what cannot be kept.
    """
    module_name = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if module_name == SCRIPT and isinstance(path, str) and path.isidentifier():
        _check_kept(name, function)
        return
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


class _Elsewhere(pickle.Unpickler):
    """Reads what a script has pickled as another script does."""

    def find_class(self, module: str, name: str) -> Any:
        if module == SCRIPT:
            raise pickle.UnpicklingError(f"{name!r} is kept by its name, which others do not have")
        return super().find_class(module, name)


def _check_kept(name: str, function: Callable[..., object]) -> None:
    try:
        _Elsewhere(io.BytesIO(cloudpickle.dumps(function))).load()
    except Exception as error:  # whatever an object of the script says to being pickled
        raise TypeError(
            f"{name}={function.__qualname__} could not be saved with the policy, since it is or "
            f"uses what cannot be pickled: {error}. Let it make what it needs itself, or define it "
            "in a module of its own and import it"
        ) from error


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
