"""What the package says to its user beside exceptions: warnings at the user's line, and notices."""

import logging
import sys
import warnings
from functools import cache

# The first name of the modules through which a user's code calls the package.
_BETWEEN = frozenset(
    {"mpc_gym", "torch", "stable_baselines3", "sb3_contrib", "gymnasium", "functools", "contextlib"}
)

_logger = logging.getLogger("mpc_gym")


@cache
def say_once(message: str) -> None:
    """Say why the user waits, once in a process.

    A record of the logger "mpc_gym". Its level is that of warnings, or Python would keep it to
    itself where no logging is set up; it is no `warnings.warn`, as nothing has to be changed.
    """
    _logger.warning("mpc_gym: %s", message)


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
