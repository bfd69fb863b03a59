"""The records of the native solver: what the programs of a stage read and write, and where it lies.

The workspace of a block of lanes holds one record a stage, and one more behind the last stage. The
programs (`stages/`) name the fields; the loops around them (`native/`) find them by these offsets.
"""

from collections import namedtuple

from mpc_gym.compiled.cpu.emit import LANES
from mpc_gym.compiled.kernel import Record
from mpc_gym.mpc.stages.model import Model


def _solver_fields(n: int, m: int, n_context: int) -> dict[str, int]:
    looped = m > 2  # the box QP is solved by a program of its own
    return {
        # neighbours, as are xn and un: an accepted step is copied at once
        "x": n, "u": m,
        "xn": n, "un": m,
        "c": n_context,
        "k": m, "kx": m * n,
        "v": n, "vv": n * (n + 1) // 2,
        "moved": m, "span": m,
        "slope": 1, "change": 1, "pull": 1, "convex": 1, "size": 1, "exact": 1, "mu": 1,
        "alpha": 1, "cost": 1,
        "qu": m * (m > 1), "quu": m * (m + 1) // 2,
        "qx": n * looped, "qux": m * n * looped, "qxx": n * (n + 1) // 2 * looped,
        "h": m * (m + 1) // 2 * looped, "stays": m * looped, "free": m * looped,
        "settled": 1 * looped, "solvable": 1 * looped,
    }  # fmt: skip


def _accumulated_fields(n: int, m: int, n_rows: int) -> dict[str, int]:
    """What the programs for the constraints gather over the stages."""
    return {
        "update": 1, "plain": 1, "stakes": 1, "violation": 1, "nan": 1,
        "moved_row": n_rows, "leaving": n_rows, "row": n_rows, "terms": n_rows, "largest": n + m,
    }  # fmt: skip


def _sensitivity_fields(n: int, m: int, n_context: int, n_staged: int) -> dict[str, int]:
    return {
        "x": n, "u": m, "c": n_context, "gx": n, "gu": m,
        "lam": n, "v": n, "vv": n * (n + 1) // 2, "k": m, "kx": m * n,
        "force": m, "forcex": m * n, "atlow": m, "athigh": m, "glow": m, "ghigh": m,
        "dx": n, "gc": n_context, "gs": n_staged,
        "w": 1, "exact": 1, "regular": 1, "finite": 1,
    }  # fmt: skip


# Named tuples of integers, so that Numba code can read them by name. They go in as arrays: Numba's
# dispatcher takes ten microseconds to recognise a named tuple.
_SIZES = ("n", "m", "n_context", "n_rows")
SolverOffsets = namedtuple(  # type: ignore[misc]
    "SolverOffsets",
    [*_SIZES, "record", *_solver_fields(1, 1, 1), "gathered", *_accumulated_fields(1, 1, 1)],
)
SensitivityOffsets = namedtuple(  # type: ignore[misc]
    "SensitivityOffsets",
    [
        "n",
        "m",
        "n_context",
        "n_shared",
        "n_staged",
        "gathered",
        "record",
        *_sensitivity_fields(1, 1, 1, 1),
    ],
)


def solver_record(model: Model) -> Record:
    """The record of the solver."""
    return Record(_solver_fields(model.n, model.m, model.n_context), LANES)


def solver_accumulators(model: Model) -> Record:
    """What lies beside the records of the solver, for all stages together."""
    return Record(_accumulated_fields(model.n, model.m, model.n_rows), LANES)


def sensitivity_accumulators(model: Model) -> Record:
    """The same of the derivative: gradients by the shared parameters."""
    return Record({"gp": model.parameter_count(per_stage=False)}, LANES)


def sensitivity_record(model: Model) -> Record:
    """The record of the derivative of the optimum."""
    return Record(
        _sensitivity_fields(
            model.n, model.m, model.n_context, model.parameter_count(per_stage=True)
        ),
        LANES,
    )


def solver_offsets(model: Model, scratch: int) -> tuple[int, ...]:
    """What the loops of the solver know of a model, in the order of `SolverOffsets`.

    scratch: numbers of scratch memory that its programs need, behind what is gathered.
    """
    record, gathered = solver_record(model), solver_accumulators(model)
    sizes = model.n, model.m, model.n_context, model.n_rows
    offsets = record.offsets().values(), gathered.offsets().values()
    return (*sizes, record.size, *offsets[0], gathered.size + scratch, *offsets[1])


def sensitivity_offsets(model: Model, scratch: int) -> tuple[int, ...]:
    """What the loops of the sensitivity know of a model, in the order of `SensitivityOffsets`."""
    record = sensitivity_record(model)
    counts = [model.parameter_count(per_stage=each) for each in (False, True)]
    return (
        model.n, model.m, model.n_context, *counts, sensitivity_accumulators(model).size + scratch,
        record.size, *record.offsets().values(),
    )  # fmt: skip
