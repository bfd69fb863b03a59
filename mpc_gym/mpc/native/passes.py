"""What the native solver does to all lanes at once."""

# mypy: ignore-errors

from mpc_gym.compiled.cpu.callback import call
from mpc_gym.compiled.cpu.emit import LANES
from mpc_gym.compiled.cpu.native import native_uncounted
from mpc_gym.mpc.native.lanes import START
from mpc_gym.mpc.reference.boxqp import MAX_STEPS


@native_uncounted
def forward_pass(work, L, stages, lanes, T):
    """The trial trajectory of every lane, and its cost."""
    D = work.D
    for i in range(L.n * LANES):
        D[L.xn + i] = D[L.x + i]
    for i in range(L.m * LANES):
        D[L.moved + i] = 0.0
        D[L.span + i] = 0.0
    for b in range(LANES):
        D[L.cost + b] = 0.0
        D[L.alpha + b] = 0.0 if lanes.state[b] == START else lanes.alpha[b]
    for t in range(T):
        call(stages.forward, D, t * L.record, work.P, work.S, t, work.G)


@native_uncounted
def backward_pass(work, L, stages, lanes, T):
    """Gains and expected decrease of every lane."""
    D = work.D
    end = T * L.record
    for i in range(L.n * LANES):
        D[end + L.v + i] = 0.0
    for i in range(L.n * (L.n + 1) // 2 * LANES):
        D[end + L.vv + i] = 0.0
    for b in range(LANES):
        D[end + L.slope + b] = 0.0
        D[end + L.change + b] = 0.0
        D[end + L.pull + b] = 0.0
        D[end + L.convex + b] = 1.0
        D[end + L.size + b] = 0.0
        D[end + L.exact + b] = lanes.exact[b]
        D[end + L.mu + b] = lanes.mu[b]
    for t in range(T - 1, -1, -1):
        start = t * L.record
        if L.m <= 2:
            call(stages.backward, D, start, work.P, work.S, t, work.G)
        else:
            call(stages.expansion, D, start, work.P, work.S, t, work.G)
            solve_box_qps(work, L, stages, start, t)
            call(stages.value, D, start, work.P, work.S, t, work.G)


@native_uncounted
def solve_box_qps(work, L, stages, start, t):
    """Projected Newton steps until those of all lanes are settled (see `stages/box_qps.py`)."""
    for _ in range(MAX_STEPS):
        settled = 0.0
        for b in range(LANES):
            settled += work.D[start + L.settled + b]
        if settled == LANES:
            break
        call(stages.newton, work.D, start, work.P, work.S, t, work.G)


@native_uncounted
def adopt_accepted(D, L, lanes, T):
    """Replace the iterate by the trial on the lanes that accepted it."""
    for t in range(T):
        start = t * L.record
        for i in range(L.n + L.m):
            iterate = start + L.x + i * LANES
            trial_at = start + L.xn + i * LANES
            adopt(D[iterate : iterate + LANES], D[trial_at : trial_at + LANES], lanes.accepted)


@native_uncounted
def adopt(iterate, trial, accepted):
    """One entry of one stage."""
    for b in range(LANES):
        iterate[b] = trial[b] if accepted[b] == 1.0 else iterate[b]
