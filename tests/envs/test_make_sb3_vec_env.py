import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecVideoRecorder,
)

from mpc_gym import make_sb3_vec_env
from mpc_gym.envs.sb3_vec_env import DiffVecEnv
from tests.envs.systems import IDS, n_ctrl, parameter, ranges

N = 3


@pytest.fixture(params=IDS)
def env_id(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def envs(env_id: str) -> DiffVecEnv:
    return make_sb3_vec_env(env_id, n_envs=N, seed=0)


@pytest.mark.parametrize("drawn", [False, True])
def test_it_does_what_stable_baselines3s_own_does(env_id: str, drawn: bool) -> None:
    options = {"parameters": ranges(env_id)} if drawn else None
    kwargs = {"max_episode_steps": 10}
    ours = make_sb3_vec_env(env_id, N, seed=5, **kwargs)
    theirs = make_vec_env(env_id, N, seed=5, env_kwargs=kwargs)
    for envs in (ours, theirs):
        envs.set_options(options)
    np.testing.assert_allclose(ours.reset(), theirs.reset(), rtol=1e-6, atol=1e-6)
    rng = np.random.default_rng(0)
    for step in range(35):
        for own, expected in zip(ours.reset_infos, theirs.reset_infos, strict=True):
            assert same(own, expected)
        actions = rng.uniform(-1.2, 1.2, (N, 1)).astype(np.float32) * ours.action_space.high
        found, expected = ours.step(actions), theirs.step(actions)
        for value, other in zip(found[:3], expected[:3], strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-5)
            assert value.dtype == other.dtype
        for info, other in zip(found[3], expected[3], strict=True):
            assert info["TimeLimit.truncated"] == other["TimeLimit.truncated"]
            assert ("terminal_observation" in info) == (step % 10 == 9)
            if step % 10 == 9:
                np.testing.assert_allclose(
                    info["terminal_observation"], other["terminal_observation"], atol=1e-5
                )
                assert info["episode"]["r"] == pytest.approx(other["episode"]["r"], rel=1e-5)
                assert info["episode"]["l"] == other["episode"]["l"] == 10
                assert info["episode"]["t"] >= 0


def same(info: dict, other: dict) -> bool:
    """Whether two infos of a reset hold the same drawn parameters."""
    return info.keys() == other.keys() and (
        not info or info["parameters"] == pytest.approx(other["parameters"])
    )


def test_the_observation_space_names_the_environment(envs: DiffVecEnv, env_id: str) -> None:
    assert envs.observation_space.env_id == env_id
    assert envs.action_space == gym.make(env_id).action_space


def test_a_seed_holds_for_one_reset(envs: DiffVecEnv) -> None:
    first, second = envs.reset(), envs.reset()
    assert (first != second).any()
    envs.seed(0)
    np.testing.assert_array_equal(envs.reset(), first)


def test_what_is_returned_is_never_written_to_again(envs: DiffVecEnv, env_id: str) -> None:
    observations = envs.reset()
    kept = observations.copy()
    stepped, rewards, *_ = envs.step(np.zeros((N, n_ctrl(env_id))))
    copies = stepped.copy(), rewards.copy()
    envs.step(np.ones((N, n_ctrl(env_id))))
    np.testing.assert_array_equal(observations, kept)
    np.testing.assert_array_equal(stepped, copies[0])
    np.testing.assert_array_equal(rewards, copies[1])


def test_attributes_are_shared_or_each_environments_own(envs: DiffVecEnv, env_id: str) -> None:
    envs.reset()
    assert envs.get_attr("render_mode") == [None] * N
    assert [spec.id for spec in envs.get_attr("spec", indices=[0, 2])] == [env_id] * 2
    name = parameter(env_id)
    assert envs.get_attr(name) == [getattr(envs.get_attr("dynamics")[0], name).item()] * N
    assert len({tuple(state) for state in envs.get_attr("state")}) == N
    assert envs.get_attr("np_random_seed") == [0, 1, 2]
    assert envs.has_attr(name)
    assert not envs.has_attr("temperature")
    with pytest.raises(AttributeError, match="temperature"):
        envs.get_attr("temperature")


def test_physics_can_be_set_for_one_environment(envs: DiffVecEnv, env_id: str) -> None:
    start, name = gym.make(env_id).reset(seed=1)[0], parameter(env_id)
    envs.set_options({"state": start})
    envs.reset()
    envs.set_attr(name, 3.0, indices=1)
    assert envs.get_attr(name)[1] == 3.0
    stepped, *_ = envs.step(np.zeros((N, n_ctrl(env_id))))
    other = gym.make(env_id, **{name: 3.0})
    other.reset(options={"state": start})
    np.testing.assert_array_equal(stepped[1], other.step(np.zeros(n_ctrl(env_id)))[0])
    np.testing.assert_array_equal(stepped[0], stepped[2])
    assert (stepped[0] != stepped[1]).any()


def test_a_state_can_be_set_for_one_environment(envs: DiffVecEnv) -> None:
    envs.reset()
    first, second, _ = envs.get_attr("state")
    envs.set_attr("state", first, indices=[2])
    states = envs.get_attr("state")
    np.testing.assert_array_equal(states, [first, second, first])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (parameter, np.nan, "must be a finite number"),
        ("state", [0.0], "must have shape"),
        ("cost", None, "shared by all 3"),
    ],
)
def test_an_impossible_attribute_is_refused(envs, env_id, name, value, message) -> None:
    envs.reset()
    name = name(env_id) if callable(name) else name
    with pytest.raises(ValueError, match=message):
        envs.set_attr(name, value, indices=[1])


