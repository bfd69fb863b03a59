"""What a module can do that keeps it from being compiled."""


class UnsupportedOperation(ValueError):
    """A module uses what cannot be compiled; the message names the operation and its line."""


class ProgramTooLarge(ValueError):
    """A module, with its derivatives, has too many scalar operations for straight-line code."""
