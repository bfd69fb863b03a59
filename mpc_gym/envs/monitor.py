"""Attributes that Stable-Baselines3 sets on its monitor instead of on the environment.

`DummyVecEnv.set_attr` and `SubprocVecEnv.set_attr` write to an environment's outermost wrapper,
which in what `make_vec_env` makes is a `Monitor`, and read it back from there.
"""

import sys
import weakref
from collections.abc import Collection
from typing import Any

import gymnasium as gym


def find_monitor(env: gym.Env[Any, Any]) -> "weakref.ref[Any] | None":
    """The `Monitor` around an environment, where a method of it is calling the environment now.

    An environment does not know its wrappers; those through which it is called are on the stack.
    """
    module = sys.modules.get("stable_baselines3.common.monitor")
    frame = None if module is None else sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, module.Monitor) and caller.unwrapped is env:  # type: ignore[union-attr]
            return weakref.ref(caller)
        frame = frame.f_back
    return None


def take_attributes(monitor: "weakref.ref[Any] | None", names: Collection[str]) -> dict[str, Any]:
    """Those of these attributes that were set on a monitor, which loses them."""
    wrapper = None if monitor is None else monitor()
    if wrapper is None:
        return {}
    attributes = vars(wrapper)
    return {name: attributes.pop(name) for name in names if name in attributes}
