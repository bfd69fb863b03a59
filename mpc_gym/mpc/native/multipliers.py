"""The augmented Lagrangian of `augmented_lagrangian.py` in the lanes of the native solver.

A lane whose solve has ended updates its multipliers and penalties, which are entries of its
context, and begins another solve from its plan, until they have settled. So lanes are in different
updates of different problems at once.
"""

# mypy: ignore-errors

import numpy as np
from numba.np.unsafe.ndarray import to_fixed_tuple

from mpc_gym.compiled.cpu.callback import call
from mpc_gym.compiled.cpu.emit import LANES
from mpc_gym.compiled.cpu.native import native_uncounted
from mpc_gym.mpc.augmented_lagrangian import (
    FAR,
    FIRST_PENALTY,
    FIRST_SOFT_PENALTY,
    FIRST_TOLERANCE,
    KEPT,
    LARGEST_PENALTY,
    LAST,
    LAST_FACTOR,
    MAX_UPDATES,
    NEAR,
    NEAR_ENOUGH,
    NEAR_FACTOR,
    PENALTY_FACTOR,
    REACH,
    SLOW,
    STIFF_FACTOR,
    STIFF_ITERATIONS,
    TOLERANCE_FACTOR,
    VIOLATION,
)
from mpc_gym.mpc.native.lanes import (
    DONE,
    FAILED,
    IDLE,
    N_OFFSETS,
    N_STAGES,
    START,
    Rows,
    Stages,
    Work,
    as_lanes,
    cache_line,
    load,
)
from mpc_gym.mpc.native.passes import adopt_accepted, forward_pass
from mpc_gym.mpc.record import SolverOffsets


@native_uncounted
def tolerance_of(b, lanes, tolerance):
    """The tolerance of the next solve of lane b."""
    if lanes.phase[b] != FAR:
        return tolerance
    return max(tolerance, FIRST_TOLERANCE * TOLERANCE_FACTOR ** lanes.updates[b])


@native_uncounted
def is_used_up(b, lanes, settings):
    """Whether lane b may not iterate any more, with its multipliers or at all."""
    if lanes.count[b] == settings.max_iterations:
        return True
    stiff = lanes.count[b] - lanes.begun[b] >= STIFF_ITERATIONS
    return settings.constrained == 1.0 and stiff


@native_uncounted
def update_ended(work, L, stages, lanes, T, settings, context, rows):
    """Of each lane whose solve has ended, update the multipliers; it begins again, or is done."""
    G = work.G
    G[:] = 0.0
    ended = False
    for b in range(LANES):
        if has_ended(b, lanes):
            G[L.update + b] = 1.0
            ended = True
    if not ended:
        return
    move_multipliers(work, L, stages, T)
    if doubtful(G, L, lanes, settings, rows):
        for t in range(T):
            call(stages.terms, work.D, t * L.record, work.P, work.S, t, G)
        for i in range(L.n_rows * LANES):
            if G[L.terms + i] == 0.0:  # a constant row
                G[L.terms + i] = np.inf
    for b in range(LANES):
        if has_ended(b, lanes):
            judge_multipliers(work, L, b, lanes, T, settings, context, rows)


@native_uncounted
def measure_rows(work, L, stages, lanes, T):
    """Cost and rows of all lanes along their trials, which become their iterates."""
    lanes.accepted[:] = 1.0
    adopt_accepted(work.D, L, lanes, T)
    work.G[: L.largest + (L.n + L.m) * LANES] = 0.0
    move_multipliers(work, L, stages, T)


@native_uncounted
def move_multipliers(work, L, stages, T):
    """New multipliers for the lanes with `update`; of all lanes, how large the rows are."""
    for t in range(T):
        call(stages.multipliers, work.D, t * L.record, work.P, work.S, t, work.G)


