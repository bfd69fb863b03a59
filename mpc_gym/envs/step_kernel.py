"""The native code of a time step: a loop over the environments, 16 at a time.

What depends on the parameters alone (the sine of the wind's angle, 3 / (m l^2)) is computed once
where all environments share them, and otherwise once for each, by the same code: both ways give
the same numbers bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from types import ModuleType

import numpy as np

from mpc_gym.compiled import Graph, Program
from mpc_gym.compiled.cpu.emit import LANES, build, kernel_source, sources
from mpc_gym.compiled.cpu.native import native
from mpc_gym.compiled.kernel import SCRATCH, Kernel, Place, Record
from mpc_gym.compiled.parameters import unflatten
from mpc_gym.compiled.primitives import CONDITIONS
from mpc_gym.compiled.program import Expression, Value, elements

_LOOP = """
@native
def step_batch(states, controls, applied, parameters, following, costs, D):
    rows = states.shape[0]
    shared = parameters.shape[0] == 1
    for first in range(0, rows, {lanes}):
        for b in range({lanes}):
            i = min(first + b, rows - 1)
            for k in range({n_state}):
                D[k, b] = states[i, k]
            for k in range({n_ctrl}):
                D[{control} + k, b] = controls[i, k]
                D[{applied} + k, b] = applied[i, k]
        if first == 0 or not shared:
            for b in range({lanes}):
                i = 0 if shared else min(first + b, rows - 1)
                for k in range({n_parameters}):
                    D[{parameters} + k, b] = parameters[i, k]
            derive_lanes(D)
        step_lanes(D, D[{scratch}:])
        for i in range(first, min(first + {lanes}, rows)):
            for k in range({n_state}):
                following[i, k] = D[{out} + k, i - first]
            costs[i] = D[{out} + {n_state}, i - first]
"""


@native
def actuate(actions, low, high, gain, controls, applied):  # type: ignore[no-untyped-def]
    """Clip actions to their limits; False if one of them is NaN.

    `applied` is what reaches the dynamics. With a gain other than zero, a control that float32
    holds is rounded as its product with the gain is in float32.

    Args, all float64 arrays but the gain: actions [batch, n_ctrl], low [n_ctrl], high [n_ctrl],
    gain, controls [batch, n_ctrl] and applied [batch, n_ctrl], which are written.
    """
    for i in range(actions.shape[0]):
        for k in range(actions.shape[1]):
            control = actions[i, k]
            if np.isnan(control):
                return False
            control = min(max(control, low[k]), high[k])
            controls[i, k] = applied[i, k] = control
            single = np.float32(control)
            if gain != 0.0 and np.float64(single) == control:
                applied[i, k] = np.float64(single * np.float32(gain)) / gain
    return True


def step_kernel(graph: Graph) -> tuple[ModuleType, tuple[int, int]]:
    """A module with `step_batch`, and the shape of its workspace D.

    The graph is that of (next state, cost) as a function of a state, the control that the cost is
    of, and, as context, the control that the dynamics feel.

        step_batch(states, controls, applied, parameters, following, costs, D)

    All are float64 arrays with one row for each environment; `parameters` may have a single row for
    all. `following` and `costs` are written.
    """
    program = Program()
    shapes = graph.parameter_shapes
    given = {
        "state": graph.n_state,
        "control": graph.n_ctrl,
        "applied": graph.n_context,
        "parameters": sum(map(math.prod, shapes.values())),
    }
    inputs = {
        name: (program.parameters if name == "parameters" else program.inputs)(name, size)
        for name, size in given.items()
    }
    parameters = unflatten(inputs["parameters"], shapes)
    arguments = (inputs["state"], inputs["control"], inputs["applied"])
    outputs = elements(graph.evaluate(program, *arguments, parameters))
    known = {program.operations[entry.index].name for entry in inputs["parameters"]}
    derived, step, stepped = _without(program, outputs, known)

    record = Record(given | {"derived": len(derived), "out": len(outputs)}, LANES)
    places = record.places("D")
    rows = {name: offset // LANES for name, offset in record.offsets().items()}
    once = Kernel(
        "derive_lanes", program, ("D",), places, _stores("derived", derived, places), LANES
    )
    stores = _stores("out", stepped, places)
    each = Kernel("step_lanes", step, ("D", SCRATCH), places, stores, LANES)
    loop = _LOOP.format(
        lanes=LANES,
        n_state=given["state"],
        n_ctrl=given["control"],
        n_parameters=given["parameters"],
        scratch=record.size // LANES,
        **rows,
    )
    module = build(
        sources([kernel_source(once), kernel_source(each), loop]),
        f"{type(graph.module).__name__}_step",
    )
    return module, ((record.size + each.scratch) // LANES, LANES)


def _stores(
    field: str, values: Sequence[Value], places: Mapping[str, Place]
) -> list[tuple[Place, Value]]:
    return [(places[f"{field}{i}"], value) for i, value in enumerate(values)]


def _without(
    program: Program, outputs: Sequence[Value], given: Collection[str]
) -> tuple[list[Expression], Program, list[Value]]:
    """Take what depends on the given inputs alone out of a program.

    Returns:
        What was taken out, as expressions of `program`; the rest, in which these are the inputs
        `derived0`, `derived1`, ...; and its outputs.
    """
    live = program.live(outputs)
    known: set[int] = set()
    for i in live:
        kind, operands, name, _ = program.operations[i]
        # A condition is no number, so it cannot be kept in an array.
        if name in given or (
            kind not in {"input", *CONDITIONS}
            and i not in program.shapes
            and all(o in known for o in operands if isinstance(o, int))
        ):
            known.add(i)
    rest, derived, moved = Program(program.limit), list[Expression](), dict[int, Expression]()
    needed = {o for i in live if i not in known for o in program.operations[i].operands}
    needed |= {value.index for value in outputs if isinstance(value, Expression)}
    for i in live:
        operation = program.operations[i]
        if operation.kind == "input":
            moved[i] = rest.input(operation.name)
        elif i not in known:
            mapped = [moved[o].index if isinstance(o, int) else o for o in operation.operands]
            copy = operation._replace(operands=tuple(mapped))
            moved[i] = rest.append(copy, program.shapes.get(i))
        elif i in needed:
            moved[i] = rest.input(f"derived{len(derived)}")
            derived.append(Expression(program, i))
    results = [moved[v.index] if isinstance(v, Expression) else v for v in outputs]
    return derived, rest, results
