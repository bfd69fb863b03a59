import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO

import mpc_gym  # noqa: F401  (registers the environments)
from mpc_gym.experiments.agents import EpisodeOptions, load_agent
from mpc_gym.experiments.film import record
from mpc_gym.policies import MPCPolicy


@pytest.fixture(scope="module")
def planner(tmp_path_factory):
    """A planning policy as SB3 saves it and as `save_pretrained` does."""
    folder = tmp_path_factory.mktemp("planner")
    model = PPO(MPCPolicy, "DiffPendulum-v0", policy_kwargs={"horizon": 5}, device="cpu")
    model.policy.save_pretrained(folder / "pretrained")
    model.save(folder / "planner.zip")
    return folder


def test_a_policy_acts_alike_from_its_folder_and_from_its_zip(planner) -> None:
    with gym.make("DiffPendulum-v0") as env:
        observations = np.array([env.reset(seed=seed)[0] for seed in range(4)])
        agents = [load_agent(str(planner / name), env) for name in ("pretrained", "planner.zip")]
    first, second = (agent.predict(observations, deterministic=True)[0] for agent in agents)
    np.testing.assert_array_equal(first, second)


def test_chance_acts_in_every_row_of_a_batch_within_the_limits() -> None:
    with gym.make("DiffPendulum-v0") as env:
        agent = load_agent("random", env, seed=3)
        again = load_agent("random", env, seed=3)
    actions, _ = agent.predict(np.zeros((50, 3)))
    assert actions.shape == (50, 1)
    assert np.abs(actions).max() <= 2
    assert len(np.unique(actions)) == 50
    assert agent.predict(np.zeros(3))[0].shape == again.predict(np.zeros(3))[0].shape == (1,)


def test_a_pretrained_policy_is_recorded_with_its_plan(planner, tmp_path, monkeypatch) -> None:
    from mpc_gym.envs import DiffEnv

    shown = []
    monkeypatch.setattr(DiffEnv, "show_plan", lambda self, plan: shown.append(plan))
    folder = str(planner / "pretrained")
    record(EpisodeOptions("DiffPendulum-v0", (folder,), 1, max_steps=2), tmp_path)
    assert [plan is None for plan in shown] == [False, False, True]


def test_a_policy_of_another_environment_is_refused(planner) -> None:
    with gym.make("DiffCartPole-v0") as env, pytest.raises(ValueError, match="DiffPendulum-v0"):
        load_agent(str(planner / "pretrained"), env)
