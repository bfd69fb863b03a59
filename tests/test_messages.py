"""Warnings point at the line of the user's script that led to them, and waiting is explained."""

import inspect
import os
import subprocess
import sys
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

from mpc_gym import MPC
from mpc_gym.envs.transition import Transition
from mpc_gym.policies import MPCPolicy
from mpc_gym.policies.receding_horizon import RecedingHorizon

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


COMPILE = """
import numpy as np
from mpc_gym import PendulumDynamics
from mpc_gym.compiled import compile_module

compiled = compile_module(PendulumDynamics(), 3, 1)
compiled.value(np.zeros(3), np.zeros(1))
compiled.jacobian(np.zeros(3), np.zeros(1))
"""


def test_who_waits_for_the_compiler_is_told_so_once_and_only_then(tmp_path: Path) -> None:
    environment = {**os.environ, "MPC_GYM_CACHE_DIR": str(tmp_path)}

    def errors(script: str) -> str:
        command = [sys.executable, "-c", script]
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return run.stderr

    silent = "import logging\nlogging.getLogger('mpc_gym').setLevel('ERROR')\n"
    assert errors(silent + COMPILE.replace("jacobian", "value")) == ""
    first = errors(COMPILE)
    assert first.count("mpc_gym: compiling to native code") == first.count("\n") == 1
    assert str(tmp_path) in first
    assert errors(COMPILE) == ""
