import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from mpc_gym.envs import DiffVectorEnv
from tests.envs.systems import SPELLINGS, ranges

N = 5


@pytest.fixture(params=SPELLINGS)
def env_id(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def envs(env_id: str) -> DiffVectorEnv:
    return gym.make_vec(env_id, num_envs=N)


def test_make_vec_chooses_it_with_the_registered_time_limit(envs, env_id: str) -> None:
    assert isinstance(envs, DiffVectorEnv)
    envs.reset(seed=0)
    ends = [envs.step(envs.action_space.sample())[3].tolist() for _ in range(200)]
    assert ends == [[False] * N] * 199 + [[True] * N]
    assert envs.spec.id == env_id


def test_the_spaces_are_those_of_gymnasiums_vector_environment(envs, env_id: str) -> None:
    theirs = gym.make_vec(env_id, num_envs=N, vectorization_mode="sync")
    assert envs.observation_space == theirs.observation_space
    assert envs.action_space == theirs.action_space
    assert envs.single_observation_space == theirs.single_observation_space
    assert envs.single_observation_space.env_id == theirs.single_observation_space.env_id
    assert envs.single_action_space == theirs.single_action_space
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_does_what_gymnasiums_vector_of_single_environments_does(env_id, drawn, dtype) -> None:
    options = {"parameters": ranges(env_id)} if drawn else None
    kwargs = {"num_envs": N, "max_episode_steps": 20}
    ours = gym.make_vec(env_id, **kwargs)
    theirs = gym.make_vec(env_id, vectorization_mode="sync", **kwargs)
    found, expected = (envs.reset(seed=3, options=options) for envs in (ours, theirs))
    rng = np.random.default_rng(0)
    for step in range(65):
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-6, atol=1e-6)
        assert found[0].dtype == np.float32
        same_infos(found[-1], expected[-1])
        assert bool(found[-1]) == (drawn and step % 21 == 0)
        actions = (rng.uniform(-1.2, 1.2, (N, 1)) * ours.single_action_space.high).astype(dtype)
        found, expected = ours.step(actions), theirs.step(actions)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(found[2], expected[2])
        np.testing.assert_array_equal(found[3], expected[3])


