"""The native solver: the algorithm of `reference/ddp.py` for a queue of problems, LANES at a time.

Each lane works on a problem of its own, with its own step length, mode and regularisation. It needs
forward and backward passes in turn, but twice the same where a step was refused or a stage was not
convex. A pass serves all lanes at once, and the next one is that which serves more lanes for its
cost; to the others it does no harm. A lane that is done takes the next problem of the queue, so
that a slow problem delays nobody. As no lane reads another's numbers, and all do the same
operations, a result does not depend on what else is in the queue.

The loops return after so many passes, and are called again to go on: while they run, Python can
answer no signal. What they need for that is in arrays of the caller, so that it changes no result.

The model enters through the addresses of its stage functions (see `stages/`) and the layout of
its records (see `record.py`), so these loops are compiled once for all models.
"""

# mypy: ignore-errors

import numpy as np
from numba.np.unsafe.ndarray import to_fixed_tuple

from mpc_gym.compiled.cpu.emit import LANES
from mpc_gym.compiled.cpu.native import native_uncounted
from mpc_gym.mpc.native.escape import CONVEX, FLAT, point_downwards, try_escape
from mpc_gym.mpc.native.lanes import (
    DONE,
    ESCAPE,
    FAILED,
    GAINS,
    IDLE,
    N_OFFSETS,
    N_STAGES,
    START,
    TRIAL,
    Results,
    Rows,
    Settings,
    Stages,
    Work,
    as_lanes,
    cache_line,
    load,
    survey,
    write_ranges,
)
from mpc_gym.mpc.native.multipliers import is_used_up, tolerance_of, update_ended
from mpc_gym.mpc.native.passes import adopt_accepted, backward_pass, forward_pass
from mpc_gym.mpc.native.verification import verify
from mpc_gym.mpc.record import SolverOffsets
from mpc_gym.mpc.reference.ddp import (
    FORESEEN,
    FORESEEN_GAUSS_NEWTON,
    MU_SETTLED,
    NEGLIGIBLE,
    PULL,
    STEP_LENGTHS,
    SUFFICIENT_DECREASE,
)
from mpc_gym.mpc.reference.gains import COST_ROUNDING
from mpc_gym.mpc.reference.progress import (
    IDLE_GAIN,
    IDLE_STEPS,
    LONGEST_STEP,
    MU_FACTOR,
    MU_MAX,
    MU_MIN,
    SETTLED,
    STEP,
    STRAIGHT,
    STUCK,
)

_FORWARD_ADVANTAGE = 2  # by how much a forward pass is cheaper than a backward pass
_SHORTEST_STEP = min(STEP_LENGTHS)


@native_uncounted
def solve(
    stages,
    layout,
    x_init,
    guess,
    context,
    P,
    S,
    settings,
    rows,
    queue,
    records,
    gathered,
    numbers,
    counters,
    scratch,
    passes,
    X,
    U,
    cost,
    converged,
    count,
    size,
):
    """Solve tasks queue[0] .. queue[1] - 1; task j is problem j % len(x_init) from guess[j].

    stages: addresses, as an array of `Stages`. layout: `SolverOffsets`, likewise.
    settings: those of `Settings`, as floats.
    rows: what there is to know of constraints; see `Rows`. Their multipliers are in the context, of
    which each task has its own then, and are results.
    queue: what is waiting, or to be verified; see `new_queue`.
    records, gathered ... scratch: the state of the lanes and room to work in; see `new_lanes`.
    passes: after so many, return.
    The last six arguments are results: states, controls, costs, whether converged, iterations, and
    the size of the costs' terms.

    Returns whether all is done; if not, call it again with the same arguments.
    """
    stages = Stages(*to_fixed_tuple(stages, N_STAGES))
    L = SolverOffsets(*to_fixed_tuple(layout, N_OFFSETS))
    T = guess.shape[1]
    settings = Settings(*settings)
    rows = Rows(*rows)
    work = Work(records[cache_line(records) :], P, S, gathered, scratch[-1], scratch[:-1])
    D = work.D
    write_ranges(S, work.ranges)
    results = Results(X, U, cost, converged, count, size)
    lanes = as_lanes(numbers, counters)
    waiting, last, unverified = queue
    for _ in range(passes):
        if settings.constrained == 1.0:
            update_ended(work, L, stages, lanes, T, settings, context, rows)
        forward, backward = survey(D, L, lanes, results, last - waiting)
        if forward + backward == 0:
            if unverified == last:
                return True
            unverified = verify(
                work,
                L,
                stages,
                lanes,
                T,
                (unverified, last),
                x_init,
                context,
                results,
                rows,
                settings,
            )
        elif _FORWARD_ADVANTAGE * forward >= backward:
            for b in range(LANES):  # now, because a backward pass would spoil their gains
                if lanes.state[b] == IDLE and waiting < last:
                    load(D, L, b, waiting, x_init, guess, context, lanes)
                    waiting += 1
            forward_pass(work, L, stages, lanes, T)
            judge(work, L, lanes, T, settings)
        else:
            backward_pass(work, L, stages, lanes, T)
            begin_iterations(work, L, lanes, T, settings)
    queue[0], queue[2] = waiting, unverified
    return False


