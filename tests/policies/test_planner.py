"""Plans of a policy: from its observation alone, or from the last plan."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from mpc_gym.models import LinearDynamics, QuadraticCost
from mpc_gym.mpc import MPC
from mpc_gym.policies import MPCPolicy, SACMPCPolicy, TD3MPCPolicy
from mpc_gym.policies.planner import COST_MAP_RANGE, CostMap
from mpc_gym.policies.receding_horizon import carry
from tests.policies.planners import ENV, observations, two_masses

HORIZON = 20


def make_policy(env_id: str = ENV, **options) -> MPCPolicy:
    env = gym.make(env_id)
    options = {"horizon": HORIZON, "net_arch": [], **options}
    return MPCPolicy(env.observation_space, env.action_space, lambda _: 1e-3, **options)


@pytest.fixture(scope="module")
def policy() -> MPCPolicy:
    return make_policy()


@pytest.fixture(scope="module")
def restless() -> MPCPolicy:
    """One that compares other guesses with its last plan."""
    return make_policy(starts=8)


def with_cost_map(**options) -> MPCPolicy:
    """One whose cost depends on the observation, as after training."""
    policy = make_policy(learn=("mass", "cost_map"), **options)
    with torch.no_grad():
        policy.planner.cost_map.last.weight.normal_(generator=torch.Generator().manual_seed(0))
    return policy


def one_mass(learn: dict[str, float]) -> MPC:
    """A controller of one state, with its control between -1 and 1 of some unit."""
    unit = torch.tensor([[learn["unit"]]], dtype=torch.float64)
    return MPC(
        LinearDynamics(torch.tensor([[0.9]], dtype=torch.float64), 1 / unit),
        QuadraticCost(torch.cat((torch.ones(1), 0.1 / unit[0] ** 2))),
        horizon=3,
        control_low=-unit[0],
        control_high=unit[0],
        backend="torch",
        starts=4,
    )


def hanging(count: int = 1) -> torch.Tensor:
    """A swing-up that begins to the left costs much the same as one to the right."""
    angle = torch.full((count,), np.pi - 0.05)
    return torch.stack((angle.cos(), angle.sin(), torch.zeros(count)), -1)


def wrong_way(policy: MPCPolicy, obs: torch.Tensor) -> tuple[np.ndarray]:
    """The plans, after a plan that goes the other way than the best one."""
    best = policy.plan(obs).controls
    found = policy.mpc(obs, -best.double(), starts=1)
    return (found.controls.detach().numpy(),)


def cost(plan) -> np.ndarray:
    return plan.cost.detach().numpy()


class TestReplanning:
    def test_starts_where_the_last_plan_ended(self, policy):
        obs = torch.tensor(observations(5))
        last = policy.plan(obs)
        found = policy.planner.replan(
            obs, (last.controls.detach().numpy(),), np.zeros(5, dtype=bool)
        )
        assert int(found.iterations.max()) <= 2 < int(last.iterations.max())
        torch.testing.assert_close(found.controls, last.controls, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("starts", [1, 8])
    def test_forgets_the_last_plan_of_the_rows_where_an_episode_begins(
        self, policy, restless, starts
    ):
        policy = {1: policy, 8: restless}[starts]
        obs = hanging(4)
        state = wrong_way(policy, obs)
        begins = np.array([True, False, False, True])
        found = policy.planner.replan(obs, state, begins).controls
        fresh = policy.plan(obs).controls
        kept = policy.planner.replan(obs, state, None).controls
        assert torch.equal(found[begins], fresh[begins])
        assert torch.equal(found[~begins], kept[~begins])

    @pytest.mark.parametrize("starts", [1, 8])
    def test_of_a_row_does_not_depend_on_the_others(self, policy, restless, starts):
        policy = {1: policy, 8: restless}[starts]
        obs = torch.cat((torch.tensor(observations(4, seed=5)), hanging(2)))
        state = (np.random.default_rng(0).uniform(-2, 2, (6, HORIZON, 1)),)
        begins = np.arange(6) % 3 == 0
        together = policy.planner.replan(obs, state, begins, unclamped=True)
        for row in range(6):
            own = slice(row, row + 1)
            alone = policy.planner.replan(obs[own], (state[0][own],), begins[own], unclamped=True)
            assert torch.equal(alone.controls, together.controls[own])
            assert torch.equal(alone.unclamped, together.unclamped[own])

    def test_leaves_a_plan_for_a_better_one_only_with_other_guesses(self, policy, restless):
        obs = hanging()
        state = wrong_way(restless, obs)
        best, stuck = cost(restless.plan(obs)), cost(policy.planner.replan(obs, state, None))
        assert stuck > best + 1e-3
        np.testing.assert_allclose(cost(restless.planner.replan(obs, state, None)), best, rtol=1e-5)

    def test_is_never_worse_than_the_plan_it_started_from(self, policy, restless):
        obs = torch.tensor(observations(32, seed=7))
        state = (np.random.default_rng(1).uniform(-2, 2, (32, HORIZON, 1)),)
        alone, found = (
            policy.planner.replan(obs, state, None),
            restless.planner.replan(obs, state, None),
        )
        assert bool(alone.converged.any())
        assert (cost(found) <= cost(alone) + 1e-4)[alone.converged].all()
        assert (cost(found) < cost(alone) - 0.1).any()

    def test_of_a_plan_that_holds_no_bound_tries_no_other(self, restless):
        balanced = torch.tensor([[0.9999, 0.0141, 0.0]])
        plan = restless.plan(balanced)
        assert plan.controls.abs().max() < 2.0
        found = restless.planner.replan(balanced, carry(plan), np.array([False]))
        one = restless.mpc(balanced, torch.tensor(carry(plan)[0]), starts=1)
        assert torch.equal(found.controls, one.controls)

    @pytest.mark.parametrize("unit", [1.0, 1e-7, 1e7])
    @pytest.mark.parametrize(("position", "solves"), [(0.1, 1), (5.0, 2)])
    def test_tries_other_guesses_where_a_bound_holds_in_whatever_unit_the_control_is(
        self, unit, position, solves
    ):
        policy = MPCPolicy(
            gym.spaces.Box(-9.0, 9.0, (1,)),
            gym.spaces.Box(-unit, unit, (1,)),
            lambda _: 1e-3,
            mpc=one_mass,
            learn={"unit": unit},
        )
        obs = torch.tensor([[position]])
        last = policy.plan(obs)
        assert bool(last.converged.all())
        assert ((last.controls.abs() / unit) < 0.99).all() == (solves == 1)
        calls = []
        policy.mpc.register_forward_hook(lambda *_: calls.append(1))
        policy.planner.replan(obs, (last.controls.detach().numpy(),), None)
        assert len(calls) == solves

    def test_after_nothing_is_the_plan(self, restless):
        obs = torch.tensor(observations(3))
        begins = np.ones(3, dtype=bool)
        assert torch.equal(
            restless.planner.replan(obs, None, begins).controls, restless.plan(obs).controls
        )

    def test_along_an_episode_loses_nothing_against_planning_from_nothing(self, restless):
        returns = []
        for remember in (True, False):
            env = gym.make(ENV)
            obs, _ = env.reset(seed=4)
            state, total = None, 0.0
            for _ in range(60):
                action, state = restless.predict(
                    obs, state if remember else None, deterministic=True
                )
                obs, reward, *_ = env.step(action)
                total += reward
            returns.append(total)
        assert returns[0] >= returns[1] - 1.0


class TestCostMap:
    def test_is_zero_until_it_is_learned_and_bounded_then(self):
        cost_map = CostMap(3, HORIZON, 7)
        obs = torch.tensor(observations(5))
        assert cost_map(obs).shape == (5, HORIZON, 7)
        assert not cost_map(obs).any()
        with torch.no_grad():
            cost_map.last.weight.normal_(std=100.0)
        assert 2.0 < cost_map(obs).abs().max() <= COST_MAP_RANGE

    def test_gives_each_observation_a_cost_of_its_own(self):
        policy = with_cost_map()
        obs = torch.tensor(observations(4))
        context = policy.planner.cost_map(obs)
        expected = policy.mpc(obs, None, context)
        torch.testing.assert_close(policy.plan(obs).controls, expected.controls)
        assert not torch.allclose(make_policy().plan(obs).controls, expected.controls, atol=0.1)

    @pytest.mark.parametrize("starts", [1, 8])
    def test_stays_with_its_observation_in_replanning(self, starts):
        policy = with_cost_map(starts=starts)
        obs = torch.tensor(observations(6))
        state = (np.zeros((6, HORIZON, 1)),)
        begins = np.arange(6) % 2 == 0
        together = policy.planner.replan(obs, state, begins)
        for row in range(6):
            own = slice(row, row + 1)
            alone = policy.planner.replan(obs[own], (state[0][own],), begins[own])
            torch.testing.assert_close(alone.controls, together.controls[own], rtol=0, atol=1e-3)

    def test_learns_from_the_likelihood_of_an_action(self):
        policy = with_cost_map()
        _, log_prob, _ = policy.evaluate_actions(torch.tensor(observations(4)), torch.ones(4, 1))
        log_prob.sum().backward()
        for parameter in policy.planner.cost_map.parameters():
            assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("policy_class", "planners"), [(MPCPolicy, 1), (SACMPCPolicy, 1), (TD3MPCPolicy, 2)]
)
@pytest.mark.parametrize("mpc", [None, ENV])
def test_a_planner_makes_the_environment_of_its_model_once(
    policy_class, planners, mpc, monkeypatch
):
    env = gym.make(ENV)
    made, make = [], gym.make

    def listen(*arguments, **options):
        made.append(arguments)
        return make(*arguments, **options)

    monkeypatch.setattr(gym, "make", listen)
    policy_class(env.observation_space, env.action_space, lambda _: 1e-3, mpc=mpc)
    assert len(made) == planners


class TestSpaces:
    def test_of_other_shapes_are_flattened_to_the_models_vectors(self):
        policy = MPCPolicy(
            gym.spaces.Box(-9.0, 9.0, (2, 1)),
            gym.spaces.Box(-1.0, 1.0, (1, 2)),
            lambda _: 1e-3,
            mpc=two_masses,
        )
        obs = np.array([[[0.3], [-0.8]], [[0.1], [0.2]]], dtype=np.float32)
        actions, _ = policy.predict(obs, deterministic=True)
        assert actions.shape == (2, 1, 2)
        single, _ = policy.predict(obs[0], deterministic=True)
        assert single.shape == (1, 2)
        flat = policy.mpc(torch.tensor(obs).reshape(2, 2)).controls[:, 0].detach().numpy()
        np.testing.assert_allclose(actions.reshape(2, 2), flat, atol=1e-6)

    def test_limit_the_actions_and_stay_as_they_are(self, policy):
        space = policy.action_space
        policy.planner.action_limits.low.fill_(0.0)
        try:
            assert space.low.item() == -2.0
        finally:
            policy.planner.action_limits.low.fill_(-2.0)

    def test_have_no_part_in_what_is_saved(self, policy):
        """A file could otherwise move the bounds out of the action space, unchecked."""
        names = policy.state_dict().keys()
        assert not [name for name in names if "control_" in name or "_low" in name]
