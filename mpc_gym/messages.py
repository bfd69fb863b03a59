"""What the package says to its user beside exceptions: warnings at the user's line, and notices."""

import logging
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# The first name of the modules through which a user's code calls the package.
_BETWEEN = frozenset(
    {"mpc_gym", "torch", "stable_baselines3", "sb3_contrib", "gymnasium", "functools", "contextlib"}
)

PATIENCE = 2.0  # [s]

_logger = logging.getLogger("mpc_gym")


@cache
def say_once(message: str) -> None:
    """Say why the user waits, once in a process.

    A record of the logger "mpc_gym". Its level is that of warnings, or Python would keep it to
    itself where no logging is set up; it is no `warnings.warn`, as nothing has to be changed.
    """
    _logger.warning("mpc_gym: %s", message)


class _Waiting(threading.local):
    """What the user of a thread may come to wait for, since when, and what will say so."""

    reason: str | None = None
    begun: float
    timer: threading.Timer | None = None


_waiting = _Waiting()


@contextmanager
def waiting_for(reason: str) -> Iterator[None]:
    """Say a reason once where the user waits for longer than `PATIENCE`, and `long_work` began.

    Of several around each other the outermost counts.
    """
    if _waiting.reason is not None:
        yield
        return
    _waiting.reason, _waiting.begun = reason, time.monotonic()
    try:
        yield
    finally:
        timer, _waiting.reason, _waiting.timer = _waiting.timer, None, None
        if timer is not None:
            timer.cancel()
            timer.join()


def long_work() -> None:
    """What takes long begins, for which the user would have to be told a reason."""
    if _waiting.reason is None or _waiting.timer is not None:
        return
    left = PATIENCE - (time.monotonic() - _waiting.begun)
    if left <= 0.0:
        say_once(_waiting.reason)
        return
    _waiting.timer = threading.Timer(left, say_once, [_waiting.reason])
    _waiting.timer.daemon = True
    _waiting.timer.start()


def warn(message: str) -> None:
    """Warn with a UserWarning at the innermost line that is not in a library."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        if frame.f_back is None:
            break
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        UserWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )
