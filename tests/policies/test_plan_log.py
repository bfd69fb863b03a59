"""What the logger of an algorithm is told of the plans."""

import csv
import math
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.logger import configure

from mpc_gym.imitation import LearnDynamics
from mpc_gym.mpc import Plan
from mpc_gym.policies.plan_log import PlanLog
from tests.policies.planners import ENV, POLICIES, STEPS, make_model


def rows(model, folder: Path, steps: int = STEPS) -> list[dict[str, str]]:
    model.set_logger(configure(str(folder), ["csv"]))
    model.learn(steps, log_interval=1)
    with (folder / "progress.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("algorithm", [PPO, A2C, SAC, TD3])
def test_physics_convergence_and_time_are_in_the_log_of_every_algorithm(algorithm, tmp_path):
    env = gym.make(ENV, max_episode_steps=STEPS // 2)
    model = make_model(algorithm, env, policy_kwargs={"learn": {"mass": 2.0, "linear": None}})
    last = rows(model, tmp_path)[-1]
    assert 0.0 < float(last["mpc/converged"]) <= 1.0
    assert float(last["mpc/milliseconds"]) > 0.0
    assert float(last["mpc/dynamics.mass"]) == pytest.approx(2.0, abs=0.2)
    assert "mpc/dynamics.gravity" not in last, "it is not learned"
    assert "mpc/violation" not in last, "there are no constraints"


def test_plans_that_do_not_converge_are_counted(tmp_path):
    model = make_model(PPO, policy_kwargs={"max_iterations": 1})
    with pytest.warns(UserWarning, match="did not converge"):
        last = rows(model, tmp_path)[-1]
    assert float(last["mpc/converged"]) < 0.5


def test_violations_are_logged_where_there_are_constraints(tmp_path):
    env = gym.make("DiffCartPole-v0", track=1.0)
    model = PPO(POLICIES[PPO], env, n_steps=8, batch_size=8, policy_kwargs={"horizon": 5})
    last = rows(model, tmp_path)[-1]
    assert float(last["mpc/violation"]) < 1e-4


def test_a_plan_that_could_not_be_computed_is_no_plan_without_violation():
    log = PlanLog()
    for violation in (0.1, float("nan"), 0.2):
        nothing, one = torch.zeros(1, 2, 1), torch.ones(1, dtype=torch.int64)
        found = Plan(
            nothing,
            nothing,
            cost=torch.zeros(1),
            converged=torch.tensor([False]),
            iterations=one,
            violation=torch.tensor([violation]),
        )
        log.add(found, 1.0)
    assert math.isnan(log.violation)


def test_physics_that_is_fitted_to_transitions_is_logged_too(tmp_path):
    learn = {"mass": 2.0, "gravity": 12.0}
    model = make_model(PPO, policy_kwargs={"learn": learn})
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(3 * STEPS, log_interval=1, callback=LearnDynamics(every=STEPS))
    with (tmp_path / "progress.csv").open(encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["mpc/dynamics.mass"]) == pytest.approx(1.0, rel=1e-3)
