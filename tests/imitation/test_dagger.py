"""DAgger learns what the expert would do where the learner goes."""

import dataclasses
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy

from mpc_gym.envs.pendulum import DiffPendulumEnv
from mpc_gym.imitation import (
    BehavioralCloning,
    DAgger,
    Demonstrations,
    Stateless,
    collect,
    imitation_loss,
)
from mpc_gym.make_mpc import make_mpc

ECHO = "Echo-v0"
HANGING = "Hanging-v0"


class Echo(gym.Env):
    """The observation is the last action; an episode's length depends on its seed."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}
    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None):  # noqa: ARG002
        super().reset(seed=seed)
        self.left = 20 + (seed or 0) % 3
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.array(action, dtype=np.float32), 0.0, self.left == 0, False, {}


class Hanging(DiffPendulumEnv):
    """Every episode begins at rest, close to hanging down."""

    def reset(self, *, seed: int | None = None, options: Any = None):  # noqa: ARG002
        angle = np.pi + np.random.default_rng(seed).uniform(-0.1, 0.1)
        return super().reset(seed=seed, options={"state": [np.cos(angle), np.sin(angle), 0.0]})


@pytest.fixture
def hanging():
    gym.register(HANGING, Hanging, max_episode_steps=100)
    yield HANGING
    del gym.registry[HANGING]


@pytest.fixture
def echo():
    gym.register(ECHO, Echo, max_episode_steps=30)
    yield ECHO
    del gym.registry[ECHO]


class Expert:
    """A linear function of the observation, which counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, observation, *_, **__):
        self.calls += 1
        return self.action(observation), None

    @staticmethod
    def action(observation):
        return 0.7 + 0.1 * observation


def learner(env: str) -> ActorCriticPolicy:
    return PPO("MlpPolicy", env, seed=0, device="cpu").policy


@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_with_as_many_labels_it_beats_cloning_where_each_goes(hanging) -> None:
    """From nearly one start, all demonstrations are nearly one: what to do beside it is unseen."""
    rounds, episodes, epochs, steps = 5, 2, 40, 80
    how = {"learning_rate": 1e-2, "batch_size": 256, "seed": 2}
    planner = make_mpc("DiffPendulum-v0", horizon=20, starts=4, max_iterations=30)
    dagger = DAgger(
        learner(hanging), planner, hanging, episodes=episodes, epochs=epochs, max_steps=steps, **how
    )
    dagger.train(rounds)
    shown = collect(Stateless(planner), hanging, rounds * episodes, seed=2, max_steps=steps)
    assert len(shown) == len(dagger.demonstrations)
    clone = learner(hanging)
    BehavioralCloning(clone, shown, **how).train(rounds * epochs)

    def loss_where_it_goes(policy: ActorCriticPolicy) -> float:
        own = collect(policy, hanging, 10, seed=1000, max_steps=100)
        wanted, _ = Stateless(planner).predict(own.observations)
        return imitation_loss(policy, dataclasses.replace(own, actions=wanted))

    assert loss_where_it_goes(dagger.policy) < 0.5 * loss_where_it_goes(clone)


def test_the_expert_begins_and_then_labels_what_the_learner_visits(echo) -> None:
    dagger = DAgger(learner(echo), Expert(), echo, episodes=3, epochs=2, seed=5)
    dagger.train(1)
    alone = collect(Expert(), echo, 3, seed=5)
    assert dagger.demonstrations.fingerprint() == alone.fingerprint()
    before = learner(echo)
    before.load_state_dict(dagger.policy.state_dict())
    dagger.train(2)
    labels = dagger.demonstrations
    assert labels.episode_lengths.tolist() == [22, 20, 21] * 2
    np.testing.assert_allclose(labels.actions, Expert.action(labels.observations), rtol=1e-6)
    visited = collect(before, echo, 3, seed=8)
    np.testing.assert_allclose(labels.observations[63:], visited.observations, atol=1e-6)
    assert dagger.history[1]["imitation_loss"] == pytest.approx(
        imitation_loss(before, labels.select([3, 4, 5]))
    )


def test_the_expert_acts_ever_more_rarely(echo) -> None:
    dagger = DAgger(learner(echo), Expert(), echo, episodes=30, epochs=1, beta=0.5)
    dagger.train(3)
    shares = []
    for number in range(3):
        labels = dagger.demonstrations.select(range(30 * number, 30 * (number + 1)))
        shares.append(np.mean(np.isclose(labels.next_observations, labels.actions)))
    np.testing.assert_allclose(shares, [1.0, 0.5, 0.25], atol=0.06)
    assert [row["beta"] for row in dagger.history] == [1.0, 0.5, 0.25]


