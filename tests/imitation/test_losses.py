"""What imitation minimises: against formulas written out by hand."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC

from mpc_gym.imitation import Demonstrations, imitation_loss
from mpc_gym.imitation.losses import ActionLoss, PlanLoss, PredictionLoss, WeightedLoss
from mpc_gym.imitation.transitions import transitions_of
from mpc_gym.models import PendulumDynamics
from mpc_gym.policies import MPCPolicy

HORIZON = 4


@pytest.fixture
def demonstrations() -> Demonstrations:
    """Two episodes of random actions about the upright position, on the true pendulum."""
    rng = np.random.default_rng(0)
    env = gym.make("DiffPendulum-v0")
    obs, acts, finals = [], [], []
    for _ in range(2):
        state = np.array([1.0, 0.0, rng.normal()], dtype=np.float32)
        observation, _ = env.reset(options={"state": state})
        for _ in range(5):
            action = rng.uniform(-2, 2, 1).astype(np.float32)
            obs.append(observation)
            acts.append(action)
            observation, *_ = env.step(action)
        finals.append(observation)
    return Demonstrations(
        np.stack(obs),
        np.stack(acts),
        np.zeros(10),
        np.array([5, 5]),
        np.stack(finals),
        "DiffPendulum-v0",
    )


@pytest.fixture
def policy() -> MPCPolicy:
    env = gym.make("DiffPendulum-v0")
    return MPCPolicy(
        env.observation_space, env.action_space, lambda _: 1e-3, horizon=HORIZON, max_iterations=30
    )


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_the_action_loss_is_in_units_of_half_the_action_range(algorithm, demonstrations):
    policy = algorithm("MlpPolicy", "Pendulum-v1", seed=0).policy
    predictor = policy.actor if algorithm is SAC else policy
    value = ActionLoss(predictor, demonstrations)(torch.arange(10))
    actions, _ = policy.predict(demonstrations.observations, deterministic=True)
    expected = np.mean(((actions - demonstrations.actions) / 2.0) ** 2)
    assert value.mean() == pytest.approx(expected, rel=1e-5)
    assert value.objective().requires_grad


def test_the_plan_loss_compares_the_plan_with_the_actions_that_followed(policy, demonstrations):
    rows = torch.tensor([1, 3, 8])
    value = PlanLoss(policy, demonstrations, steps=3, warm_start_epochs=1)(rows)
    errors = []
    for row in rows.tolist():
        x = torch.tensor(demonstrations.observations[row][None])
        controls = policy.mpc(x).controls[0, :, 0].detach().numpy()
        end = 5 * (row // 5 + 1)
        errors += [
            ((controls[t] - demonstrations.actions[row + t, 0]) / 2.0) ** 2
            for t in range(min(3, end - row))
        ]
    assert value.mean() == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_plans_that_did_not_converge_teach_nothing_and_are_reported(policy, demonstrations):
    rows = torch.arange(10)
    policy.mpc.max_iterations = 2
    converged = policy.plan(demonstrations.observations).converged
    assert 0 < converged.sum() < 10, "the case at hand has both kinds"
    loss = PlanLoss(policy, demonstrations, steps=2, warm_start_epochs=1)
    value = loss(rows)
    assert value.metrics["not_converged"].mean() == pytest.approx(
        (~converged).double().mean().item()
    )
    others = PlanLoss(policy, demonstrations, steps=2, warm_start_epochs=1)(rows[converged])
    assert value.mean() == pytest.approx(others.mean())
    assert loss.warm_starts[rows[converged]].any()
    assert not loss.warm_starts[rows[~converged]].any()


@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_a_policy_is_judged_by_all_its_plans_converged_or_not(policy, demonstrations):
    policy.mpc.max_iterations = 2
    assert 0 < policy.plan(demonstrations.observations).converged.sum() < 10
    loss = PlanLoss(policy, demonstrations, steps=1, warm_start_epochs=1)
    with torch.no_grad():
        value = loss(torch.arange(10))
    assert value.mean() == pytest.approx(imitation_loss(policy, demonstrations), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_where_no_plan_converged_there_is_no_loss_to_learn_from(policy, demonstrations):
    policy.mpc.max_iterations = 1
    rows = torch.arange(10)
    assert not policy.plan(demonstrations.observations).converged.any()
    plan = PlanLoss(policy, demonstrations, steps=2, warm_start_epochs=1)
    assert plan(rows).objective() is None
    assert plan(rows).mean() == np.inf
    prediction = PredictionLoss(policy.mpc.dynamics, transitions_of(policy, demonstrations))
    both = WeightedLoss([(1.0, plan), (3.0, prediction)])(rows)
    assert both.objective().item() == pytest.approx(3.0 * prediction(rows).mean())
    assert both.mean() == np.inf


def test_the_loss_of_two_batches_is_that_of_all_their_rows(policy, demonstrations):
    """Rows at the end of an episode have fewer actions to compare with."""
    loss = PlanLoss(policy, demonstrations, steps=3, warm_start_epochs=1)
    with torch.no_grad():
        parts = loss(torch.tensor([0, 1])) + loss(torch.tensor([3, 4]))
        whole = loss(torch.tensor([0, 1, 3, 4]))
    assert parts.mean() == pytest.approx(whole.mean())
    assert parts.metrics["plan_loss"].mean() == pytest.approx(whole.mean())


def test_plans_start_from_their_last_ones_until_these_are_forgotten(policy, demonstrations):
    loss = PlanLoss(policy, demonstrations, steps=1, warm_start_epochs=2)
    rows = torch.tensor([2, 4])
    loss(rows)
    plan = policy.plan(demonstrations.observations[rows])
    torch.testing.assert_close(loss.warm_starts[rows].float(), plan.controls.detach())
    assert not loss.warm_starts[3].any()
    with torch.no_grad():
        loss(torch.tensor([3]))
    assert not loss.warm_starts[3].any(), "validation plans from nothing and leaves no trace"
    loss.begin_epoch(1)
    assert loss.warm_starts.any()
    loss.begin_epoch(2)
    assert not loss.warm_starts.any()


def test_the_prediction_loss_is_zero_for_the_true_model_and_one_for_no_motion(demonstrations):
    rows = torch.arange(10)
    transitions = transitions_of(PendulumDynamics(), demonstrations)
    true = PredictionLoss(PendulumDynamics(), transitions)(rows)
    assert true.mean() < 1e-10

    class Still(torch.nn.Module):
        def forward(self, state, control):  # noqa: ARG002
            return state

    assert PredictionLoss(Still(), transitions)(rows).mean() == pytest.approx(1.0)


def test_the_prediction_losss_gradient_agrees_with_finite_differences(demonstrations):
    model = PendulumDynamics(gravity=12.0, mass=2.0)
    loss, rows = PredictionLoss(model, transitions_of(model, demonstrations)), torch.arange(10)
    loss(rows).objective().backward()
    values = []
    for shift in (1e-5, -1e-5):
        with torch.no_grad():
            model.mass.fill_(2.0 + shift)
            values.append(loss(rows).mean())
    slope = (values[0] - values[1]) / 2e-5
    assert model.mass.grad.item() == pytest.approx(slope, rel=1e-5)


def test_a_weighted_loss_is_the_weighted_sum(policy, demonstrations):
    rows = torch.arange(4)
    plan = PlanLoss(policy, demonstrations, steps=2, warm_start_epochs=1)
    prediction = PredictionLoss(policy.mpc.dynamics, transitions_of(policy, demonstrations))
    with torch.no_grad():
        policy.mpc.dynamics.mass.fill_(2.0)
    value = WeightedLoss([(1.0, plan), (3.0, prediction)])(rows)
    expected = plan(rows).mean() + 3.0 * prediction(rows).mean()
    assert value.mean() == pytest.approx(expected, rel=1e-6)
