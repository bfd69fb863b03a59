"""The hyperparameter files for RL Baselines3 Zoo work there, and say what the algorithms take."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from sb3_contrib import TQC
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise

import mpc_gym  # noqa: F401  (registers the environments)
from mpc_gym.policies import PlanningPolicy

FOLDER = Path(__file__).parents[2] / "examples" / "rl_zoo3"
ALGORITHMS = {"ppo": PPO, "sac": SAC, "td3": TD3, "tqc": TQC}
ENTRIES = [
    (path.stem, env_id)
    for path in sorted(FOLDER.glob("*.yml"))
    for env_id in yaml.safe_load(path.read_text(encoding="utf-8"))
]
# So that each learns within a few steps.
SHORT_ON_POLICY = {"n_steps": 4, "batch_size": 16}
SHORT_OFF_POLICY = {"learning_starts": 8, "batch_size": 8}


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_there_is_a_file_for_each_algorithm() -> None:
    assert {algorithm for algorithm, _ in ENTRIES} == set(ALGORITHMS)


@pytest.mark.parametrize(("algorithm", "env_id"), ENTRIES)
def test_every_entry_makes_an_algorithm_that_learns(algorithm: str, env_id: str) -> None:
    entry = yaml.safe_load((FOLDER / f"{algorithm}.yml").read_text(encoding="utf-8"))[env_id]
    env = make_vec_env(env_id, n_envs=entry.pop("n_envs"))
    assert entry.pop("n_timesteps") > 0
    callbacks = [
        named(name)(**kwargs) for each in entry.pop("callback", []) for name, kwargs in each.items()
    ]
    if entry.pop("noise_type", None) == "normal":
        sigma = entry.pop("noise_std") * np.ones(1)
        entry["action_noise"] = NormalActionNoise(np.zeros(1), sigma)
    entry["policy"] = named(entry["policy"])
    short = SHORT_ON_POLICY if algorithm == "ppo" else SHORT_OFF_POLICY
    model = ALGORITHMS[algorithm](env=env, device="cpu", **{**entry, **short})
    assert isinstance(model.policy, PlanningPolicy)
    model.learn(16 * 4, callback=callbacks)
    assert model._n_updates > 0


@pytest.mark.parametrize("algorithm", ["ppo", pytest.param("td3", marks=pytest.mark.slow)])
def test_the_zoo_trains_and_saves_the_policy(algorithm: str, tmp_path: Path) -> None:
    pytest.importorskip("rl_zoo3", reason="RL Baselines3 Zoo is not installed")
    env_id = "DiffPendulum-v0"
    arguments = ["--algo", algorithm, "--env", env_id, "--gym-packages", "mpc_gym", "--seed", "1"]
    arguments += ["--conf-file", str(FOLDER / f"{algorithm}.yml"), "-f", str(tmp_path)]
    short = "n_envs:2" if algorithm == "ppo" else "learning_starts:50"
    arguments += ["-n", "100", "--eval-freq", "-1", "--device", "cpu", "-params", short]
    process = subprocess.run(
        [sys.executable, "-m", "rl_zoo3.train", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    model = ALGORITHMS[algorithm].load(tmp_path / algorithm / f"{env_id}_1" / f"{env_id}.zip")
    assert isinstance(model.policy, PlanningPolicy)
    assert model.num_timesteps >= 100
    with gym.make(env_id) as env:
        action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
        assert env.action_space.contains(action)