class TestStoppedRuns:
    def run(self, echo, folder, expert=None) -> DAgger:
        return DAgger(
            learner(echo), expert or Expert(), echo, episodes=3, epochs=4, beta=0.3, folder=folder
        )

    def same(self, one: DAgger, other: DAgger) -> None:
        assert one.history == other.history
        assert one.demonstrations.fingerprint() == other.demonstrations.fingerprint()
        for p, q in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
            assert torch.equal(p, q)

    def test_the_same_seed_gives_the_same_policy_with_a_folder_or_without(self, echo, tmp_path):
        one, other = self.run(echo, tmp_path), self.run(echo, None)
        one.train(2)
        other.train(1)
        other.train(2)
        self.same(one, other)

    @pytest.mark.parametrize("saved", [0, 2, 5, 7, 11])
    def test_stopped_while_cloning_it_goes_on_where_it_was(
        self, echo, tmp_path, monkeypatch, saved
    ):
        from mpc_gym.imitation import training

        write, count = training.write_checkpoint, iter(range(saved))

        def stop_later(*arguments):
            if next(count, None) is None:
                raise KeyboardInterrupt
            write(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(training, "write_checkpoint", stop_later)
            with pytest.raises(KeyboardInterrupt):
                self.run(echo, tmp_path).train(3)
        resumed, whole = self.run(echo, tmp_path), self.run(echo, None)
        resumed.train(3)
        whole.train(3)
        self.same(resumed, whole)

    def test_finished_episodes_are_not_played_again(self, echo, tmp_path):
        self.run(echo, tmp_path).train(2)
        expert = Expert()
        resumed = self.run(echo, tmp_path, expert)
        resumed.train(2)
        assert expert.calls == 0
        resumed.train(3)
        assert expert.calls == 22  # the steps of the longest episode

    def test_stopped_while_playing_it_plays_that_round_again(self, echo, tmp_path):
        class Fails(Expert):
            def predict(self, *arguments, **options):
                if self.calls == 30:
                    raise KeyboardInterrupt
                return super().predict(*arguments, **options)

        with pytest.raises(KeyboardInterrupt):
            self.run(echo, tmp_path, Fails()).train(3)
        resumed, whole = self.run(echo, tmp_path), self.run(echo, None)
        resumed.train(3)
        whole.train(3)
        self.same(resumed, whole)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"episodes": 1}, "episodes must be at least 2, got 1"),
            ({"epochs": 0}, "epochs must be at least 1, got 0"),
            ({"beta": 1.5}, r"beta must be between 0 and 1, got 1\.5"),
        ],
    )
    def test_an_option_out_of_range_is_named(self, echo, options, message):
        with pytest.raises(ValueError, match=message):
            DAgger(learner(echo), Expert(), echo, **options)

    def test_an_option_of_cloning_out_of_range_is_named_before_anything_is_played(self, echo):
        expert = Expert()
        with pytest.raises(ValueError, match="optimizer must be one of"):
            DAgger(learner(echo), expert, echo, optimizer="sgd")
        with pytest.raises(ValueError, match="validation_fraction must be between 0 and 1"):
            DAgger(learner(echo), expert, echo, validation_fraction=1.0)
        assert expert.calls == 0

    def test_another_runs_folder_is_refused(self, echo, tmp_path):
        DAgger(learner(echo), Expert(), echo, folder=tmp_path)
        with pytest.raises(ValueError, match=r"another run: beta was 0\.0 and is 0\.5"):
            DAgger(learner(echo), Expert(), echo, beta=0.5, folder=tmp_path)

    def test_a_damaged_file_of_labels_is_refused(self, echo, tmp_path):
        DAgger(learner(echo), Expert(), echo, epochs=1, folder=tmp_path).train(1)
        file = tmp_path / "round_000" / "demonstrations.npz"
        file.write_bytes(file.read_bytes()[:-40])
        with pytest.raises(ValueError, match="is damaged"):
            DAgger(learner(echo), Expert(), echo, epochs=1, folder=tmp_path).train(1)

    def test_an_environment_of_other_spaces_is_refused(self, echo):
        with pytest.raises(ValueError, match="observations of 5 numbers"):
            DAgger(learner("DiffCartPole-v0"), Expert(), echo).train(1)

    def test_no_round_has_no_labels(self, echo):
        with pytest.raises(ValueError, match="at least one"):
            _: Demonstrations = DAgger(learner(echo), Expert(), echo).demonstrations
