import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import PPO
from typer.testing import CliRunner

from mpc_gym import make_mpc
from mpc_gym.cli import app
from mpc_gym.experiments.agents import EpisodeOptions, collect_to, score_agents
from mpc_gym.experiments.learner import TrainOptions, train
from mpc_gym.imitation import Demonstrations, Stateless, collect, evaluate
from mpc_gym.policies import MPCPolicy, load_pretrained

ENV = "DiffPendulum-v0"
runner = CliRunner()


def said(output: str) -> str:
    """What stands in a frame, broken into lines."""
    return " ".join(output.replace("│", " ").split())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short demonstrations, which the command wrote."""
    path: Path = tmp_path_factory.mktemp("demonstrations") / "expert.npz"
    arguments = ["collect", "--env", ENV, "--episodes", "3", "--seed", "5", "--max-steps", "20"]
    result = runner.invoke(app, [*arguments, "--file", str(path)])
    assert result.exit_code == 0, result.output
    assert "3 episodes, 60 steps" in result.output
    return path


@pytest.fixture(scope="module")
def trained(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training run, by the command."""
    folder: Path = tmp_path_factory.mktemp("training") / "trained"
    arguments = ["train", "--env", ENV, "--file", str(file), "--learn", "mass", "length=0.7"]
    result = runner.invoke(app, [*arguments, "--effort", "0.1", "--folder", str(folder)])
    assert result.exit_code == 0, result.output
    assert f"wrote {folder / 'policy'}" in result.output
    assert "dynamics.length: " in result.output
    return folder


def test_the_expert_of_a_file_plans_by_the_observation_alone(file: Path) -> None:
    mpc = make_mpc(ENV, horizon=20, starts=8, max_iterations=50, learn=())
    expected = collect(Stateless(mpc), ENV, 3, seed=5, max_steps=20)
    assert Demonstrations.load(file).fingerprint() == expected.fingerprint()


