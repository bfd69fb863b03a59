import gymnasium as gym
import numpy as np
import pytest
import torch

from mpc_gym.imitation import BehavioralCloning, Demonstrations
from mpc_gym.imitation.losses import SequenceLoss
from mpc_gym.policies import LSTMPolicy

HORIZON = 4


@pytest.fixture
def policy() -> LSTMPolicy:
    torch.manual_seed(0)
    env = gym.make("DiffPendulum-v0")
    return LSTMPolicy(env.observation_space, env.action_space, lambda _: 0.0, HORIZON, hidden=16)


@pytest.fixture
def demonstrations() -> Demonstrations:
    """Two episodes whose controls follow from the first observation of each window."""
    rng = np.random.default_rng(1)
    lengths = np.array([30, 7])
    angle = np.linspace(0, 9, 37)
    return Demonstrations(
        observations=np.stack([np.cos(angle), np.sin(angle), angle], 1).astype(np.float32),
        actions=(2 * np.sin(angle))[:, None].astype(np.float32),
        rewards=rng.normal(size=37),
        episode_lengths=lengths,
        final_observations=np.zeros((2, 3), np.float32),
        env_id="DiffPendulum-v0",
    )


def test_the_loss_is_the_mean_over_all_controls_that_followed(policy, demonstrations) -> None:
    value = SequenceLoss(policy, demonstrations, 3)(torch.arange(37))
    errors, first = [], []
    start = 0
    for length in demonstrations.episode_lengths:
        for t in range(length):
            row = torch.from_numpy(demonstrations.observations[start + t])[None]
            controls = policy.controls(row).detach().numpy()[0]
            count = min(3, length - t)
            followed = demonstrations.actions[start + t : start + t + count]
            errors += list((((controls[:count] - followed) / 2) ** 2).ravel())
            first.append(errors[-count])
        start += length
    assert value.mean() == pytest.approx(np.mean(errors), rel=1e-5)
    assert value.metrics["action_loss"].mean() == pytest.approx(np.mean(first), rel=1e-5)


def test_cloning_teaches_the_lstm_the_whole_sequence(policy, demonstrations) -> None:
    cloning = BehavioralCloning(policy, demonstrations, loss="plan", learning_rate=3e-3)
    cloning.train(60)
    assert cloning.history[-1]["train/plan_loss"] < 0.05
    assert cloning.history[1]["train/plan_loss"] > 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan_steps": HORIZON + 1}, "plan_steps must be between 1 and the horizon 4"),
        ({"prediction_weight": 1.0}, "for a policy with a model"),
    ],
)
def test_what_an_lstm_cannot_learn_is_refused(policy, demonstrations, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        BehavioralCloning(policy, demonstrations, loss="plan", **options)