@native_uncounted
def judge(work, L, lanes, T, settings):
    """Accept or refuse the trial of every lane, and choose what it does next."""
    D = work.D
    for b in range(LANES):
        lanes.accepted[b] = 0.0
        if lanes.state[b] == START:
            begin(b, lanes, D[T * L.record + L.cost + b], settings)
        elif lanes.state[b] == TRIAL:
            judge_step(work, L, b, lanes, T, settings)
        elif lanes.state[b] == ESCAPE:
            judge_escape(D, L, b, lanes, T, settings)
    adopt_accepted(D, L, lanes, T)


@native_uncounted
def begin(b, lanes, cost, settings):
    """Lane b has rolled out its guess; one from which the cost is not finite is given up."""
    lanes.cost[b] = cost
    lanes.exact[b], lanes.mu[b] = settings.exact, 0.0
    lanes.aim[b], lanes.stride[b] = STEP, 1.0
    lanes.tolerance[b] = settings.tolerance
    lanes.begun[b] = lanes.count[b]
    if settings.constrained == 1.0:
        lanes.tolerance[b] = tolerance_of(b, lanes, settings.tolerance)
    if np.isfinite(cost):
        lanes.accepted[b] = 1.0
        lanes.state[b] = GAINS
    else:
        lanes.state[b] = FAILED


@native_uncounted
def judge_step(work, L, b, lanes, T, settings):
    """Take the step of lane b if it decreases the cost enough; see whether it was the last one."""
    D = work.D
    slope, change = D[L.slope + b], D[T * L.record + L.cost + b] - lanes.cost[b]
    noise = COST_ROUNDING * D[L.size + b]
    newton = lanes.exact[b] == settings.exact and lanes.mu[b] == 0.0
    full = newton and lanes.alpha[b] == 1.0
    settled = lanes.alpha[b] == first_length(b, lanes, settings)
    settled = settled and is_settled(work, L, b, lanes.tolerance[b], T)
    enough = SUFFICIENT_DECREASE * lanes.alpha[b] * slope + noise
    if is_enough(change, enough):
        expected = D[L.change + b]
        foreseen = FORESEEN if settings.exact == 1.0 else FORESEEN_GAUSS_NEWTON
        known = abs(change - expected) <= foreseen * abs(expected) + noise
        mild = lanes.mu[b] <= MU_SETTLED
        if lanes.exact[b] != settings.exact:
            straight = change <= STRAIGHT * lanes.alpha[b] * slope
            lanes.stride[b] = next_stride(lanes.alpha[b], straight)
        accept(b, lanes, D[T * L.record + L.cost + b], settings.exact)
        if settled and newton and known:
            lanes.state[b] = DONE
            return
        if settled and not newton and mild:
            look_down(b, lanes, SETTLED, settings)
        note_gain(b, lanes, full or change < -IDLE_GAIN * D[L.size + b], settings)
    elif settled and newton and -slope <= noise:
        lanes.state[b] = DONE
    else:
        lanes.alpha[b] *= 0.5
        if lanes.alpha[b] < _SHORTEST_STEP:
            harden(b, lanes, settings)
            note_gain(b, lanes, False, settings)


@native_uncounted
def note_gain(b, lanes, gained, settings):
    """Give lane b up where a model with kinks has let it gain nothing for some iterations."""
    lanes.idle[b] = 0 if gained else lanes.idle[b] + 1
    if settings.kinked == 1.0 and lanes.idle[b] >= IDLE_STEPS:
        lanes.state[b] = FAILED


@native_uncounted
def is_enough(change, enough):
    """Whether a change of the cost is sufficient: both are finite, where nothing has run away."""
    # not np.isfinite: that is x - x == 0, which may be reassociated where x is a difference
    return change <= enough and abs(change) < np.inf and abs(enough) < np.inf


