"""The decorators that turn the package's own and its generated functions into native code."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba.core.compiler_lock import global_compiler_lock

from mpc_gym.compiled.cpu.cache import CheckedCache, compiling
from mpc_gym.functional import LOCK
from mpc_gym.messages import long_work

_compiler: Any = global_compiler_lock  # Numba is not typed

GENERATED = "mpc_gym_generated_"  # names of modules begin with it

Function = TypeVar("Function", bound=Callable[..., Any])

# Not nnan or ninf: a start state that is not finite has to be found by comparing it with itself.
REASSOCIATING = frozenset({"contract", "reassoc", "arcp", "nsz", "afn"})
OPTIONS: dict[str, Any] = {
    "error_model": "numpy",
    "nogil": True,
    "fastmath": set(REASSOCIATING),
    # A function that is left standing has a copy in every other that calls it, optimised once more,
    # with its sums in another order maybe; which of the copies runs is decided by what was loaded
    # first. So the process that compiles would find other bits than those that load its code.
    "forceinline": True,
}
_UNCOUNTED: dict[str, Any] = {**OPTIONS, "_nrt": False}


def native(function: Function) -> Function:
    """Compile what was generated: it may be reassociated, and is cached on disk."""
    return _compile(function, OPTIONS)


def native_uncounted(function: Function) -> Function:
    """The same for a function that makes no array, so that references to arrays are not counted.

    Numba leaves that out by itself where it sees how, but not where a function branches much. Then
    it takes some hundred nanoseconds a call.
    """
    return _compile(function, _UNCOUNTED)


def native_exact(function: Function) -> Function:
    """Compile a function whose error bound depends on the order of its operations, as written.

    Products and sums may be contracted to fused ones.
    """
    return _compile(function, {**OPTIONS, "fastmath": {"contract"}})


def _compile(function: Function, options: dict[str, Any]) -> Function:
    dispatcher: Any = numba.njit(**options)(function)
    keep(dispatcher, function)
    compiled: Function = dispatcher
    return compiled


def keep(compiled: Any, function: Callable[..., Any]) -> None:
    """Keep on disk what Numba makes of a function, and tell a user who waits for it.

    Args:
        compiled: Numba's dispatcher, or `CFunc`, of the function.
        function: as it was written.
    """
    compiled._cache = CheckedCache(function)
    compiler = compiled._compiler  # asked where nothing was found in the cache
    make = compiler.compile

    def compile_and_tell(*arguments: Any) -> Any:
        with compiling(_named(function)):
            long_work()
            return make(*arguments)

    compiler.compile = compile_and_tell


def _named(function: Callable[..., Any]) -> str:
    module = function.__module__
    if module.startswith(GENERATED):
        return module.removeprefix(GENERATED).rpartition("_")[0]
    return "what all models share"


def _hold() -> None:
    LOCK.acquire()  # in the order in which a thread that compiles takes them
    _compiler.acquire()


def _release() -> None:
    _compiler.release()
    LOCK.release()


if hasattr(os, "register_at_fork"):
    # A child has what is half made, but not the thread that would finish it.
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_release)
