"""The solver's stages as scalar programs: model, derivatives and Riccati update in one.

The mathematics is that of `ddp.py` (`backward`, `forward`) and of `sensitivity.py` (`adjoint`,
`response`), written on the scalars of one stage. Model and recursion go through constant folding
together, so that the structural zeros of the model's derivatives vanish from the recursion, and
only the upper triangles of Q and V are computed.

A program's inputs and outputs are named as the fields of a stage's record (see `record.py`),
`x0`, `kx0` (of K), `vv0` (of V), ...; a prime marks a field of the following stage, `v'0`. Inputs
that are the same for all instances are the parameters `p0, p1, ...`, those that change from stage
to stage `s0, s1, ...`, and the bounds `low0, high0, ...`.
"""

import math
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np

from mpc_gym.compiled import derive
from mpc_gym.compiled import program as s
from mpc_gym.compiled.parameters import unflatten
from mpc_gym.compiled.program import Array, Expression, Program, Value
from mpc_gym.compiled.trace import Graph
from mpc_gym.mpc.reference.sensitivity import BOUND_TOLERANCE

Outputs: TypeAlias = "dict[str, Value]"
Stage: TypeAlias = "tuple[Program, Outputs]"


@dataclass(frozen=True)
class Point:
    """The model at one state and control."""

    z: list[Expression]  # (x, u)
    f: Array
    l: Value
    shared: Array  # parameters
    staged: Array


@dataclass(frozen=True)
class Model:
    """The traced dynamics and stage cost of a controller.

    Their parameters are numbered in the order dynamics, cost, and in it as the graph lists them.
    """

    dynamics: Graph
    cost: Graph

    @property
    def n(self) -> int:
        """Number of states."""
        return self.dynamics.n_state

    @property
    def m(self) -> int:
        """Number of controls."""
        return self.dynamics.n_ctrl

    @property
    def n_context(self) -> int:
        """Number of context entries, 0 if neither module takes a context."""
        return max(self.dynamics.n_context, self.cost.n_context)

    def parameter_shapes(self, *, per_stage: bool) -> dict[tuple[int, str], tuple[int, ...]]:
        """Shapes of the parameters, of one stage or shared by all, by (0 or 1: cost, name)."""
        return {
            (which, name): shape
            for which, graph in enumerate((self.dynamics, self.cost))
            for name, shape in graph.parameter_shapes.items()
            if (name in graph.per_stage) == per_stage
        }

    def parameter_count(self, *, per_stage: bool) -> int:
        """Number of scalars among the parameters: of one stage, or shared by all."""
        return sum(map(math.prod, self.parameter_shapes(per_stage=per_stage).values()))

    def at(self, program: Program, x: Array, u: Array) -> Point:
        """Write the model into a program, at the state x and the control u."""
        context = program.inputs("c", self.n_context)
        shared = program.inputs("p", self.parameter_count(per_stage=False))
        staged = program.inputs("s", self.parameter_count(per_stage=True))
        values = {
            **unflatten(shared, self.parameter_shapes(per_stage=False)),
            **unflatten(staged, self.parameter_shapes(per_stage=True)),
        }
        f, ell = (
            graph.evaluate(
                program,
                x,
                u,
                context if graph.n_context else None,
                {name: values[which, name] for name in graph.parameter_shapes},
            )
            for which, graph in enumerate((self.dynamics, self.cost))
        )
        return Point([*x, *u], f, ell.item(), shared, staged)


def forward(model: Model) -> Stage:
    """The trial point of a line search: clamped feedback, stage cost, step.

    u_new = clip(u + alpha k + K (x_new - x))

    With it, of each control, how far it moved and how large it is, over the stages so far.
    """
    program = Program()
    n, m = model.n, model.m
    x_new = program.inputs("xn", n)
    feedback = program.inputs("kx", m, n) @ (x_new - program.inputs("x", n))
    alpha = program.input("alpha")
    u = program.inputs("u", m)
    u_new = u + program.inputs("k", m) * alpha + feedback
    low, high = program.inputs("low", m), program.inputs("high", m)
    u_new = s.as_array([_clip(*each) for each in zip(u_new, low, high, strict=True)])
    point = model.at(program, x_new, u_new)
    outputs = _named("un", u_new) | _named("xn", point.f, following=True)
    outputs |= {"cost'": s.add(program.input("cost"), point.l), "alpha'": alpha}
    for name, now in (("moved", u_new - u), ("span", u_new)):
        before = program.inputs(name, m)
        largest = [_larger(*pair) for pair in zip(before, map(s.absolute, now), strict=True)]
        outputs |= _named(name, s.as_array(largest), following=True)
    return program, outputs