def same_infos(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for key, value in found.items():
        if isinstance(value, dict):
            same_infos(value, expected[key])
        else:
            np.testing.assert_allclose(value, expected[key], rtol=1e-12)


def test_from_the_same_states_it_steps_bit_by_bit_as_single_environments(env_id: str) -> None:
    envs, single = gym.make_vec(env_id, num_envs=N), gym.make(env_id).unwrapped
    envs.reset(seed=0)
    for _ in range(5):
        states, actions = envs.states, envs.action_space.sample()
        observations, rewards, *_ = envs.step(actions)
        for i in range(N):
            single.reset(options={"state": states[i]})
            observation, reward, *_ = single.step(actions[i])
            np.testing.assert_array_equal(single.state, envs.states[i])
            np.testing.assert_array_equal(observation, observations[i])
            assert reward == rewards[i]


def test_each_environment_has_a_seed_of_its_own(envs: DiffVectorEnv) -> None:
    first, _ = envs.reset(seed=10)
    assert envs.np_random_seed == tuple(range(10, 10 + N))
    shifted, _ = envs.reset(seed=11)
    np.testing.assert_array_equal(first[1:], shifted[:-1])
    listed, _ = envs.reset(seed=[10, None, 12, 13, 14])
    np.testing.assert_array_equal(listed[[0, 2, 3, 4]], first[[0, 2, 3, 4]])
    assert (listed[1] != first[1]).any()


def test_without_a_seed_no_two_are_alike(env_id: str) -> None:
    observations = [gym.make_vec(env_id, num_envs=N).reset()[0] for _ in range(2)]
    assert len(np.unique(np.concatenate(observations), axis=0)) == 2 * N


def test_what_is_returned_is_never_written_to_again(envs: DiffVectorEnv) -> None:
    kept = [envs.reset(seed=0)[0]]
    for _ in range(3):
        kept += envs.step(envs.action_space.sample())[:4]
    copies = [array.copy() for array in kept]
    actions = envs.action_space.sample()
    before = actions.copy()
    for _ in range(300):
        envs.step(actions)
    np.testing.assert_array_equal(actions, before)
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_mask_resets_some_and_leaves_the_others(envs: DiffVectorEnv) -> None:
    envs.reset(seed=0)
    before = envs.states
    mask = np.array([True, False, False, True, False])
    observations, _ = envs.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal((envs.states != before).any(-1), mask)
    np.testing.assert_array_equal(observations[~mask], before[~mask].astype(np.float32))


def test_environments_whose_episodes_began_apart_end_apart() -> None:
    envs = gym.make_vec("DiffPendulum-v0", num_envs=2, max_episode_steps=5)
    envs.reset(seed=0)
    for _ in range(2):
        envs.step(np.zeros((2, 1)))
    envs.reset(options={"reset_mask": np.array([False, True])})
    ends = [envs.step(np.zeros((2, 1)))[3].tolist() for _ in range(12)]
    first, second = map(list, zip(*ends, strict=True))
    assert [i for i, end in enumerate(first) if end] == [2, 8]
    assert [i for i, end in enumerate(second) if end] == [4, 10]


def test_an_environment_reset_by_hand_after_its_end_is_not_reset_again() -> None:
    envs = gym.make_vec("DiffPendulum-v0", num_envs=2, max_episode_steps=3)
    envs.reset(seed=0)
    for _ in range(3):
        envs.step(np.zeros((2, 1)))
    envs.reset(seed=5, options={"reset_mask": np.array([True, False])})
    *_, rewards, _, _, _ = envs.step(np.zeros((2, 1)))
    assert rewards[0] != 0.0
    assert rewards[1] == 0.0


def test_episodes_can_start_from_given_states(envs: DiffVectorEnv) -> None:
    envs.reset(seed=0)
    states = envs.states
    envs.reset(seed=1)
    envs.reset(options={"state": states})
    np.testing.assert_array_equal(envs.states, states)
    envs.reset(options={"state": states[2]})
    np.testing.assert_array_equal(envs.states, np.tile(states[2], (N, 1)))


def test_the_action_of_an_environment_that_is_being_reset_is_ignored() -> None:
    envs = gym.make_vec("DiffPendulum-v0", num_envs=1, max_episode_steps=1)
    envs.reset(seed=0)
    envs.step(np.zeros((1, 1)))
    observations, *_ = envs.step(np.full((1, 1), np.nan))
    assert np.isfinite(observations).all()


def test_a_parameter_changed_in_the_shared_module_counts_at_the_next_step() -> None:
    envs = gym.make_vec("DiffPendulum-v0", num_envs=2)
    envs.reset(options={"state": [0.0, 1.0, 0.0]})
    envs.dynamics.gravity.data.fill_(0.0)
    observations, *_ = envs.step(np.zeros((2, 1)))
    np.testing.assert_array_equal(observations[:, 2], [0.0, 0.0])


def test_a_copy_goes_on_where_the_original_is(envs: DiffVectorEnv, env_id: str) -> None:
    envs.reset(seed=0, options={"parameters": ranges(env_id)})
    other = pickle.loads(pickle.dumps(envs))
    for _ in range(205):
        actions = envs.action_space.sample()
        found, expected = other.step(actions), envs.step(actions)
        np.testing.assert_array_equal(found[0], expected[0])


def test_vector_wrappers_work(env_id: str) -> None:
    envs = gym.make_vec(env_id, num_envs=N, max_episode_steps=10)
    envs = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    envs = gym.wrappers.vector.NormalizeObservation(envs)
    envs.reset(seed=0)
    total = np.zeros(N)
    for _ in range(10):
        _, rewards, _, truncated, infos = envs.step(envs.action_space.sample())
        total += rewards
    assert truncated.all()
    np.testing.assert_allclose(infos["episode"]["r"], total, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda e: e.step(np.zeros(N)), ValueError, r"actions must have shape \(5, [12]\)"),
        (
            lambda e: e.step(np.full(e.action_space.shape, np.nan)),
            ValueError,
            "action must be a number",
        ),
        (lambda e: e.reset(seed=[1, 2]), ValueError, "seed must be one number, or one for each"),
        (lambda e: e.reset(options={"x": 1}), ValueError, r"unknown reset option \['x'\]"),
        (lambda e: e.reset(options={"reset_mask": [1, 0]}), ValueError, "must be 5 booleans"),
        (
            lambda e: e.reset(options={"reset_mask": np.zeros(N, bool)}),
            ValueError,
            "at least one of them true",
        ),
        (lambda e: e.reset(options={"state": e.states[:2]}), ValueError, "one for each of the 5"),
        (lambda e: e.reset(options={"state": 2 * e.states}), ValueError, "options"),
        (lambda e: e.show_plan(torch.zeros(2, 4, 3)), ValueError, "5 environments, got 2"),
    ],
)
def test_a_users_mistake_is_named(envs: DiffVectorEnv, call, error, message: str) -> None:
    envs.reset(seed=0)
    with pytest.raises(error, match=message):
        call(envs)


