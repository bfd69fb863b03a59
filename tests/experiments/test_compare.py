import csv
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mpc_gym import make_mpc
from mpc_gym.cli import app
from mpc_gym.experiments.compare import CompareOptions, compare
from mpc_gym.experiments.expert import SCORES, episode_seeds
from mpc_gym.imitation import Demonstrations, Stateless, evaluate, imitation_loss
from mpc_gym.policies import load_pretrained
from tests.killing import at_random, needs_fork

ENV = "DiffPendulum-v0"
TINY: dict[str, Any] = {
    "methods": ("mpc.dx", "mlp"),
    "demonstrations": (1, 2),
    "seeds": 2,
    "horizon": 5,
    "starts": 1,
    "effort": 0.02,
    "episodes": 3,
    "unseen": 2,
    "max_steps": 12,
}

runner = CliRunner()


def said(output: str) -> str:
    """What stands in a frame, broken into lines."""
    return " ".join(output.replace("│", " ").split())


def numbers(results: dict[str, Any]) -> dict[str, Any]:
    """The results without what the clock says."""
    return {
        name: {key: value for key, value in result.items() if not key.startswith("seconds")}
        for name, result in results.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison") / "new"


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return compare(CompareOptions(ENV, folder=folder, **TINY))


def test_every_point_of_the_grid_has_a_run_with_all_that_is_kept_of_it(results, folder) -> None:
    points = {(r["method"], r["demonstrations"], r["seed"]) for r in results.values()}
    assert points == {(m, n, s) for m in ("mpc.dx", "mlp") for n in (1, 2) for s in (0, 1)}
    for name, result in results.items():
        place = folder / name
        names = {path.name for path in place.iterdir()}
        assert {"config.json", "metrics.csv", "checkpoint.pt", "policy", "result.json"} <= names
        assert any(each.startswith("events.out.tfevents") for each in names)
        config = json.loads((place / "config.json").read_text())
        assert config["seed"] == result["seed"]
        assert "torch" in config["versions"]


def test_the_scores_are_those_of_the_policy_in_the_folder(results, folder) -> None:
    name = "runs/mpc.dx/002-demonstrations/seed-1"
    policy = load_pretrained(folder / name / "policy", env=ENV)
    expected = evaluate(Stateless(policy), ENV, episode_seeds(SCORES, 3), max_steps=12)
    np.testing.assert_allclose(results[name]["returns"], expected.returns)
    unseen = Demonstrations.load(folder / "runs/expert/unseen-0.npz")
    assert unseen.episodes == 2
    assert results[name]["imitation_loss"] == pytest.approx(imitation_loss(policy, unseen))
    learned = results[name]["parameters"]
    assert learned["dynamics.mass"] == pytest.approx(policy.mpc.dynamics.mass.item())
    assert learned["dynamics.mass"] != 3.0


def test_the_expert_plans_with_the_true_model_from_the_same_states(results) -> None:
    mpc = make_mpc(ENV, horizon=5, learn=(), max_iterations=50)
    expected = evaluate(Stateless(mpc), ENV, episode_seeds(SCORES, 3), max_steps=12)
    for result in results.values():
        np.testing.assert_allclose(result["expert_returns"], expected.returns)


def test_the_expert_is_asked_once_for_what_runs_share(results, folder) -> None:
    found = sorted(path.name for path in (folder / "runs/expert").glob("*.npz"))
    assert found == ["scores-0.npz", "seed-0.npz", "seed-1.npz", "unseen-0.npz"]
    demonstrations = [Demonstrations.load(folder / f"runs/expert/seed-{s}.npz") for s in (0, 1)]
    assert [each.episodes for each in demonstrations] == [2, 2]
    assert demonstrations[0].fingerprint() != demonstrations[1].fingerprint()


def test_the_report_shows_the_numbers_a_plot_and_a_video(results, folder) -> None:
    text = (folder / "report.md").read_text()
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures == ["images/data-efficiency.png", "comparison.gif"]
    for picture in pictures:
        with Image.open(folder / picture) as image:
            image.verify()
    frames = list(iio.imiter(folder / "comparison.mp4"))
    assert len(frames) == 12
    assert frames[0].shape[1] > 2.5 * frames[0].shape[0]  # the expert and two methods
    with (folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["demonstrations"]) for row in rows] == [
        ("expert", "-"),
        ("mpc.dx", "1"),
        ("mpc.dx", "2"),
        ("mlp", "1"),
        ("mlp", "2"),
    ]
    losses = [r["imitation_loss"] for r in results.values() if r["method"] == "mlp"][:2]
    assert f"{np.median(losses):.3g}" in rows[3][list(rows[3])[4]]
    assert "| mlp | nothing | actions |" in text
    assert "gravity / length" in text


def test_it_goes_on_with_more_of_everything(results, folder, tmp_path) -> None:
    less = {**TINY, "methods": ("mlp",), "demonstrations": (1,), "seeds": 1, "film": 0}
    compare(CompareOptions(ENV, folder=tmp_path / "new", **less))
    assert not (tmp_path / "new/comparison.mp4").exists()
    kept = tmp_path / "new/runs/mlp/001-demonstrations/seed-0/result.json"
    time = kept.stat().st_mtime_ns
    more = {**less, "demonstrations": (1, 2)}
    found = numbers(compare(CompareOptions(ENV, folder=tmp_path / "new", **more)))
    expected = numbers(results)
    assert found == {name: expected[name] for name in found}
    assert len(found) == 2
    assert kept.stat().st_mtime_ns == time


@pytest.mark.slow  # to start processes takes as long as all the rest
def test_two_processes_give_the_same_numbers_as_one(results, tmp_path) -> None:
    options = CompareOptions(ENV, folder=tmp_path / "new", jobs=2, **{**TINY, "film": 0})
    assert numbers(compare(options)) == numbers(results)


