"""The model card of a saved policy."""

import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.td3.policies import TD3Policy

from mpc_gym.models import LinearDynamics, QuadraticCost
from mpc_gym.mpc import MPC
from mpc_gym.policies import MPCPolicy
from mpc_gym.policies.sharing.pretrained import save_pretrained


def tiny_mpc() -> MPC:
    """A linear-quadratic controller with the shapes of Pendulum-v1."""
    A = torch.eye(3, dtype=torch.float64) * 0.9
    B = torch.tensor([[0.0], [0.1], [1.0]], dtype=torch.float64)
    cost = QuadraticCost(torch.ones(4, dtype=torch.float64))
    return MPC(LinearDynamics(A, B), cost, 3, backend="torch")


def make_card(folder, policy_class, env_id="DiffPendulum-v0", options=(), **kwargs) -> str:
    env = gym.make(env_id)
    policy = policy_class(env.observation_space, env.action_space, lambda _: 1e-3, **kwargs)
    save_pretrained(policy, folder, **dict(options))
    return (folder / "README.md").read_text()


def make_planning_card(folder, **options) -> str:
    learn = {"gravity": 12.25}
    return make_card(
        folder, MPCPolicy, options=options, learn=learn, horizon=3, backend="torch", net_arch=[4]
    )


def front_matter(card: str) -> dict:
    yaml = pytest.importorskip("yaml")  # which the documentation needs, and this package does not
    return yaml.safe_load(card.split("---\n")[1])


def usage(card: str) -> str:
    return re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]


class OwnPolicy(TD3Policy):
    """One that a folder cannot name."""


@pytest.mark.parametrize(
    "make",
    [
        make_planning_card,
        lambda folder: make_card(folder, TD3Policy, net_arch=[4]),
        lambda folder: make_card(folder, OwnPolicy, net_arch=[4]),
    ],
)
def test_its_example_runs_as_it_stands(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(usage(make(tmp_path / "this_folder")), names)
    action_space = gym.make("DiffPendulum-v0").action_space
    assert action_space.contains(names["action"].astype(np.float32))


def test_its_front_matter_is_what_model_hubs_read(tmp_path):
    matter = front_matter(make_planning_card(tmp_path, license_id='a "strange": one'))
    assert matter["library_name"] == "mpc_gym"
    assert matter["license"] == 'a "strange": one'
    assert {"reinforcement-learning", "DiffPendulum-v0"} < set(matter["tags"])


def test_it_says_what_the_policy_is_and_what_it_has_learned(tmp_path):
    card = make_planning_card(tmp_path, description="Trained for {fun} by cloning.")
    assert "# MPCPolicy for DiffPendulum-v0" in card
    assert "Trained for {fun} by cloning." in card
    assert "| horizon | `3` |" in card
    assert "| dynamics.gravity | 12.25 |" in card
    assert "dynamics.mass" not in card  # it is known, not learned
    assert "Nothing in it is run" in card
    assert card.endswith("## Licence\n\nmit\n")


def test_it_names_the_function_that_loading_needs(tmp_path):
    card = make_card(tmp_path, MPCPolicy, "Pendulum-v1", mpc=tiny_mpc)
    assert f"{__name__}.tiny_mpc" in card
    assert 'load_pretrained("this_folder", mpc=' in card


def test_a_policy_of_an_unknown_environment_has_a_card_too(tmp_path):
    card = make_card(tmp_path, ActorCriticPolicy, "Pendulum-v1")
    assert "# ActorCriticPolicy\n" in card
    assert "| environment |" not in card
    assert "gym.make" not in card
