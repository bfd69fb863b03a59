"""What the environments show, and how they are recorded."""

from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled, ResetNeeded

from mpc_gym.envs import base
from mpc_gym.rendering.scene import TRAIL, Memory
from tests.envs.systems import IDS

SIZE = {"width": 200, "height": 200}


@pytest.fixture(params=IDS)
def env_id(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_list_mode_collects_a_frame_a_step(env_id: str) -> None:
    env = gym.make(env_id, render_mode="rgb_array_list", **SIZE)
    env.reset(seed=0)
    for _ in range(4):
        env.step(env.action_space.high)
    frames = env.render()
    assert [frame.shape for frame in frames] == [(200, 200, 3)] * 5
    assert all((a != b).any() for a, b in pairwise(frames))
    assert env.render() == []


def test_time_and_return_are_written_down() -> None:
    memory = Memory(np.zeros(3))
    for step in range(30):
        memory.add(np.zeros(1), -2.0, np.full(3, step + 1.0))
    scene = memory.scene(dt=0.05)
    assert scene.caption == "1.50 s     return -60.0"
    np.testing.assert_array_equal(scene.state, np.full(3, 30.0))
    np.testing.assert_array_equal(scene.trail[:, 0], np.arange(31)[-TRAIL:])


def test_the_picture_shows_text_and_trail_and_forgets_them_at_the_reset(env_id: str) -> None:
    env = gym.make(env_id, render_mode="rgb_array", **SIZE)
    env.reset(seed=0)
    first = env.render()
    state = env.unwrapped.state
    for _ in range(10):
        env.step(env.action_space.low)
    later = env.render()
    assert (later[:30, :100] != first[:30, :100]).any()
    env.reset(options={"state": state})
    np.testing.assert_array_equal(env.render(), first)


def test_drawing_before_reset_needs_a_reset(env_id: str) -> None:
    with pytest.raises(ResetNeeded):
        gym.make(env_id, render_mode="rgb_array").unwrapped.render()


def test_the_picture_does_not_change_the_episode(env_id: str) -> None:
    drawn, plain = gym.make(env_id, render_mode="rgb_array", **SIZE), gym.make(env_id)
    for env in (drawn, plain):
        env.reset(seed=0)
    for _ in range(10):
        action = plain.action_space.sample()
        np.testing.assert_array_equal(drawn.step(action)[0], plain.step(action)[0])
        drawn.render()


def test_human_mode_shows_each_step_in_a_window(env_id: str, monkeypatch) -> None:
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gym.make(env_id, render_mode="human", **SIZE)
    picture = gym.make(env_id, render_mode="rgb_array", **SIZE)
    for e in (env, picture):
        e.reset(seed=0)
    for _ in range(2):
        for e in (env, picture):
            e.step(e.action_space.high)
        surface = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
        np.testing.assert_array_equal(surface, picture.render())
    assert env.render() is None
    env.close()
    assert not pygame.display.get_init()


def test_human_mode_without_pygame_says_how_to_install_it(env_id: str, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    env_class = type(gym.make(env_id).unwrapped)
    with pytest.raises(DependencyNotInstalled, match=r'pip install "mpc-gym\[human\]"'):
        env_class(render_mode="human")


def test_the_modes_listed_are_those_that_work_here() -> None:
    from importlib.util import find_spec

    listed = base.DiffEnv.metadata["render_modes"]
    assert listed == (["human", "rgb_array"] if find_spec("pygame") else ["rgb_array"])