@native_uncounted
def has_ended(b, lanes):
    """Whether lane b has solved what it was given; a cost that is not finite is final."""
    return (lanes.state[b] == DONE or lanes.state[b] == FAILED) and np.isfinite(lanes.cost[b])


@native_uncounted
def doubtful(G, L, lanes, settings, rows):
    """Whether the multipliers of a lane seem settled, if only by the size of rows along the guess.

    The guess may have run away, where no plan goes.
    """
    for b in range(LANES):
        if has_ended(b, lanes):
            by_guess, by_plan = settled(G, L, b, lanes, settings, rows)
            if by_guess and not by_plan:
                return True
    return False


@native_uncounted
def settled(G, L, b, lanes, settings, rows):
    """Whether no multiplier moved by more than a part of its row's size, along guess and plan."""
    task = lanes.task[b]
    by_guess = lanes.state[b] == DONE and lanes.tolerance[b] <= settings.tolerance
    by_plan = by_guess
    limit = VIOLATION * settings.tolerance
    for r in range(L.n_rows):
        moved = G[L.moved_row + r * LANES + b]
        size = max(G[L.row + r * LANES + b], G[L.terms + r * LANES + b])
        by_guess = by_guess and moved <= limit * rows.size[task, r]
        by_plan = by_plan and moved <= limit * size
    return by_guess, by_guess and by_plan


@native_uncounted
def judge_multipliers(work, L, b, lanes, T, settings, context, rows):
    """Choose the next penalties of lane b, and whether it is done."""
    D, G, task = work.D, work.G, lanes.task[b]
    are_settled = settled(G, L, b, lanes, settings, rows)[1] and G[L.nan + b] == 0.0
    used_up = lanes.count[b] >= settings.max_iterations or G[L.nan + b] > 0.0
    near, moved_at_all = lanes.state[b] == DONE, False
    for r in range(L.n_rows):
        moved = G[L.moved_row + r * LANES + b]
        near = near and moved <= NEAR_ENOUGH * rows.size[task, r]
        moved_at_all = moved_at_all or moved > 0.0
    phase, factor = lanes.phase[b], 1.0
    stiff = lanes.state[b] == FAILED
    if are_settled and phase != LAST and moved_at_all and not used_up:
        factor = LAST_FACTOR * (NEAR_FACTOR if phase == FAR else 1.0)
        lanes.phase[b] = LAST
    elif near and not are_settled and phase == FAR and not used_up:
        factor = NEAR_FACTOR if moved_at_all else 1.0
        lanes.phase[b] = NEAR
    again = lanes.phase[b] != phase
    if stiff:
        factor, lanes.phase[b] = STIFF_FACTOR, FAR
    lost = used_up
    for r in range(L.n_rows):
        moved = G[L.moved_row + r * LANES + b]
        leaving = G[L.leaving + r * LANES + b]
        room = max(1.0, KEPT / leaving) if leaving > 0.0 else np.inf
        slow = not (again or stiff or are_settled) and moved > SLOW * rows.before[task, r]
        grown = PENALTY_FACTOR if slow else min(factor, room)
        rows.before[task, r] = moved
        rows.rho[task, r] *= grown
        lost = lost or rows.rho[task, r] > LARGEST_PENALTY * rows.first[task, r]
        if grown != 1.0:
            write_penalty(D, L, b, T, r, rows.own, grown)
    lanes.updates[b] += 1
    if lanes.updates[b] < MAX_UPDATES and (again or not (are_settled or lost)):
        restart(D, L, b, lanes, T)
        return
    lanes.state[b] = DONE if are_settled else FAILED
    rows.cost[task] = G[L.plain + b]
    rows.violation[task] = G[L.violation + b] if G[L.nan + b] == 0.0 else np.nan
    for t in range(T):
        for i in range(rows.own, L.n_context):
            context[task, t, i] = D[t * L.record + L.c + i * LANES + b]


