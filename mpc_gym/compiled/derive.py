"""Exact derivatives of a scalar program, by the chain rule on its operations.

For outputs y = f(x) of a program, with an operation v_i = phi_i(v_j, ...) a line:

    forward:   dv_i = sum_j (d phi_i / d v_j) dv_j        jacobian, directional
    reverse:   w_j += w_i (d phi_i / d v_j)               gradient of sum_k w_k y_k
    second:    forward through the reverse program        hessian of sum_k w_k y_k

(Griewank & Walther 2008, Evaluating Derivatives, chapters 3 and 5.) What comes out are expressions
of the same program. Where a function has a kink its derivative is the one that PyTorch takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from mpc_gym.compiled import blocks
from mpc_gym.compiled import program as s
from mpc_gym.compiled.program import Array, Expression, Operation, Program, Value

Partial: TypeAlias = Callable[..., Value]
Tangents: TypeAlias = "dict[int, dict[int, Value]]"
"""Derivatives of operations, by direction; of a block a block, or a scalar for all entries."""

# For each operand of a primitive: (operands, result) -> derivative of the result by that operand.
# Primitives that are missing here (conditions, floor, rint, detach) have derivative zero.
_PARTIALS: dict[str, tuple[Partial, ...]] = {
    "add": (lambda a, b, y: 1.0, lambda a, b, y: 1.0),
    "subtract": (lambda a, b, y: 1.0, lambda a, b, y: -1.0),
    "multiply": (lambda a, b, y: b, lambda a, b, y: a),
    "divide": (lambda a, b, y: s.divide(1.0, b), lambda a, b, y: s.negative(s.divide(y, b))),
    "negative": (lambda a, y: -1.0,),
    "power": (
        lambda a, b, y: s.select(s.equal(b, 0.0), 0.0, b * s.power(a, s.subtract(b, 1.0))),
        lambda a, b, y: s.select(
            s.logical_and(s.equal(a, 0.0), s.less_equal(0.0, b)), 0.0, y * s.log(a)
        ),
    ),
    "sqrt": (lambda a, y: s.divide(0.5, y),),
    "exp": (lambda a, y: y,),
    "expm1": (lambda a, y: y + 1.0,),
    "log": (lambda a, y: s.divide(1.0, a),),
    "log1p": (lambda a, y: s.divide(1.0, a + 1.0),),
    "sin": (lambda a, y: s.cos(a),),
    "cos": (lambda a, y: s.negative(s.sin(a)),),
    "tan": (lambda a, y: 1.0 + y * y,),
    "asin": (lambda a, y: s.divide(1.0, s.sqrt((1.0 - a) * (1.0 + a))),),
    "acos": (lambda a, y: s.divide(-1.0, s.sqrt((1.0 - a) * (1.0 + a))),),
    "atan2": (
        lambda a, b, y: s.divide(b, a * a + b * b),
        lambda a, b, y: s.negative(s.divide(a, a * a + b * b)),
    ),
    "hypot": (lambda a, b, y: s.divide(a, y), lambda a, b, y: s.divide(b, y)),
    "sinh": (lambda a, y: s.cosh(a),),
    "cosh": (lambda a, y: s.sinh(a),),
    "tanh": (lambda a, y: 1.0 - y * y,),
    "asinh": (lambda a, y: s.divide(1.0, s.sqrt(1.0 + a * a)),),
    "sigmoid": (lambda a, y: y * (1.0 - y),),
    "erf": (lambda a, y: (2.0 / np.sqrt(np.pi)) * s.exp(-(a * a)),),
    "absolute": (lambda a, y: s.sign(a),),
}

# Primitives that choose between their last two operands: (operands, tangent of each) -> tangent. A
# choice, not a product with 0 and 1, so that the branch not taken cannot spoil it with 0 * inf.
_CHOICES: dict[str, Partial] = {
    "select": lambda chosen, a, b, da, db: s.select(chosen, da, db),
    "minimum": lambda a, b, da, db: s.select(
        s.less(a, b), da, s.select(s.equal(a, b), _mean(da, db), db)
    ),
    "maximum": lambda a, b, da, db: s.select(
        s.less(b, a), da, s.select(s.equal(a, b), _mean(da, db), db)
    ),
}


def jacobian(program: Program, outputs: Iterable[Any], inputs: Sequence[Expression]) -> Array:
    """d outputs / d inputs, an object array [n_outputs, n_inputs] (sparse forward mode)."""
    outputs = list(outputs)
    seeds: Tangents = {x.index: {i: 1.0} for i, x in enumerate(inputs)}
    tangents = _tangents(program, outputs, seeds)
    rows = [tangents.get(y.index, {}) if isinstance(y, Expression) else {} for y in outputs]
    result = np.zeros((len(outputs), len(inputs)), dtype=object)
    result[...] = 0.0
    for i, row in enumerate(rows):
        for j, value in row.items():
            result[i, j] = value
    return result


def directional(
    program: Program,
    outputs: Iterable[Any],
    inputs: Sequence[Expression],
    directions: Iterable[Any],
) -> Array:
    """(d outputs / d inputs) directions, an object array [n_outputs]."""
    outputs = list(outputs)
    seeds = {x.index: {0: d} for x, d in zip(inputs, directions, strict=True) if not s.is_zero(d)}
    tangents = _tangents(program, outputs, seeds)
    return s.as_array(
        [
            tangents.get(y.index, {}).get(0, 0.0) if isinstance(y, Expression) else 0.0
            for y in outputs
        ]
    )


def gradient(
    program: Program,
    outputs: Iterable[Any],
    weights: Iterable[Any],
    inputs: Sequence[Expression],
) -> Array:
    """d (sum_k weights_k outputs_k) / d inputs, an object array [n_inputs] (reverse mode).

    An input may be a block of parameters; its derivative is a block, or 0.
    """
    adjoints = _adjoints(program, list(outputs), list(weights), inputs)
    return s.as_array([adjoints.get(x.index, 0.0) for x in inputs])


def hessian(
    program: Program,
    outputs: Iterable[Any],
    weights: Iterable[Any],
    inputs: Sequence[Expression],
    share: Value = 1.0,
) -> Array:
    """Second derivatives of sum_k weights_k outputs_k, an object array [n_inputs, n_inputs].

    The lower triangle holds the very expressions of the upper one.

    Args:
        share: of all curvature but that of `hypot` where its weight is positive. There it is
            positive semidefinite (hypot is convex), and belongs to the result whatever the share.
    """
    outputs, weights = list(outputs), list(weights)
    live = program.live(outputs)
    if share != 1.0 and any(program.operations[index].kind == "hypot" for index in live):
        result = _hessian_by_pairs(program, outputs, weights, inputs, share)
    elif any(index in program.shapes for index in live):
        result = _hessian_by_pairs(program, outputs, weights, inputs, 1.0) * share
    else:
        result = jacobian(program, gradient(program, outputs, weights, inputs), inputs) * share
    lower = np.tril_indices(len(inputs), -1)
    result[lower] = result.T[lower]
    return result


def _hessian_by_pairs(
    program: Program,
    outputs: list[Any],
    weights: list[Any],
    inputs: Sequence[Expression],
    share: Value,
) -> Array:
    """The upper triangle of the Hessian, as a sum over the operations phi and their operands a.

        sum_phi w_phi sum_a (d a / d z_i) (d (d phi / d a) / d z_j)

    What is linear adds nothing: a layer of a network costs its value, tangents and weights w.
    """
    n = len(inputs)
    tangents: Tangents = {x.index: {i: 1.0} for i, x in enumerate(inputs)}
    known = set(tangents)
    _extend_tangents(program, outputs, tangents, known)
    adjoints = _adjoints(program, outputs, weights, inputs)
    result = np.full((n, n), 0.0, dtype=object)
    wide: dict[tuple[int, int, int], Value] = {}
    for index in _dependent(program, outputs, {x.index for x in inputs}):
        operation, weight = program.operations[index], adjoints.get(index, 0.0)
        if s.is_zero(weight) or operation.kind not in _PARTIALS:
            continue
        if operation.kind == "hypot":
            downward = s.multiply(share, s.minimum(weight, 0.0))
            weight = s.add(s.maximum(weight, 0.0), downward)
        else:
            weight = s.multiply(share, weight)
        values = [program.value(o) for o in operation.operands]
        shape = program.shapes.get(index)
        for operand, partial in zip(operation.operands, _PARTIALS[operation.kind], strict=True):
            first = tangents.get(operand, {}) if isinstance(operand, int) else {}
            slope = partial(*values, Expression(program, index)) if first else 0.0
            _extend_tangents(program, [slope], tangents, known)
            second = tangents.get(slope.index, {}) if isinstance(slope, Expression) else {}
            for j, bend in second.items():
                weighted = s.multiply(weight, bend)
                for i in first.keys() & range(j + 1):
                    term = s.multiply(weighted, first[i])
                    if shape is None:
                        result[i, j] = s.add(result[i, j], term)
                    else:
                        before = wide.get((i, j, shape[0]), 0.0)
                        wide[i, j, shape[0]] = s.add(before, term)
    for (i, j, count), terms in wide.items():
        result[i, j] = s.add(result[i, j], blocks.total(terms, count))
    return result


def _adjoints(
    program: Program, outputs: list[Any], weights: list[Any], inputs: Sequence[Expression]
) -> dict[int, Value]:
    """The derivatives of sum_k weights_k outputs_k by the operations between inputs and outputs."""
    adjoints: dict[int, Value] = {}
    elements: dict[int, dict[int, Value]] = {}  # derivatives by entries of blocks
    for y, w in zip(outputs, weights, strict=True):
        if isinstance(y, Expression):
            adjoints[y.index] = s.add(adjoints.get(y.index, 0.0), w)
    independent = {x.index for x in inputs}
    dependent = _dependent(program, outputs, independent)
    relevant = {*dependent, *independent}
    for index in reversed(dependent):
        if index in elements:
            given = elements.pop(index)
            count = blocks.size(program.shapes[index])
            gathered = blocks.pack(program, [given.get(i, 0.0) for i in range(count)])
            adjoints[index] = s.add(adjoints.get(index, 0.0), gathered)
        weight = adjoints.get(index, 0.0)
        if index in independent or s.is_zero(weight):
            continue
        operation = program.operations[index]
        if operation.kind == "element":
            operand, place = operation.operands[0], operation.static[0]
            assert isinstance(operand, int)
            of = elements.setdefault(operand, {})
            of[place] = s.add(of.get(place, 0.0), weight)
            continue
        passed_on = {o for o in operation.operands if isinstance(o, int)} & relevant
        for operand, share in _adjoint_shares(program, index, weight, passed_on):
            add = blocks.add_outer if blocks.is_outer(share) else s.add
            adjoints[operand] = add(adjoints.get(operand, 0.0), share)
    return adjoints


def _tangents(program: Program, outputs: Iterable[Any], seeds: Tangents) -> Tangents:
    """The non-zero derivatives of each operation that the outputs need, by seeded direction."""
    tangents = dict(seeds)
    _extend_tangents(program, outputs, tangents, set(seeds))
    return tangents


def _extend_tangents(
    program: Program, outputs: Iterable[Any], tangents: Tangents, known: set[int]
) -> None:
    """Add those that are not known yet."""
    for index in program.live(outputs, known):
        tangent = _tangent(program, program.operations[index], index, tangents)
        if tangent:
            tangents[index] = tangent
        known.add(index)


def _tangent(
    program: Program, operation: Operation, index: int, tangents: Tangents
) -> dict[int, Value]:
    moving = [tangents.get(o, {}) if isinstance(o, int) else {} for o in operation.operands]
    if not any(moving):
        return {}
    values = [program.value(o) for o in operation.operands]
    if operation.kind in blocks.LINEAR:
        directions = set().union(*moving)
        found = {
            i: blocks.tangent(program, index, [each.get(i, 0.0) for each in moving])
            for i in sorted(directions)
        }
        return {i: value for i, value in found.items() if not s.is_zero(value)}
    if operation.kind in _CHOICES:
        first, second = moving[-2:]
        choose = _CHOICES[operation.kind]
        return {
            i: choose(*values, first.get(i, 0.0), second.get(i, 0.0)) for i in first.keys() | second
        }
    result: dict[int, Value] = {}
    for partial, tangent in zip(_PARTIALS.get(operation.kind, ()), moving, strict=False):
        if tangent:
            slope = partial(*values, Expression(program, index))
            for i, value in tangent.items():
                result[i] = s.add(result.get(i, 0.0), s.multiply(slope, value))
    return {i: value for i, value in result.items() if not s.is_zero(value)}


def _adjoint_shares(
    program: Program, index: int, weight: Value, passed_on: set[int]
) -> list[tuple[int, Value]]:
    """What an operation of that weight passes on to those of its operands."""
    operation = program.operations[index]
    kind, operands = operation.kind, operation.operands
    values = [program.value(o) for o in operands]
    if kind in blocks.LINEAR:
        return blocks.shares(program, index, weight, passed_on)
    if kind in _CHOICES:
        choose = _CHOICES[kind]
        operands = operands[-2:]
        shares = [choose(*values, weight, 0.0), choose(*values, 0.0, weight)]
    else:
        result = Expression(program, index)
        shares = [
            s.multiply(partial(*values, result), weight)
            if isinstance(operand, int) and operand in passed_on
            else 0.0
            for partial, operand in zip(_PARTIALS.get(kind, ()), operands, strict=False)
        ]
    shape = program.shapes.get(index)
    found = []
    for operand, share in zip(operands, shares, strict=False):
        if isinstance(operand, int) and operand in passed_on:
            if shape is None or operand in program.shapes:
                found.append((operand, share))
            else:
                found.append((operand, blocks.total(share, blocks.size(shape))))
    return found


def _dependent(program: Program, outputs: Iterable[Any], independent: set[int]) -> list[int]:
    """The operations between the independent ones and the outputs, in order."""
    dependent: list[int] = []
    known = set(independent)
    for index in program.live(outputs):
        if index in known or known.intersection(
            o for o in program.operations[index].operands if isinstance(o, int)
        ):
            known.add(index)
            dependent.append(index)
    return dependent


def _mean(a: Value, b: Value) -> Value:
    return s.multiply(0.5, s.add(a, b))
