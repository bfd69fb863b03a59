"""System identification recovers what acts on the motion."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import TD3
from torch import Tensor, nn

from mpc_gym.imitation import (
    Demonstrations,
    SystemIdentification,
    Transitions,
    fit_dynamics,
    identify,
)
from mpc_gym.imitation.transitions import transitions_of
from mpc_gym.models import NeuralDynamics, PendulumDynamics
from mpc_gym.policies import MPCPolicy, TD3MPCPolicy


@pytest.fixture(scope="module")
def demonstrations() -> Demonstrations:
    """Random torques on Gymnasium's own pendulum."""
    env = gym.make("Pendulum-v1", max_episode_steps=30)
    rng = np.random.default_rng(0)
    observations, actions, finals = [], [], []
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        for _ in range(30):
            action = rng.uniform(-2, 2, 1).astype(np.float32)
            observations.append(observation)
            actions.append(action)
            observation, *_ = env.step(action)
        finals.append(observation)
    return Demonstrations(
        np.stack(observations),
        np.stack(actions),
        np.zeros(120),
        np.full(4, 30),
        np.stack(finals),
        "Pendulum-v1",
    )


def test_the_pendulums_two_combinations_are_recovered_from_motion(demonstrations):
    dynamics = PendulumDynamics(gravity=15.0, mass=3.0, length=0.5)
    SystemIdentification(dynamics, demonstrations, learning_rate=0.05).train(200)
    g, m, l = (p.item() for p in (dynamics.gravity, dynamics.mass, dynamics.length))
    assert g / l == pytest.approx(10.0, rel=1e-3)
    assert 1 / (m * l**2) == pytest.approx(1.0, rel=1e-3)


def test_a_policys_model_is_fitted_in_place(demonstrations):
    env = gym.make("DiffPendulum-v0")
    policy = MPCPolicy(
        env.observation_space, env.action_space, lambda _: 1e-3, horizon=3, learn={"gravity": 12.0}
    )
    fitted = SystemIdentification(policy, demonstrations, learning_rate=0.1).train(60)
    assert fitted is policy.mpc.dynamics
    assert policy.mpc.dynamics.gravity.item() == pytest.approx(10.0, rel=1e-2)
    assert policy.mpc.dynamics.mass.item() == 1.0


def test_the_model_of_td3s_actor_and_of_its_target_is_fitted(demonstrations):
    options = {"horizon": 3, "learn": {"gravity": 12.0}}
    policy = TD3(TD3MPCPolicy, "DiffPendulum-v0", policy_kwargs=options, device="cpu").policy
    fitted = SystemIdentification(policy, demonstrations, learning_rate=0.1).train(60)
    assert fitted is policy.actor.planner.mpc.dynamics
    for actor in (policy.actor, policy.actor_target):
        assert actor.planner.mpc.dynamics.gravity.item() == pytest.approx(10.0, rel=1e-2)


def test_a_network_learns_to_predict(demonstrations):
    identification = SystemIdentification(NeuralDynamics(3, 1), demonstrations)
    identification.train(60)
    losses = [row["train/loss"] for row in identification.history[1:]]
    assert losses[-1] < 0.2 * losses[0]


def test_another_models_checkpoint_is_refused(tmp_path, demonstrations):
    SystemIdentification(PendulumDynamics(), demonstrations, folder=tmp_path).train(1)
    with pytest.raises(ValueError, match="another run"):
        SystemIdentification(NeuralDynamics(3, 1), demonstrations, folder=tmp_path)


class Angle(nn.Module):
    """A pendulum of another form than the observations: two entries."""

    def __init__(self) -> None:
        super().__init__()
        self.mass = nn.Parameter(torch.tensor(2.0))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        angle, velocity = state.unbind(-1)
        velocity = velocity + 0.05 * (15.0 * angle.sin() + 3.0 / self.mass * control[..., 0])
        return torch.stack((angle + 0.05 * velocity, velocity), -1)


class FirstEntry(Angle):
    """It returns one of the entries, which would be broadcast to all."""

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.mass * state[..., :1] + control


@pytest.mark.parametrize(
    "fit",
    [
        lambda dynamics, data: SystemIdentification(dynamics, data).train(2),
        identify,
        fit_dynamics,
    ],
    ids=["SystemIdentification", "identify", "fit_dynamics"],
)
def test_observations_that_are_not_the_states_of_dynamics_are_refused(demonstrations, fit):
    with pytest.raises(ValueError, match=r"Angle must map states \[\d+, 3\].*too many .*state="):
        fit(Angle(), demonstrations)
    with pytest.raises(ValueError, match=r"FirstEntry must map .*: got \[\d+, 1\].*state="):
        fit(FirstEntry(), demonstrations)


def test_a_map_from_observations_to_states_makes_them_fit(demonstrations):
    def state(observations: Tensor) -> Tensor:
        x, y, velocity = observations.unbind(-1)
        return torch.stack((torch.atan2(y, x), velocity), -1)

    dynamics = Angle()
    data = transitions_of(dynamics, demonstrations, state)
    near = (data.next_states - data.states).abs()[:, 0] < 1.0  # not where the angle wraps
    inside = Transitions(data.states[near], data.controls[near], data.next_states[near])
    identify(dynamics, inside)
    assert dynamics.mass.item() == pytest.approx(1.0, rel=1e-3)  # g / l = 10, 3 / (m l^2) = 3
