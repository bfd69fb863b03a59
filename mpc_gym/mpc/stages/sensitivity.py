"""The stages of the derivative of the optimum: `adjoint` backwards, `response` forwards.

The mathematics is that of `reference/sensitivity.py`.
"""

import numpy as np

from mpc_gym.compiled import blocks, derive
from mpc_gym.compiled import program as s
from mpc_gym.compiled.program import Array, Expression, Program
from mpc_gym.mpc.reference.sensitivity import BOUND_TOLERANCE
from mpc_gym.mpc.stages.algebra import (
    Entries,
    Stage,
    all_finite,
    any_nonzero,
    named,
    product,
    smaller,
    solve_free,
    symmetric,
    triangle,
    upper,
)
from mpc_gym.mpc.stages.model import Model


def adjoint(model: Model) -> Stage:
    """The backward pass of the sensitivity: costates, linear-quadratic problem, its gains.

    `force` is what the loss feels at a clamped control when its bound moves: as a constant, and
    (`forcex`) as a function of dx.
    """
    program = Program()
    n, m = model.n, model.m
    x, u = program.inputs("x", n), program.inputs("u", m)
    point = model.at(program, x, u)
    lam, v = program.inputs("lam'", n), program.inputs("v'", n)
    V = symmetric(program.inputs("vv'", triangle(n)), n)
    F = derive.jacobian(program, point.f, point.z)
    l_z = derive.gradient(program, [point.l], [1.0], point.z)
    gradient = l_z + F.T @ lam
    exact, w = model.exact(program), program.input("w'")
    H = derive.hessian(program, [point.l], [1.0], point.z)
    H = H + derive.hessian(program, point.f, lam, point.z) * exact
    Q = H + product(program, F.T, product(program, V, F))
    q = s.as_array([*program.inputs("gx", n), *program.inputs("gu", m)]) + F.T @ v
    stationarity = gradient[n:]
    free, at_low, at_high = _activity(program, u, stationarity)
    free = s.as_array(
        [s.logical_and(f, any_nonzero(row)) for f, row in zip(free, Q[n:], strict=True)]
    )
    right = s.as_array(np.column_stack([q[n:], Q[n:, :n]]))
    gains = solve_free(Q[n:, n:], right, free)
    k, K = gains[:, 0], gains[:, 1:]
    Q_ux = np.array([[s.select(free[j], Q[n + j, i], 0.0) for i in range(n)] for j in range(m)])
    # with feedback, as in `reference/sensitivity.py`
    outputs = named("lam", gradient[:n] + K.T @ stationarity) | named("k", k) | named("kx", K)
    outputs |= named("v", q[:n] + Q_ux.T @ k)
    outputs |= named("vv", upper(Q[:n, :n] + product(program, Q_ux.T, K)))
    outputs |= named("force", q[n:] + Q[n:, n:] @ k + stationarity * w)
    outputs |= named("forcex", Q[n:, :n] + product(program, Q[n:, n:], K))
    outputs |= named("atlow", at_low) | named("athigh", at_high)
    regular = all_finite([*k, *np.ravel(K)], program.input("regular'"))
    return program, outputs | {"w": w, "exact": exact, "regular": regular}


def response(model: Model) -> Stage:
    """The forward pass of the sensitivity: directions d, costates mu, and gradients.

    The gradients of the loss by bounds and context are those of this stage; those by the
    parameters are to be summed over the stages.
    """
    program = Program()
    n, m = model.n, model.m
    x, u, dx = (program.inputs(name, size) for name, size in (("x", n), ("u", m), ("dx", n)))
    du = program.inputs("k", m) + program.inputs("kx", m, n) @ dx
    point = model.at(program, x, u)
    d = [*dx, *du]
    f_d = derive.directional(program, point.f, point.z, d)
    (l_d,) = derive.directional(program, [point.l], point.z, d)
    V = symmetric(program.inputs("vv'", triangle(n)), n)
    w = program.input("w")
    lam = program.inputs("lam'", n)
    mu = program.inputs("v'", n) + V @ f_d + lam * w
    context = list(program.inputs("c", model.n_context))
    values = [point.l, l_d, *point.f, *f_d]
    parts = blocks.parameters(program, values)
    found = derive.gradient(
        program,
        values,
        [w, 1.0, *mu, *lam],
        [*point.shared, *point.staged, *context, *parts],
    )
    force = program.inputs("force", m) + program.inputs("forcex", m, n) @ dx
    outputs = named("dx", f_d, following=True)
    outputs["finite'"] = all_finite([*f_d, *mu], program.input("finite"))
    for name, at in (("glow", "atlow"), ("ghigh", "athigh")):
        outputs |= named(name, program.inputs(at, m) * force)
    by_shared, by_staged, by_context, by_part = np.split(
        found, np.cumsum([len(point.shared), len(point.staged), len(context)])
    )
    for i, gradient in enumerate(by_shared):
        if isinstance(gradient, Expression) or gradient != 0.0:
            outputs[f"gp{i}"] = s.add(program.input(f"gp{i}"), gradient)
    outputs |= named("gs", by_staged) | named("gc", by_context)
    for part, gradient in zip(parts, by_part, strict=True):
        field, start, strides, shape = blocks.place(part)
        whole = blocks.column(program, gradient, blocks.size(shape))
        outputs[Entries(f"g{field}", start, strides)] = whole
    return program, outputs


def _activity(program: Program, u: Array, stationarity: Array) -> tuple[Array, Array, Array]:
    """Which controls are free, and which are held at either bound."""
    at_low, at_high = [], []
    for j, (value, slope) in enumerate(zip(u, stationarity, strict=True)):
        low, high = program.input(f"low{j}"), program.input(f"high{j}")
        near = BOUND_TOLERANCE * smaller(s.absolute(value), high - low)
        fixed = s.logical_and(s.equal(low, high), s.equal(slope, 0.0))
        pressed = s.logical_or(s.less(0.0, slope), fixed)
        at_low.append(s.logical_and(s.less_equal(value - near, low), pressed))
        at_high.append(s.logical_and(s.less_equal(high, value + near), s.less(slope, 0.0)))
    free = [s.logical_not(s.logical_or(*each)) for each in zip(at_low, at_high, strict=True)]
    return s.as_array(free), s.as_array(at_low), s.as_array(at_high)
