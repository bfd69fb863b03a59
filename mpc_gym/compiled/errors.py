"""What a module can do that keeps it from being compiled."""


class UnsupportedOperation(ValueError):  # noqa: N818  # it reads as what happened
    """A module uses what cannot be compiled; the message names the operation and its line."""


class ImpureModule(UnsupportedOperation):
    """A module that no backend can plan with: it is no function of what it is given.

    What it returns depends on more than its arguments, parameters and attributes, or on them in
    a way that PyTorch does not see, or calling it changes what it was given. Or it rounds its
    numbers to fewer digits than float32 has, and has no derivatives that one could find.
    """


class ProgramTooLarge(ValueError):  # noqa: N818
    """A module, with its derivatives, has too many operations to be compiled."""