def test_training_learns_what_was_chosen_and_nothing_else(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    assert config["settings"]["learn"] == {"dynamics.mass": 3.0, "dynamics.length": 0.7}
    policy = load_pretrained(trained / "policy", env=ENV)
    assert isinstance(policy, MPCPolicy)
    assert policy.mpc.dynamics.gravity.item() == 10.0
    assert policy.mpc.dynamics.mass.item() != 3.0
    names = {path.name for path in trained.iterdir()}
    assert {"checkpoint.pt", "metrics.csv", "result.json"} <= names


def test_a_seed_gives_the_same_policy_again_and_a_finished_one_is_kept(
    trained: Path, file: Path, tmp_path: Path
) -> None:
    options = TrainOptions(
        ENV, "mpc.dx", tmp_path / "again", file, learn=("mass", "length=0.7"), effort=0.1
    )
    again = train(options).state_dict()
    for name, value in load_pretrained(trained / "policy").state_dict().items():
        np.testing.assert_array_equal(again[name], value)
    before = (tmp_path / "again/policy/policy.safetensors").stat().st_mtime_ns
    train(options)
    assert (tmp_path / "again/policy/policy.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("method", ["mlp", "nn", "mpc.cost", "mpc.cost.dx", "sysid"])
def test_every_method_learns_from_a_file_and_leaves_a_policy_to_load(
    method: str, file: Path, tmp_path: Path
) -> None:
    policy = train(TrainOptions(ENV, method, tmp_path / "new", file, effort=0.01))
    found = evaluate(policy, ENV, [0, 1], max_steps=5)
    assert np.isfinite(found.returns).all()


def test_without_a_file_the_expert_is_asked(tmp_path: Path) -> None:
    options = TrainOptions(ENV, "sysid", tmp_path / "new", 1, effort=0.05)
    train(options)
    demonstrations = Demonstrations.load(tmp_path / "new/seed-0.npz")
    assert demonstrations.episodes == 1


def test_the_scores_are_those_of_the_policies(trained: Path, tmp_path: Path) -> None:
    model = PPO("MlpPolicy", ENV, device="cpu", seed=0)
    model.save(tmp_path / "ppo.zip")
    names = ("expert", str(trained / "policy"), str(tmp_path / "ppo.zip"))
    scores = score_agents(EpisodeOptions(ENV, names, episodes=3, seed=2, max_steps=15))
    agents = (
        Stateless(make_mpc(ENV, horizon=20, starts=8, max_iterations=50)),
        load_pretrained(trained / "policy"),
        model,
    )
    for found, agent in zip(scores.values(), agents, strict=True):
        expected = evaluate(agent, ENV, range(2, 5), max_steps=15)
        np.testing.assert_allclose(found.returns, expected.returns)
    arguments = ["evaluate", "--env", ENV, "--policy", *names, "--episodes", "3", "--seed", "2"]
    result = runner.invoke(app, [*arguments, "--max-steps", "15"], env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    for name, found in scores.items():
        assert name in result.output
        assert f"{found.mean:.1f} ± {found.standard_error:.1f}" in result.output


def test_a_trained_policy_gives_demonstrations_too(trained: Path, tmp_path: Path) -> None:
    options = EpisodeOptions(ENV, (str(trained / "policy"),), episodes=1, max_steps=4)
    found = collect_to(options, tmp_path / "policy.npz")
    assert Demonstrations.load(tmp_path / "policy.npz").fingerprint() == found.fingerprint()


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("train", ["--method", "ppo"], "method must be of mpc.dx"),
        ("train", ["--file", "nowhere.npz"], "there is no file of demonstrations"),
        ("train", ["--demonstrations", "0"], "demonstrations must be at least 1"),
        ("train", ["--learn", "masss"], "no parameter 'masss'"),
        ("train", ["--effort", "0"], "effort must be a positive number"),
        ("train", ["--folder", "/dev/null/x"], "folder"),
        ("collect", ["--episodes", "0"], "episodes must be at least 1"),
        ("collect", ["--policy", "nowhere"], "policy must be "),
        ("collect", ["--file", "/dev/null/x.npz"], "file must be a folder that can be"),
        ("evaluate", ["--policy", "nowhere"], "policy must be "),
        ("evaluate", ["--max-steps", "-3"], "max_steps must be at least 1"),
        ("evaluate", ["--env", "Pendulum-v1"], "env must be one of DiffPendulum-v0"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else str(value)[:20],
)
def test_what_a_user_gets_wrong_is_said_in_words(
    command: str, arguments: list[str], message: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    defaults = {
        "train": ["--folder", "new"],
        "collect": ["--file", "new.npz"],
        "evaluate": ["--policy", "expert"],
    }[command]
    result = runner.invoke(app, [command, "--env", ENV, *defaults, *arguments])
    assert result.exit_code == 2, result.output
    assert message in said(result.output)
    assert not list(tmp_path.iterdir())


def test_demonstrations_of_another_environment_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds demonstrations of DiffPendulum-v0, expected Di"):
        TrainOptions("DiffCartPole-v0", folder=tmp_path / "new", demonstrations=file)
    demonstrations = collect(
        Stateless(make_mpc(ENV, learn=())), ENV, 1, env_kwargs={"mass": 2.0}, max_steps=3
    )
    demonstrations.save(tmp_path / "heavy.npz")
    with pytest.raises(ValueError, match=r"holds demonstrations of DiffPendulum-v0 {'mass': 2.0}"):
        TrainOptions(ENV, folder=tmp_path / "new", demonstrations=tmp_path / "heavy.npz")


def test_nothing_is_overwritten(trained: Path, file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(ValueError, match="file must be a new file"):
        collect_to(EpisodeOptions(ENV), file)
    assert file.read_bytes() == before
    policy = (trained / "policy/policy.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"holds another run: .*seed was 0 and is 1"):
        train(TrainOptions(ENV, folder=trained, demonstrations=file, seed=1))
    assert (trained / "policy/policy.safetensors").read_bytes() == policy


def test_two_that_collect_to_one_file_do_not_lose_each_others_episodes(
    tmp_path: Path, monkeypatch
) -> None:
    path = tmp_path / "new.npz"
    options = EpisodeOptions(ENV, ("random",), episodes=1, max_steps=4)

    def another_one_comes(*_: object, **__: object) -> Demonstrations:
        with pytest.raises(ValueError, match=r"file '.*new\.npz' is in use by another process"):
            collect_to(options, path)
        return collect(Stateless(make_mpc(ENV, learn=(), horizon=2)), ENV, 1, max_steps=4)

    monkeypatch.setattr("mpc_gym.experiments.agents.collect", another_one_comes)
    found = collect_to(options, path)
    assert Demonstrations.load(path).fingerprint() == found.fingerprint()
    with pytest.raises(ValueError, match="file must be a new file"):
        collect_to(options, path)
    assert [each.name for each in tmp_path.iterdir()] == ["new.npz"]


def test_a_full_disk_is_noticed_before_anything_is_computed(tmp_path: Path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match="is full: 0 MiB are free"):
        collect_to(EpisodeOptions(ENV), tmp_path / "new.npz")
    with pytest.raises(ValueError, match="is full: 0 MiB are free"):
        train(TrainOptions(ENV, folder=tmp_path / "trained"))
    assert not list(tmp_path.rglob("*.npz"))


def test_a_disk_that_fills_up_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    path = tmp_path / "new.npz"
    arguments = ["collect", "--env", ENV, "--episodes", "1", "--max-steps", "2"]
    result = runner.invoke(app, [*arguments, "--file", str(path)])
    assert result.exit_code == 1
    assert "No space left on device" in result.output
    assert not list(tmp_path.iterdir())
