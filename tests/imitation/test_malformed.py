"""Malformed calls of imitation are answered in words, whatever is wrong with them."""

from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.policies import ActorCriticPolicy

from mpc_gym import make_mpc
from mpc_gym.imitation import (
    BehavioralCloning,
    DAgger,
    Demonstrations,
    FallingRate,
    FitOptions,
    LearnDynamics,
    Loss,
    RandomAgent,
    Stateless,
    SystemIdentification,
    Training,
    TrainingOptions,
    WarmStartedLoss,
    collect,
    concatenate,
    evaluate,
    evaluate_from,
    fit_dynamics,
    identify,
    imitation_loss,
    read_minari,
    write_minari,
)
from mpc_gym.models import PendulumDynamics
from mpc_gym.policies import MPCPolicy
from tests.malformed import INF, ONE, PAIR, Case, failures, rows

ENV = "DiffPendulum-v0"


def constant(_: float) -> float:
    return 1e-3


@cache
def demonstrations() -> Demonstrations:
    return collect(mlp(), ENV, 3, max_steps=2)


def expert() -> Any:
    return make_mpc(ENV, horizon=2, backend="torch")


def mlp() -> ActorCriticPolicy:
    env = gym.make(ENV)
    return ActorCriticPolicy(env.observation_space, env.action_space, constant)


def planner() -> MPCPolicy:
    env = gym.make(ENV)
    options = {"horizon": 2, "backend": "torch"}
    return MPCPolicy(env.observation_space, env.action_space, constant, **options)