def test_what_is_shared_can_be_set_for_all(envs: DiffVecEnv, env_id: str) -> None:
    class Free(torch.nn.Module):
        def forward(self, state: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
            return 0.0 * state[..., 0] + 0.0 * control[..., 0] + 7.0

    envs.reset()
    envs.set_attr("cost", Free())
    assert envs.step(np.zeros((N, n_ctrl(env_id))))[1].tolist() == [-7.0] * N


def test_members_are_not_stepped_on_their_own(envs: DiffVecEnv) -> None:
    envs.reset()
    for method in ("reset", "step"):
        with pytest.raises(AttributeError, match=f"{method} is not a method of one environment"):
            envs.env_method(method)


def test_methods_are_called_on_each_environment(env_id: str) -> None:
    envs = make_sb3_vec_env(env_id, n_envs=N, render_mode="rgb_array", width=40, height=40)
    envs.reset()
    assert [frame.shape for frame in envs.env_method("render", indices=[0, 1])] == [(40, 40, 3)] * 2
    assert envs.env_method("get_wrapper_attr", "render_mode") == ["rgb_array"] * N
    assert envs.env_method("has_wrapper_attr", "temperature") == [False] * N
    envs.env_method("set_wrapper_attr", parameter(env_id), 5.0, indices=[1])
    assert envs.get_attr(parameter(env_id))[1] == 5.0
    plain = envs.get_images()
    state = np.array(envs.get_attr("state")[2])
    ahead = np.repeat(state[None], 6, 0)
    for pair in envs.get_attr("dynamics")[0].unit_pairs:
        ahead[1:, pair] *= -1
    envs.env_method("show_plan", ahead, indices=[2])
    shown = envs.get_images()
    assert [bool((a != b).any()) for a, b in zip(plain, shown, strict=True)] == [False, False, True]
    assert envs.env_is_wrapped(gym.wrappers.TimeLimit) == [False] * N


def test_render_is_a_grid(env_id: str) -> None:
    envs = make_sb3_vec_env(env_id, n_envs=4, render_mode="rgb_array", width=40, height=30)
    envs.reset()
    assert envs.render().shape == (60, 80, 3)


def test_a_copy_goes_on_where_the_original_is(envs: DiffVecEnv, env_id: str) -> None:
    envs.set_options({"parameters": ranges(env_id)})
    envs.reset()
    other = pickle.loads(pickle.dumps(envs))
    for _ in range(205):
        actions = np.random.default_rng(0).uniform(-1, 1, (N, n_ctrl(env_id)))
        np.testing.assert_array_equal(envs.step(actions)[0], other.step(actions)[0])
    assert other.get_attr(parameter(env_id)) == envs.get_attr(parameter(env_id))


def test_vec_monitor_reports_returns_and_lengths(env_id: str) -> None:
    envs = VecMonitor(make_sb3_vec_env(env_id, n_envs=N, seed=0, max_episode_steps=7))
    envs.reset()
    total = np.zeros(N)
    for _ in range(7):
        _, rewards, _, infos = envs.step(np.ones((N, n_ctrl(env_id))))
        total += rewards
    np.testing.assert_allclose([info["episode"]["r"] for info in infos], total, rtol=1e-5)
    assert [info["episode"]["l"] for info in infos] == [7] * N


def test_returns_are_logged_as_under_a_monitor(env_id: str) -> None:
    envs = make_sb3_vec_env(env_id, n_envs=N, seed=0, max_episode_steps=7)
    model = PPO("MlpPolicy", envs, n_steps=16, batch_size=16, n_epochs=1, device="cpu")
    model.learn(N * 16)
    assert [episode["l"] for episode in model.ep_info_buffer] == [7] * 2 * N
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, _ = evaluate_policy(model, envs, n_eval_episodes=N)
    assert np.isfinite(mean)


def test_other_wrappers_of_stable_baselines3_work(env_id: str, tmp_path) -> None:
    plain = make_sb3_vec_env(env_id, n_envs=N, seed=0, max_episode_steps=7)
    envs = VecNormalize(VecFrameStack(VecCheckNan(plain, raise_exception=True), n_stack=2))
    observations = envs.reset()
    for _ in range(20):
        observations, rewards, _, infos = envs.step(np.ones((N, n_ctrl(env_id))))
    assert observations.shape == (N, 2 * plain.observation_space.shape[0])
    assert np.isfinite(rewards).all()
    assert any("terminal_observation" in info for info in infos) == (20 % 7 == 0)
    envs.save(str(tmp_path / "statistics.pkl"))
    fresh = VecFrameStack(make_sb3_vec_env(env_id, n_envs=N, seed=0), n_stack=2)
    again = VecNormalize.load(str(tmp_path / "statistics.pkl"), fresh)
    np.testing.assert_array_equal(again.obs_rms.mean, envs.obs_rms.mean)


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_algorithms_train_on_it_and_are_loaded_with_it(env_id: str, algorithm, tmp_path) -> None:
    sizes = {"n_steps": 16, "n_epochs": 1, "batch_size": 16} if algorithm is PPO else {}
    envs = VecMonitor(make_sb3_vec_env(env_id, n_envs=2, seed=0, max_episode_steps=10))
    model = algorithm("MlpPolicy", envs, seed=0, device="cpu", **sizes).learn(64)
    model.save(tmp_path / "model")
    again = algorithm.load(tmp_path / "model", env=envs, device="cpu").learn(32)
    mean, _ = evaluate_policy(again, envs, n_eval_episodes=2)
    assert np.isfinite(mean)


def test_vec_video_recorder_works(env_id: str, tmp_path) -> None:
    pytest.importorskip("moviepy")
    envs = make_sb3_vec_env(env_id, n_envs=2, render_mode="rgb_array", width=64, height=64)
    envs = VecVideoRecorder(
        envs, str(tmp_path), record_video_trigger=lambda step: step == 0, video_length=5
    )
    envs.reset()
    for _ in range(6):
        envs.step(np.zeros((2, n_ctrl(env_id))))
    envs.close()
    assert len(list(tmp_path.glob("*.mp4"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Pendulum-v1",), "env_id must be one of DiffPendulum-v0"),
        (("DiffPendulum-v0", 0), "n_envs must be at least 1"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_sb3_vec_env(*arguments)


def test_a_window_for_many_environments_is_refused() -> None:
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array'"):
        make_sb3_vec_env("DiffPendulum-v0", 2, render_mode="human")


def test_impossible_options_are_refused(envs: DiffVecEnv, env_id: str) -> None:
    envs.set_options({"speed": 1.0})
    with pytest.raises(ValueError, match="unknown reset option"):
        envs.reset()
    envs.set_options([{"parameters": ranges(env_id)}, {}, {}])
    with pytest.raises(ValueError, match="the same for all environments"):
        envs.reset()
    envs.set_options()
    envs.reset()
    with pytest.raises(ValueError, match="actions must have shape"):
        envs.step(np.zeros(N))
