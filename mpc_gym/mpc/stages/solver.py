"""The stages of the solver: trial points, and the backward pass.

The mathematics is that of `reference/ddp.py`.
"""

import numpy as np

from mpc_gym.compiled import derive
from mpc_gym.compiled import program as s
from mpc_gym.compiled.program import Array, Program, Value
from mpc_gym.mpc.reference.ddp import NEAR_BOUND
from mpc_gym.mpc.stages import box_qps
from mpc_gym.mpc.stages.algebra import (
    Outputs,
    Stage,
    clip,
    larger,
    named,
    product,
    solve_free,
    symmetric,
    triangle,
    upper,
)
from mpc_gym.mpc.stages.model import Model, Point


def forward(model: Model) -> Stage:
    """The trial point of a line search: clamped feedback, stage cost, step.

    u_new = clip(u + alpha k + K (x_new - x)),  and all of k to a bound that is near

    With it, of each control, how far it moved and how large it is, over the stages so far.
    """
    program = Program()
    n, m = model.n, model.m
    x_new = program.inputs("xn", n)
    feedback = program.inputs("kx", m, n) @ (x_new - program.inputs("x", n))
    alpha = program.input("alpha")
    u = program.inputs("u", m)
    low, high = program.inputs("low", m), program.inputs("high", m)
    bounded = zip(program.inputs("k", m), u, low, high, strict=True)
    u_new = u + s.as_array([_taken(*each, alpha) for each in bounded]) + feedback
    u_new = s.as_array([clip(*each) for each in zip(u_new, low, high, strict=True)])
    point = model.at(program, x_new, u_new)
    outputs = named("un", u_new) | named("xn", point.f, following=True)
    outputs |= {"cost'": s.add(program.input("cost"), point.l), "alpha'": alpha}
    for name, now in (("moved", u_new - u), ("span", u_new)):
        before = program.inputs(name, m)
        largest = [larger(*pair) for pair in zip(before, map(s.absolute, now), strict=True)]
        outputs |= named(name, s.as_array(largest), following=True)
    return program, outputs


def _taken(k: Value, u: Value, low: Value, high: Value, alpha: Value) -> Value:
    """What a trial takes of k (see `NEAR_BOUND`)."""
    reached = s.add(u, k)
    there = s.logical_or(s.less_equal(high, reached), s.less_equal(reached, low))
    near = s.less_equal(s.absolute(k), s.multiply(NEAR_BOUND, s.subtract(high, low)))
    whole = s.logical_and(s.less(0.0, alpha), s.logical_and(there, near))
    return s.select(whole, k, s.multiply(k, alpha))


def backward(model: Model) -> Stage:
    """The backward pass for one or two controls: expansion, box QP, value function."""
    program = Program()
    q, Q, progress = _expansion(program, model)
    n, m = model.n, model.m
    u, low, high = (program.inputs(name, m) for name in ("u", "low", "high"))
    damping = _damping(program, q[n:], np.diagonal(Q)[n:])
    H = Q[n:, n:] + np.diag(damping)
    box_qp = box_qps.of_one if m == 1 else box_qps.of_two
    k, K, solvable = box_qp(H, q[n:], Q[n:, :n], low - u, high - u)
    outputs = _value(program, q, Q, k, K) | named("k", k) | named("kx", K) | progress
    outputs |= named("quu", upper(Q[n:, n:]))
    if m == 2:
        outputs |= named("qu", q[n:])
    return program, outputs | _step(program, q, Q, list(k), solvable=solvable)


def expansion(model: Model) -> Stage:
    """The first part of the backward pass for more controls: q, upper triangle of Q, the box QP."""
    program = Program()
    q, Q, progress = _expansion(program, model)
    n, m = model.n, model.m
    u, low, high = (program.inputs(name, m) for name in ("u", "low", "high"))
    H = Q[n:, n:] + np.diag(_damping(program, q[n:], np.diagonal(Q)[n:]))
    outputs = named("qx", q[:n]) | named("qu", q[n:]) | named("qxx", upper(Q[:n, :n]))
    outputs |= named("qux", Q[n:, :n]) | named("quu", upper(Q[n:, n:]))
    return program, outputs | box_qps.begin(H, q[n:], low - u, high - u) | progress


def newton(model: Model) -> Stage:
    """The second part: a step towards the solution of the box QP, where it is not settled."""
    program = Program()
    return program, box_qps.step(program, model.m)


def value(model: Model) -> Stage:
    """The third part, once the box QP is settled: feedback gains and value function."""
    program = Program()
    n, m = model.n, model.m
    q = s.as_array([*program.inputs("qx", n), *program.inputs("qu", m)])
    Q_ux = program.parameters("qux", m, n)
    Q_xx, Q_uu, H = (
        symmetric(program.inputs(name, triangle(size)), size)
        for name, size in (("qxx", n), ("quu", m), ("h", m))
    )
    Q = np.block([[Q_xx, Q_ux.T], [Q_ux, Q_uu]])
    k = program.inputs("k", m)
    K = solve_free(H, Q_ux, program.inputs("free", m))
    outputs = _value(program, q, Q, k, K) | named("kx", K)
    return program, outputs | _step(program, q, Q, list(k), solvable=program.input("solvable"))


def _expansion(program: Program, model: Model) -> tuple[Array, Array, Outputs]:
    """Gradient q and Hessian Q of the stage's cost-to-go as a function of z = (x, u).

    With them the mode and regularisation, handed on, and the size of the cost's terms so far.
    """
    n = model.n
    point = model.at(program, program.inputs("x", n), program.inputs("u", model.m))
    v = program.inputs("v'", n)
    V = symmetric(program.inputs("vv'", triangle(n)), n)
    F = derive.jacobian(program, point.f, point.z)
    exact = model.exact(program)
    curvature: Array | float = 0.0
    if model.second_order:
        curvature = derive.hessian(program, point.f, v, point.z, exact)
    l_z = derive.gradient(program, [point.l], [1.0], point.z)
    l_zz = derive.hessian(program, [point.l], [1.0], point.z)
    q = l_z + F.T @ v
    Q = l_zz + product(program, F.T, product(program, V, F)) + curvature
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


def _value(program: Program, q: Array, Q: Array, k: Array, K: Array) -> Outputs:
    """Gradient and Hessian of the value function under the gains k, K."""
    n = len(q) - len(k)
    Q_ux, Q_uu = Q[:n, n:].T, Q[n:, n:]
    v = q[:n] + K.T @ (Q_uu @ k + q[n:]) + Q_ux.T @ k
    left, right = np.vstack((K, Q_ux)), np.vstack((product(program, Q_uu, K) + Q_ux, K))
    V = Q[:n, :n] + product(program, left.T, right)
    return named("v", v) | named("vv", upper(V))


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
