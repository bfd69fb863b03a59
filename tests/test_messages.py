"""Warnings point at the line of the user's script that led to them, and waiting is explained."""

import inspect
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from torch import Tensor, nn

from mpc_gym import MPC, messages
from mpc_gym.envs.transition import Transition
from mpc_gym.policies import MPCPolicy
from mpc_gym.policies.receding_horizon import RecedingHorizon
from tests.scripts import Scripts

ROOT = Path(__file__).parents[1]
X = torch.zeros(1, 1, dtype=torch.float64)


class Line(nn.Module):
    n_state, n_ctrl = 1, 1

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u


class Branches(Line):
    """Cannot be compiled."""

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u if u.sum() > 100 else x + 0.5 * u


class Effort(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.constant = 0.0

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        return (x * x + self.weight * u * u).sum(-1) + self.constant


def slow_mpc() -> MPC:
    return MPC(Branches(), Effort(), 3)


class World(gym.Env[Any, Any]):
    observation_space = spaces.Box(-10.0, 10.0, (1,), np.float32)
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ARG002
        return np.zeros(1, np.float32), 0.0, False, True, {}


def called() -> None:
    slow_mpc()(X)  # here


def called_as_a_part() -> None:
    sequence = nn.Sequential(slow_mpc())
    sequence(X)  # here


def predicted() -> None:
    RecedingHorizon(slow_mpc()).predict(np.zeros(1))  # here


def predicted_by_a_policy() -> None:
    model = PPO(MPCPolicy, World(), policy_kwargs={"mpc": slow_mpc}, device="cpu")
    model.predict(np.zeros(1, np.float32))  # here


def learned() -> None:
    arguments = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "device": "cpu"}
    model = PPO(MPCPolicy, World(), policy_kwargs={"mpc": slow_mpc}, **arguments)
    model.learn(8)  # here


def unconverged() -> None:
    MPC(Line(), Effort(), 3, max_iterations=1, backend="torch", tolerance=1e-300)(X + 1)  # here


def annealed() -> None:
    cost = Effort()
    mpc = MPC(Line(), cost, 3)
    for step in range(16):
        cost.constant = float(step)
        mpc(X)  # here


def stepped() -> None:
    limit = np.ones(1)
    Transition(Branches(), Effort(), 1, -limit, limit)  # here


def old_form_of_layers() -> None:
    layers = [{"vf": [8], "pi": [8]}]
    PPO(MPCPolicy, World(), policy_kwargs={"mpc": slow_mpc, "net_arch": layers})  # here


