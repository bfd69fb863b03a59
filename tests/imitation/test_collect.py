"""Collecting demonstrations and evaluating agents share one loop."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from mpc_gym.imitation import RandomAgent, Stateless, collect, evaluate, evaluate_from
from mpc_gym.imitation.episodes import play
from mpc_gym.make_mpc import make_mpc
from mpc_gym.mpc import MPC
from mpc_gym.policies import RecedingHorizon


@pytest.fixture
def expert() -> MPC:
    return make_mpc("DiffPendulum-v0", horizon=5, max_iterations=30)


class Counter:
    """Acts as it counts the time steps in its recurrent state, by episode."""

    def predict(self, observation, state=None, episode_start=None, **kwargs):  # noqa: ARG002
        count = np.zeros(len(observation)) if state is None else state[0]
        count = count if episode_start is None else np.where(episode_start, 0.0, count)
        return (count[:, None] / 100).astype(np.float32), (count + 1,)


def test_demonstrations_are_what_gymnasiums_own_loop_sees(expert):
    demonstrations = collect(expert, "DiffPendulum-v0", episodes=2, seed=7, max_steps=6)
    controller = RecedingHorizon(expert)
    for i in range(2):
        env = gym.make("DiffPendulum-v0")
        obs, _ = env.reset(seed=7 + i)
        state, episode = None, demonstrations.select([i])
        for t in range(6):
            np.testing.assert_allclose(episode.observations[t], obs, atol=1e-5)
            action, state = controller.predict(obs, state)
            np.testing.assert_allclose(episode.actions[t], action, atol=1e-5)
            obs, reward, *_ = env.step(action)
            np.testing.assert_allclose(episode.rewards[t], reward, atol=1e-5)
        np.testing.assert_allclose(episode.final_observations[0], obs, atol=1e-5)


def test_the_same_seed_gives_the_same_demonstrations_and_another_others(expert):
    first, again, other = (
        collect(expert, "DiffPendulum-v0", episodes=2, seed=seed, max_steps=2) for seed in (3, 3, 5)
    )
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != other.fingerprint()


def test_the_recurrent_state_is_passed_back_and_begins_with_the_episode():
    demonstrations = collect(Counter(), "DiffPendulum-v0", episodes=2, max_steps=3)
    np.testing.assert_allclose(demonstrations.actions[:, 0], [0, 0.01, 0.02] * 2, atol=1e-7)


def test_a_stateless_expert_acts_on_each_observation_as_on_its_first():
    demonstrations = collect(Stateless(Counter()), "DiffPendulum-v0", episodes=2, max_steps=3)
    assert not demonstrations.actions.any()


def test_an_environments_arguments_are_kept():
    env = gym.make("DiffPendulum-v0", gravity=3.0, render_mode="rgb_array")
    demonstrations = collect(Counter(), env, episodes=1, max_steps=2)
    assert demonstrations.env_id == "DiffPendulum-v0"
    assert demonstrations.env_kwargs == {"gravity": 3.0}


def test_episodes_of_different_lengths_end_on_their_own():
    envs = gym.vector.SyncVectorEnv(
        [lambda n=n: gym.make("DiffPendulum-v0", max_episode_steps=n) for n in (2, 5, 3)]
    )
    result = play(Counter(), envs, range(3))
    assert result.lengths.tolist() == [2, 5, 3]
    np.testing.assert_allclose(
        result.actions[:5, 1, 0], np.arange(5) / 100, atol=1e-7, err_msg="the longest"
    )


class Sevens(gym.Env):
    """Ends itself after seven steps; registered without a limit."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):  # noqa: ARG002
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):  # noqa: ARG002
        self.steps += 1
        return np.zeros(2, np.float32), 0.0, False, self.steps == 7, {}


def test_an_environment_that_truncates_itself_needs_no_limit():
    gym.register("Sevens-v0", entry_point=Sevens)
    try:
        demonstrations = collect(Counter(), "Sevens-v0", episodes=2)
        assert demonstrations.episode_lengths.tolist() == [7, 7]
        assert evaluate(Counter(), "Sevens-v0", [0], max_steps=3).lengths.tolist() == [3]
    finally:
        gym.registry.pop("Sevens-v0")


def test_an_evaluation_agrees_with_sb3s():
    model = PPO("MlpPolicy", "Pendulum-v1", seed=0)
    evaluation = evaluate(model, "Pendulum-v1", seeds=[11])
    env = gym.make("Pendulum-v1")
    expected, _ = evaluate_policy(model, _Seeded(env, 11), n_eval_episodes=1, warn=False)
    assert evaluation.returns == pytest.approx([expected], rel=1e-5)
    assert evaluation.lengths.tolist() == [200]
    assert evaluation.mean == pytest.approx(expected, rel=1e-5)


class _Seeded(gym.Wrapper):
    """Every episode starts from one seed."""

    def __init__(self, env: gym.Env, seed: int) -> None:
        super().__init__(env)
        self.seed = seed

    def reset(self, **kwargs):  # noqa: ARG002
        return self.env.reset(seed=self.seed)


