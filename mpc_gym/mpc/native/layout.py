"""Where the fields of a stage lie in the workspace of a native kernel.

The workspace of a block of lanes holds one record a stage, and one more behind the last stage. A
record holds its fields one after the other, each as W neighbouring numbers, one a lane. So every
index in a lane function is a literal plus the lane, relative to its stage's record.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mpc_gym.compiled.cpu.emit import LANES, lane_function_source
from mpc_gym.mpc.native.offsets import SensitivityOffsets, SolverOffsets
from mpc_gym.mpc.stage import Model, Stage

Shape = Mapping[str, int]


@dataclass(frozen=True)
class Layout:
    """Field names of a record, in order, with the number of entries of each."""

    fields: Shape

    @property
    def size(self) -> int:
        """Numbers in one record."""
        return LANES * sum(self.fields.values())

    def offset(self, field: str) -> int:
        """Where a field begins in its record."""
        names = list(self.fields)
        before = names[: names.index(field)]
        return LANES * sum(self.fields[name] for name in before)

    def place(self, entry: str) -> str:
        """The index expression of an entry, such as `x2`, or of the next record's, `x'2`."""
        following = "'" in entry
        name = entry.replace("'", "")
        field = name.rstrip("0123456789")
        index = int(name[len(field) :] or 0)
        assert index < self.fields[field], entry
        return f"D[{self.offset(field) + LANES * index + self.size * following} + b]"

    def offsets(self) -> dict[str, int]:
        """Where each field begins in its record."""
        return {name: self.offset(name) for name in self.fields}


def solver_offsets(model: Model) -> SolverOffsets:
    """What the kernels of the solver know of a model. Fields that its records lack are at -1."""
    layout = solver_layout(model)
    absent = dict.fromkeys(SolverOffsets._fields, -1)
    sizes = {"n": model.n, "m": model.m, "n_context": model.n_context, "record": layout.size}
    return SolverOffsets(**(absent | sizes | layout.offsets()))


def sensitivity_offsets(model: Model) -> SensitivityOffsets:
    """What the kernels of the sensitivity know of a model."""
    layout = sensitivity_layout(model)
    return SensitivityOffsets(
        n=model.n,
        m=model.m,
        n_context=model.n_context,
        n_shared=model.parameter_count(per_stage=False),
        n_staged=model.parameter_count(per_stage=True),
        record=layout.size,
        **layout.offsets(),
    )


def solver_layout(model: Model) -> Layout:
    """The record of the solver."""
    n, m = model.n, model.m
    triangle, full = n * (n + 1) // 2, (n + m) * (n + m + 1) // 2
    iterate = {"x": n, "u": m}  # neighbours, as are xn and un: an accepted step is copied at once
    trial = {"xn": n, "un": m}
    gains = {"k": m, "kx": m * n}
    step = {"moved": m, "span": m}
    passed_on = ("slope", "change", "pull", "convex", "size", "exact", "mu", "alpha", "cost")
    several = {"q": n + m, "qq": full, "damping": m, "solvable": 1}
    quadratic = several if m > 1 else {"quu": 1}
    return Layout(
        iterate | trial | {"c": model.n_context} | gains | {"v": n, "vv": triangle} | step
        | dict.fromkeys(passed_on, 1) | quadratic
    )  # fmt: skip


def sensitivity_layout(model: Model) -> Layout:
    """The record of the derivative of the optimum."""
    n, m = model.n, model.m
    given = {"x": n, "u": m, "c": model.n_context, "gx": n, "gu": m}
    value = {"lam": n, "v": n, "vv": n * (n + 1) // 2, "k": m, "kx": m * n}
    bounds = {"force": m, "forcex": m * n, "atlow": m, "athigh": m, "glow": m, "ghigh": m}
    found = {"dx": n, "gc": model.n_context}
    per_stage = {"gs": model.parameter_count(per_stage=True)}
    return Layout(
        given
        | value
        | bounds
        | found
        | per_stage
        | dict.fromkeys(("w", "exact", "regular", "finite"), 1)
    )


def lane_source(name: str, stage: Stage, layout: Layout, n_ctrl: int) -> str:
    """Source of the lane function that runs a stage's program.

    Its arguments are the workspace `D` from this stage's record on, the shared parameters `P`,
    the stage's own numbers `S` (bounds, then parameters) and the accumulators `G`. It is called
    through `{name}_address`.
    """
    program, outputs = stage
    used = program.inputs_of(outputs.values())
    hoisted = {entry: place for entry in used if (place := _shared_place(entry, n_ctrl))}
    source = lane_function_source(
        name,
        program,
        arguments=("D", "P", "S", "G"),
        loads={entry: _place(entry, layout) for entry in _without(used, hoisted)},
        stores=[(_place(entry, layout), value) for entry, value in outputs.items()],
        hoisted=hoisted,
    )
    # every index is a literal, so the arrays' lengths do not matter
    arrays = ", ".join(f"carray({argument}, 1)" for argument in "DPSG")
    return f"""{source}

def {name}_callback(D, P, S, G):
    {name}({arrays})


{name}_address = callback({name}_callback)
"""


def _without(entries: Iterable[str], excluded: Mapping[str, str]) -> list[str]:
    return [entry for entry in entries if entry not in excluded]


def _shared_place(entry: str, n_ctrl: int) -> str | None:
    name = entry.rstrip("0123456789")
    index = int(entry[len(name) :] or 0) if name != entry else 0
    starts = {"p": "P", "low": "S", "high": "S", "s": "S"}
    first = {"p": 0, "low": 0, "high": n_ctrl, "s": 2 * n_ctrl}
    return f"{starts[name]}[{first[name] + index}]" if name in starts else None


def _place(entry: str, layout: Layout) -> str:
    if entry.startswith("gp"):
        return f"G[{LANES * int(entry[2:])} + b]"
    return layout.place(entry)
