"""The third table: how the time grows with batch, horizon, number of states and threads."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Timing, interleaved
from benchmarks.options import Options
from benchmarks.problems import PROBLEMS
from benchmarks.report import Table
from mpc_gym.models import Dynamics, QuadraticCost
from mpc_gym.mpc import MPC
from reproduction.problems import HORIZON

COLUMNS = (
    "over", "system", "value", "time [ms]", "best [ms]", "us a solve", "mean iterations",
    "converged", "compiled in [s]",
)  # fmt: skip
BATCH = 128
DT = 0.05


class SpringChain(Dynamics):
    """Unit masses in a row, joined by hardening springs, the first one held to a wall and pushed.

    State: all positions [m], then all velocities [m/s].
    """

    n_ctrl = 1

    def __init__(self, masses: int) -> None:
        super().__init__(n_state=2 * masses)
        self.stiffness = nn.Parameter(torch.tensor(10.0, dtype=torch.float64))
        self.hardening = nn.Parameter(torch.tensor(5.0, dtype=torch.float64))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The state one step of DT later."""
        position, velocity = state.chunk(2, -1)
        wall = torch.zeros_like(position[..., :1])
        stretch = position - torch.cat((wall, position[..., :-1]), -1)
        pull = self.stiffness * stretch + self.hardening * stretch**3
        force = torch.cat((pull[..., 1:], wall), -1) - pull
        push = torch.cat((control, torch.zeros_like(position[..., 1:])), -1)
        velocity = velocity + DT * (force + push)
        return torch.cat((position + DT * velocity, velocity), -1)


def scale(options: Options) -> list[Table]:
    """One sweep for each."""
    table = Table("scaling", "How the time grows (native)", COLUMNS)
    seconds = 0.2 if options.quick else 1.0
    for sweep in (over_batch, over_horizon, over_states, over_threads):
        tasks, compile_times = sweep(options)
        for key, timing in interleaved(tasks, seconds).items():
            _add(table, key, timing, compile_times.get(key, float("nan")))
    torch.set_num_threads(1)
    return [table]


Key = tuple[str, str, int]  # over what, of which system, its value
Sweep = tuple[dict[Key, Callable[[], Any]], dict[Key, float]]


def over_batch(options: Options) -> Sweep:
    """1 to 16,384 start states."""
    sizes = (1, 16, 256, 4096) if options.quick else (1, 4, 16, 64, 256, 1024, 4096, 16384)
    tasks = {}
    for problem in PROBLEMS:
        mpc = problem.controller(backend="native")
        for size in sizes:
            x_init = torch.from_numpy(problem.start_states(size, options.seed))
            tasks["batch", problem.name, size] = _task(mpc, x_init)
    return tasks, {}


def over_horizon(options: Options) -> Sweep:
    """Horizons of 5 to 500, at batch 128."""
    tasks = {}
    for problem in PROBLEMS:
        x_init = torch.from_numpy(problem.start_states(BATCH, options.seed))
        for horizon in (5, 50) if options.quick else (5, 10, 20, 50, 100, 200, 500):
            mpc = problem.controller(horizon, backend="native")
            tasks["horizon", problem.name, horizon] = _task(mpc, x_init)
    return tasks, {}


def over_states(options: Options) -> Sweep:
    """Chains of 1 to 6 masses, at batch 128; compiled or read from the cache, see the time."""
    tasks, compile_times = {}, {}
    generator = torch.Generator().manual_seed(options.seed)
    for masses in (1, 2) if options.quick else (1, 2, 3, 4, 5, 6):
        n = 2 * masses
        weights = torch.ones(n + 1, dtype=torch.float64)
        weights[-1] = 0.1
        mpc = MPC(SpringChain(masses), QuadraticCost(weights), HORIZON, backend="native")
        x_init = torch.randn(BATCH, n, generator=generator, dtype=torch.float64)
        key = ("states", "chain", n)
        tasks[key] = _task(mpc, x_init)
        start = time.perf_counter()
        tasks[key]()
        compile_times[key] = time.perf_counter() - start
    return tasks, compile_times


def over_threads(options: Options) -> Sweep:
    """One and two threads."""
    tasks = {}
    for problem in PROBLEMS:
        mpc = problem.controller(backend="native")
        for size in (1024,) if options.quick else (128, 1024, 16384):
            x_init = torch.from_numpy(problem.start_states(size, options.seed))
            for threads in (1, 2):
                system = f"{problem.name}, batch {size}"
                tasks["threads", system, threads] = _task(mpc, x_init, threads)
    return tasks, {}


def _task(mpc: MPC, x_init: Tensor, threads: int = 1) -> Callable[[], Any]:
    def task() -> Any:
        torch.set_num_threads(threads)
        with torch.no_grad():
            return mpc(x_init)

    return task


def _add(table: Table, key: Key, timing: Timing, compiled: float) -> None:
    plan = timing.result
    table.add(
        *key, timing.median * 1e3, timing.best * 1e3, timing.median / len(plan.cost) * 1e6,
        plan.iterations.double().mean().item(), plan.converged.double().mean().item(), compiled,
    )  # fmt: skip
