"""What a module can do that keeps it from being compiled."""


class UnsupportedOperation(ValueError):  # noqa: N818  # it reads as what happened
    """A module uses what cannot be compiled; the message names the operation and its line."""


class ProgramTooLarge(ValueError):  # noqa: N818
    """A module, with its derivatives, has too many scalar operations for straight-line code."""
