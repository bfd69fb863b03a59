from pathlib import Path

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3

from mpc_gym.envs import DiffEnv
from mpc_gym.experiments.agents import EpisodeOptions
from mpc_gym.experiments.film import film, record, shoot
from mpc_gym.imitation import evaluate
from mpc_gym.policies import MPCPolicy, load_shipped
from mpc_gym.policies.planner import Planner
from tests.envs.systems import IDS


def frames_in(path: Path) -> int:
    return imageio_ffmpeg.count_frames_and_secs(str(path))[0]


@pytest.mark.parametrize("env_id", IDS)
def test_each_episode_of_the_expert_is_a_video_with_its_return(env_id: str, tmp_path) -> None:
    options = EpisodeOptions(env_id, episodes=2, seed=4, max_steps=3)
    returns = record(options, tmp_path)
    assert [path.name for path in returns] == [f"{env_id}-expert-{seed}.mp4" for seed in (4, 5)]
    assert [frames_in(path) for path in returns] == [4, 4]
    assert len(set(returns.values())) == 2


def test_the_expert_knows_the_truth_and_beats_chance(tmp_path) -> None:
    def score(policy: str) -> float:
        options = EpisodeOptions("DiffCartPole-v0", (policy,), 1, max_steps=60)
        return sum(record(options, tmp_path).values())

    assert score("expert") > score("random") + 100


def test_chance_is_repeatable(tmp_path) -> None:
    options = EpisodeOptions("DiffPendulum-v0", ("random",), 1, max_steps=5)
    first, again = (list(record(options, tmp_path).values()) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("algorithm", [PPO, A2C, SAC, TD3, DDPG])
def test_what_stable_baselines3_saved_plays_as_it_would_there(algorithm, tmp_path) -> None:
    model = algorithm("MlpPolicy", "DiffPendulum-v0", seed=3, device="cpu")
    model.save(tmp_path / "trained.zip")
    options = EpisodeOptions("DiffPendulum-v0", (str(tmp_path / "trained.zip"),), 1, max_steps=5)
    ((path, found),) = record(options, tmp_path).items()
    assert path.name == "DiffPendulum-v0-trained-0.mp4"
    env = gym.make("DiffPendulum-v0")
    observation, _ = env.reset(seed=0)
    expected = 0.0
    for _ in range(5):
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, *_ = env.step(action)
        expected += float(reward)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_policy_that_plans_is_shown_with_its_plan(tmp_path, monkeypatch) -> None:
    shown = []
    monkeypatch.setattr(DiffEnv, "show_plan", lambda self, plan: shown.append(plan))
    PPO(MPCPolicy, "DiffPendulum-v0", device="cpu").save(tmp_path / "planner.zip")
    path = str(tmp_path / "planner.zip")
    record(EpisodeOptions("DiffPendulum-v0", (path,), 1, max_steps=2), tmp_path)
    assert [plan is None for plan in shown] == [False, False, True]


@pytest.mark.parametrize("kind", ["mpc", "mlp"])
def test_a_policy_that_comes_with_the_package_plays_by_its_name(kind, tmp_path) -> None:
    name = f"DiffPendulum-v0/{kind}"
    options = EpisodeOptions("DiffPendulum-v0", (name,), 1, seed=3, max_steps=25)
    ((path, found),) = record(options, tmp_path).items()
    assert path.name == f"DiffPendulum-v0-{kind}-3.mp4"
    score = evaluate(load_shipped(name, device="cpu"), "DiffPendulum-v0", [3], max_steps=25)
    assert found == pytest.approx(score.mean, rel=1e-5)


def test_the_plan_shown_is_the_one_carried_out_and_starts_from_the_last(
    tmp_path, monkeypatch
) -> None:
    shown, starts, replan = [], [], Planner.replan

    def listen(self, observation, state, *arguments, **options):
        starts.append(state)
        return replan(self, observation, state, *arguments, **options)

    monkeypatch.setattr(DiffEnv, "show_plan", lambda self, plan: shown.append(plan))
    monkeypatch.setattr(Planner, "replan", listen)
    options = EpisodeOptions("DiffPendulum-v0", ("DiffPendulum-v0/mpc",), 1, max_steps=3)
    total = sum(record(options, tmp_path).values())
    assert starts[0] is None
    for begin, plan in zip(starts[2::2], shown[:-2], strict=True):
        np.testing.assert_allclose(begin[0], plan.shift().numpy(), rtol=1e-12)
    env = gym.make("DiffPendulum-v0")
    env.reset(seed=0)
    controls = [plan.controls[0, 0].numpy() for plan in shown[:-1]]
    assert sum(float(env.step(control)[1]) for control in controls) == pytest.approx(total)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env": "Pendulum-v1"}, "env must be one of DiffPendulum-v0"),
        ({"policies": ("nowhere.zip",)}, "policy must be one of expert, random, .* or the path"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_impossible_options_are_refused(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpisodeOptions(**{"env": "DiffPendulum-v0", **arguments})


def test_a_file_that_is_no_policy_is_refused(tmp_path) -> None:
    text = tmp_path / "text.zip"
    text.write_text("hello")
    with pytest.raises(ValueError, match="policy must be a file saved by PPO"):
        record(EpisodeOptions("DiffPendulum-v0", (str(text),)), tmp_path)


def test_a_policy_of_another_environment_is_refused(tmp_path) -> None:
    PPO("MlpPolicy", "DiffCartPole-v0", device="cpu").save(tmp_path / "cartpole.zip")
    options = EpisodeOptions("DiffPendulum-v0", (str(tmp_path / "cartpole.zip"),))
    with pytest.raises(ValueError, match="trained on other spaces"):
        record(options, tmp_path)


def test_an_episode_that_ends_early_is_shown_to_its_end_beside_the_others(tmp_path) -> None:
    class Push:
        def __init__(self, force: float) -> None:
            self.force = force

        def predict(self, observation, *_state, **_options):
            return np.full((len(observation), 1), self.force, np.float32), None

    env_id = "Tracked-v0"
    gym.register(
        env_id, "mpc_gym.envs.cartpole:DiffCartPoleEnv", kwargs={"track": 0.6}, max_episode_steps=30
    )
    try:
        agents = {"off": Push(100.0), "on": Push(0.0)}
        film(agents, env_id, 0, None, [tmp_path / "film.mp4"], lambda: None, columns=1)
        captions = list(shoot(agents, env_id, 0, None, lambda: None).pictures)
        returns = record(EpisodeOptions(env_id, ("random",), 1, seed=1), tmp_path)
    finally:
        del gym.registry[env_id]
    assert frames_in(tmp_path / "film.mp4") == 30  # the longer episode
    assert captions[0].startswith("off: ends after 0.")
    assert captions[1].startswith("on: return ")
    ((path, found),) = returns.items()
    assert found < -1000
    assert frames_in(path) < 30
