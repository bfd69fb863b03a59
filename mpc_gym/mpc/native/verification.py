"""Whether plans that the native solver found are found again by other rollouts."""

# mypy: ignore-errors

from mpc_gym.compiled.cpu.emit import LANES
from mpc_gym.compiled.cpu.native import native_uncounted
from mpc_gym.mpc.native.lanes import IDLE, load
from mpc_gym.mpc.native.multipliers import measure_rows
from mpc_gym.mpc.native.passes import backward_pass, forward_pass
from mpc_gym.mpc.reference.ddp import NUDGE, REPRODUCED


@native_uncounted
def verify(work, L, stages, lanes, T, tasks, x_init, context, results, rows, settings):
    """See whether other rollouts of the next plans that converged find the same costs.

    Start states and controls are off by a few roundings; where these grow too large, the gains at
    the plan act against them. All lanes are idle. With constraints it is the cost without
    multipliers: these have moved since the last solve. Returns the first of tasks[0] ..
    tasks[1] - 1 that is left.
    """
    task, used = tasks[0], 0
    while task < tasks[1] and used < LANES:
        if results.converged[task]:
            load(work.D, L, used, task, x_init, results.U, context, lanes)
            results.converged[task] = False
            used += 1
        task += 1
    if used > 0 and not is_found_again(work, L, stages, lanes, T, used, results, rows):
        for b in range(used):
            put_plan(work.D, L, b, lanes, T, results)
            lanes.exact[b], lanes.mu[b] = settings.exact, 0.0
        backward_pass(work, L, stages, lanes, T)
        is_found_again(work, L, stages, lanes, T, used, results, rows)
    for b in range(used):
        lanes.state[b] = IDLE
    return task


@native_uncounted
def is_found_again(work, L, stages, lanes, T, used, results, rows):
    """Whether rollouts off by a few roundings, with the lanes' gains, find the costs of all plans.

    Of each that is found it is written into the results.
    """
    D = work.D
    for b in range(used):
        for i in range(L.n):
            D[L.x + i * LANES + b] *= 1.0 + NUDGE
        for t in range(T):
            for i in range(L.m):
                D[t * L.record + L.u + i * LANES + b] *= 1.0 + NUDGE
    forward_pass(work, L, stages, lanes, T)
    if len(rows.cost) > 0:
        measure_rows(work, L, stages, lanes, T)
    all_found = True
    for b in range(used):
        task = lanes.task[b]
        if len(rows.cost) > 0:
            change = abs(work.G[L.plain + b] - rows.cost[task])
        else:
            change = abs(D[T * L.record + L.cost + b] - results.cost[task])
        if change <= REPRODUCED * results.size[task]:
            results.converged[task] = True
        all_found = all_found and results.converged[task]
    return all_found


@native_uncounted
def put_plan(D, L, b, lanes, T, results):
    """The plan of its task on lane b."""
    task = lanes.task[b]
    for t in range(T):
        for i in range(L.n):
            D[t * L.record + L.x + i * LANES + b] = results.X[task, t, i]
        for i in range(L.m):
            D[t * L.record + L.u + i * LANES + b] = results.U[task, t, i]
