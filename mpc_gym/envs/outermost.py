"""Attributes that are set on the wrapper of an environment instead of on the environment.

`env.mass = 2.0` writes to the outermost wrapper of what `gymnasium.make` returns, and so does
`set_attr` of Stable-Baselines3's vector environments, which reads it back from there.
"""

import sys
import weakref
from collections.abc import Collection
from types import FrameType
from typing import Any

import gymnasium as gym

# A user's own wrapper may have a `length` that means something else.
LIBRARIES = frozenset({"gymnasium", "stable_baselines3"})


def find_outermost(env: gym.Env[Any, Any]) -> "weakref.ref[gym.Wrapper[Any, Any, Any, Any]] | None":
    """The outermost wrapper of these libraries, where a method of it calls the environment now.

    An environment does not know its wrappers; those through which it is called are on the stack.
    """
    outermost = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_varnames[:1] == ("self",):
            # only here, since what a frame's variables hold lives on with it once it was looked at
            caller = frame.f_locals.get("self")
            if isinstance(caller, gym.Wrapper) and _is_whole(caller) and caller.unwrapped is env:
                if _library(type(caller).__module__) in LIBRARIES:
                    outermost = weakref.ref(caller)
            elif caller is not env:
                break
        elif _library(frame.f_globals.get("__name__", "")) not in LIBRARIES:
            break
        frame = frame.f_back
    return outermost


def take_attributes(
    wrapper: gym.Wrapper[Any, Any, Any, Any], names: Collection[str]
) -> dict[str, Any]:
    """Those of these attributes that were set on a wrapper, which loses them."""
    attributes = vars(wrapper)
    return {name: attributes.pop(name) for name in names if name in attributes}


def _library(module: str) -> str:
    return module.partition(".")[0]


def _is_whole(wrapper: gym.Wrapper[Any, Any, Any, Any]) -> bool:
    """Whether it has its environment; one that is being made may call before."""
    return "env" in vars(wrapper)
