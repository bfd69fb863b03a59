"""Malformed calls of the environments are answered in words, whatever is wrong with them."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch

import mpc_gym  # noqa: F401  (registers the environments)
from mpc_gym.envs import (
    DiffAcrobotEnv,
    DiffCarEnv,
    DiffCartPoleEnv,
    DiffPendulumEnv,
    DiffPendulumWindyEnv,
    DiffPlanarQuadrotorEnv,
    EnvBox,
    make_sb3_vec_env,
)
from mpc_gym.envs.pendulum import DiffPendulumVectorEnv
from mpc_gym.make_mpc import make_mpc
from mpc_gym.models import AcrobotDynamics, PendulumCost, PendulumDynamics, rollout
from tests.malformed import EMPTY, PAIR, Case, failures, rows

ENV = "DiffPendulum-v0"
COUNT = 3
PICTURE = {"width": "count", "height": "count", "render_mode": "word"}
PENDULUM = {"gravity": "number", "mass": "positive", "length": "positive"}


def single(**arguments: Any) -> DiffPendulumEnv:
    env = DiffPendulumEnv(render_mode="rgb_array")
    env.reset(**arguments)
    return env


def vector(**arguments: Any) -> DiffPendulumVectorEnv:
    envs = DiffPendulumVectorEnv(COUNT, render_mode="rgb_array")
    envs.reset(**arguments)
    return envs


def reset_to(**options: Any) -> object:
    return single(options=options)


def reset_all_to(**options: Any) -> object:
    return vector(options=options)


def for_sb3(**options: Any) -> Any:
    envs = make_sb3_vec_env(ENV, COUNT)
    if options:
        envs.set_options(options)
    envs.reset()
    return envs


def with_mass(mass: Any) -> object:
    return single(options={"parameters": {"mass": mass}})


def learning_from(mass: Any) -> object:
    return make_mpc(ENV, learn={"mass": mass})


CASES = {
    "DiffPendulumEnv": Case(DiffPendulumEnv, {}, PENDULUM | PICTURE, none=("render_mode",)),
    "DiffPendulumWindyEnv": Case(
        DiffPendulumWindyEnv, {}, {**PENDULUM, "damping": "number", "wind": "number"}
    ),
    "DiffCartPoleEnv": Case(
        DiffCartPoleEnv,
        {},
        {
            "gravity": "number",
            **dict.fromkeys(("cart_mass", "pole_mass", "pole_length", "track"), "positive"),
            **PICTURE,
        },
        none=("render_mode", "track"),
    ),
    "DiffAcrobotEnv": Case(
        DiffAcrobotEnv,
        {},
        {
            **dict.fromkeys(("gravity", "shoulder_damping", "elbow_damping"), "number"),
            **dict.fromkeys(AcrobotDynamics.positive_parameters, "positive"),
            **PICTURE,
        },
        none=("render_mode",),
    ),
    "DiffPlanarQuadrotorEnv": Case(
        DiffPlanarQuadrotorEnv,
        {},
        {
            **dict.fromkeys(("gravity", "drag"), "number"),
            **dict.fromkeys(("mass", "inertia", "arm", "obstacle"), "positive"),
            **PICTURE,
        },
        none=("render_mode", "obstacle"),
    ),
    "DiffCarEnv": Case(
        DiffCarEnv,
        {},
        {"drag": "number", **dict.fromkeys(("front", "rear", "road"), "positive"), **PICTURE},
        none=("render_mode", "road"),
    ),
    "make_vec": Case(
        DiffPendulumVectorEnv,
        {},
        {**PENDULUM, **PICTURE, "num_envs": "count", "max_episode_steps": "count"},
        none=("render_mode", "max_episode_steps"),
    ),
    "reset": Case(
        single, {}, {"seed": "large seed", "options": "mapping"}, none=("seed", "options")
    ),
    "reset options": Case(reset_to, {}, {"state": "numbers", "parameters": "mapping"}),
    "a range": Case(with_mass, {}, {"mass": "positive"}, accepted={"mass": [PAIR]}),
    "step": Case(lambda action: single().step(action), {}, {"action": "numbers"}),
    "show_plan": Case(
        lambda plan: single().show_plan(plan), {}, {"plan": "numbers"}, none=("plan",)
    ),
    "vector reset": Case(
        vector, {}, {"seed": "large seed", "options": "mapping"}, none=("seed", "options")
    ),
    "vector reset options": Case(
        reset_all_to,
        {},
        {"state": "numbers", "parameters": "mapping", "reset_mask": "word"},
    ),
    "vector step": Case(lambda actions: vector().step(actions), {}, {"actions": "numbers"}),
    "vector show_plan": Case(
        lambda plan: vector().show_plan(plan), {}, {"plan": "numbers"}, none=("plan",)
    ),
    "make_sb3_vec_env": Case(
        make_sb3_vec_env,
        {"env_id": lambda: ENV},
        {
            "env_id": "word",
            "n_envs": "count",
            "seed": "large seed",
            "max_episode_steps": "count",
            "render_mode": "word",
        },
        none=("seed", "max_episode_steps", "render_mode"),
    ),
    "DiffVecEnv options": Case(for_sb3, {}, {"state": "numbers", "parameters": "mapping"}),
    "DiffVecEnv step": Case(lambda actions: for_sb3().step(actions), {}, {"actions": "numbers"}),
    "make_mpc": Case(
        make_mpc,
        {"env": lambda: ENV},
        {
            **dict.fromkeys(("env", "learn", "model", "hessian", "backend"), "word"),
            **dict.fromkeys(("horizon", "starts", "max_iterations"), "count"),
            "tolerance": "positive",
            "control_low": "numbers",
        },
        none=("horizon", "learn", "control_low"),
        accepted={"learn": [EMPTY]},
    ),
    "make_mpc from a start": Case(learning_from, {}, {"mass": "positive"}, none=("mass",)),
    "rollout": Case(
        rollout,
        {
            "dynamics": PendulumDynamics,
            "cost": PendulumCost,
            "x_init": lambda: torch.tensor([1.0, 0.0, 0.0]),
            "policy_or_controls": lambda: torch.zeros(3, 1),
        },
        {
            **dict.fromkeys(("dynamics", "cost"), "module"),
            **dict.fromkeys(("x_init", "policy_or_controls"), "floats"),
            **dict.fromkeys(("horizon", "truncate", "checkpoint"), "count"),
            **dict.fromkeys(("control_low", "control_high"), "numbers"),
        },
        none=("horizon", "truncate", "checkpoint", "control_low", "control_high"),
    ),
    "EnvBox": Case(
        EnvBox,
        {
            "low": lambda: -np.ones(2),
            "high": lambda: np.ones(2),
            "env_id": lambda: ENV,
            "env_kwargs": dict,
        },
        {"low": "numbers", "high": "numbers", "env_id": "text", "env_kwargs": "mapping"},
    ),
}


@rows(CASES)
def test_a_bad_argument_is_named_with_what_was_found(case: Case, argument: str) -> None:
    assert not failures(case, argument)


def test_a_seed_may_be_as_large_as_those_that_gymnasium_gives() -> None:
    first, _ = single().reset(seed=2**100)
    again, _ = gym.make(ENV).reset(seed=2**100)
    np.testing.assert_array_equal(first, again)


def test_numbers_of_numpy_are_as_good_as_pythons() -> None:
    env = DiffPendulumEnv(mass=np.float32(2.0), width=np.int64(64))
    assert (env.physics["mass"], env.width) == (2.0, 64)
    env.reset(seed=np.int64(3), options={"state": torch.tensor([1.0, 0.0, 0.5])})
    assert env.state.tolist() == [1.0, 0.0, 0.5]