SCRIPTS = (
    called,
    called_as_a_part,
    predicted,
    predicted_by_a_policy,
    learned,
    unconverged,
    annealed,
    stepped,
    old_form_of_layers,
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_a_warning_names_the_line_of_the_script_that_led_to_it(script: Callable[[], None]) -> None:
    lines, first = inspect.getsourcelines(script)
    marked = first + next(i for i, line in enumerate(lines) if "# here" in line)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        script()
    ours = [w for w in caught if w.category is UserWarning and w.filename == __file__]
    assert {w.lineno for w in ours} == {marked}, [str(w.message) for w in ours]


IMPATIENT = "from mpc_gym import messages\nmessages.PATIENCE = 0.0\n"
COMPILE = """
import numpy as np
from mpc_gym import PendulumDynamics
from mpc_gym.compiled import compile_module

compiled = compile_module(PendulumDynamics(), 3, 1)
compiled.value(np.zeros(3), np.zeros(1))
compiled.value(np.zeros(3), np.zeros(1))
"""
PLAN = """
import sys

import torch
from mpc_gym import make_mpc

make_mpc("DiffPendulum-v0", horizon=2)(torch.tensor([[1.0, 0.0, 0.1]]))
print(*sys.modules)
"""


def run(script: str, cache: Path | None = None) -> tuple[list[str], list[str]]:
    """The lines of its errors, and the words of its output."""
    environment = {**os.environ, **({} if cache is None else {"MPC_GYM_CACHE_DIR": str(cache)})}
    command = [sys.executable, "-c", script]
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return run.stderr.splitlines(), run.stdout.split()


@pytest.fixture
def forked(tmp_path: Path, scripts: Scripts) -> Callable[[str], list[str]]:
    """The lines of the errors of a script that keeps in a folder what it compiles."""

    def run_forked(source: str) -> list[str]:
        script = tmp_path / "script.py"
        cache = f"import os\nos.environ['MPC_GYM_CACHE_DIR'] = {str(tmp_path)!r}\n"
        script.write_text(cache + source, encoding="utf-8")
        ended = scripts.run(script)
        assert ended.returncode == 0, ended.stderr
        return ended.stderr.splitlines()

    return run_forked


COMPILERS = {"torch._dynamo", "numba.np.linalg"}  # what takes long to import


def test_who_waits_for_the_compiler_is_told_so_once_and_only_then(tmp_path: Path, forked) -> None:
    kept = f"to native code, which is kept for later in {tmp_path}"
    silent = "import logging\nlogging.getLogger('mpc_gym').setLevel('ERROR')\n"
    assert forked(silent + IMPATIENT + COMPILE.replace("value", "jacobian")) == []
    said = forked(IMPATIENT + COMPILE)
    assert said == [f"mpc_gym: compiling PendulumDynamics_value {kept}"]
    assert forked(IMPATIENT + COMPILE) == []


def test_a_plan_that_was_compiled_before_needs_no_compiler(tmp_path: Path, scripts) -> None:
    script = tmp_path / "script.py"
    script.write_text(PLAN, encoding="utf-8")
    assert scripts.run(script).returncode == 0
    said, modules = run(IMPATIENT + PLAN)
    assert said == []
    assert COMPILERS.isdisjoint(modules)


@pytest.mark.slow
def test_who_waits_for_a_first_plan_is_told_so_once_and_only_then(tmp_path: Path) -> None:
    said, modules = run(IMPATIENT + PLAN, tmp_path)
    kept = f"to native code, which is kept for later in {tmp_path}"
    assert said[0] == f"mpc_gym: compiling PendulumDynamics and PendulumCost {kept}"
    assert len(said) == len(set(said))
    assert COMPILERS <= set(modules)
    said, modules = run(IMPATIENT + PLAN, tmp_path)
    assert said == []
    assert COMPILERS.isdisjoint(modules)


class TestWaiting:
    @pytest.fixture(autouse=True)
    def said(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        said: list[str] = []
        monkeypatch.setattr(messages, "say_once", said.append)
        return said

    def test_nothing_is_said_of_what_takes_long_but_ends_in_time(self, said, monkeypatch) -> None:
        monkeypatch.setattr(messages, "PATIENCE", 1000.0)
        before = threading.active_count()
        with messages.waiting_for("a reason"):
            messages.long_work()
            assert threading.active_count() == before + 1
        assert threading.active_count() == before
        assert said == []

    def test_the_reason_is_said_while_the_work_goes_on(self, said, monkeypatch) -> None:
        heard = threading.Event()
        monkeypatch.setattr(messages, "PATIENCE", 0.01)
        monkeypatch.setattr(messages, "say_once", lambda text: (said.append(text), heard.set()))
        with messages.waiting_for("a reason"), messages.waiting_for("an inner one"):
            messages.long_work()
            messages.long_work()
            assert heard.wait(60.0)
        assert said == ["a reason"]

    def test_nothing_is_said_where_no_long_work_began(self, said, monkeypatch) -> None:
        monkeypatch.setattr(messages, "PATIENCE", 0.0)
        with messages.waiting_for("a reason"):
            pass
        messages.long_work()
        assert said == []

    def test_an_error_ends_the_waiting(self, said, monkeypatch) -> None:
        monkeypatch.setattr(messages, "PATIENCE", 1000.0)
        before = threading.active_count()

        def fail() -> None:
            with messages.waiting_for("a reason"):
                messages.long_work()
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert threading.active_count() == before
        monkeypatch.setattr(messages, "PATIENCE", 0.0)
        with messages.waiting_for("another"):
            messages.long_work()
        assert said == ["another"]
