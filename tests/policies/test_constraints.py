"""A policy whose planner has constraints acts within them, and learns as any other."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC, TD3
from torch import nn

from benchmarks.constrained_systems import OBSTACLE
from mpc_gym.imitation import BehavioralCloning, Demonstrations
from mpc_gym.models import PendulumCost, PendulumDynamics
from mpc_gym.mpc import MPC
from mpc_gym.policies import MPCPolicy, RecedingHorizon, planner
from mpc_gym.policies.receding_horizon import warm_start
from tests.policies.planners import ENV, STEPS, make_model, weights


class SpeedLimit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(0.3))

    def forward(self, state, _control):
        return torch.stack((state[..., 2] - self.limit, -state[..., 2] - self.limit), -1)


def slow_pendulum(horizon: int = 6, **options: object) -> MPC:
    """Its speed is at most 0.3 rad/s, at a price."""
    model = PendulumDynamics(max_speed=None), PendulumCost()
    return MPC(*model, horizon, -2.0, 2.0, constraints=SpeedLimit(), soft=100.0, **options)


def unlimited_pendulum(horizon: int = 6, **options: object) -> MPC:
    return MPC(PendulumDynamics(max_speed=None), PendulumCost(), horizon, -2.0, 2.0, **options)


def hard_pendulum(horizon: int = 6, **options: object) -> MPC:
    """The same with a limit that is kept at any price."""
    mpc = slow_pendulum(horizon, **options)
    mpc.soft = None
    return mpc


def make_policy(mpc) -> MPCPolicy:
    env = gym.make(ENV)
    return MPCPolicy(env.observation_space, env.action_space, lambda _: 1e-3, mpc=mpc, horizon=6)


def test_it_keeps_the_limit_that_another_does_not() -> None:
    fastest = {}
    for mpc in (slow_pendulum, unlimited_pendulum):
        env, policy = gym.make(ENV), make_policy(mpc)
        observation, _ = env.reset(options={"state": [np.cos(0.25), np.sin(0.25), 0.0]})
        speeds = []
        for _ in range(15):
            action, _ = policy.predict(observation, deterministic=True)
            observation, *_ = env.step(action)
            speeds.append(abs(observation[2]))
        fastest[mpc] = max(speeds)
    assert fastest[slow_pendulum] <= 0.3 + 1e-4
    assert fastest[unlimited_pendulum] > 0.35


@pytest.mark.parametrize("algorithm", [PPO, SAC, TD3])
def test_reinforcement_learning_trains_through_it(algorithm) -> None:
    model = make_model(algorithm, policy_kwargs={"mpc": slow_pendulum, "horizon": 6})
    before = weights(model)
    model.learn(STEPS)
    after = weights(model)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert any("mpc" in name for name in changed)
    assert all(value.isfinite().all() for value in after.values())


def test_behavioural_cloning_trains_the_limit() -> None:
    expert = make_policy(slow_pendulum)
    with torch.no_grad():
        expert.planner.mpc.constraints.limit.fill_(0.6)
    env, rng = gym.make(ENV), np.random.default_rng(0)
    angle, speed = rng.uniform(-0.1, 0.1, 32), rng.uniform(-1, 1, 32)
    observations = np.stack((np.cos(angle), np.sin(angle), speed), 1).astype(np.float32)
    actions, _ = expert.predict(observations, deterministic=True)
    demonstrations = Demonstrations(
        observations, actions, np.zeros(32), np.ones(32, int), observations, ENV
    )
    policy = make_policy(slow_pendulum)
    limit = policy.planner.mpc.constraints.limit
    BehavioralCloning(policy, demonstrations, learning_rate=0.05, batch_size=32).train(epochs=3)
    assert limit.item() > 0.3
    env.close()


@pytest.mark.parametrize("smoothing", [0.0, 0.01])
def test_a_plan_that_is_tried_again_for_a_few_iterations_is_never_lost(
    smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "RETRY_ITERATIONS", 1)  # too few for any plan with constraints
    monkeypatch.setattr(planner.Planner, "_holds_a_bound", lambda self, plan: np.ones(12, bool))
    env = gym.make(ENV)
    options = {"mpc": hard_pendulum, "starts": 4, "horizon": 12, "smoothing": smoothing}
    policy = MPCPolicy(env.observation_space, env.action_space, lambda _: 0.0, **options)
    rng = np.random.default_rng(1)
    angle = rng.uniform(-0.2, 0.2, 12)
    observations = np.stack((np.cos(angle), np.sin(angle), 0.0 * angle), 1).astype(np.float32)
    with torch.no_grad():
        first = policy.planner.plan(observations)
        again = policy.planner.replan(observations, (first.shift().numpy(),), np.zeros(12, bool))
        warm = policy.mpc(torch.from_numpy(observations), first.shift(), starts=1)
    assert first.converged.all()
    assert (again.converged | ~warm.converged).all()
    env.close()


def test_the_recurrent_state_has_the_multipliers() -> None:
    mpc = OBSTACLE.controller()
    x_init = OBSTACLE.start_states(8, 0).numpy()
    expert = RecedingHorizon(mpc)
    _, state = expert.predict(x_init)
    controls, multipliers = state
    assert multipliers.shape == (8, OBSTACLE.horizon, 1)
    assert multipliers.any()
    begins = np.arange(8) == 3
    guess = warm_start(mpc, 8, state, begins)
    assert not guess.multipliers[3].any()
    assert torch.equal(guess.multipliers[0], torch.from_numpy(multipliers[0]))
    following = np.asarray(x_init) * 0.99
    given = []
    mpc.register_forward_pre_hook(lambda _, arguments: given.append(arguments[1]))
    again, _ = expert.predict(following, state)
    assert np.array_equal(given[0].multipliers, multipliers)
    alone, _ = expert.predict(following, (controls,))
    np.testing.assert_allclose(again, alone, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="one of their multipliers"):
        expert.predict(x_init, (controls, multipliers[:, :-1]))