def test_stepping_before_reset_needs_a_reset(envs: DiffVectorEnv) -> None:
    with pytest.raises(ResetNeeded):
        envs.step(envs.action_space.sample())


@pytest.mark.parametrize("kwargs", [{"num_envs": 0}, {"max_episode_steps": 0}, {"mass": -1.0}])
def test_impossible_arguments_are_refused(kwargs) -> None:
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        gym.make_vec("DiffPendulum-v0", **kwargs)


def test_it_draws_all_in_a_grid_or_each_on_its_own(env_id: str) -> None:
    size = {"width": 90, "height": 60}
    envs = gym.make_vec(env_id, num_envs=N, render_mode="rgb_array_grid", **size)
    each = gym.make_vec(env_id, num_envs=N, render_mode="rgb_array", **size)
    for env in (envs, each):
        env.reset(seed=0)
        env.step(env.action_space.high)
    grid, frames = envs.render(), each.render()
    assert type(frames) is tuple
    assert grid.shape == (60, 90, 3)
    assert grid.dtype == np.uint8
    assert [frame.shape for frame in frames] == [(60, 90, 3)] * N
    cells = [grid[30 * (i // 3) : 30 * (i // 3) + 30, 30 * (i % 3) :][:, :30] for i in range(6)]
    colours = [len(np.unique(cell.reshape(-1, 3), axis=0)) for cell in cells]
    assert min(colours[:5]) > 3
    assert colours[5] == 1


def test_plans_are_drawn_in_the_picture_of_their_environment() -> None:
    envs = gym.make_vec("DiffPendulum-v0", num_envs=2, render_mode="rgb_array", width=80, height=80)
    envs.reset(options={"state": [1.0, 0.0, 0.0]})
    plain = envs.render()
    plans = np.tile([1.0, 0.0, 0.0], (2, 10, 1))
    plans[1, 1:, 0] = -1.0
    envs.show_plan(plans)
    shown = envs.render()
    np.testing.assert_array_equal(shown[0], plain[0])
    assert (shown[1] != plain[1]).any()
    envs.show_plan(None)
    np.testing.assert_array_equal(envs.render()[1], plain[1])


def test_render_without_a_mode_warns_and_with_an_unknown_one_raises(envs, env_id: str) -> None:
    envs.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert envs.render() is None
    with pytest.raises(ValueError, match="render_mode must be None or one of"):
        gym.make_vec(env_id, render_mode="hologram")


def test_gymnasiums_vector_record_video_works(env_id: str, tmp_path) -> None:
    pytest.importorskip("moviepy")
    envs = gym.make_vec(
        env_id, num_envs=2, render_mode="rgb_array", width=64, height=64, max_episode_steps=4
    )
    envs = gym.wrappers.vector.RecordVideo(
        envs, str(tmp_path / "videos"), video_length=4, disable_logger=True
    )
    envs.reset(seed=0)
    for _ in range(6):
        envs.step(envs.action_space.sample())
    envs.close()
    assert {path.suffix for path in (tmp_path / "videos").iterdir()} == {".mp4"}


def test_gymnasiums_vector_human_rendering_works(env_id: str, monkeypatch) -> None:
    pygame = pytest.importorskip("pygame")
    pytest.importorskip("cv2")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    envs = gym.make_vec(env_id, num_envs=4, render_mode="rgb_array", width=64, height=64)
    envs = gym.wrappers.vector.HumanRendering(envs, screen_size=(128, 128))
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    frames = envs.env.render()
    corner = shown[:64, :64]
    assert any((corner == frame).all() for frame in frames)
    envs.close()


def test_the_frames_are_what_gymnasiums_own_vector_environments_give(env_id: str) -> None:
    kwargs = {"num_envs": 2, "render_mode": "rgb_array", "width": 64, "height": 48}
    ours = gym.make_vec(env_id, **kwargs)
    theirs = gym.make_vec(env_id, vectorization_mode="sync", **kwargs)
    for envs in (ours, theirs):
        envs.reset(seed=0)
        envs.step(envs.action_space.high)
    assert len(ours.render()) == len(theirs.render()) == 2
    for frame, other in zip(ours.render(), theirs.render(), strict=True):
        np.testing.assert_array_equal(frame, other)
