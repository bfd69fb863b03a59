"""Running the kernels: paused and interrupted at no cost to a result, on few threads."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from mpc_gym.mpc import MPC
from mpc_gym.mpc.native import pool
from tests.killing import needs_fork

ROOT = Path(__file__).parents[3]


def test_a_plan_is_bitwise_the_same_however_often_the_solver_pauses(paper, monkeypatch):
    dynamics, cost = paper.dynamics(), paper.cost()
    limit = paper.control_limit
    mpc = MPC(dynamics, cost, 20, -limit, limit, backend="native", max_iterations=30)
    whole = mpc(paper.x_init)
    monkeypatch.setattr(pool, "_FIRST_PASSES", 1)
    monkeypatch.setattr(pool, "_SLICE_SECONDS", -1.0)  # so that it stays at one
    sliced = mpc(paper.x_init)
    for name in ("states", "controls", "cost", "converged", "iterations"):
        assert torch.equal(getattr(whole, name), getattr(sliced, name)), name


ENDLESS = """
import signal
import sys
import torch
from torch import nn
from mpc_gym import MPC

class Dynamics(nn.Module):
    def forward(self, x, u):
        return x + 0.1 * torch.sin(x) + u

class Cost(nn.Module):
    def forward(self, x, u):
        return ((x - 0.3).abs() + 0.9 * u.abs() + 0.1 * (x * u).abs()).sum(-1)

# a shell starts what follows an & with this signal ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(int(sys.argv[1]))
x = torch.linspace(-1.0, 1.0, 4000, dtype=torch.float64).unsqueeze(-1)
mpc = MPC(Dynamics(), Cost(), 50, backend="native")
mpc(x, max_iterations=1)
print("solving", flush=True)
mpc(x, max_iterations=10**9)
print("solved", flush=True)
"""


@needs_fork
@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ctrl_c_ends_a_solve_that_would_take_days(threads):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(threads)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "solving\n"
        time.sleep(0.5)  # so that it is inside the native code
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in errors
    assert "solved" not in output


def test_changing_the_number_of_threads_does_not_gather_threads(pendulum):
    mpc = MPC(pendulum.dynamics(), pendulum.cost(), 5, backend="native")
    x_init = pendulum.x_init.repeat(100, 1)
    before = torch.get_num_threads()
    try:
        for threads in range(1, 10):
            torch.set_num_threads(threads)
            mpc(x_init)
    finally:
        torch.set_num_threads(before)
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("mpc_gym")]
    assert len(ours) <= (os.cpu_count() or 1)
