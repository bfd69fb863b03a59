"""A planning policy that chooses among discrete actions."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from torch import Tensor

from mpc_gym.models import CartPoleDynamics, LinearDynamics, QuadraticCost
from mpc_gym.mpc import MPC
from mpc_gym.policies import DiscreteMPCPolicy, MPCPolicy, SACMPCPolicy

FORCES = [-10.0, 10.0]  # of CartPole-v1


def balance(horizon: int = 50, max_iterations: int = 30) -> MPC:
    """CartPole-v1's physics, and a cost of being away from upright in the middle."""
    cost = QuadraticCost.from_goal(
        goal_state=torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]),
        goal_weights=torch.tensor([1.0, 0.3, 1.0, 3.0, 0.3]),
        control_penalty=1e-4,
    )
    dynamics = CartPoleDynamics(dt=0.02)
    return MPC(dynamics, cost, horizon, -10.0, 10.0, max_iterations=max_iterations)


def with_cosine(observation: Tensor) -> Tensor:
    position, velocity, theta, speed = observation.unbind(-1)
    return torch.stack((position, velocity, theta.cos(), theta.sin(), speed), -1)


def cart_pole(algorithm=PPO, **options):
    steps = {"n_steps": 8, "batch_size": 8, "n_epochs": 1} if algorithm is PPO else {"n_steps": 8}
    policy_kwargs = {"mpc": balance, "state": with_cosine, "controls": FORCES, "horizon": 6}
    return algorithm(
        DiscreteMPCPolicy,
        "CartPole-v1",
        policy_kwargs={**policy_kwargs, **options},
        seed=0,
        device="cpu",
        **steps,
    )


def sledge(horizon: int = 3) -> MPC:
    A = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    B = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
    cost = QuadraticCost(torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64))
    return MPC(LinearDynamics(A, B), cost, horizon, -5.0, 5.0, backend="torch")


def sledge_policy(controls=(-2.0, 0.0, 1.0), **options) -> DiscreteMPCPolicy:
    states, actions = gym.spaces.Box(-9.0, 9.0, (2,)), gym.spaces.Discrete(len(controls))
    return DiscreteMPCPolicy(
        states, actions, lambda _: 1e-3, mpc=sledge, controls=controls, **options
    )


def brute_force(state: np.ndarray, first: float, low: float, high: float) -> float:
    """The least cost of a grid of what follows the first control."""
    grid = torch.linspace(low, high, 61, dtype=torch.float64)
    rest = torch.cartesian_prod(grid, grid)
    mpc, x = sledge(), torch.tensor(state).expand(len(rest), 2)
    cost = torch.zeros(len(rest), dtype=torch.float64)
    for u in (torch.full_like(rest[:, :1], first), rest[:, :1], rest[:, 1:]):
        cost, x = cost + mpc.cost(x, u), mpc.dynamics(x, u)
    return cost.min().item()


def test_an_action_costs_what_the_best_plan_does_that_begins_with_it():
    state = np.array([1.0, -0.4])
    with torch.no_grad():
        costs = sledge_policy().planner.choose(state[None]).costs[0]
    expected = [brute_force(state, control, -2.0, 1.0) for control in (-2.0, 0.0, 1.0)]
    np.testing.assert_allclose(costs, expected, rtol=2e-3)


def test_the_cheapest_is_taken_and_the_others_by_the_temperature():
    policy, states = sledge_policy(log_std_init=-1.0), torch.tensor([[1.0, -0.4], [-1.0, 0.2]])
    costs = policy.planner.choose(states).costs
    chosen, _ = policy.predict(states.numpy(), deterministic=True)
    np.testing.assert_array_equal(chosen, costs.argmin(-1))
    found = policy.get_distribution(states).distribution.probs
    torch.testing.assert_close(found, torch.softmax(-costs / np.exp(-1.0), -1))
    assert policy.predict(states[0].numpy(), deterministic=True)[0] == chosen[0]


def test_the_model_and_the_temperature_learn_from_the_likelihood_of_an_action():
    policy = sledge_policy()
    states = torch.tensor([[1.0, -0.4], [-1.0, 0.2]])
    _, log_prob, _ = policy.evaluate_actions(states, torch.tensor([0, 2]))
    log_prob.sum().backward()
    A = policy.mpc.dynamics.A
    assert policy.log_std.grad.abs() > 0.0
    step = 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            A[0, 1] += sign * step
            costs = policy.planner.choose(states.double()).costs
            values.append(torch.log_softmax(-costs, -1)[[0, 1], [0, 2]].sum())
            A[0, 1] -= sign * step
    slope = (values[0] - values[1]) / (2 * step)
    assert A.grad[0, 1].item() == pytest.approx(slope.item(), rel=1e-3)


def test_untrained_it_balances_the_pole_to_the_end():
    mean, _ = evaluate_policy(cart_pole(horizon=50), Monitor(gym.make("CartPole-v1")), 2)
    assert mean == 500.0


@pytest.mark.parametrize("algorithm", [PPO, A2C])
@pytest.mark.parametrize("value", ["network", "plan"])
def test_it_trains_saves_loads_and_goes_on(algorithm, value, tmp_path):
    model = cart_pole(algorithm, value=value)
    before = model.policy.mpc.cost.C.clone()
    model.learn(24)
    assert not torch.equal(model.policy.mpc.cost.C, before)
    states = np.random.default_rng(0).uniform(-0.3, 0.3, (6, 4)).astype(np.float32)
    expected, _ = model.predict(states, deterministic=True)
    assert set(expected) == {0, 1}
    model.save(tmp_path / "model")
    model.policy.save(tmp_path / "policy")
    for again in (
        algorithm.load(tmp_path / "model", env=gym.make("CartPole-v1"), device="cpu"),
        DiscreteMPCPolicy.load(tmp_path / "policy", device="cpu"),
    ):
        np.testing.assert_array_equal(again.predict(states, deterministic=True)[0], expected)
    again = algorithm.load(tmp_path / "model", env=gym.make("CartPole-v1"), device="cpu")
    again.learn(16, reset_num_timesteps=False)
    assert again.num_timesteps == 40


def test_without_learning_rate_an_update_finds_the_rollouts_own_policy():
    model = cart_pole()
    model.learning_rate, model.lr_schedule = 0.0, lambda _: 0.0
    model.learn(8)
    assert abs(model.logger.name_to_value["train/approx_kl"]) < 1e-6


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        ([1.0], "controls must be a finite control for each of 2 actions"),
        ([np.nan, 1.0], "controls must be a finite control"),
        ([[[1.0]], [[2.0]]], "controls must be a finite control"),
        ([[1.0, 2.0], [3.0, 4.0]], "action_space must be a Box of 1 numbers"),
        ([-20.0, 20.0], "control bounds must lie within the action space"),
    ],
)
def test_what_are_no_controls_is_refused(controls, message):
    with pytest.raises(ValueError, match=message):
        cart_pole(controls=controls)


def test_continuous_and_discrete_actions_are_told_apart():
    with pytest.raises(ValueError, match=r"must be Discrete .* MPCPolicy for continuous"):
        PPO(DiscreteMPCPolicy, "DiffPendulum-v0", policy_kwargs={"controls": FORCES})
    with pytest.raises(ValueError, match=r"for discrete ones PPO\(DiscreteMPCPolicy"):
        PPO(MPCPolicy, "CartPole-v1", policy_kwargs={"mpc": balance, "state": with_cosine})
    assert not issubclass(SACMPCPolicy, DiscreteMPCPolicy)
