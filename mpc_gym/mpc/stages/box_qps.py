"""The box QP of a stage, as a program: the quadratic program of `reference/boxqp.py`.

One and two controls have closed forms. For more it is solved by projected Newton steps, all lanes
together: a step is a program that is run until no lane moves any more (see `native/passes.py`). Its
fields in the record are the damped Hessian `h`, in which the rows of controls that stay at k = 0
are those of the identity; `stays`; `k`; which controls are `free`; and whether the lane is
`settled`.
"""

from functools import reduce

import numpy as np

from mpc_gym.compiled import program as s
from mpc_gym.compiled.program import Array, Program, Value
from mpc_gym.mpc.reference.boxqp import ENOUGH, SETTLED
from mpc_gym.mpc.stages.algebra import (
    Outputs,
    any_nonzero,
    clip,
    definite,
    masked,
    named,
    smaller,
    solve_free,
    symmetric,
    triangle,
    upper,
)


def of_one(H: Array, q: Array, Q_ux: Array, low: Array, high: Array) -> tuple[Array, Array, Value]:
    """Gains k and K of the box QP (see `reference/boxqp.py`), and whether there are any."""
    convex = s.less(0.0, H[0, 0])
    newton = s.divide(s.negative(q[0]), H[0, 0])
    k = s.as_array([s.select(convex, clip(newton, low[0], high[0]), 0.0)])
    free = s.logical_and(convex, s.equal(k[0], newton))
    K = Q_ux * s.select(free, s.divide(-1.0, H[0, 0]), 0.0)
    (held,) = _held(H, q, low, high)
    return k, K, s.logical_or(convex, held)


def of_two(H: Array, q: Array, Q_ux: Array, low: Array, high: Array) -> tuple[Array, Array, Value]:
    """The same for two controls.

    Given the first control, the second is the clipped minimiser of a parabola. So the slope in the
    first is piecewise linear, and its root lies on the piece to which the unconstrained minimiser
    points.
    """
    convex = definite(H)
    held = [s.logical_and(s.logical_not(convex), each) for each in _held(H, q, low, high)]
    low, high = (
        s.as_array([s.select(*each) for each in zip(held, (0.0, 0.0), bound, strict=True)])
        for bound in (low, high)
    )
    a, c = (s.select(held[i], 1.0, H[i, i]) for i in range(2))
    b = s.select(s.logical_or(*held), 0.0, H[0, 1])
    H = np.array([[a, b], [b, c]], dtype=object)

    def second(first: Value) -> Value:
        return s.divide(s.negative(s.add(q[1], s.multiply(b, first))), c)

    def first(second: Value) -> Value:
        return s.divide(s.negative(s.add(q[0], s.multiply(b, second))), a)

    unbounded = solve_free(H, s.as_array([[q[0]], [q[1]]]), s.as_array([1.0, 1.0]))[0, 0]
    below, above = s.less(second(unbounded), low[1]), s.less(high[1], second(unbounded))
    root = s.select(below, first(low[1]), s.select(above, first(high[1]), unbounded))
    k_0 = clip(root, low[0], high[0])
    best = second(k_0)
    k = s.as_array([k_0, clip(best, low[1], high[1])])
    free = s.as_array(
        [
            s.logical_and(s.equal(entry, wanted), s.logical_not(stays))
            for entry, wanted, stays in zip(k, (root, best), held, strict=True)
        ]
    )
    return k, solve_free(H, Q_ux, free), definite(H)


def _held(H: Array, q: Array, low: Array, high: Array) -> list[Value]:
    """Which controls stay at k = 0 whatever their curvature."""
    found = []
    for i, (gradient, below, above) in enumerate(zip(q, low, high, strict=True)):
        at_low, at_high = s.equal(below, 0.0), s.equal(above, 0.0)
        held = s.logical_or(
            s.logical_and(at_low, s.logical_or(at_high, s.less(0.0, gradient))),
            s.logical_and(at_high, s.less(gradient, 0.0)),
        )
        idle = s.logical_and(s.equal(gradient, 0.0), s.logical_not(any_nonzero(H[i])))
        found.append(s.logical_or(held, idle))
    return found


def begin(H: Array, q: Array, low: Array, high: Array) -> Outputs:
    """The box QP at the clipped unconstrained minimiser; settled where that was inside."""
    convex = definite(H)
    stays = s.as_array(
        [s.logical_and(s.logical_not(convex), each) for each in _held(H, q, low, high)]
    )
    H = masked(H, s.as_array([s.logical_not(each) for each in stays]))
    solvable = definite(H)
    free = s.as_array([s.logical_not(each) for each in stays])
    newton = solve_free(H, q[:, None], free)[:, 0]
    k = [clip(*each) for each in zip(newton, low, high, strict=True)]
    k = [s.select(solvable, entry, 0.0) for entry in k]
    outside: Value = 0.0
    for entry, below, above in zip(newton, low, high, strict=True):
        outside = s.logical_or(outside, s.logical_or(s.less(entry, below), s.less(above, entry)))
    settled = s.logical_not(s.logical_and(solvable, outside))
    outputs = named("h", upper(H)) | named("stays", stays) | named("free", free)
    outputs |= {"solvable": solvable, "settled": settled}
    return outputs | named("k", s.as_array(k))


