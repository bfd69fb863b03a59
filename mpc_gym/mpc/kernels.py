"""The native solver: the algorithm of `ddp.py` for a queue of problems, LANES at a time.

Each lane works on a problem of its own, with its own step length, mode and regularisation. A block
step is one forward and one backward pass of all lanes. A lane whose step was refused tries a
shorter one in the next; a lane that is done takes the next problem of the queue, so that a slow
problem delays nobody. As no lane reads another's numbers and all do the same operations, a result
does not depend on what else is in the queue.

The model enters through the addresses of its stage functions (see `stage.py`) and the layout of
its records (see `layout.py`), so these loops are compiled once for all models.
"""

# mypy: ignore-errors

from collections import namedtuple

import numpy as np

from mpc_gym.compiled.callback import call
from mpc_gym.compiled.emit import LANES
from mpc_gym.compiled.native import native
from mpc_gym.mpc.ddp import (
    COST_ROUNDING,
    MU_FACTOR,
    MU_MAX,
    MU_MIN,
    STEP_LENGTHS,
    SUFFICIENT_DECREASE,
)
from mpc_gym.mpc.kernels_boxqp import solve_box_qps, workspace_size

# What a lane is doing
IDLE, FRESH, RUNNING, LAST, DONE, FAILED = range(6)

_SHORTEST_STEP = min(STEP_LENGTHS)

Lanes = namedtuple(
    "Lanes", ["task", "state", "count", "cost", "alpha", "exact", "mu", "scale", "accepted"]
)
Work = namedtuple("Work", ["D", "P", "S", "G"])
Stages = namedtuple("Stages", ["forward", "backward", "expansion", "value"])
Results = namedtuple("Results", ["X", "U", "cost", "converged", "iterations"])


@native
def solve(stages, L, x_init, guess, context, P, S, settings, tasks, X, U, cost, converged, count):
    """Solve tasks tasks[0] .. tasks[1] - 1; task j is problem j % len(x_init) from guess[j].

    stages: addresses. L: layout. settings: (exact, tolerance, max_iterations) as floats. The last
    five arguments are results: states, controls, costs, whether converged, iterations.
    """
    T = guess.shape[1]
    exact, tolerance, max_iterations = settings
    work = Work(np.zeros((T + 1) * L.record), P, S, np.zeros(workspace_size(L)))
    D = work.D
    results = Results(X, U, cost, converged, count)
    lanes = empty_lanes()
    waiting, last = tasks
    busy = 0
    for b in range(LANES):
        if waiting < last:
            load(D, L, b, waiting, x_init, guess, context, lanes)
            waiting += 1
            busy += 1
    while busy > 0:
        forward_pass(work, L, stages, lanes, T)
        judge(D, L, lanes, T, exact)
        backward_pass(work, L, stages, lanes, T)
        while convexify(D, L, lanes):
            backward_pass(work, L, stages, lanes, T)
        for b in range(LANES):
            if lanes.state[b] == RUNNING and lanes.alpha[b] == 1.0:
                begin_iteration(D, L, b, lanes, tolerance, max_iterations)
            if lanes.state[b] == DONE or lanes.state[b] == FAILED:
                store(D, L, b, lanes, results)
                if waiting < last:
                    load(D, L, b, waiting, x_init, guess, context, lanes)
                    waiting += 1
                else:
                    busy -= 1


@native
def empty_lanes():
    """Sixteen idle lanes."""
    numbers = np.zeros((6, LANES))
    counters = np.zeros((3, LANES), np.int64)
    return Lanes(
        counters[0], counters[1], counters[2],
        numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5],
    )  # fmt: skip


@native
def load(D, L, b, task, x_init, guess, context, lanes):
    """Put a task on lane b: its start state, controls and context, and no feedback."""
    lanes.task[b] = task
    lanes.state[b] = FRESH
    lanes.count[b] = 0
    lanes.scale[b] = 0.0
    row = task % x_init.shape[0]
    for t in range(guess.shape[1]):
        start = t * L.record + b
        for i in range(L.n):  # finite, so that no feedback is zero
            D[start + L.x + i * LANES] = x_init[row, i]
        for i in range(L.m):
            D[start + L.u + i * LANES] = guess[task, t, i]
            D[start + L.k + i * LANES] = 0.0
        for i in range(L.m * L.n):
            D[start + L.kx + i * LANES] = 0.0
        for i in range(L.n_context):
            D[start + L.c + i * LANES] = context[row, t, i]


@native
def store(D, L, b, lanes, results):
    """Write the result of lane b, which is idle then."""
    task = lanes.task[b]
    for t in range(results.X.shape[1]):
        start = t * L.record + b
        for i in range(L.n):
            results.X[task, t, i] = D[start + L.x + i * LANES]
        for i in range(L.m):
            results.U[task, t, i] = D[start + L.u + i * LANES]
    results.cost[task] = lanes.cost[b]
    results.converged[task] = lanes.state[b] == DONE
    results.iterations[task] = lanes.count[b]
    lanes.state[b] = IDLE


