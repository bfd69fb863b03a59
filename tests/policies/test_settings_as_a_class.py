"""A policy class of the user's own, with its settings as defaults, as docs/policies.md has it."""

import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO, SAC, TD3
from torch import nn

from mpc_gym.policies import MPCPolicy, SACMPCPolicy, TD3MPCPolicy
from tests.policies.planners import observations

DOCS = Path(__file__).parents[2] / "docs" / "policies.md"
SETTINGS = {"mpc": "DiffPendulum-v0", "horizon": 4, "starts": 2, "learn": ("mass", "terminal")}


class OnPolicy(MPCPolicy):
    """Settings that `policy_kwargs` cannot remove."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**SETTINGS, **kwargs})


class OffPolicySAC(SACMPCPolicy):
    """Settings that `policy_kwargs` cannot remove."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**SETTINGS, **kwargs})


class OffPolicyTD3(TD3MPCPolicy):
    """Settings that `policy_kwargs` cannot remove."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**SETTINGS, **kwargs})


SEARCHES = [  # what RL Baselines3 Zoo's searches put in the place of all policy_kwargs
    (
        PPO,
        OnPolicy,
        {"net_arch": {"pi": [8], "vf": [8]}, "activation_fn": nn.Tanh, "ortho_init": False},
    ),
    (SAC, OffPolicySAC, {"log_std_init": -1.2, "net_arch": [8, 8]}),
    (TD3, OffPolicyTD3, {"net_arch": [8, 8]}),
]


@pytest.mark.parametrize(("algorithm", "policy", "searched"), SEARCHES)
def test_the_settings_survive_policy_kwargs_saving_and_training_on(
    algorithm, policy, searched, tmp_path
):
    short = {"n_steps": 8, "batch_size": 8} if algorithm is PPO else {"learning_starts": 4}
    model = algorithm(
        policy, "Pendulum-v1", policy_kwargs={**searched}, device="cpu", seed=0, **short
    ).learn(8)
    model.save(tmp_path / "model")
    model.policy.save(tmp_path / "policy.pt")
    model.policy.save_pretrained(tmp_path / "folder")
    loaded = algorithm.load(tmp_path / "model", env=gym.make("Pendulum-v1"), device="cpu")
    expected, _ = model.predict(observations(), deterministic=True)
    for each in (
        loaded.policy,
        policy.load(tmp_path / "policy.pt", device="cpu"),
        policy.from_pretrained(tmp_path / "folder", device="cpu"),
    ):
        options = each.plan_options.as_arguments()
        assert {name: options[name] for name in SETTINGS} == SETTINGS
        np.testing.assert_array_equal(each.predict(observations(), deterministic=True)[0], expected)
    loaded.learn(8)


def test_what_is_given_comes_before_the_defaults():
    model = PPO(OnPolicy, "Pendulum-v1", policy_kwargs={"horizon": 7}, device="cpu")
    assert model.policy.mpc.horizon == 7
    assert model.policy.mpc.starts == 2


def test_the_class_in_the_documentation_works_as_it_stands():
    section = DOCS.read_text(encoding="utf-8").partition("## A class with your settings")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)
    scope: dict[str, Any] = {"__name__": __name__}
    exec(code, scope)
    policy = scope["model"].policy
    assert type(policy).__name__ == "SwingUp"
    assert (policy.plan_options.mpc, policy.mpc.horizon, policy.mpc.starts) == (
        "DiffPendulum-v0",
        40,
        8,
    )