def step(program: Program, m: int) -> Outputs:
    """A projected Newton step on the free controls; a straight one where it decreases too little.

    A lane that is settled stays as it is.
    """
    H = symmetric(program.inputs("h", triangle(m)), m)
    u, k, q, stays = (program.inputs(name, m) for name in ("u", "k", "qu", "stays"))
    low, high = (
        s.as_array(
            [
                s.select(*each)
                for each in zip(stays, [0.0] * m, program.inputs(name, m) - u, strict=True)
            ]
        )
        for name in ("low", "high")
    )
    gradient = q + H @ k
    free = s.as_array([_is_free(*each) for each in zip(k, gradient, low, high, stays, strict=True)])
    newton = solve_free(H, gradient[:, None], free)[:, 0]
    projected = s.as_array([clip(*each) for each in zip(k + newton, low, high, strict=True)])
    move = projected - k
    expected = move @ gradient
    enough = s.less_equal(expected + 0.5 * (move @ (H @ move)), ENOUGH * expected)
    outwards = [_is_outwards(*each) for each in zip(newton, k, low, high, strict=True)]
    inwards = s.as_array(
        [s.select(out, 0.0, is_free) for out, is_free in zip(outwards, free, strict=True)]
    )
    straight, cut = _straight(
        H, k, gradient, solve_free(H, gradient[:, None], inwards)[:, 0], low, high
    )
    inside = [s.equal(*each) for each in zip(projected, k + newton, strict=True)]
    whole = s.select(enough, reduce(s.logical_and, inside), s.logical_not(cut))
    settled = program.input("settled")

    def taken(before: Array, one: Array, other: Array) -> Array:
        chosen = [s.select(enough, *each) for each in zip(one, other, strict=True)]
        return s.as_array([s.select(settled, *each) for each in zip(before, chosen, strict=True)])

    k = taken(k, projected, straight)
    free = taken(program.inputs("free", m), free, inwards)
    done = s.logical_and(whole, _is_solved(H, q, k, low, high, free))
    outputs = named("k", k) | named("free", free)
    return outputs | {"settled": s.logical_or(settled, done)}


def _is_solved(H: Array, q: Array, k: Array, low: Array, high: Array, free: Array) -> Value:
    """Whether the gradient vanishes on the free controls and presses the others to their bounds."""
    sizes = s.as_array([s.absolute(entry) for entry in k])
    found: Value = 1.0
    for i, gradient in enumerate(q + H @ k):
        terms = s.as_array([s.absolute(entry) for entry in H[i]]) @ sizes
        least = SETTLED * s.add(s.absolute(q[i]), terms)
        rising, falling = s.less_equal(-least, gradient), s.less_equal(gradient, least)
        pressed = s.logical_or(
            s.logical_and(s.equal(k[i], low[i]), rising),
            s.logical_and(s.equal(k[i], high[i]), falling),
        )
        flat = s.logical_and(rising, falling)
        found = s.logical_and(found, s.select(free[i], flat, pressed))
    return found


def _straight(
    H: Array, k: Array, gradient: Array, step: Array, low: Array, high: Array
) -> tuple[Array, Value]:
    """To the lowest point along a step, or until the first control is at its bound; was it so?"""
    bounds, along, reach = [], [], []
    for entry, now, below, above in zip(step, k, low, high, strict=True):
        bound = s.select(s.less(entry, 0.0), below, above)
        rests = s.logical_or(s.equal(entry, 0.0), s.equal(now, bound))
        bounds.append(bound)
        along.append(s.select(rests, 0.0, entry))
        reach.append(s.select(rests, float("inf"), s.divide(s.subtract(bound, now), entry)))
    way = s.as_array(along)
    curved = way @ (H @ way)
    lowest = s.select(s.less(0.0, curved), s.divide(s.negative(way @ gradient), curved), 0.0)
    first = reduce(smaller, reach)
    length = smaller(lowest, first)
    there = [clip(*each) for each in zip(k + way * length, low, high, strict=True)]
    found = [
        s.select(s.less_equal(limit, length), bound, entry)
        for limit, bound, entry in zip(reach, bounds, there, strict=True)
    ]
    return s.as_array(found), s.less(first, lowest)


def _is_outwards(step: Value, k: Value, low: Value, high: Value) -> Value:
    below = s.logical_and(s.less_equal(k, low), s.less(step, 0.0))
    above = s.logical_and(s.less_equal(high, k), s.less(0.0, step))
    return s.logical_or(below, above)


def _is_free(k: Value, gradient: Value, low: Value, high: Value, stays: Value) -> Value:
    at_low = s.logical_and(s.less_equal(k, low), s.less(0.0, gradient))
    at_high = s.logical_and(s.less_equal(high, k), s.less(gradient, 0.0))
    return s.logical_not(s.logical_or(stays, s.logical_or(at_low, at_high)))