@native
def forward_pass(work, L, stages, lanes, T):
    """The trial trajectory of every lane, and its cost."""
    D = work.D
    for i in range(L.n * LANES):
        D[L.xn + i] = D[L.x + i]
    for b in range(LANES):
        D[L.cost + b] = 0.0
        D[L.alpha + b] = 0.0 if lanes.state[b] == FRESH else lanes.alpha[b]
    for t in range(T):
        call(stages.forward, D, t * L.record, work.P, work.S, t, work.G)


@native
def backward_pass(work, L, stages, lanes, T):
    """Gains and expected decrease of every lane."""
    D = work.D
    end = T * L.record
    for i in range(L.n * LANES):
        D[end + L.v + i] = 0.0
    for i in range(L.n * (L.n + 1) // 2 * LANES):
        D[end + L.vv + i] = 0.0
    for b in range(LANES):
        D[end + L.norm + b] = 0.0
        D[end + L.slope + b] = 0.0
        D[end + L.convex + b] = 1.0
        D[end + L.scale + b] = 0.0
        D[end + L.exact + b] = lanes.exact[b]
        D[end + L.mu + b] = lanes.mu[b] * lanes.scale[b]
    for t in range(T - 1, -1, -1):
        start = t * L.record
        if L.m == 1:
            call(stages.backward, D, start, work.P, work.S, t, work.G)
        else:
            call(stages.expansion, D, start, work.P, work.S, t, work.G)
            solve_box_qps(D, L, start, work.S[t], work.G)
            call(stages.value, D, start, work.P, work.S, t, work.G)


@native
def judge(D, L, lanes, T, exact):
    """Accept or refuse the trial of every lane, and choose what it does next."""
    for b in range(LANES):
        trial = D[T * L.record + L.cost + b]
        lanes.accepted[b] = 0.0
        if lanes.state[b] == FRESH:
            lanes.cost[b] = trial
            lanes.state[b] = RUNNING if np.isfinite(trial) else FAILED
            lanes.alpha[b], lanes.exact[b], lanes.mu[b] = 1.0, exact, 0.0
            lanes.accepted[b] = 1.0
        elif lanes.state[b] == RUNNING or lanes.state[b] == LAST:
            cost = lanes.cost[b]
            enough = SUFFICIENT_DECREASE * lanes.alpha[b] * D[L.slope + b]
            if trial <= cost + enough + COST_ROUNDING * (lanes.scale[b] + abs(cost)):
                accept(b, lanes, trial, exact)
            else:
                refuse(b, lanes)
    for t in range(T):
        start = t * L.record
        for i in range(L.n + L.m):
            iterate = start + L.x + i * LANES
            trial_at = start + L.xn + i * LANES
            adopt(D[iterate : iterate + LANES], D[trial_at : trial_at + LANES], lanes.accepted)


@native
def accept(b, lanes, cost, exact):
    """Lane b takes its trial, and goes on with the exact Hessian and less regularisation."""
    lanes.accepted[b] = 1.0
    lanes.cost[b] = cost
    lanes.alpha[b], lanes.exact[b] = 1.0, exact
    lanes.mu[b] = lanes.mu[b] / MU_FACTOR if lanes.mu[b] > MU_MIN else 0.0
    if lanes.state[b] == LAST:
        lanes.state[b] = DONE


@native
def refuse(b, lanes):
    """Lane b tries a shorter step, or, where none was short enough, another mode."""
    lanes.alpha[b] *= 0.5
    if lanes.alpha[b] < _SHORTEST_STEP:
        lanes.alpha[b] = 1.0
        if lanes.state[b] == LAST:
            lanes.state[b] = DONE
        else:
            harden(b, lanes)


@native
def adopt(iterate, trial, accepted):
    """Replace the iterate by the trial on the lanes that accepted it."""
    for b in range(LANES):
        iterate[b] = trial[b] if accepted[b] == 1.0 else iterate[b]


@native
def convexify(D, L, lanes):
    """Whether the gains of any lane have to be computed again.

    Either a stage was not convex, and the mode changes; or the regularisation was in proportion to
    the cost's Hessian at an earlier iterate.
    """
    again = False
    for b in range(LANES):
        if lanes.state[b] == RUNNING or lanes.state[b] == LAST:
            scale = D[L.scale + b] if D[L.scale + b] > 0.0 else 1.0
            stale = scale != lanes.scale[b] and lanes.mu[b] > 0.0
            lanes.scale[b] = scale
            if D[L.convex + b] != 1.0:
                lanes.state[b] = RUNNING
                lanes.alpha[b] = 1.0
                harden(b, lanes)
                again = True
            elif stale:
                again = True
    return again


@native
def harden(b, lanes):
    """From exact to Gauss-Newton, from there to more and more regularisation; else give up."""
    if lanes.exact[b] == 1.0:
        lanes.exact[b] = 0.0
    else:
        lanes.mu[b] = max(lanes.mu[b] * MU_FACTOR, MU_MIN)
        if lanes.mu[b] > MU_MAX:
            lanes.state[b] = FAILED


@native
def begin_iteration(D, L, b, lanes, tolerance, max_iterations):
    """Count an iteration of lane b with new gains; it is the last one if they are small."""
    if lanes.count[b] == max_iterations:
        lanes.state[b] = FAILED
    else:
        lanes.count[b] += 1
        if D[L.norm + b] <= tolerance and lanes.mu[b] == 0.0:
            lanes.state[b] = LAST
