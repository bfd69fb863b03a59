"""A cart-pole whose track ends: leaving it ends the episode, at a price, and plans keep to it."""

import json
import math
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from mpc_gym import make_mpc, make_sb3_vec_env
from mpc_gym.imitation import collect, evaluate
from mpc_gym.models import CartPoleTrack
from mpc_gym.rendering.palette import BODY, INK, blend
from tests.envs.drawings import draw_cartpole

ENV = "DiffCartPole-v0"
TRACK = 0.6  # [m]
N = 8
LEAVING = 1000.0


def make(**kwargs: Any) -> gym.Env:
    return gym.make(ENV, **{"track": TRACK, **kwargs})


def state_of(x: float, x_dot: float = 0.0, theta: float = 0.0, speed: float = 0.0) -> list[float]:
    return [x, x_dot, math.cos(theta), math.sin(theta), speed]


def forces(steps: int, largest: float = 40.0) -> np.ndarray:
    return np.random.default_rng(0).uniform(-largest, largest, (steps, N, 1)).astype(np.float32)


@pytest.mark.parametrize("check", [gymnasium_check_env, sb3_check_env])
def test_checkers_pass(check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # the window is tried too
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(make(render_mode="rgb_array").unwrapped)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 1, messages  # on the range of the action
    assert "normalized" in messages[0]


@pytest.mark.parametrize("side", [-1, 1])
def test_an_episode_terminates_where_the_position_is_beyond_the_track(side: int) -> None:
    env = make()
    for beyond, expected in ((-1e-3, False), (0.0, False), (1e-5, True), (3.0, True)):
        velocity = (TRACK + beyond - 0.5) / 0.05
        env.reset(options={"state": state_of(side * 0.5, side * velocity)})
        observation, _, terminated, truncated, info = env.step(np.zeros(1, np.float32))
        assert observation[0] == pytest.approx(side * (TRACK + beyond))
        assert observation in env.observation_space
        assert (terminated, truncated, info) == (expected, False, {})


def test_the_step_that_leaves_costs_1000_more_and_no_other_does() -> None:
    env, left = make(), 0
    for seed in range(N):
        env.reset(seed=seed)
        terminated = False
        for action in forces(200)[:, seed]:
            x, x_dot, cosine, _, speed = env.unwrapped.state
            _, reward, terminated, _, _ = env.step(action)
            assert terminated == (abs(env.unwrapped.state[0]) > TRACK * (1 + 1e-6))
            moving = 0.05 * (x**2 + x_dot**2 + speed**2)
            stage = cosine - 0.5 - moving - 0.0005 * float(action[0]) ** 2
            assert reward == pytest.approx(stage - LEAVING * terminated)
            if terminated:
                left += 1
                break
    assert left > N / 2


def test_leaving_at_the_time_limit_is_an_end_and_no_mere_truncation() -> None:
    fast = {"state": state_of(0.5, 5.0)}
    env = make(max_episode_steps=1)
    env.reset(options=fast)
    assert env.step(np.zeros(1, np.float32))[2:4] == (True, True)
    envs = make_sb3_vec_env(ENV, n_envs=1, track=TRACK, max_episode_steps=1)
    envs.set_options(fast)
    envs.reset()
    _, _, dones, (info,) = envs.step(np.zeros((1, 1)))
    assert dones.all()
    assert info["TimeLimit.truncated"] is False  # so that a critic does not look beyond


@pytest.mark.parametrize("max_episode_steps", [13, 200])
def test_vector_environments_make_the_episodes_of_single_ones(max_episode_steps: int) -> None:
    arguments = {"track": TRACK, "max_episode_steps": max_episode_steps}
    envs = gym.make_vec(ENV, num_envs=N, **arguments)
    theirs = make_sb3_vec_env(ENV, n_envs=N, seed=3, **arguments)
    singles = [gym.make(ENV, **arguments) for _ in range(N)]
    first, _ = envs.reset(seed=3)
    np.testing.assert_array_equal(first, theirs.reset())
    np.testing.assert_array_equal(first, [s.reset(seed=3 + i)[0] for i, s in enumerate(singles)])
    ended, ends = np.zeros(N, bool), set()
    for actions in forces(60):
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        # an environment that has ended is reset by its next step, which is none of the single one
        expected = [
            (s.reset()[0], 0.0, False, False, {}) if over else s.step(a)
            for s, a, over in zip(singles, actions, ended, strict=True)
        ]
        np.testing.assert_array_equal(observations, [step[0] for step in expected])
        found = list(zip(rewards, terminated, truncated, strict=True))
        assert found == [step[1:4] for step in expected]
        ended = terminated | truncated
        ends |= set(zip(terminated.tolist(), truncated.tolist(), strict=True))
    assert (True, False) in ends
    assert ((False, True) in ends) == (max_episode_steps == 13)


def test_stable_baselines3s_environments_make_them_too() -> None:
    envs, single = make_sb3_vec_env(ENV, n_envs=1, seed=5, track=TRACK), make()
    envs.reset()
    single.reset(seed=5)
    left = 0
    for action in forces(300)[:, :1]:
        observations, rewards, dones, infos = envs.step(action)
        observation, reward, terminated, truncated, _ = single.step(action[0])
        assert (dones[0], rewards[0]) == (terminated or truncated, np.float32(reward))
        if dones[0]:
            assert infos[0]["TimeLimit.truncated"] == (truncated and not terminated)
            np.testing.assert_array_equal(infos[0]["terminal_observation"], observation)
            observation, _ = single.reset()
            left += terminated
        np.testing.assert_array_equal(observations[0], observation)
    assert left > 2


def test_leaving_earns_less_than_staying_without_any_skill() -> None:
    """Cost counted by the documented formula alone, so that early ends are what they would be."""
    count, discount = 256, 0.99
    starts = gym.make_vec(ENV, num_envs=count, track=2.4).reset(seed=0)[0].astype(float)

    def returns(force) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        envs = gym.make_vec(ENV, num_envs=count, track=2.4)
        observations, _ = envs.reset(options={"state": starts})
        total, discounted, left = np.zeros(count), np.zeros(count), np.zeros(count, bool)
        alive = np.ones(count, bool)
        for step in range(200):
            observations, rewards, terminated, _, _ = envs.step(force(observations))
            total += rewards * alive
            discounted += discount**step * rewards * alive
            left |= terminated & alive
            alive &= ~terminated
        return total, discounted, left

    away = returns(lambda o: np.full((count, 1), 100.0))
    idle = returns(lambda o: np.zeros((count, 1)))
    held = returns(lambda o: -20.0 * (o[:, :1] + o[:, 1:2]))
    assert away[2].all()
    assert not held[2].any()
    for stay in (idle, held):
        stayed = ~stay[2]
        assert stayed.mean() > 0.4
        for kind in (0, 1):
            assert (stay[kind] > away[kind])[stayed].all()


@pytest.mark.parametrize(("track", "widest"), [(0.1, 0.05), (0.6, 0.3), (1.0, 0.5), (2.4, 0.5)])
def test_episodes_start_well_within_the_track(track: float, widest: float) -> None:
    observations, _ = gym.make_vec(ENV, num_envs=2000, track=track).reset(seed=0)
    positions = np.abs(observations[:, 0])
    assert 0.98 * widest < positions.max() <= widest
    assert 0.45 < np.abs(observations[:, 1]).max() <= 0.5


def test_without_a_track_nothing_ends_it() -> None:
    env = gym.make(ENV)
    assert env.unwrapped.track is None
    assert env.unwrapped.constraints is None
    assert "track" not in env.observation_space.env_kwargs
    env.reset(options={"state": state_of(1e6, 1e6)})
    assert not env.step(np.zeros(1, np.float32))[2]


@pytest.mark.parametrize("track", [0.0, -1.0, math.nan, math.inf, "wide", [2.4], True])
def test_an_impossible_track_is_refused(track: Any) -> None:
    for make_one in (gym.make, gym.make_vec, make_sb3_vec_env):
        with pytest.raises(ValueError, match="track must be"):
            make_one(ENV, track=track)


def test_a_start_state_off_the_track_is_refused() -> None:
    env = make()
    with pytest.raises(ValueError, match=r"its track, within \+-0.6 m, got a position of -0.7 m"):
        env.reset(options={"state": state_of(-0.7)})
    with pytest.raises(ValueError, match=r"options\['state'\] must have the cart on its track"):
        gym.make_vec(ENV, num_envs=2, track=TRACK).reset(options={"state": state_of(0.7)})
    assert env.unwrapped.is_state(state_of(0.6))
    assert not env.unwrapped.is_state(state_of(0.61))


def test_the_track_is_no_physical_parameter() -> None:
    env = make(cart_mass=2.0)
    assert env.unwrapped.physics["cart_mass"] == 2.0
    assert "track" not in env.unwrapped.physics
    with pytest.raises(ValueError, match="no parameter"):
        env.reset(options={"parameters": {"track": (0.5, 1.0)}})
    with pytest.raises(AttributeError, match="track"):
        env.unwrapped.track = 3.0
    envs = gym.make_vec(ENV, num_envs=2, track=TRACK)
    assert envs.get_attr("track") == (TRACK, TRACK)
    with pytest.raises(AttributeError, match="track"):
        envs.set_attr("track", 3.0)


def test_the_space_says_which_track_it_is() -> None:
    kwargs = json.loads(json.dumps(make(pole_mass=0.2).observation_space.env_kwargs))
    again = gym.make(ENV, **kwargs)
    assert again.unwrapped.track == TRACK
    assert again.unwrapped.physics["pole_mass"] == 0.2


def test_a_controller_plans_within_the_track_and_acts_within_it() -> None:
    count = 32
    envs = gym.make_vec(ENV, num_envs=count, track=TRACK)
    bound, free = make_mpc(make()), make_mpc(ENV)
    assert isinstance(bound.constraints, CartPoleTrack)
    farthest = {}
    for mpc in (bound, free):
        observations, _ = envs.reset(seed=1)
        left, guess = np.zeros(count, bool), None
        for _ in range(100):
            with torch.no_grad():
                plan = mpc(torch.from_numpy(observations), guess)
            if mpc is bound:
                assert (plan.states[..., 0].abs() <= TRACK + 1e-6)[plan.converged].all()
            guess = plan.shift()
            observations, _, terminated, _, _ = envs.step(plan.controls[:, 0].numpy())
            left |= terminated
        farthest[mpc] = left.mean()
    assert farthest[bound] == 0.0
    assert farthest[free] > 0.2


def test_make_mpc_takes_another_constraint_or_none() -> None:
    env = make()
    assert make_mpc(env, constraints=CartPoleTrack(0.4)).constraints.limit.item() == 0.4
    assert make_mpc(env, constraints=None).constraints is None
    mpc = make_mpc(env)
    mpc.constraints.limit.fill_(0.1)
    assert env.unwrapped.constraints.limit.item() == TRACK


def test_what_cannot_stay_leaves_by_as_little_as_possible() -> None:
    """Against the hardest braking that there is, which overshoots least."""
    rng = np.random.default_rng(0)
    x, x_dot = rng.uniform(0.3, 0.6, 48), rng.uniform(6.0, 20.0, 48)
    theta, speed = rng.uniform(-np.pi, np.pi, 48), rng.uniform(-1.0, 1.0, 48)
    states = torch.from_numpy(np.stack((x, x_dot, np.cos(theta), np.sin(theta), speed), -1))
    mpc = make_mpc(make())
    with torch.no_grad():
        plan = mpc(states)
        braked, least = states, torch.zeros(48, dtype=torch.float64)
        for _ in range(mpc.horizon - 1):
            braked = mpc.dynamics(braked, torch.full((48, 1), -100.0, dtype=torch.float64))
            least = torch.maximum(least, braked[:, 0] - TRACK)
    assert (least > 0.1).all()
    assert not plan.converged.any()
    torch.testing.assert_close(plan.violation, least, atol=0.01, rtol=0.05)
    assert (plan.controls[:, 0, 0] < -50).all()


def test_episodes_that_left_are_collected_and_scored_to_their_ends() -> None:
    class Push:
        def predict(self, observation, *_state, **_options):
            return np.full((len(observation), 1), 100.0, np.float32), None

    demonstrations = collect(Push(), ENV, episodes=6, env_kwargs={"track": TRACK})
    assert demonstrations.env_kwargs == {"track": TRACK}
    assert (demonstrations.episode_lengths < 20).all()
    assert (demonstrations.final_observations[:, 0] > TRACK).all()
    assert (np.abs(demonstrations.observations[:, 0]) <= TRACK).all()
    scores = evaluate(Push(), ENV, range(6), env_kwargs={"track": TRACK})
    np.testing.assert_array_equal(scores.lengths, demonstrations.episode_lengths)
    np.testing.assert_allclose(scores.returns, demonstrations.returns)
    assert ((scores.returns < -LEAVING) & (scores.returns > -LEAVING - 300)).all()


def columns_of(frame: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    above_the_rail = frame[:275]
    return np.unique(np.argwhere((above_the_rail == colour).all(-1))[:, 1])


def test_the_picture_shows_the_ends_that_are_in_view() -> None:
    """At each end a buffer that the cart touches when its middle is there."""
    buffer = blend(INK, 0.5)
    middle = np.array(state_of(0.0))
    endless = draw_cartpole(middle)
    near = draw_cartpole(middle, track=1.0)
    columns = columns_of(near, buffer)
    metre = 500 / (2 * 1.7)  # pixels, where the pole is 1 m
    left, right = columns[columns < 250], columns[columns > 250]
    cart = 0.23 * metre
    assert right.min() - 249.5 == pytest.approx(metre + cart, abs=2)
    assert 249.5 - left.max() == pytest.approx(metre + cart, abs=2)
    far = draw_cartpole(middle, track=5.0)
    np.testing.assert_array_equal(far, endless)
    at_the_end = draw_cartpole(np.array(state_of(1.0)), track=1.0)
    assert columns_of(at_the_end, buffer).max() > columns_of(at_the_end, INK).max()
    assert len(columns_of(at_the_end, BODY)) > 0


def test_the_environments_draw_it() -> None:
    frames = []
    for kwargs in ({"track": 1.0}, {}):
        env = gym.make(ENV, render_mode="rgb_array", **kwargs)
        env.reset(seed=0)
        envs = gym.make_vec(ENV, num_envs=1, render_mode="rgb_array", **kwargs)
        envs.reset(seed=0)
        np.testing.assert_array_equal(env.render(), envs.render()[0])
        frames.append(env.render())
    assert (frames[0] != frames[1]).any()
