"""Which rivals are installed."""

import importlib.util

from benchmarks.rivals.base import Rival
from benchmarks.rivals.ours import Ours

NATIVE = "mpc_gym native"
REFERENCE = "mpc_gym reference"


def available() -> tuple[list[Rival], list[str]]:
    """The solvers that can be compared, and for each that cannot a line that says why."""
    rivals: list[Rival] = [Ours(NATIVE, "native"), Ours(REFERENCE, "torch")]
    missing = []
    if importlib.util.find_spec("mpc") is None:
        missing.append("mpc 0.0.6 is left out: pip install --no-deps mpc==0.0.6")
    else:
        from benchmarks.rivals.paper import PaperLibrary

        rivals.append(PaperLibrary())
    if importlib.util.find_spec("casadi") is None:
        missing.append("CasADi is left out: pip install casadi")
        return rivals, missing
    from benchmarks.rivals.casadi import OPTIONS, Casadi, has_compiler

    if has_compiler():
        rivals += [Casadi(solver) for solver in OPTIONS]
    else:
        missing.append("CasADi is left out: it needs gcc on the path")
    return rivals, missing