def backward(model: Model) -> Stage:
    """The backward pass for one control: expansion, gains in closed form, value function."""
    program = Program()
    q, Q, progress = _expansion(program, model)
    n = model.n
    (u,), (low,), (high,) = (program.inputs(name, 1) for name in ("u", "low", "high"))
    (damping,) = _damping(program, q[n:], Q[n:, n])
    low, high = low - u, high - u
    damped = s.add(Q[n, n], damping)
    convex = s.less(0.0, damped)
    newton = s.divide(s.negative(q[n]), damped)
    k = s.select(convex, _clip(newton, low, high), 0.0)
    free = s.logical_and(convex, s.equal(k, newton))
    gain = s.select(free, s.divide(-1.0, damped), 0.0)
    K = s.as_array([[gain * Q[i, n] for i in range(n)]])
    at_low, at_high = s.equal(low, 0.0), s.equal(high, 0.0)
    held = s.logical_or(
        s.logical_and(at_low, s.logical_or(at_high, s.less(0.0, q[n]))),
        s.logical_and(at_high, s.less(q[n], 0.0)),
    )
    held = s.logical_or(held, s.logical_and(s.equal(damped, 0.0), s.equal(q[n], 0.0)))
    outputs = _value(q, Q, s.as_array([k]), K)
    outputs |= _named("k", s.as_array([k])) | _named("kx", K) | progress
    outputs |= {"quu0": Q[n, n]}
    return program, outputs | _step(program, q, Q, [k], solvable=s.logical_or(convex, held))


def expansion(model: Model) -> Stage:
    """The first half of the backward pass for several controls: q and the upper triangle of Q."""
    program = Program()
    q, Q, progress = _expansion(program, model)
    n = model.n
    damping = _damping(program, q[n:], np.diagonal(Q)[n:])
    return program, _named("q", q) | _named("qq", _upper(Q)) | _named("damping", damping) | progress


def value(model: Model) -> Stage:
    """The second half, once the box QP has given `k`, `kx` and `solvable`: the value function."""
    program = Program()
    n, m = model.n, model.m
    q = program.inputs("q", n + m)
    Q = _symmetric(program.inputs("qq", _triangle(n + m)), n + m)
    k, K = program.inputs("k", m), program.inputs("kx", m, n)
    outputs = _value(q, Q, k, K)
    return program, outputs | _step(program, q, Q, list(k), solvable=program.input("solvable"))


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
    V = _symmetric(program.inputs("vv'", _triangle(n)), n)
    F = derive.jacobian(program, point.f, point.z)
    l_z = derive.gradient(program, [point.l], [1.0], point.z)
    gradient = l_z + F.T @ lam
    exact, w = program.input("exact'"), program.input("w'")
    H = derive.hessian(program, [point.l], [1.0], point.z)
    H = H + derive.hessian(program, point.f, lam, point.z) * exact
    Q = H + F.T @ (V @ F)
    q = s.as_array([*program.inputs("gx", n), *program.inputs("gu", m)]) + F.T @ v
    stationarity = gradient[n:]
    free, at_low, at_high = _activity(program, u, stationarity)
    free = s.as_array(
        [s.logical_and(f, _any_nonzero(row)) for f, row in zip(free, Q[n:], strict=True)]
    )
    right = s.as_array(np.column_stack([q[n:], Q[n:, :n]]))
    gains = _solve_free(Q[n:, n:], right, free)
    k, K = gains[:, 0], gains[:, 1:]
    Q_ux = np.array([[s.select(free[j], Q[n + j, i], 0.0) for i in range(n)] for j in range(m)])
    outputs = _named("lam", gradient[:n]) | _named("k", k) | _named("kx", K)
    outputs |= _named("v", q[:n] + Q_ux.T @ k)
    outputs |= _named("vv", _upper(Q[:n, :n] + Q_ux.T @ K))
    outputs |= _named("force", q[n:] + Q[n:, n:] @ k + stationarity * w)
    outputs |= _named("forcex", Q[n:, :n] + Q[n:, n:] @ K)
    outputs |= _named("atlow", at_low) | _named("athigh", at_high)
    regular = _all_finite([*k, *np.ravel(K)], program.input("regular'"))
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
    V = _symmetric(program.inputs("vv'", _triangle(n)), n)
    w = program.input("w")
    lam = program.inputs("lam'", n)
    mu = program.inputs("v'", n) + V @ f_d + lam * w
    context = list(program.inputs("c", model.n_context))
    found = derive.gradient(
        program,
        [point.l, l_d, *point.f, *f_d],
        [w, 1.0, *mu, *lam],
        [*point.shared, *point.staged, *context],
    )
    force = program.inputs("force", m) + program.inputs("forcex", m, n) @ dx
    outputs = _named("dx", f_d, following=True)
    outputs["finite'"] = _all_finite([*f_d, *mu], program.input("finite"))
    for name, at in (("glow", "atlow"), ("ghigh", "athigh")):
        outputs |= _named(name, program.inputs(at, m) * force)
    by_shared, by_staged, by_context = np.split(
        found, np.cumsum([len(point.shared), len(point.staged)])
    )
    before = program.inputs("gp", len(by_shared))
    summed = [s.add(*pair) for pair in zip(before, by_shared, strict=True)]
    outputs |= _named("gp", s.as_array(summed)) | _named("gs", by_staged) | _named("gc", by_context)
    return program, outputs


