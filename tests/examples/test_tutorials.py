"""Each tutorial runs, in a short form, and shows what it says."""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "examples" / "tutorials"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*non-interactive"),
    pytest.mark.filterwarnings("ignore:.*control problems did not converge"),
]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    """Run a tutorial as a script, with other values of its constants, and return its names."""
    plt.switch_backend("agg")

    def run_with(name: str, **constants: Any) -> dict[str, Any]:
        source = (TUTORIALS / name).read_text(encoding="utf-8")
        for constant, value in constants.items():
            source, count = re.subn(rf"(?m)^{constant} = .*$", f"{constant} = {value!r}", source)
            assert count == 1
        script = tmp_path / name
        script.write_text(source, encoding="utf-8")
        return runpy.run_path(str(script), run_name="__main__")

    yield run_with
    plt.close("all")


def test_every_tutorial_is_run_here_and_on_the_site_with_exercises() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in TUTORIALS.glob("*.py"):
        assert f'run("{path.name}"' in here
        assert f"tutorials/{path.name}\n" in site
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# %% [markdown]\n# # ")
        assert "\n# ## Exercises\n" in text


def test_a_policy_that_plans_acts_before_it_has_learned(run: Any) -> None:
    names = run("a_policy_that_plans.py")
    assert names["scores"]["plans"].mean > names["scores"]["network"].mean + 500
    assert names["plan"].converged.all()
    assert (names["plan"].controls.abs() > 1.999).double().mean() > 0.5  # rests at its limits
    assert names["same"]


def test_a_planner_needs_one_demonstration_and_a_network_more(run: Any) -> None:
    names = run("ten_demonstrations.py", COUNTS=[1])
    (planner,), (network,) = names["returns"]["plans"], names["returns"]["network"]
    assert planner == pytest.approx(names["best"].mean, abs=5)
    assert network < planner - 500


@pytest.mark.slow
def test_ten_demonstrations_tell_the_physics(run: Any) -> None:
    names = run("ten_demonstrations.py")
    assert names["stiffness"] == pytest.approx(10, rel=0.01)
    assert names["push"] == pytest.approx(1, rel=0.01)
    assert names["returns"]["plans"] == pytest.approx([names["best"].mean] * 3, abs=5)
    assert names["returns"]["network"][-1] < names["best"].mean - 3


def test_random_actions_tell_the_rope_of_ones_own_crane(run: Any) -> None:
    names = run("your_own_environment.py")
    assert names["rope"] == pytest.approx(2.0, abs=1e-4)
    assert names["fitted"].mean > names["guessed"].mean
    assert names["guessed"].mean > names["network"].mean + 100
    assert names["plan"].converged.all()


def test_plans_keep_to_the_track_while_ppo_explores(run: Any) -> None:
    names = run("constraint_while_learning.py", STEPS=3_200)
    free, bound = names["plans"]["no track"], names["plans"]["track"]
    assert free.states[..., 0].abs().max() > 1.5
    assert bound.states[..., 0].abs().max() < 1 + 1e-6
    assert len(names["left"]["plans"]) == 0
    assert len(names["left"]["network"]) > 50


def test_three_cures_for_a_wrong_mass(run: Any) -> None:
    names = run("wrong_model.py")
    masses, returns = names["masses"], names["returns"]
    assert masses["identified"] == pytest.approx(1.0, abs=1e-3)
    assert masses["imitating"] == pytest.approx(1.0, abs=0.02)
    assert 0.52 < masses["rewarded"] < 1.1
    for cure in ("identified", "imitating"):
        assert returns[cure] == pytest.approx(names["best"], abs=2)
    assert returns["wrong"] + 50 < returns["rewarded"]


def test_a_network_learns_to_swing_up_from_a_few_episodes(run: Any) -> None:
    names = run("no_model.py", EPISODES=3)
    assert names["earned"][0] < -700
    assert names["unseen"].mean > -400
    assert names["losses"][-1] < names["losses"][0]


def test_gradients_are_those_of_differences_and_the_papers_are_not(run: Any) -> None:
    names = run("gradients.py")
    assert names["error"](names["exact"]).max() < 1e-7
    assert names["error"](names["unrolled"]).max() < 1e-7
    assert names["error"](names["paper"]).min() > 0.05
    dead = names["dead"]
    assert dead[0.0] > 0.9
    assert dead[0.1] == dead[1.0] == 0
