"""What holds for every environment."""

import copy
import json
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from tests.envs.systems import SPELLINGS, STATES, n_ctrl, parameter


@pytest.fixture(params=SPELLINGS)
def env_id(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def env(env_id: str) -> gym.Env:
    return gym.make(env_id)


@pytest.mark.parametrize("check", [gymnasium_check_env, sb3_check_env])
def test_checkers_pass_with_no_warning_but_the_one_on_the_action_range(
    env_id, check, monkeypatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # the window is tried too
    env = gym.make(env_id, render_mode="rgb_array").unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(env)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 1, messages
    assert "normalized" in messages[0]
    assert "action space" in messages[0]


def test_an_episode_is_truncated_after_200_steps(env: gym.Env) -> None:
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(200)]
    assert ends == [(False, False)] * 199 + [(False, True)]


def test_the_reward_is_minus_the_cost_of_the_clipped_action_to_rounding(env_id: str) -> None:
    env = gym.make(env_id)
    env.reset(seed=0)
    env.action_space.seed(0)
    for scale in (0.1, 1.0, 3.0) * 5:
        state = env.unwrapped.state
        action = scale * env.action_space.sample()
        _, reward, *_ = env.step(action)
        clipped = np.clip(action, env.action_space.low, env.action_space.high).astype(np.float64)
        with torch.no_grad():
            cost = env.unwrapped.cost(torch.tensor(state), torch.tensor(clipped))
        assert reward == pytest.approx(-cost.item(), rel=1e-14, abs=1e-14)
        assert type(reward) is float


def test_the_state_moves_by_the_dynamics_of_the_clipped_action(env_id: str) -> None:
    env = gym.make(env_id)
    env.reset(seed=0)
    state = torch.tensor(env.unwrapped.state)
    env.step(10 * env.action_space.high)
    with torch.no_grad():
        expected = env.unwrapped.dynamics(state, torch.tensor(env.action_space.high).double())
    np.testing.assert_allclose(env.unwrapped.state, expected, rtol=1e-12)


def test_the_same_seed_gives_the_same_episode(env_id: str) -> None:
    def episode(seed: int) -> np.ndarray:
        env = gym.make(env_id)
        observations = [env.reset(seed=seed)[0]]
        env.action_space.seed(seed)
        observations += [env.step(env.action_space.sample())[0] for _ in range(30)]
        return np.stack(observations)

    np.testing.assert_array_equal(episode(3), episode(3))
    assert not np.array_equal(episode(3)[0], episode(4)[0])


def test_observations_are_fresh_float32_arrays_and_info_holds_no_tensor(env: gym.Env) -> None:
    first, info = env.reset(seed=0)
    kept = first.copy()
    second, *_, step_info = env.step(env.action_space.sample())
    second[:] = 0.0
    third, *_ = env.step(env.action_space.sample())
    np.testing.assert_array_equal(first, kept)
    assert third.any()
    assert first.dtype == second.dtype == np.float32
    assert not [value for value in (*info.values(), *step_info.values()) if torch.is_tensor(value)]


def test_changing_a_copy_of_the_state_does_not_move_the_environment(env: gym.Env) -> None:
    observation, _ = env.reset(seed=0)
    env.unwrapped.state[:] = 0.0
    np.testing.assert_array_equal(env.unwrapped.state.astype(np.float32), observation)


def test_the_spaces_have_no_infinite_limit(env: gym.Env) -> None:
    for space in (env.observation_space, env.action_space):
        assert space.dtype == np.float32
        assert np.isfinite(space.low).all()
        assert np.isfinite(space.high).all()


def test_an_episode_can_start_from_a_given_state(env_id: str) -> None:
    env = gym.make(env_id)
    observation, _ = env.reset(options={"state": STATES[env_id]})
    np.testing.assert_array_equal(env.unwrapped.state, STATES[env_id])
    np.testing.assert_array_equal(observation, np.float32(STATES[env_id]))


def test_a_float32_observation_is_a_state_to_start_from(env: gym.Env) -> None:
    observation, _ = env.reset(seed=1)
    again, _ = env.reset(options={"state": observation})
    np.testing.assert_array_equal(observation, again)


def test_a_given_start_draws_no_random_number(env_id: str) -> None:
    with_state, without = gym.make(env_id), gym.make(env_id)
    with_state.reset(seed=5, options={"state": STATES[env_id]})
    without.reset(seed=6)
    np.testing.assert_array_equal(with_state.reset()[0], without.reset(seed=5)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[:-1], "must have shape"),
        (lambda s: [*s[:-1], np.nan], "must be finite"),
        (lambda s: [*s[:-1], np.inf], "must be finite"),
        (lambda s: "upright", "must be an array"),
    ],
)
def test_an_impossible_start_state_is_refused(env_id: str, change, message: str) -> None:
    env = gym.make(env_id)
    with pytest.raises(ValueError, match=r"options\['state'\] " + ".*" + message):
        env.reset(options={"state": change(STATES[env_id])})


