"""Functions and classes among a policy's arguments: found by their names, or kept with it.

A policy is saved as its arguments, and must be able to make its parts anew, in this process or
another.
"""

import importlib
import inspect
import io
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import torch
from stable_baselines3.common.policies import BasePolicy

SCRIPT = "__main__"  # the module of what is defined in a script, or in the cell of a notebook


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
        named: Any = sys.modules.get(module_name) or importlib.import_module(module_name)
        for part in path.split("."):
            named = getattr(named, part, None)
        if named is function:
            return
    raise TypeError(
        f"{name} must be a function (or class) that can be imported by its name, so that the "
        f"policy can be saved and rebuilt; got {function!r}. Define it with `def` at the top "
        "level of a module"
    )


class _OtherScript(pickle.Unpickler):
    """Reads what a script has pickled as another script does."""

    def find_class(self, module: str, name: str) -> Any:
        if module == SCRIPT:
            raise pickle.UnpicklingError(f"{name!r} is kept by its name, which others do not have")
        return super().find_class(module, name)


def _check_kept(name: str, function: Callable[..., object]) -> None:
    try:
        _OtherScript(io.BytesIO(cloudpickle.dumps(function))).load()
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


def save_with_functions(policy: BasePolicy, path: str | Path) -> None:
    """SB3's own `save`, with the functions of a script themselves in the file.

    A plain pickle would have their names, which mean nothing to another script.
    """
    content = {"state_dict": policy.state_dict(), "data": policy._get_constructor_parameters()}
    torch.save(content, path, pickle_module=cloudpickle)
