"""Whether a scalar program is what its module does: tried out once, when it is made.

A trace sees one call of a module. What it does not see (numbers that left PyTorch, an autograd
function's own backward, `torch.no_grad`) would be wrong without a word, so what was traced is
evaluated at other states, controls, contexts and parameters, and compared with the module itself:
first PyTorch's operations as they were captured, then the program that they became. For y(q),
q = (state, control, context, parameters), random weights w and a direction d of state and control:

    value y,    gradient  d(w'y)/dq,    curvature  d(w'y_d)/dq,   y_d = (dy/dq) d

The expected derivatives are those of `torch.autograd` in reverse mode, twice, in float64. Those of
the program are by state, control and context: parameters are inputs to it as these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mpc_gym.compiled import derive
from mpc_gym.compiled.errors import ImpureModule, UnsupportedOperation
from mpc_gym.compiled.evaluate import evaluate
from mpc_gym.compiled.program import MAX_OPERATIONS, Program, elements
from mpc_gym.compiled.purity import OF_ALL, OF_LARGEST, RELATIVE, random_numbers_kept
from mpc_gym.functional import call_with

if TYPE_CHECKING:
    from mpc_gym.compiled.graph import Graph

Floats: TypeAlias = "npt.NDArray[np.float64]"
Call: TypeAlias = Callable[[Sequence[Tensor]], Tensor]

_BY_DIFFERENCES = 1e-4
_STEP = 1e-5  # of a central difference, where autograd has no second derivative
_KINDS = ("value", "first derivative", "second derivative")


@dataclass(frozen=True)
class Trials:
    """A module's own values and derivatives at a few points, each a list as `Graph.replay` has it.

    The points are where the module is defined: a factorisation may not be.
    """

    points: list[list[Tensor]]
    outcomes: list[_Outcome]
    w: Tensor  # of the outputs
    d: Tensor  # of state and control


def try_out(graph: Graph, inputs: Sequence[Tensor], values: Mapping[str, Tensor]) -> Trials:
    """Evaluate a module beside the point of its trace, and compare what was captured of it.

    Args:
        graph: What was captured.
        inputs: State, control and context that it was captured with.
        values: Parameters and floating-point buffers (one stage's slice) likewise.

    Raises:
        ImpureModule: it returns something else than the operations that were captured.
        UnsupportedOperation: its derivatives are others than theirs, though autograd sees all.
    """
    generator = torch.Generator().manual_seed(2)
    w, d = (
        torch.randn(int(np.prod(shape, dtype=int)), generator=generator, dtype=torch.float64)
        for shape in (graph.output_shape, (graph.n_state + graph.n_ctrl,))
    )
    with random_numbers_kept():
        points = [p for p in _points(inputs, values) if _evaluates(graph, p)]
        if not points:
            raise UnsupportedOperation(
                f"{type(graph.module).__name__} could not be tried out: it fails at all states, "
                "controls and parameters where what is compiled would be compared with it. Let it "
                "be defined for states and controls of any size"
            )
        outcomes = []
        name, learnt = type(graph.module).__name__, learnt_among(graph.module, inputs, values)
        for point in points:
            theirs = _Outcome.of(partial(_call, graph), name, point, learnt, w, d)
            _compare_capture(graph, _Outcome.of(graph.replay, name, point, learnt, w, d), theirs)
            outcomes.append(theirs)
    return Trials(points, outcomes, w, d)


def learnt_among(module: nn.Module, inputs: Sequence[Tensor], values: Iterable[str]) -> list[bool]:
    """Which of a module's arguments, parameters and buffers have a derivative: all but buffers.

    PyTorch refuses one for the statistics of a batch normalisation.
    """
    buffers = {name for name, _ in module.named_buffers()}
    return [True] * len(inputs) + [name not in buffers for name in values]


def check_program(graph: Graph, trials: Trials) -> None:
    """Compare a graph's scalar program, and its derivatives, with the module.

    Raises:
        UnsupportedOperation: the program differs in value, first or second derivative, or contains
            what is not in the table.
        ProgramTooLarge: it exceeds the limit.
    """
    found = _outcomes_of_program(graph, trials)
    for ours, theirs in zip(found, trials.outcomes, strict=True):
        for kind in _KINDS:
            if (pair := theirs.difference(ours, kind)) is not None:
                raise UnsupportedOperation(
                    f"the {kind} of {type(graph.module).__name__} is {pair[0]:.6g}, but "
                    f"{pair[1]:.6g} as compiled: one of its operations is compiled wrongly"
                )


def _compare_capture(graph: Graph, captured: _Outcome, own: _Outcome) -> None:
    name = type(graph.module).__name__
    if (pair := own.difference(captured, "value")) is not None:
        raise ImpureModule(
            f"{name} returns {pair[0]:.6g}, but the operations that PyTorch saw in another call of "
            f"it give {pair[1]:.6g}, for the same state, control and parameters. Part of what it "
            "computes is invisible to PyTorch (NumPy, SciPy, a branch on such a number) or kept "
            "from call to call: compute with torch alone, and from the arguments"
        )
    for kind in _KINDS[1:]:
        if (pair := own.difference(captured, kind)) is not None:
            text = (
                f"the {kind} of {name} is {pair[0]:.6g} by torch.autograd, but {pair[1]:.6g} by "
                "the operations that it runs"
            )
            if gradless := graph.operations.gradless:
                raise ImpureModule(
                    f"{text}: autograd cannot follow {gradless[0]}. Compute outside of "
                    "torch.no_grad(), with torch.autograd.grad(..., create_graph=True)"
                )
            raise UnsupportedOperation(
                f"{text}, and these are what is compiled. The usual cause is a "
                "torch.autograd.Function with a backward of its own"
            )


def _points(inputs: Sequence[Tensor], values: Mapping[str, Tensor]) -> list[list[Tensor]]:
    """Other arguments and parameters: of both signs, and all positive; large, and small."""
    generator = torch.Generator().manual_seed(1)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    states = [
        [-3.0 * x for x in inputs],
        [normal(x) for x in inputs],
        [0.2 + 0.5 * normal(x).abs() for x in inputs],
    ]
    return [[*point, *(_near(p, normal(p)) for p in values.values())] for point in states]


def _near(value: Tensor, noise: Tensor) -> Tensor:
    """A plausible other value: a few percent off, what is positive stays so."""
    noise = noise.clamp(-3.0, 3.0)
    value = value.nan_to_num(nan=1.0, posinf=1.0, neginf=-1.0)  # whoever plans refuses these
    return torch.where(value == 0.0, 0.01 * noise.abs(), value * (1.0 + 0.03 * noise))


def _evaluates(graph: Graph, point: Sequence[Tensor]) -> bool:
    try:
        _call(graph, point)
    except RuntimeError:
        return False
    return True


def _call(graph: Graph, point: Sequence[Tensor]) -> Tensor:
    names = list(graph.parameter_shapes)
    first = len(point) - len(names)
    named = dict(zip(names, point[first:], strict=True))
    arguments = tuple(x.clone() for x in point[:first])
    result: Tensor = call_with(graph.module, named, arguments)
    return result


@dataclass(frozen=True)
class _Outcome:
    """What a function gives at a point; see the module's docstring."""

    value: Floats
    gradient: Floats
    curvature: Floats
    accuracy: float = RELATIVE  # of the derivatives

    @classmethod
    def of(
        cls,
        call: Call,
        name: str,
        point: Sequence[Tensor],
        learnt: Sequence[bool],
        w: Tensor,
        d: Tensor,
    ) -> _Outcome:
        """By automatic differentiation; the derivative by what is not learnt is zero."""

        def slopes(shift: float, *, differentiable: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
            along = torch.split(shift * d, [len(point[0]), len(point[1])])
            moved = [q + by for q, by in zip(point, along, strict=False)]
            leaves = [
                q.detach().clone().requires_grad_(has)
                for q, has in zip((*moved, *point[2:]), learnt, strict=True)
            ]
            value = call(leaves).to(torch.float64).reshape(-1)
            found = _gradient((w * value).sum(), leaves, create_graph=differentiable)
            return value, _flat(found), leaves

        try:
            value, gradient, leaves = slopes(0.0, differentiable=True)
        except RuntimeError as error:
            if "is not implemented" in str(error):
                return cls.of_differences(call, point, w)
            reason = str(error).splitlines()[0]
            message = f"PyTorch cannot differentiate {name}: {reason}"
            raise UnsupportedOperation(message) from error
        accuracy = RELATIVE
        try:
            along = (gradient[: len(d)] * d).sum()
            curvature = _flat(_gradient(along, leaves, create_graph=False))
        except RuntimeError:  # no second derivative in PyTorch, as of hardsigmoid
            ahead, behind = (slopes(h, differentiable=False)[1] for h in (_STEP, -_STEP))
            curvature, accuracy = (ahead - behind) / (2.0 * _STEP), _BY_DIFFERENCES
        y, slope, bend = (each.detach().numpy() for each in (value, gradient, curvature))
        return cls(y, slope, bend, accuracy)

    @classmethod
    def of_differences(cls, call: Call, point: Sequence[Tensor], w: Tensor) -> _Outcome:
        """By differences of its values, where PyTorch has no derivative, as of `//`."""
        flat, sizes = _flat(point), [q.numel() for q in point]

        def value(q: Tensor) -> Tensor:
            parts = zip(torch.split(q, sizes), point, strict=True)
            found = call([part.reshape(like.shape) for part, like in parts])
            return found.detach().to(torch.float64).reshape(-1)

        steps = _STEP * torch.eye(len(flat), dtype=torch.float64)
        slopes = [(w * (value(flat + h) - value(flat - h))).sum() / (2.0 * _STEP) for h in steps]
        gradient = torch.stack(slopes).numpy()
        unknown = np.full_like(gradient, np.nan)
        return cls(value(flat).numpy(), gradient, unknown, _BY_DIFFERENCES)

    def difference(self, other: _Outcome, kind: str) -> tuple[float, float] | None:
        """The numbers that differ most, ours and the other's; None where all agree.

        Compared are as many as the other has, where ours are finite.
        """
        name = {"value": "value", "first derivative": "gradient"}.get(kind, "curvature")
        found, expected = getattr(other, name), getattr(self, name)
        expected = expected[: len(found)]
        known = np.isfinite(expected)
        everything = np.concatenate([self.value, self.gradient, self.curvature])
        overall = np.abs(everything[np.isfinite(everything)]).max(initial=0.0)
        scale = np.abs(expected[known]).max(initial=0.0)
        accuracy = RELATIVE if name == "value" else max(self.accuracy, other.accuracy)
        bound = accuracy * np.abs(expected) + OF_LARGEST * scale + OF_ALL * (1.0 + overall)
        with np.errstate(invalid="ignore"):
            excess = np.nan_to_num(np.abs(found - expected) / bound, nan=np.inf, posinf=np.inf)
        excess[~known] = 0.0
        worst = int(excess.argmax()) if len(excess) else 0
        return (expected[worst], found[worst]) if excess.max(initial=0.0) > 1.0 else None


def _gradient(of: Tensor, by: Sequence[Tensor], *, create_graph: bool) -> list[Tensor]:
    if not of.requires_grad:
        return [torch.zeros_like(q) for q in by]
    leaves = [q for q in by if q.requires_grad]
    found = iter(torch.autograd.grad(of, leaves, create_graph=create_graph, allow_unused=True))
    slopes = (next(found) if q.requires_grad else None for q in by)
    return [torch.zeros_like(q) if g is None else g for q, g in zip(by, slopes, strict=True)]


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def _outcomes_of_program(graph: Graph, trials: Trials) -> list[_Outcome]:
    program = Program()
    sizes = [graph.n_state, graph.n_ctrl] + [graph.n_context] * (graph.n_context > 0)
    arguments = [program.inputs(f"q{i}_", n) for i, n in enumerate(sizes)]
    shapes = graph.parameter_shapes
    parameters = {
        k: program.parameters(f"p{i}_", *shape) for i, (k, shape) in enumerate(shapes.items())
    }
    context = arguments[2] if graph.n_context else None
    y = elements(graph.evaluate(program, arguments[0], arguments[1], context, parameters))
    # Not for compilation: how long derivatives may be is decided where they are compiled.
    program.limit = 10 * MAX_OPERATIONS
    q = [entry for array in arguments for entry in array]
    w, d = trials.w.tolist(), trials.d.tolist()
    y_d = derive.directional(program, y, q[: len(d)], d)
    results = [*y, *derive.gradient(program, y, w, q), *derive.gradient(program, y_d, w, q)]
    numbers = np.array([_flat(point).numpy() for point in trials.points])
    entries = [entry for array in (*arguments, *parameters.values()) for entry in array.ravel()]
    inputs = {
        program.operations[entry.index].name: column
        for entry, column in zip(entries, numbers.T, strict=True)
    }
    found = evaluate(program, results, inputs, len(trials.points))
    values, gradients, curvatures = np.split(found, [len(y), len(y) + len(q)])
    return [_Outcome(*each) for each in zip(values.T, gradients.T, curvatures.T, strict=True)]