def _expansion(program: Program, model: Model) -> tuple[Array, Array, Outputs]:
    """Gradient q and Hessian Q of the stage's cost-to-go as a function of z = (x, u).

    With them the mode and regularisation, handed on, and the size of the cost's terms so far.
    """
    n = model.n
    point = model.at(program, program.inputs("x", n), program.inputs("u", model.m))
    v = program.inputs("v'", n)
    V = _symmetric(program.inputs("vv'", _triangle(n)), n)
    F = derive.jacobian(program, point.f, point.z)
    curvature = derive.hessian(program, point.f, v, point.z)
    l_z = derive.gradient(program, [point.l], [1.0], point.z)
    l_zz = derive.hessian(program, [point.l], [1.0], point.z)
    q = l_z + F.T @ v
    exact = program.input("exact'")
    Q = l_zz + F.T @ (V @ F) + curvature * exact
    size = s.add(program.input("size'"), _size(point, l_z, l_zz))
    progress: Outputs = {"exact": exact, "mu": program.input("mu'"), "size": size}
    return q, Q, progress


def _size(point: Point, l_z: Array, l_zz: Array) -> Value:
    """|l| + sum |z_i dl/dz_i| + 1/2 sum |z_i z_j d2l/dz_i dz_j|."""
    z = [s.absolute(entry) for entry in point.z]
    size = s.absolute(point.l)
    for i, entry in enumerate(z):
        curved: Value = 0.5 * entry * s.absolute(l_zz[i, i])
        for j in range(i):
            curved = s.add(curved, s.multiply(z[j], s.absolute(l_zz[i, j])))
        size = s.add(size, s.multiply(entry, s.add(s.absolute(l_z[i]), curved)))
    return size


def _damping(program: Program, q_u: Array, curvatures: Array) -> Array:
    """mu s, where s is the size of the curvature of each control (see `ddp.py`)."""
    m = len(q_u)
    ranges = program.inputs("high", m) - program.inputs("low", m)
    mu = program.input("mu'")
    damping = []
    for pull, curvature, span in zip(q_u, curvatures, ranges, strict=True):
        inverse = s.select(s.less(0.0, span), s.divide(1.0, span), 0.0)  # the same in all lanes
        bounded = s.multiply(s.absolute(pull), inverse)
        unit = s.add(s.absolute(curvature), bounded)
        damping.append(s.multiply(mu, s.select(s.less(0.0, unit), unit, 1.0)))
    return s.as_array(damping)


def _value(q: Array, Q: Array, k: Array, K: Array) -> Outputs:
    """Gradient and Hessian of the value function under the gains k, K."""
    n = len(q) - len(k)
    Q_ux, Q_uu = Q[:n, n:].T, Q[n:, n:]
    v = q[:n] + K.T @ (Q_uu @ k + q[n:]) + Q_ux.T @ k
    V = Q[:n, :n] + K.T @ (Q_uu @ K + Q_ux) + Q_ux.T @ K
    return _named("v", v) | _named("vv", _upper(V))


