"""The lanes of the native solver: what each needs next, its numbers, and its place in the queue."""

# mypy: ignore-errors

from collections import namedtuple

import numpy as np

from mpc_gym.compiled.cpu.emit import LANES
from mpc_gym.compiled.cpu.native import native_uncounted
from mpc_gym.mpc.native.boxqp import box_qp_rows
from mpc_gym.mpc.record import SolverOffsets

# What a lane needs: nothing, for its result is written; a forward pass, for the start of a problem,
# with the gains of an iteration, or along negative curvature; a backward pass; that its result is
# written, which is converged or not.
IDLE, START, TRIAL, ESCAPE, GAINS, DONE, FAILED = range(7)

_CACHE_LINE = 8  # numbers
_RECORD, _M, _GATHERED = map(SolverOffsets._fields.index, ("record", "m", "gathered"))

_COUNTERS = ("task", "state", "count", "aim", "updates", "phase", "begun", "idle")
_NUMBERS = ("cost", "alpha", "exact", "mu", "bend", "accepted", "tolerance", "stride")
Lanes = namedtuple("Lanes", [*_COUNTERS, *_NUMBERS])
# G: what is gathered over the stages, and scratch memory of the programs; box_qp: room for one
Work = namedtuple("Work", ["D", "P", "S", "G", "ranges", "box_qp"])
Settings = namedtuple("Settings", ["exact", "tolerance", "max_iterations", "constrained", "kinked"])
Stages = namedtuple(
    "Stages", ["forward", "backward", "expansion", "newton", "value", "multipliers", "terms"]
)
N_STAGES, N_OFFSETS = len(Stages._fields), len(SolverOffsets._fields)
# Of the constraints' rows: where their multipliers begin in the context; [tasks, k] their sizes,
# first and present penalties, and how far their multipliers moved in the last update; [tasks] the
# size of the cost, and in the end the cost itself and the violation.
Rows = namedtuple("Rows", ["own", "size", "first", "rho", "before", "stakes", "cost", "violation"])


def new_rows(own, count, tasks):
    """Those of tasks, with nothing known."""
    return Rows(own, *np.zeros((4, tasks, count)), *np.zeros((3, tasks)))


NO_ROWS = new_rows(0, 0, 0)
Results = namedtuple("Results", ["X", "U", "cost", "converged", "iterations", "size"])


@native_uncounted
def cache_line(records):
    """Where the first cache line begins: a vector across two of them takes longer to load."""
    behind = (records.ctypes.data // records.itemsize) % _CACHE_LINE
    return (_CACHE_LINE - behind) % _CACHE_LINE


@native_uncounted
def write_ranges(S, ranges):
    """The width of each control's bounds, at the stage where it is largest."""
    m = len(ranges)
    for i in range(m):
        ranges[i] = 0.0
        for t in range(len(S)):
            ranges[i] = max(ranges[i], S[t, m + i] - S[t, i])


@native_uncounted
def survey(D, L, lanes, results, waiting):
    """Write finished results; how many lanes a forward pass serves, and how many a backward one."""
    forward, backward = 0, 0
    for b in range(LANES):
        if lanes.state[b] == DONE or lanes.state[b] == FAILED:
            store(D, L, b, lanes, results)
        if lanes.state[b] == GAINS:
            backward += 1
        elif lanes.state[b] != IDLE:
            forward += 1
        elif waiting > 0:
            forward += 1
            waiting -= 1
    return forward, backward


def new_queue(part):
    """The tasks of a part, as `solve` takes them: next task, end, next to be verified."""
    return np.array((part[0], part[1], part[0]))


def new_lanes(layout, horizon):
    """Idle lanes, as `solve` takes them: records ... scratch."""
    records = np.zeros((horizon + 1) * layout[_RECORD] + _CACHE_LINE)
    gathered = np.zeros(layout[_GATHERED])
    scratch = np.zeros((box_qp_rows(layout[_M]) + 1, layout[_M]))
    numbers = np.zeros((len(_NUMBERS), LANES))
    counters = np.zeros((len(_COUNTERS), LANES), np.int64)
    return records, gathered, numbers, counters, scratch


@native_uncounted
def as_lanes(numbers, counters):
    """The fields of the lanes, in arrays [fields, LANES]."""
    return Lanes(
        counters[0], counters[1], counters[2], counters[3], counters[4], counters[5], counters[6],
        counters[7],
        numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6],
        numbers[7],
    )  # fmt: skip


@native_uncounted
def load(D, L, b, task, x_init, guess, context, lanes):
    """Put a task on lane b: its start state, controls and context, and no feedback."""
    lanes.task[b] = task
    lanes.state[b] = START
    lanes.count[b] = 0
    lanes.updates[b] = lanes.phase[b] = lanes.idle[b] = 0
    row, of_context = task % x_init.shape[0], task % context.shape[0]
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
            D[start + L.c + i * LANES] = context[of_context, t, i]


@native_uncounted
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
    results.size[task] = D[L.size + b]
    lanes.state[b] = IDLE
