"""What the package says to its user beside exceptions, at the line of the user's that led to it."""

import sys
import warnings

# The first name of the modules through which a user's code calls the package.
_BETWEEN = frozenset(
    {"mpc_gym", "torch", "stable_baselines3", "sb3_contrib", "gymnasium", "functools", "contextlib"}
)


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