def test_a_start_state_of_no_angle_is_refused(env_id: str) -> None:
    env = gym.make(env_id)
    for pair in env.unwrapped.dynamics.unit_pairs:
        for entry in pair:
            state = [*STATES[env_id]]
            state[entry] += 0.1
            with pytest.raises(ValueError, match=r"options\['state'\] .*cos\^2 \+ sin\^2"):
                env.reset(options={"state": state})


def test_an_unknown_reset_option_is_refused(env: gym.Env) -> None:
    with pytest.raises(ValueError, match=r"\['x_init'\].*'state'"):
        env.reset(options={"x_init": 1.0})


@pytest.mark.parametrize("action", [0.0, [0.0] * 3, [[0.0]], ["left"], None])
def test_a_wrong_action_is_refused(env: gym.Env, action) -> None:
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action must"):
        env.unwrapped.step(action)


def test_an_action_that_is_no_number_is_refused(env: gym.Env) -> None:
    env.reset(seed=0)
    for entry in range(len(env.action_space.low)):
        action = np.zeros(len(env.action_space.low))
        action[entry] = np.nan
        with pytest.raises(ValueError, match="action must be a number"):
            env.unwrapped.step(action)


def test_an_infinite_action_is_clipped(env: gym.Env) -> None:
    env.reset(seed=0)
    observation, reward, *_ = env.step(np.full(env.action_space.shape, np.inf))
    assert np.isfinite(observation).all()
    assert np.isfinite(reward)


def test_stepping_before_reset_needs_a_reset(env_id: str) -> None:
    with pytest.raises(ResetNeeded):
        gym.make(env_id).step(np.zeros(n_ctrl(env_id)))
    with pytest.raises(ResetNeeded):
        gym.make(env_id).unwrapped.step(np.zeros(n_ctrl(env_id)))


def test_the_spec_survives_json(env_id: str) -> None:
    env = gym.make(env_id, **{parameter(env_id): 9.0})
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    again = gym.make(spec)
    assert getattr(again.unwrapped.dynamics, parameter(env_id)).item() == 9.0
    np.testing.assert_array_equal(env.reset(seed=0)[0], again.reset(seed=0)[0])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_goes_on_where_the_original_is(env: gym.Env, duplicate) -> None:
    env.reset(seed=0)
    env.step(env.action_space.sample())
    other = duplicate(env)
    for _ in range(3):
        action = env.action_space.sample()
        np.testing.assert_array_equal(env.step(action)[0], other.step(action)[0])
    np.testing.assert_array_equal(env.reset()[0], other.reset()[0])


def test_gym_make_finds_the_environments_through_the_module(env_id: str) -> None:
    assert gym.make(f"mpc_gym:{env_id}").spec.max_episode_steps == 200