def _step(program: Program, q: Array, Q: Array, k: list[Value], *, solvable: Value) -> Outputs:
    """What the backward pass says of the whole step: slope, change, pull, and whether it exists."""
    pull: Value = program.input("pull'")
    for entry, gradient, u in zip(k, q[-len(k) :], program.inputs("u", len(k)), strict=True):
        at_rest = s.equal(entry, 0.0)
        pull = s.add(pull, s.select(at_rest, 0.0, s.absolute(s.multiply(gradient, u))))
    slope: Value = program.input("slope'")
    for entry, gradient in zip(k, q[-len(k) :], strict=True):
        slope = s.add(slope, s.multiply(entry, gradient))
        solvable = s.logical_and(solvable, s.less(s.absolute(entry), float("inf")))  # not NaN
    convex = s.select(solvable, program.input("convex'"), 0.0)
    m = len(k)
    curved = s.as_array(k) @ (Q[-m:, -m:] @ s.as_array(k))
    change = s.add(program.input("change'"), q[-m:] @ s.as_array(k) + 0.5 * curved)
    return {"slope": slope, "change": change, "pull": pull, "convex": convex}


def _all_finite(values: list[Value], before: Value) -> Value:
    """`before`, or 0 if any value is infinite or NaN."""
    finite: Value = 1.0
    for value in values:
        finite = s.logical_and(finite, s.less(s.absolute(value), float("inf")))
    return s.select(finite, before, 0.0)


def _any_nonzero(values: Array) -> Value:
    return reduce(s.logical_or, (s.logical_not(s.equal(value, 0.0)) for value in values))


def _larger(a: Value, b: Value) -> Value:
    return s.select(s.less(a, b), b, a)


def _smaller(a: Value, b: Value) -> Value:
    return s.select(s.less(b, a), b, a)


def _activity(program: Program, u: Array, stationarity: Array) -> tuple[Array, Array, Array]:
    """Which controls are free, and which are held at either bound."""
    at_low, at_high = [], []
    for j, (value, slope) in enumerate(zip(u, stationarity, strict=True)):
        low, high = program.input(f"low{j}"), program.input(f"high{j}")
        near = BOUND_TOLERANCE * _smaller(s.absolute(value), high - low)
        fixed = s.logical_and(s.equal(low, high), s.equal(slope, 0.0))
        pressed = s.logical_or(s.less(0.0, slope), fixed)
        at_low.append(s.logical_and(s.less_equal(value - near, low), pressed))
        at_high.append(s.logical_and(s.less_equal(high, value + near), s.less(slope, 0.0)))
    free = [s.logical_not(s.logical_or(*each)) for each in zip(at_low, at_high, strict=True)]
    return s.as_array(free), s.as_array(at_low), s.as_array(at_high)


def _solve_free(H: Array, right: Array, free: Array) -> Array:
    """-H^-1 right on the free entries, zero on the others, by elimination without pivoting.

    H is symmetric, and positive definite on the free entries at a strict minimum. Clamped rows and
    columns are replaced by those of the identity.
    """
    m = len(free)
    both = [[s.logical_and(free[i], free[j]) for j in range(m)] for i in range(m)]
    A = np.array(
        [[s.select(both[i][j], H[i, j], float(i == j)) for j in range(m)] for i in range(m)],
        dtype=object,
    )
    B = np.array(
        [[s.select(free[i], s.negative(entry), 0.0) for entry in right[i]] for i in range(m)],
        dtype=object,
    )
    for i in range(m):
        for j in range(i + 1, m):
            factor = s.divide(A[j, i], A[i, i])
            A[j] = A[j] - A[i] * factor
            B[j] = B[j] - B[i] * factor
    for i in reversed(range(m)):
        for j in range(i + 1, m):
            B[i] = B[i] - B[j] * A[i, j]
        B[i] = [s.divide(entry, A[i, i]) for entry in B[i]]
    return B


def _clip(value: Value, low: Value, high: Value) -> Value:
    """`value` within the bounds; NaN stays NaN."""
    value = s.select(s.less(value, low), low, value)
    return s.select(s.less(high, value), high, value)


def _named(name: str, values: Array, *, following: bool = False) -> Outputs:
    prime = "'" if following else ""
    return {f"{name}{prime}{i}": entry for i, entry in enumerate(np.ravel(values))}


def _triangle(n: int) -> int:
    return n * (n + 1) // 2


def _upper(matrix: Array) -> Array:
    entries: Array = matrix[np.triu_indices(len(matrix))]
    return entries


def _symmetric(entries: Array, n: int) -> Array:
    matrix = np.empty((n, n), dtype=object)
    rows, columns = np.triu_indices(n)
    matrix[rows, columns] = matrix[columns, rows] = entries
    return matrix
