"""The decorators that turn the package's own and its generated functions into native code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

from mpc_gym.compiled.cache import CheckedCache

Function = TypeVar("Function", bound=Callable[..., Any])

# Not nnan or ninf: a start state that is not finite has to be found by comparing it with itself.
REASSOCIATING = frozenset({"contract", "reassoc", "arcp", "nsz", "afn"})
OPTIONS: dict[str, Any] = {
    "error_model": "numpy",
    "nogil": True,
    "fastmath": set(REASSOCIATING),
}


def native(function: Function) -> Function:
    """Compile what was generated: it may be reassociated, and is cached on disk."""
    return _compile(function, OPTIONS)


def native_exact(function: Function) -> Function:
    """Compile a function whose error bound depends on the order of its operations, as written.

    Products and sums may be contracted to fused ones. It is inlined wherever it is called.
    """
    return _compile(function, {**OPTIONS, "fastmath": {"contract"}, "forceinline": True})


def _compile(function: Function, options: dict[str, Any]) -> Function:
    dispatcher: Any = numba.njit(**options)(function)
    dispatcher._cache = CheckedCache(function)
    compiled: Function = dispatcher
    return compiled