class Right:
    """Pushes a cart to the right."""

    def predict(self, observation, state=None, episode_start=None, **kwargs):  # noqa: ARG002
        return np.ones(len(observation), dtype=int), None


def test_discrete_actions_are_evaluated_as_in_gymnasiums_own_loop():
    found = evaluate(Right(), "CartPole-v1", seeds=range(3))
    for seed, length in enumerate(found.lengths):
        env = gym.make("CartPole-v1")
        env.reset(seed=seed)
        ends = [env.step(1)[2] for _ in range(length)]
        assert ends == [False] * (length - 1) + [True]
    np.testing.assert_array_equal(found.returns, found.lengths)


def test_the_standard_error_is_that_of_the_mean():
    evaluation = evaluate(Counter(), "DiffPendulum-v0", seeds=range(4), max_steps=2)
    expected = np.std(evaluation.returns, ddof=1) / 2
    assert evaluation.standard_error == pytest.approx(expected)
    assert evaluation.seconds_per_decision > 0


def test_an_evaluation_starts_from_the_states_given(expert):
    upright, hanging = [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]
    evaluation = evaluate_from(expert, "DiffPendulum-v0", [upright, hanging], max_steps=1)
    np.testing.assert_allclose(evaluation.returns, [0.0, -(np.pi**2)], atol=1e-2)


class TestBadInput:
    def test_a_state_of_the_wrong_length_is_answered_by_its_place_in_states(self):
        states = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
        for wrong, reason in (([2.0, 0.0, 0.0], "of one angle"), ([np.nan, 0.0, 0.0], "finite")):
            with pytest.raises(ValueError, match=rf"states\[1\] must be .*{reason}"):
                evaluate_from(Counter(), "DiffPendulum-v0", [states[0], wrong])
        with pytest.raises(ValueError, match=r"states\[0\] must be .* shape \(3,\), got \(2,\)"):
            evaluate_from(Counter(), "DiffPendulum-v0", [[1.0, 0.0]])

    def test_an_environment_that_does_not_start_where_it_is_told_is_refused(self):
        with pytest.raises(ValueError, match=r"env must start from the state .*Pendulum-v1"):
            evaluate_from(Counter(), "Pendulum-v1", [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])

    def test_no_episode_is_refused(self):
        with pytest.raises(ValueError, match="episodes must be at least 1, got 0"):
            collect(Counter(), "DiffPendulum-v0", episodes=0)

    def test_an_environment_that_cannot_be_made_again_is_refused(self):
        env = gym.make("DiffPendulum-v0").unwrapped.__class__()
        with pytest.raises(ValueError, match=r"env must be an id or made by gymnasium\.make"):
            collect(Counter(), env, episodes=1)

    def test_an_environment_without_end_needs_a_limit(self, monkeypatch):
        monkeypatch.setattr("mpc_gym.imitation.episodes.ENDLESS", 300)
        message = "max_steps must be given: .* has not ended after 300 steps"
        with pytest.raises(ValueError, match=message):
            collect(Counter(), "DiffPendulum-v0", episodes=1, env_kwargs={"max_episode_steps": -1})

    @pytest.mark.parametrize("max_steps", [0, -1, 1.5, "a", True])
    def test_a_limit_that_is_none_is_refused(self, max_steps):
        for call in (
            lambda: collect(Counter(), "DiffPendulum-v0", 1, max_steps=max_steps),
            lambda: evaluate(Counter(), "DiffPendulum-v0", [0], max_steps=max_steps),
            lambda: evaluate_from(Counter(), "DiffPendulum-v0", [[1.0, 0, 0]], max_steps=max_steps),
        ):
            with pytest.raises(ValueError, match="max_steps must be"):
                call()

    @pytest.mark.parametrize("env_id", ["Blackjack-v1", "FrozenLake-v1"])
    def test_discrete_observations_cannot_be_demonstrated_in(self, env_id):
        with pytest.raises(ValueError, match=r"continuous observations \(a Box, or a Dict"):
            collect(Counter(), env_id, episodes=1)


def test_an_evaluation_prints_in_one_line():
    evaluation = evaluate(Counter(), "DiffPendulum-v0", seeds=range(30), max_steps=1)
    text = repr(evaluation)
    assert text.startswith(f"Evaluation(episodes=30, mean={evaluation.mean:.6g}")
    assert len(text) < 150


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_a_random_agent_draws_from_all_actions_the_same_of_the_same_seed(env_id):
    env = gym.make(env_id)
    first, again, other = (
        collect(RandomAgent(env, seed), env, episodes=2, max_steps=50).actions for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:10], other[:10])
    actions = np.linspace(0, 1, 2) if env_id == "CartPole-v1" else np.array([-2.0, 2.0])
    np.testing.assert_allclose([first.min(), first.max()], actions, atol=0.2)