OPTIONS = {
    "optimizer": "word",
    "learning_rate": "not negative",
    "batch_size": "count",
    "seed": "seed",
}
TRAINING = {
    **OPTIONS,
    "folder": "path",
    "checkpoint_seconds": "not negative",
    "validation_fraction": "share",
}
LEARNT = {"policy": mlp, "demonstrations": demonstrations}
PLAYED = {"agent": expert, "env": lambda: ENV, "max_steps": lambda: 1}
CASES = {
    "BehavioralCloning": Case(
        BehavioralCloning,
        LEARNT,
        {**TRAINING, "policy": "module", "demonstrations": "mapping", "loss": "word"},
        none=("folder",),
        accepted={"checkpoint_seconds": [INF]},
    ),
    "BehavioralCloning of a planner": Case(
        BehavioralCloning,
        {"policy": planner, "demonstrations": demonstrations, "loss": lambda: "plan"},
        {"plan_steps": "count", "prediction_weight": "not negative", "warm_start_epochs": "count"},
        none=("plan_steps",),
    ),
    "BehavioralCloning.train": Case(
        lambda **each: BehavioralCloning(mlp(), demonstrations()).train(**each),
        {"epochs": lambda: 0},
        {"epochs": "count or zero", "progress_bar": "flag"},
    ),
    "SystemIdentification": Case(
        SystemIdentification,
        {"model": PendulumDynamics, "demonstrations": demonstrations},
        {**TRAINING, "model": "module", "demonstrations": "mapping"},
        none=("folder",),
        accepted={"checkpoint_seconds": [INF]},
    ),
    "DAgger": Case(
        DAgger,
        {"policy": mlp, "expert": expert, "env": lambda: ENV},
        {
            **{name: kind for name, kind in TRAINING.items() if name != "checkpoint_seconds"},
            **dict.fromkeys(("policy", "expert"), "module"),
            **dict.fromkeys(("episodes", "epochs", "max_steps"), "count"),
            "env": "not text",
            "beta": "share",
            "env_kwargs": "mapping",
        },
        none=("folder", "env_kwargs", "max_steps"),
    ),
    "DAgger.train": Case(
        lambda **each: DAgger(mlp(), expert(), ENV).train(**each),
        {"rounds": lambda: 0},
        {"rounds": "count or zero", "progress_bar": "flag"},
    ),
    "collect": Case(
        collect,
        {"expert": expert, "env": lambda: ENV, "episodes": lambda: 1, "max_steps": lambda: 1},
        {
            "expert": "module",
            "env": "word",
            "episodes": "count",
            "seed": "seed",
            "env_kwargs": "mapping",
            "max_steps": "count",
        },
        none=("env_kwargs", "max_steps"),
    ),
    "evaluate": Case(
        evaluate,
        {**PLAYED, "seeds": lambda: [0]},
        {"agent": "module", "env": "word", "seeds": "word", "max_steps": "count"},
        none=("max_steps",),
        accepted={"seeds": [PAIR, ONE]},
    ),
    "evaluate_from": Case(
        evaluate_from,
        {**PLAYED, "states": lambda: [[1.0, 0.0, 0.0]]},
        {"agent": "module", "env": "word", "states": "text", "env_kwargs": "mapping"},
        none=("env_kwargs",),
    ),
    "imitation_loss": Case(
        imitation_loss, LEARNT, {"policy": "module", "demonstrations": "mapping"}
    ),
    "concatenate": Case(concatenate, {}, {"parts": "word"}),
    "FitOptions": Case(
        FitOptions,
        {},
        {
            **dict.fromkeys(("epochs", "patience", "batch_size"), "count"),
            "learning_rate": "positive",
            "validation_fraction": "share",
            "seed": "seed",
        },
    ),
    "fit_dynamics": Case(
        fit_dynamics,
        {
            "dynamics": PendulumDynamics,
            "data": demonstrations,
            "options": lambda: FitOptions(epochs=1),
        },
        {"dynamics": "module", "data": "mapping", "options": "mapping"},
        none=("options",),
    ),
    "identify": Case(
        identify,
        {"dynamics": PendulumDynamics, "data": demonstrations},
        {"dynamics": "module", "data": "mapping", "max_iterations": "count"},
    ),
    "LearnDynamics": Case(
        LearnDynamics,
        {},
        {
            **dict.fromkeys(("every", "capacity"), "count"),
            **dict.fromkeys(("demonstrations", "options"), "mapping"),
        },
        none=("demonstrations", "options"),
    ),
    "RandomAgent": Case(
        RandomAgent,
        {"env": lambda: gym.make("Pendulum-v1"), "seed": lambda: 0, "hold": lambda: 1},
        {"env": "mapping", "seed": "seed", "hold": "count"},
    ),
    "read_minari": Case(read_minari, {}, {"dataset_id": "mapping"}),
    "write_minari": Case(
        write_minari, {"dataset_id": lambda: "word-v0"}, {"demonstrations": "mapping"}
    ),
    "Stateless": Case(Stateless, {}, {"agent": "module"}),
    "save": Case(lambda **each: demonstrations().save(**each), {}, {"path": "path"}),
    "load": Case(Demonstrations.load, {}, {"path": "path"}),
    "split": Case(
        lambda **each: demonstrations().split(**each),
        {"fraction": lambda: 0.5, "seed": lambda: 0},
        {"fraction": "share", "seed": "seed"},
    ),
    "action_windows": Case(
        lambda **each: demonstrations().action_windows(**each), {}, {"horizon": "count"}
    ),
    "TrainingOptions": Case(TrainingOptions, {}, OPTIONS),
    "Training": Case(
        Training,
        {
            "module": PendulumDynamics,
            "loss": Loss,
            "training_rows": lambda: torch.arange(2),
            "validation_rows": lambda: torch.arange(2),
            "options": TrainingOptions,
            "identity": dict,
            "folder": lambda: None,
        },
        {
            "module": "module",
            **dict.fromkeys(("training_rows", "validation_rows", "options"), "word"),
            "folder": "path",
            "checkpoint_seconds": "not negative",
            "log_epochs": "count",
        },
        accepted={"checkpoint_seconds": [INF]},
    ),
    "WarmStartedLoss": Case(
        WarmStartedLoss,
        {"guess": lambda: torch.zeros(2, 3, 1), "epochs": lambda: 1},
        {"epochs": "count"},
    ),
    "FallingRate": Case(
        FallingRate,
        {
            "start": lambda: 0.1,
            "end": lambda: 0.01,
            "constant": lambda: 1,
            "falling": lambda: 1,
        },
        {
            **dict.fromkeys(("start", "end"), "positive"),
            **dict.fromkeys(("constant", "falling"), "count or zero"),
        },
    ),
}


@rows(CASES)
def test_a_bad_argument_is_named_with_what_was_found(case: Case, argument: str) -> None:
    assert not failures(case, argument)


@pytest.mark.parametrize("episodes", [[3], [-4], [1.5], ["1"], [True], [[0]], [None], "01"])
def test_episodes_that_are_not_there_are_not_selected(episodes: Any) -> None:
    with pytest.raises(ValueError, match="episodes must be"):
        demonstrations().select(episodes)


def test_episodes_are_selected_by_numbers_from_either_end() -> None:
    chosen = demonstrations().select(np.array([-1, 0]))
    np.testing.assert_array_equal(chosen.returns, demonstrations().returns[[2, 0]])


def test_a_run_with_numbers_of_numpy_is_that_with_pythons(tmp_path) -> None:
    arguments = {"batch_size": np.int64(2), "learning_rate": np.float32(0.5), "seed": np.int32(1)}
    BehavioralCloning(mlp(), demonstrations(), folder=tmp_path, **arguments).train(1)
    again = BehavioralCloning(
        mlp(), demonstrations(), folder=tmp_path, batch_size=2, learning_rate=0.5, seed=1
    )
    assert len(again.history) == 2
