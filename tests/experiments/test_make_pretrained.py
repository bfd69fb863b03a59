"""How the policies that come with the package are made."""

import gymnasium as gym
import numpy as np
import pytest

from mpc_gym.experiments.make_pretrained import RECIPES, Size, make_pretrained, paired
from mpc_gym.imitation import Evaluation, evaluate
from mpc_gym.policies import (
    MPCPolicy,
    load_pretrained,
    load_shipped,
    save_pretrained,
    shipped_policies,
)

SHORT = Size(
    demonstrations=3,
    fit=2,
    rounds=2,
    episodes=2,
    epochs=2,
    last=1,
    evaluations=2,
    max_steps=30,
)


@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_both_policies_are_written_with_their_scores(tmp_path) -> None:
    lines: list[str] = []
    env_id, recipe = next(iter(RECIPES.items()))
    make_pretrained(env_id, tmp_path, SHORT, 3, lines.append)
    folders = [tmp_path / env_id / kind for kind in ("mpc", "mlp")]
    policies = [load_pretrained(folder, env=env_id, device="cpu") for folder in folders]
    assert isinstance(policies[0], MPCPolicy)
    assert recipe.learn["mass"] != policies[0].mpc.dynamics.mass.item()
    for policy, folder, line in zip(policies, folders, lines, strict=True):
        seeds = range(1_000_000, 1_000_002)
        mean = evaluate(policy, env_id, seeds, max_steps=30).mean
        card = (folder / "README.md").read_text(encoding="utf-8")
        for text in (card, line):
            assert f"Return {mean:.1f} ± " in text
        assert "make_pretrained --seed 3" in card


@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_a_policy_that_is_significantly_worse_replaces_none(tmp_path) -> None:
    env_id = "DiffPendulum-v0"
    folder = tmp_path / env_id / "mlp"
    save_pretrained(load_shipped(f"{env_id}/mlp"), folder, "the one of before")
    lines: list[str] = []
    make_pretrained(env_id, tmp_path, SHORT._replace(evaluations=8), 3, lines.append)
    assert "the one of before" in (folder / "README.md").read_text(encoding="utf-8")
    assert lines[-1] == f"{env_id}/mlp: worse, so that the one of before is kept"


def test_policies_are_compared_on_the_same_start_states() -> None:
    lengths = np.full(4, 10)
    old = Evaluation(np.array([-100.0, -10.0, -1.0, -50.0]), lengths, 1e-3)
    new = Evaluation(old.returns + np.array([1.0, 3.0, 1.0, 3.0]), lengths, 1e-3)
    assert paired(new, old) == pytest.approx((2.0, 1 / np.sqrt(3)))


def test_there_is_a_recipe_for_each_shipped_policy() -> None:
    made = {f"{env_id}/{kind}" for env_id in RECIPES for kind in ("mpc", "mlp")}
    assert made == set(shipped_policies())
    for env_id, recipe in RECIPES.items():
        physics = gym.make(env_id).unwrapped.physics
        assert any(physics[name] != value for name, value in recipe.learn.items())
