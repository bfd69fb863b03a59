"""Generates the stage functions of a model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from torch import nn

from mpc_gym.compiled import kept
from mpc_gym.compiled.cpu.emit import LANES, build, kernel_source, sources
from mpc_gym.compiled.errors import ImpureModule, ProgramTooLarge
from mpc_gym.compiled.graph import Graph
from mpc_gym.compiled.kernel import SCRATCH, Kernel, Record, Sum
from mpc_gym.compiled.program import Expression
from mpc_gym.compiled.trace import captured, trace
from mpc_gym.models.base import takes_context
from mpc_gym.mpc.augmented_cost import AugmentedCost, RowsAndCost
from mpc_gym.mpc.native.lanes import Stages
from mpc_gym.mpc.record import (
    sensitivity_accumulators,
    sensitivity_record,
    solver_accumulators,
    solver_record,
)
from mpc_gym.mpc.stages import constraints, sensitivity, solver
from mpc_gym.mpc.stages.algebra import Entries, Stage
from mpc_gym.mpc.stages.model import Model

_WITH_ADDRESSES: dict[str, ModuleType] = {}
"""What must not be freed, nor be made twice: one module for each program of a stage."""

# The workspace D from the record of this stage on, the shared parameters P, the numbers S of the
# stage alone, the accumulators G and behind them scratch memory. Every index is a literal, so their
# lengths do not matter.
_CALLBACK = """\
def {name}_callback(D, P, S, G):
    scratch = carray(G, {end})[{start}:]
    {name}_steps((carray(D, 1), carray(P, 1), carray(S, 1), carray(G, 1), scratch))