@pytest.mark.parametrize(
    ("env_id", "argument"),
    [
        ("DiffPendulum-v0", "mass"),
        ("DiffPendulum-v0", "length"),
        ("DiffCartPole-v0", "cart_mass"),
        ("DiffCartPole-v0", "pole_mass"),
        ("DiffCartPole-v0", "pole_length"),
        ("DiffAcrobot-v0", "lower_inertia"),
        ("DiffPlanarQuadrotor-v0", "arm"),
        ("DiffPlanarQuadrotor-v0", "obstacle"),
        ("DiffCar-v0", "front"),
        ("DiffCar-v0", "road"),
    ],
)
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_impossible_physics_is_refused(env_id: str, argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=argument):
        gym.make(env_id, **{argument: value})


def test_render_gives_a_frame_of_the_size_asked_for(env_id: str) -> None:
    env = gym.make(env_id, render_mode="rgb_array", width=120, height=80)
    env.reset(seed=0)
    env.step(env.action_space.high)
    frame = env.render()
    assert frame.shape == (80, 120, 3)
    assert frame.dtype == np.uint8
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 3


def test_render_without_a_mode_warns_and_draws_nothing(env_id: str) -> None:
    env = gym.make(env_id)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert env.unwrapped.render() is None


def test_an_unknown_render_mode_is_refused(env_id: str) -> None:
    with pytest.raises(ValueError, match="render_mode must be None or one of"):
        gym.make(env_id).unwrapped.__class__(render_mode="hologram")


def test_a_shown_plan_is_drawn_until_the_reset(env_id: str) -> None:
    env = gym.make(env_id, render_mode="rgb_array", width=100, height=100)
    env.reset(options={"state": STATES[env_id]})
    plain = env.render()
    ahead = np.repeat([STATES[env_id]], 10, 0)
    for pair in env.unwrapped.dynamics.unit_pairs:
        ahead[1:, pair] *= -1
    for plan in (ahead, torch.tensor(ahead)[None]):
        env.unwrapped.show_plan(plan)
        assert (env.render() != plain).any()
    env.reset(options={"state": STATES[env_id]})
    np.testing.assert_array_equal(env.render(), plain)
    env.unwrapped.show_plan(ahead)
    env.unwrapped.show_plan(None)
    np.testing.assert_array_equal(env.render(), plain)


def test_a_plan_of_a_batch_cannot_be_shown(env: gym.Env) -> None:
    n_state = env.observation_space.shape[0]
    for shape in [(2, 10, n_state), (10, n_state + 1), (n_state,)]:
        with pytest.raises(ValueError, match="plan must hold the states of one instance"):
            env.unwrapped.show_plan(np.zeros(shape))


def test_vector_environments_make_the_same_episodes(env_id: str) -> None:
    vector = gym.make_vec(env_id, num_envs=2, vectorization_mode="sync")
    single = gym.make(env_id)
    observations, _ = vector.reset(seed=7)
    observation, _ = single.reset(seed=8)  # the second environment's seed
    np.testing.assert_array_equal(observations[1], observation)
    actions = vector.action_space.sample()
    np.testing.assert_array_equal(vector.step(actions)[0][1], single.step(actions[1])[0])


def test_gymnasiums_record_video_works(env_id: str, tmp_path) -> None:
    pytest.importorskip("moviepy")
    env = gym.make(env_id, render_mode="rgb_array", width=64, height=64, max_episode_steps=5)
    env = gym.wrappers.RecordVideo(env, str(tmp_path / "videos"), disable_logger=True)
    env.reset(seed=0)
    for _ in range(5):
        env.step(env.action_space.sample())
    env.close()
    assert [path.suffix for path in (tmp_path / "videos").iterdir()] == [".mp4"]


def test_the_observation_space_names_its_environment(env_id: str) -> None:
    space = gym.make(env_id, **{parameter(env_id): 9.5}).observation_space
    kwargs = json.loads(json.dumps(space.env_kwargs))
    again = gym.make(space.env_id, **kwargs)
    assert getattr(again.unwrapped.dynamics, parameter(env_id)).item() == 9.5
    assert again.observation_space == space
