"""How the policies that come with the package are made."""

import gymnasium as gym
import pytest

from mpc_gym.experiments.make_pretrained import RECIPES, Size, make_pretrained
from mpc_gym.imitation import evaluate
from mpc_gym.policies import MPCPolicy, load_pretrained, shipped_policies

SHORT = Size(
    demonstrations=3,
    updates=12,
    rounds=2,
    episodes=2,
    epochs=2,
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


def test_there_is_a_recipe_for_each_shipped_policy() -> None:
    made = {f"{env_id}/{kind}" for env_id in RECIPES for kind in ("mpc", "mlp")}
    assert made == set(shipped_policies())
    for env_id, recipe in RECIPES.items():
        physics = gym.make(env_id).unwrapped.physics
        assert any(physics[name] != value for name, value in recipe.learn.items())