{name}_address = callback({name}_callback)
"""


def trace_model(
    dynamics: nn.Module,
    cost: nn.Module,
    n_state: int,
    n_ctrl: int,
    n_context: int,
    *,
    second_order: bool = True,
) -> Model:
    """Trace a controller's modules; `second_order`: as of `Model`.

    Raises:
        UnsupportedOperation: a module uses what cannot be compiled.
        ImpureModule: no backend can plan with it.
    """
    f, l = (
        trace(module, n_state, n_ctrl, n_context if takes_context(module) else 0)
        for module in (dynamics, cost)
    )
    _check_shape("dynamics", f, (n_state,))
    _check_shape("cost", l, ())
    rows = None
    if type(cost) is AugmentedCost:  # a smoothed one has another context
        rows = trace(RowsAndCost(cost), n_state, n_ctrl, n_context)
    return Model(f, l, rows, second_order)


def check_functions(
    dynamics: nn.Module, cost: nn.Module, n_state: int, n_ctrl: int, n_context: int
) -> bool:
    """Whether PyTorch's operations are all that these modules compute, which maps each row alone.

    Raises:
        ImpureModule: no backend can plan with them.
    """
    graphs = []
    for name, module, shape in (("dynamics", dynamics, (n_state,)), ("cost", cost, ())):
        graph = captured(module, n_state, n_ctrl, n_context if takes_context(module) else 0)
        graphs.append(graph)
        if graph is not None:
            _check_shape(name, graph, shape)
    return None not in graphs


def _check_shape(name: str, graph: Graph, expected: tuple[int, ...]) -> None:
    if graph.output_shape == expected:
        return
    parameters = ", ".join(f"{k} {list(shape)}" for k, shape in graph.parameter_shapes.items())
    raise ImpureModule(
        f"{name} maps a single state [{graph.n_state}] and control [{graph.n_ctrl}] to "
        f"{list(graph.output_shape)}, expected {list(expected)}: it must map each row on its own. "
        "Values that differ from instance to instance belong into the context, those that differ "
        "from stage to stage into per_stage_parameters"
        + (f" (its parameters: {parameters})" if parameters else "")
    )


def solver_stages(model: Model) -> tuple[Stages, int]:
    """Addresses of the stage functions of the solver, 0 for those that it does not use.

    With them, how many numbers of scratch memory they need.

    Raises:
        ProgramTooLarge: the programs would be too long.
    """
    module = _compiled("solver", model, _solver_source)
    addresses = (getattr(module, f"{name}_address", 0) for name in Stages._fields)
    return Stages(*addresses), module.scratch


def _solver_source(model: Model) -> str:
    with _sized("a step of the solver", model):
        stages = {"forward": solver.forward(model)}
        if model.m <= 2:
            stages["backward"] = solver.backward(model)
        else:
            parts = solver.expansion, solver.newton, solver.value
            stages |= {part.__name__: part(model) for part in parts}
        if model.n_rows:
            stages |= {
                "multipliers": constraints.multipliers(model),
                "terms": constraints.terms(model),
            }
    return _source(stages, (solver_record(model), solver_accumulators(model)), model)


def sensitivity_stages(model: Model) -> tuple[tuple[int, int], int]:
    """Addresses of the two stage functions of the derivative, and their scratch memory.

    Raises:
        ProgramTooLarge: the programs would be too long.
    """
    module = _compiled("sensitivity", model, _sensitivity_source)
    return (module.adjoint_address, module.response_address), module.scratch


def _sensitivity_source(model: Model) -> str:
    with _sized("the derivative of a plan", model):
        stages = {"adjoint": sensitivity.adjoint(model), "response": sensitivity.response(model)}
    return _source(stages, (sensitivity_record(model), sensitivity_accumulators(model)), model)


def _compiled(kind: str, model: Model, write: Callable[[Model], str]) -> ModuleType:
    """The module of the programs of a stage, whose source is kept on disk under the model."""
    source = kept.text(f"{kind}_source", model.content, lambda: write(model))
    module = build(source, kind)
    _WITH_ADDRESSES[module.__name__] = module
    return module


@contextmanager
def _sized(what: str, model: Model) -> Iterator[None]:
    """Say of what is too large how large the model is, and what makes it smaller."""
    try:
        yield
    except ProgramTooLarge as error:
        parameters = sum(model.parameter_count(per_stage=each) for each in (False, True))
        raise ProgramTooLarge(
            f"{what} is too large for a model of {model.n} states, {model.m} controls and "
            f"{parameters:,} parameters, whose dynamics takes about {model.dynamics.size:,} scalar "
            f"operations and whose cost about {model.cost.size:,}: {error}. A layer "
            "of a network counts as a few operations where its weights are parameters; what counts "
            "is what is computed number by number: weights that the module computes itself (a "
            "parametrisation, a function of them), loops over entries, sorting. Compute such "
            "weights once and keep them as a buffer, or make the loop a matrix product"
        ) from error


def _source(stages: dict[str, Stage], records: tuple[Record, Record], model: Model) -> str:
    """That of the programs of a stage, and of the size of their scratch memory.

    The second record is that of G.
    """
    n_shared, n_staged = (model.parameter_count(per_stage=each) for each in (False, True))
    own = Record({"low": model.m, "high": model.m, "s": n_staged})
    places = {
        **records[0].places("D"),
        **Record({"p": n_shared}).places("P", shared=True),
        **own.places("S", shared=True),
        **records[1].places("G"),
    }
    parts = []
    gathered, scratch = records[1].size, 0
    for name, (program, outputs) in stages.items():
        stores = [(places[key], value) for key, value in outputs.items() if isinstance(key, str)]
        sums = [
            Sum(places[f"{key.field}{key.start}"], key.strides, value)
            for key, value in outputs.items()
            if isinstance(key, Entries) and isinstance(value, Expression)
        ]
        arguments = ("D", "P", "S", "G", SCRATCH)
        kernel = Kernel(name, program, arguments, places, stores, LANES, sums)
        end = gathered + kernel.scratch + 1  # Numba refuses an array without a number
        parts += [kernel_source(kernel), _CALLBACK.format(name=name, start=gathered, end=end)]
        scratch = max(scratch, kernel.scratch)
    return sources([*parts, f"scratch = {scratch}\n"])
