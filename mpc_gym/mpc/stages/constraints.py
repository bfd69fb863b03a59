"""The stages of the augmented Lagrangian: multipliers, and the size of the rows' terms.

The mathematics is that of `constraints.py` and `augmented_lagrangian.py`.
"""

import numpy as np

from mpc_gym.compiled import derive
from mpc_gym.compiled import program as s
from mpc_gym.compiled.program import Array, Program, Value
from mpc_gym.mpc.stages.algebra import Outputs, Stage, larger, smaller
from mpc_gym.mpc.stages.model import Model


def multipliers(model: Model) -> Stage:
    """New multipliers of the constraints, where `update` is not zero (see `constraints.py`).

    With them, over the stages so far: the cost without multipliers and the sum of its absolute
    values, the largest violation, whether a row is NaN, how far the multipliers of each row moved,
    in units of the row, and relative to what is left until the row is not active any more, how
    large the row is, and how large each entry of state and control is.
    """
    program = Program()
    cost = model.augmented
    z, (*c, plain) = _rows(program, model)
    _, lam, rho, third, w = _context_parts(program, model)
    update = program.input("update")
    outputs: Outputs = {
        "plain": s.add(program.input("plain"), plain),
        "stakes": s.add(program.input("stakes"), s.absolute(plain)),
    }
    violation: Value = program.input("violation")
    nan: Value = program.input("nan")
    for r, value in enumerate(c):
        pressed: Value = s.add(lam[r], s.multiply(rho[r], value))
        wrong = s.absolute(value)
        if r < cost.inequalities:
            pressed, wrong = larger(pressed, 0.0), larger(value, 0.0)
            if cost.soft:
                pressed = smaller(pressed, w[r])
        asked = s.less(0.0, rho[r])
        violation = larger(violation, s.select(asked, wrong, 0.0))
        is_number = s.logical_or(s.logical_not(asked), s.less_equal(value, float("inf")))
        nan = s.select(is_number, nan, 1.0)
        inverse = s.select(asked, s.divide(1.0, rho[r]), 0.0)
        moves = s.logical_and(asked, s.less(0.0, update))
        new = s.select(moves, pressed, lam[r])
        first = cost.n_context + r
        outputs[f"c{first}"] = new
        leaving: Value = 0.0
        if r < cost.inequalities:
            way, left = s.subtract(lam[r], new), new
            if cost.soft:
                left = s.select(s.less(lam[r], new), s.subtract(w[r], new), new)
                way = s.absolute(way)
            leaving = s.select(s.less(0.0, left), s.divide(way, left), 0.0)
        least = 0.5 * s.multiply(s.multiply(new, new), inverse)
        # a lane that goes on keeps its bits
        outputs[f"c{first + 2 * cost.n_rows}"] = s.select(moves, least, third[r])
        moved = s.multiply(s.absolute(s.subtract(new, lam[r])), inverse)
        size = s.select(asked, s.absolute(value), 0.0)
        for name, entry in (("moved_row", moved), ("leaving", leaving), ("row", size)):
            outputs[f"{name}{r}"] = larger(program.input(f"{name}{r}"), entry)
    for i, entry in enumerate(z):
        outputs[f"largest{i}"] = larger(program.input(f"largest{i}"), s.absolute(entry))
    return program, outputs | {"violation": violation, "nan": nan}


def terms(model: Model) -> Stage:
    """How large the terms of each row are, over the stages so far: |c_z| max_t |z_t|."""
    program = Program()
    z, c = _rows(program, model)
    slopes = derive.jacobian(program, c[:-1], list(z))
    largest = program.inputs("largest", len(z))
    rho = _context_parts(program, model)[2]
    outputs: Outputs = {}
    for r, row in enumerate(slopes):
        size = s.as_array([s.absolute(entry) for entry in row]) @ largest
        asked = s.select(s.less(0.0, rho[r]), size, 0.0)
        outputs[f"terms{r}"] = larger(program.input(f"terms{r}"), asked)
    return program, outputs


def _rows(program: Program, model: Model) -> tuple[Array, Array]:
    """State and control, and the rows of the constraints and the cost there."""
    x, u = program.inputs("x", model.n), program.inputs("u", model.m)
    return s.as_array([*x, *u]), model.rows_at(program, x, u)


def _context_parts(program: Program, model: Model) -> list[Array]:
    """Those of an `AugmentedCost`."""
    ends = np.cumsum(model.augmented.sizes)[:-1]
    return np.split(program.inputs("c", model.n_context), ends)