def test_a_run_that_was_stopped_goes_on_from_its_checkpoint(results, folder, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    name = "runs/mlp/002-demonstrations/seed-0"
    (copy / name / "result.json").unlink()
    (copy / name / "metrics.csv").unlink()
    again = compare(CompareOptions(ENV, folder=copy, **{**TINY, "film": 0}))
    assert numbers(again) == numbers(results)
    with (copy / name / "metrics.csv").open() as first, (folder / name / "metrics.csv").open() as f:
        assert first.read() == f.read()


def one_method(demonstrations, env_id, seed, folder, options):
    """A method of a user's own, which learns nothing."""
    import gymnasium as gym

    from mpc_gym.policies import MPCPolicy

    env = gym.make(env_id)
    spaces = (env.observation_space, env.action_space)
    return MPCPolicy(*spaces, lambda _: 0.0, learn=(), **options.planning)


def test_a_method_of_ones_own_is_compared_too(tmp_path) -> None:
    method = f"{__name__}:one_method"
    options = {**TINY, "methods": (method,), "demonstrations": (1,), "seeds": 1}
    (result,) = compare(CompareOptions(ENV, folder=tmp_path / "new", **options)).values()
    np.testing.assert_allclose(result["returns"], result["expert_returns"])
    assert result["imitation_loss"] < 1e-10


def test_the_command_says_the_scores_and_where_the_report_is(tmp_path) -> None:
    place = tmp_path / "new"
    arguments = ["compare", "--env", ENV, "--methods", "mlp", "sysid", "--demonstrations", "1", "2"]
    arguments += ["--seeds", "1", "--effort", "0.005", "--episodes", "2", "--max-steps", "5"]
    result = runner.invoke(
        app, [*arguments, "--learn", "mass", "--film", "0", "--folder", str(place)]
    )
    assert result.exit_code == 0, result.output
    assert f"wrote {place / 'report.md'}" in result.output
    assert "sysid" in result.output
    config = json.loads((place / "runs/sysid/002-demonstrations/seed-0/config.json").read_text())
    assert config["settings"]["learn"] == {"dynamics.mass": 3.0}
    assert config["settings"]["max_steps"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "Pendulum-v1"}, "env must be one of DiffPendulum-v0"),
        ({"methods": ("ppo",)}, "methods must be of mpc.dx"),
        ({"methods": ("mlp", "mlp")}, "methods must be given, each once"),
        ({"methods": ("expert",)}, "methods must not hold 'expert'"),
        ({"demonstrations": ()}, "demonstrations must be given"),
        ({"demonstrations": (0,)}, "demonstrations must be at least 1, got 0"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"effort": float("nan")}, "effort must be a positive number of at most 10000"),
        ({"episodes": -2}, "episodes must be at least 1"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"film": 7}, "film must be one of the numbers of demonstrations, 1, 2"),
        ({"learn": ("masss",)}, "no parameter 'masss'"),
    ],
)
def test_impossible_options_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompareOptions(**{"env": ENV, **TINY, **options})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "ppo"], "methods must be of mpc.dx"),
        (["--demonstrations", "-1"], "demonstrations must be at least 1, got -1"),
        (["--learn", "masss"], "no parameter 'masss'"),
        (["--jobs", "0"], "jobs must be at least 1"),
        (["--engine", "dask"], "needs the address of a scheduler"),
        (["--folder", "/dev/null/x"], "folder"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_what_a_user_gets_wrong_is_said_before_anything_is_computed(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    options = ["compare", "--env", ENV, "--folder", str(tmp_path / "new"), *arguments]
    result = runner.invoke(app, options)
    assert result.exit_code == 2, result.output
    assert message in said(result.output)
    assert not list(tmp_path.rglob("*.npz"))


def test_a_folder_of_another_comparison_is_refused_and_kept(results, folder) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for other in ({"horizon": 6}, {"env": "DiffCartPole-v0"}, {"learn": ("mass",)}):
        options = CompareOptions(**{"env": ENV, "folder": folder, **TINY, **other})
        with pytest.raises(ValueError, match=f"holds another comparison: {next(iter(other))} was"):
            compare(options)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_folder_with_something_else_is_refused_and_kept(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'thesis.txt' of something else"):
        compare(CompareOptions(ENV, folder=tmp_path, **TINY))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_full_disk_is_noticed_before_anything_is_computed(tmp_path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match="is full: 0 MiB are free"):
        compare(CompareOptions(ENV, folder=tmp_path / "new", **TINY))
    assert not list(tmp_path.rglob("*.npz"))


def killed(folder: Path, kills: int, longest: float, **changes: Any) -> dict[str, Any]:
    """The results of a comparison that is killed so often before it comes to its end."""
    options = CompareOptions(ENV, folder=folder, **{**TINY, **changes})
    rng = random.Random(0)
    for _ in range(kills):
        at_random(lambda: compare(options), longest, rng)
    found = numbers(compare(options))
    assert [path for path in folder.rglob("*") if path.name.startswith(".")] == []
    return found


@needs_fork
def test_a_comparison_that_is_killed_and_begun_again_gives_the_same_numbers(
    results, tmp_path
) -> None:
    less = {"methods": ("mlp",), "demonstrations": (1,), "film": 0}
    found = killed(tmp_path / "new", 4, 0.8, **less)
    assert found == {name: value for name, value in numbers(results).items() if name in found}
    assert len(found) == 2


@needs_fork
@pytest.mark.slow
def test_fifty_kills_of_a_comparison_lose_nothing_and_leave_nothing(results, tmp_path) -> None:
    assert killed(tmp_path / "new", 50, 1.5) == numbers(results)
    assert (tmp_path / "new/comparison.mp4").is_file()
