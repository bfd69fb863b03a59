"""A training run that is killed, and goes on from its last checkpoint."""

import copy
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback

from tests.killing import needs_fork
from tests.policies.planners import ENV, make_model, weights

KILLED = """
import os, signal, sys
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from tests.policies.planners import make_model

class Killed(BaseCallback):
    def _on_step(self):
        if self.num_timesteps == 21:
            os.kill(os.getpid(), signal.SIGKILL)
        return True

model = make_model({"PPO": PPO, "SAC": SAC}[sys.argv[1]])
model.learn(1000, callback=[CheckpointCallback(8, sys.argv[2], save_replay_buffer=True), Killed()])
"""


class Remember(BaseCallback):
    """All parameters and optimisers after 16 steps."""

    def _on_step(self) -> bool:
        if self.num_timesteps == 16:
            self.parameters = copy.deepcopy(self.model.get_parameters())
        return True


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(algorithm, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", KILLED, algorithm.__name__, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()
    assert {path.name for path in tmp_path.glob("*.zip")} == {
        "rl_model_8_steps.zip",
        "rl_model_16_steps.zip",
    }
    resumed = algorithm.load(tmp_path / "rl_model_16_steps.zip", env=gym.make(ENV))
    remember = Remember()
    alive = make_model(algorithm).learn(16, callback=remember)
    for name, expected in remember.parameters.items():
        found = resumed.get_parameters()[name]
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    if algorithm is SAC:
        resumed.load_replay_buffer(tmp_path / "rl_model_replay_buffer_16_steps.pkl")
        assert resumed.replay_buffer.size() == 15  # SB3 calls back before it stores a step
        for part in ("observations", "actions", "rewards"):
            found, expected = (getattr(each.replay_buffer, part) for each in (resumed, alive))
            np.testing.assert_array_equal(found[:15], expected[:15])
    at_checkpoint = weights(resumed)
    assert resumed.num_timesteps == 16
    resumed.learn(8, reset_num_timesteps=False)
    assert resumed.num_timesteps == 24
    name = next(name for name in at_checkpoint if name.endswith("mpc.dynamics.gravity"))
    assert weights(resumed)[name] != at_checkpoint[name]