@native_uncounted
def write_penalty(D, L, b, T, r, own, factor):
    """Raise the penalty of row r of lane b; lam^2 / (2 rho) falls."""
    for t in range(T):
        rho = t * L.record + L.c + (own + L.n_rows + r) * LANES + b
        D[rho] *= factor
        D[rho + L.n_rows * LANES] /= factor


@native_uncounted
def restart(D, L, b, lanes, T):
    """Lane b begins from its plan, without feedback."""
    lanes.state[b] = START
    for t in range(T):
        start = t * L.record + b
        for i in range(L.m):
            D[start + L.k + i * LANES] = 0.0
        for i in range(L.m * L.n):
            D[start + L.kx + i * LANES] = 0.0


@native_uncounted
def prepare(
    stages,
    layout,
    x_init,
    guess,
    context,
    P,
    S,
    rows,
    queue,
    records,
    gathered,
    numbers,
    counters,
    scratch,
    extremes,
):
    """Write the sizes of the rows, and the first penalties, of tasks; arguments as in `solve`.

    The sizes are those along the guess, and a part of those along controls `extremes` [2, time,
    n_ctrl]. In the context, the penalties of rows that are asked are 1.
    """
    stages = Stages(*to_fixed_tuple(stages, N_STAGES))
    L = SolverOffsets(*to_fixed_tuple(layout, N_OFFSETS))
    rows = Rows(*rows)
    work = Work(records[cache_line(records) :], P, S, gathered, scratch[-1], scratch[:-1])
    D, T = work.D, guess.shape[1]
    lanes = as_lanes(numbers, counters)
    for task in range(queue[0], queue[1], LANES):
        used = min(LANES, queue[1] - task)
        for b in range(used):
            load(D, L, b, task + b, x_init, guess, context, lanes)
        for controls in range(-1, len(extremes)):
            if controls >= 0:
                put_controls(D, L, T, extremes[controls])
            forward_pass(work, L, stages, lanes, T)
            measure_rows(work, L, stages, lanes, T)
            for b in range(used):
                raise_sizes(work.G, L, b, task + b, rows, 1.0 if controls < 0 else REACH)
        for b in range(used):
            lanes.state[b] = IDLE
            put_penalties(T, task + b, L.n_rows, rows, context)


@native_uncounted
def put_controls(D, L, T, controls):
    """The same controls on all lanes, and states that are finite, so that no feedback is zero."""
    for t in range(T):
        for i in range(L.n):
            for b in range(LANES):
                at = L.x + i * LANES + b
                D[t * L.record + at] = D[at]
        for i in range(L.m):
            u = t * L.record + L.u + i * LANES
            D[u : u + LANES] = controls[t, i]


@native_uncounted
def raise_sizes(G, L, b, task, rows, weight):
    """Let cost and rows of a task be as large as they are on lane b, times the weight."""
    stakes = G[L.stakes + b]
    if np.isfinite(stakes):
        rows.stakes[task] = max(rows.stakes[task], weight * stakes)
    for r in range(L.n_rows):
        size = G[L.row + r * LANES + b]
        if np.isfinite(size):
            rows.size[task, r] = max(rows.size[task, r], weight * size)


@native_uncounted
def put_penalties(T, task, k, rows, context):
    """The first penalties of a task, also into its context."""
    if rows.stakes[task] == 0.0:
        rows.stakes[task] = 1.0
    prices = rows.own + 3 * k
    for r in range(k):
        if rows.size[task, r] == 0.0:
            rows.size[task, r] = 1.0
        rho = FIRST_PENALTY * rows.stakes[task] / rows.size[task, r] ** 2
        if prices + r < context.shape[2]:
            rho = min(rho, FIRST_SOFT_PENALTY * context[task, 0, prices + r] / rows.size[task, r])
        rows.first[task, r] = rows.rho[task, r] = rho
        rows.before[task, r] = np.inf
        for t in range(T):
            of_row = context[task, t, rows.own + r :: k]
            of_row[1] *= rho
            of_row[2] /= rho
