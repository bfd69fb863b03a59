"""Malformed arguments of the policies are answered in words, whatever is wrong with them."""

from typing import Any

import gymnasium as gym
import pytest
import torch
from stable_baselines3.common.policies import BasePolicy

from mpc_gym import make_mpc
from mpc_gym.policies import (
    CriticFirst,
    LSTMPolicy,
    MPCPolicy,
    RecedingHorizon,
    SACMPCPolicy,
    TD3MPCPolicy,
    load_pretrained,
    load_shipped,
    shipped_folder,
)
from mpc_gym.policies.lstm import LSTMPlanner
from tests.malformed import EMPTY, Case, failures, rows

ENV = "DiffPendulum-v0"
SHORT = {"horizon": 2, "backend": "torch"}
PLAN = {
    **dict.fromkeys(("horizon", "starts", "max_iterations"), "count"),
    **dict.fromkeys(("mpc", "learn", "hessian", "backend"), "word"),
    "tolerance": "positive",
    "smoothing": "not negative",
    "use_sde": "flag",
    "normalized": "flag",
}


def constant(_: float) -> float:
    return 1e-3


def make(policy: type[BasePolicy], **options: Any) -> BasePolicy:
    env = gym.make(ENV)
    return policy(env.observation_space, env.action_space, constant, **options)


def planning(policy: type[BasePolicy], **kinds: str) -> Case:
    return Case(
        lambda **options: make(policy, **{**SHORT, **options}),
        {},
        {**PLAN, **kinds},
        none=tuple(name for name in PLAN if name != "use_sde"),
        accepted={"learn": [EMPTY]},
    )


CASES = {
    "MPCPolicy": planning(MPCPolicy, value="word", log_std_init="number"),
    "SACMPCPolicy": planning(SACMPCPolicy),
    "TD3MPCPolicy": planning(TD3MPCPolicy),
    "LSTMPolicy": Case(
        lambda **options: make(LSTMPolicy, **options), {}, {"horizon": "count", "hidden": "count"}
    ),
    "LSTMPlanner": Case(
        LSTMPlanner,
        {"n_state": lambda: 3, "n_ctrl": lambda: 1, "horizon": lambda: 2, "hidden": lambda: 4},
        dict.fromkeys(("n_state", "n_ctrl", "horizon", "hidden"), "count"),
    ),
    "RecedingHorizon": Case(RecedingHorizon, {}, {"mpc": "module"}),
    "CriticFirst": Case(CriticFirst, {}, {"steps": "count or zero"}),
    "load_shipped": Case(load_shipped, {}, {"name": "word"}),
    "shipped_folder": Case(shipped_folder, {}, {"name": "word"}),
    "load_pretrained": Case(load_pretrained, {}, {"folder": "path"}),
    "save_pretrained": Case(
        lambda folder: make(MPCPolicy, **SHORT).save_pretrained(folder), {}, {"folder": "path"}
    ),
    "push_to_hub": Case(
        lambda repo_id: make(MPCPolicy, **SHORT).push_to_hub(repo_id), {}, {"repo_id": "word"}
    ),
    "predict": Case(
        lambda observation: RecedingHorizon(make_mpc(ENV, **SHORT)).predict(observation),
        {},
        {"observation": "numbers"},
    ),
}


@rows(CASES)
def test_a_bad_argument_is_named_with_what_was_found(case: Case, argument: str) -> None:
    assert not failures(case, argument)


@pytest.mark.parametrize("net_arch", ["64", 64, [0], [-1], [1.5], ["64"], {"vf": 64}, [10**18]])
def test_layers_that_cannot_be_are_refused(net_arch: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="net_arch"):
        make(MPCPolicy, net_arch=net_arch, **SHORT)


@pytest.mark.parametrize("policy", [MPCPolicy, SACMPCPolicy, TD3MPCPolicy])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("activation_fn", "relu"),
        ("activation_fn", None),
        ("activation_fn", torch.nn.ReLU()),
        ("optimizer_class", "adam"),
        ("optimizer_class", torch.optim.Adam([torch.zeros(1)])),
    ],
)
def test_a_name_or_an_instance_in_the_place_of_a_class_is_refused_with_the_class_to_pass(
    policy: type[BasePolicy], name: str, value: Any
) -> None:
    with pytest.raises(
        TypeError, match=rf"^{name} must be a class.*{name}=torch\.(nn\.R|optim\.A)"
    ):
        make(policy, **{name: value}, **SHORT)
