"""Trained policies come with the package, small, and as good as their cards say."""

import re
import socket

import gymnasium as gym
import numpy as np
import pytest

from mpc_gym.envs.base import DiffEnv
from mpc_gym.envs.registration import ENTRY_POINTS
from mpc_gym.imitation import evaluate
from mpc_gym.models import current_values
from mpc_gym.policies import (
    MPCPolicy,
    load_pretrained,
    load_shipped,
    shipped_folder,
    shipped_policies,
)

MAX_BYTES = 100_000  # of one file
MPC_NAMES = [name for name in shipped_policies() if name.endswith("/mpc")]


def test_each_environment_has_one_that_plans_and_one_that_does_not() -> None:
    by_entry_point: dict[str, list[str]] = {}
    for env_id, entry_point in ENTRY_POINTS.items():
        by_entry_point.setdefault(entry_point, []).append(env_id)
    expected = {f"{ids[0]}/{kind}" for ids in by_entry_point.values() for kind in ("mpc", "mlp")}
    assert set(shipped_policies()) == expected


@pytest.mark.parametrize("name", shipped_policies())
def test_it_is_small_and_acts_in_its_environment_without_a_network(name, monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    folder = shipped_folder(name)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "policy.safetensors",
    ]
    assert all(path.stat().st_size < MAX_BYTES for path in folder.iterdir())
    env_id = name.split("/")[0]
    policy = load_shipped(name, device="cpu")
    assert isinstance(policy, MPCPolicy) == name.endswith("/mpc")
    with gym.make(env_id) as env:
        load_pretrained(folder, env=env)
        action, _ = policy.predict(env.reset(seed=0)[0], deterministic=True)
        assert env.action_space.contains(action)


@pytest.mark.parametrize("name", MPC_NAMES)
def test_the_planning_ones_have_learned_what_acts_on_the_motion(name) -> None:
    learned = current_values(load_shipped(name, device="cpu").mpc.dynamics)
    env = gym.make(name.split("/")[0]).unwrapped
    assert isinstance(env, DiffEnv)
    true = current_values(env.dynamics)
    if "length" in true:  # of the pendulum, two combinations of three numbers act on the motion
        for values in (learned, true):
            mass, length = values.pop("mass"), values.pop("length")
            values["swing"] = values.pop("gravity") / length
            values["torque"] = 1 / (mass * length**2)
    for key, value in true.items():
        assert learned[key].item() == pytest.approx(value.item(), rel=0.01, abs=0.05), key


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "DiffPendulum-v0/mlp" else pytest.mark.slow)
        for name in shipped_policies()
    ],
)
def test_it_is_as_good_as_its_card_says(name) -> None:
    card = (shipped_folder(name) / "README.md").read_text(encoding="utf-8")
    said = re.search(r"Return (-?[\d.]+) ± ([\d.]+) .* over 100 episodes.* from (\d+)\)", card)
    assert said is not None
    mean, error, first = float(said[1]), float(said[2]), int(said[3])
    seeds = range(first, first + 100)
    found = evaluate(load_shipped(name, device="cpu"), name.split("/")[0], seeds)
    # plans within rounding of each other may swing to the other side: a share of the error
    assert found.mean == pytest.approx(mean, abs=0.5 * error)
    assert np.isclose(found.standard_error, error, rtol=0.2)


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"name must be one of .*DiffPendulum-v0/mpc.*got 'mpc'"):
        load_shipped("mpc")