@native_uncounted
def first_length(b, lanes, settings):
    """The step length that lane b tries first."""
    return 1.0 if lanes.exact[b] == settings.exact else lanes.stride[b]


@native_uncounted
def next_stride(alpha, straight):
    """The first step length of the next Gauss-Newton iteration in the place of an exact one."""
    if straight and alpha >= 1.0:
        return min(2.0 * alpha, LONGEST_STEP)
    return max(0.5 * alpha, 1.0)


@native_uncounted
def is_settled(work, L, b, tolerance, T):
    """Whether the trial of lane b moves no control, and promises no decrease, worth mentioning."""
    D = work.D
    end = T * L.record + b
    decrease, size = -D[L.slope + b], D[L.size + b]
    for i in range(L.m):
        moved, span = D[end + L.moved + i * LANES], D[end + L.span + i * LANES]
        if decrease > NEGLIGIBLE * size and not moved <= tolerance * span:
            return False
        if not moved <= tolerance * work.ranges[i]:
            return False
    return decrease <= tolerance**1.5 * size and D[L.pull + b] <= PULL * size


@native_uncounted
def judge_escape(D, L, b, lanes, T, settings):
    """Move lane b along negative curvature if that decreases the cost, or try the other side."""
    change = D[T * L.record + L.cost + b] - lanes.cost[b]
    expected = 0.5 * lanes.bend[b] * lanes.alpha[b] ** 2
    if is_enough(change, SUFFICIENT_DECREASE * expected - COST_ROUNDING * D[L.size + b]):
        accept(b, lanes, D[T * L.record + L.cost + b], settings.exact)
    else:
        lanes.alpha[b] *= -1.0 if lanes.alpha[b] > 0.0 else -0.5
        if not try_escape(lanes.alpha[b]):
            lanes.state[b] = FAILED


@native_uncounted
def accept(b, lanes, cost, exact):
    """Lane b takes its trial, and goes on with the exact Hessian and less regularisation."""
    lanes.accepted[b] = 1.0
    lanes.cost[b] = cost
    lanes.exact[b] = exact
    lanes.aim[b] = STEP
    lanes.mu[b] = lanes.mu[b] / MU_FACTOR if lanes.mu[b] > MU_MIN else 0.0
    lanes.state[b] = GAINS


@native_uncounted
def harden(b, lanes, settings):
    """From exact to Gauss-Newton, from there to more and more regularisation."""
    lanes.state[b] = GAINS
    lanes.aim[b] = STEP
    if lanes.exact[b] == 1.0:
        lanes.exact[b] = 0.0
    else:
        lanes.mu[b] = max(lanes.mu[b] * MU_FACTOR, MU_MIN)
        if lanes.mu[b] > MU_MAX:
            look_down(b, lanes, STUCK, settings)


@native_uncounted
def look_down(b, lanes, aim, settings):
    """Lane b asks for the exact program as it is, which may not be convex."""
    lanes.aim[b] = aim
    lanes.exact[b], lanes.mu[b] = settings.exact, 0.0
    lanes.state[b] = GAINS


@native_uncounted
def begin_iterations(work, L, lanes, T, settings):
    """After a backward pass."""
    for b in range(LANES):
        if lanes.state[b] == GAINS:
            begin_iteration(work, L, b, lanes, T, settings)
        elif lanes.state[b] == ESCAPE:  # the pass has put its own gains there
            point_downwards(work, L, b, lanes, T)


@native_uncounted
def begin_iteration(work, L, b, lanes, T, settings):
    """Begin an iteration of lane b with its gains; it needs other gains where they are not convex.

    From where it is settled or stuck, it leaves along negative curvature.
    """
    D = work.D
    convex = D[L.convex + b] == 1.0
    if lanes.aim[b] == STEP and not convex:
        harden(b, lanes, settings)
    elif is_used_up(b, lanes, settings) or (lanes.aim[b] == STUCK and convex):
        lanes.state[b] = FAILED
    elif convex:
        lanes.state[b] = TRIAL
        lanes.aim[b] = STEP
        lanes.alpha[b] = first_length(b, lanes, settings)
        lanes.count[b] += 1
    else:
        found = point_downwards(work, L, b, lanes, T)
        if found == FLAT and lanes.aim[b] == SETTLED:
            lanes.state[b] = DONE
        elif found == CONVEX:
            lanes.state[b] = FAILED
        else:
            lanes.state[b] = ESCAPE
            lanes.alpha[b] = 1.0
            lanes.count[b] += 1
