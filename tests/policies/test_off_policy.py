"""Planning actors of SAC, TD3, DDPG and TQC: what they do, and what they learn from."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DDPG, TD3
from stable_baselines3.common.policies import ContinuousCritic

from mpc_gym.make_mpc import make_mpc
from mpc_gym.policies import SACMPCPolicy, TD3MPCPolicy
from mpc_gym.policies.off_policy import SACMPCActor, TD3MPCActor
from tests.policies.planners import (
    ENV,
    OFF_POLICY,
    POLICIES,
    SHORT,
    STEPS,
    make_model,
    observations,
    two_masses,
)

CLASSES = sorted({POLICIES[algorithm] for algorithm in OFF_POLICY}, key=lambda each: each.__name__)
BALANCED = np.array([[1.0, 0.0, 0.1], [0.999, 0.0447, -0.2]], dtype=np.float32)


def make_policy(policy_class, env_id: str = ENV, **options):
    env = gym.make(env_id)
    options = {**SHORT, "net_arch": [8], **options}
    return policy_class(env.observation_space, env.action_space, lambda _: 1e-3, **options)


def held_and_free() -> torch.Tensor:
    """Two states where the plan's torque is within its limits, and four where it is at one."""
    return torch.tensor(np.concatenate((BALANCED, observations(4))))


@pytest.mark.parametrize("policy_class", CLASSES)
class TestActor:
    def test_takes_the_plans_control_in_units_of_half_the_range(self, policy_class):
        policy, obs = make_policy(policy_class), held_and_free()
        plan = make_mpc(ENV, **SHORT)(obs).controls[:, 0]
        assert (plan.abs() == 2.0).sum() == 4
        options = {} if policy_class is TD3MPCPolicy else {"deterministic": True}
        torch.testing.assert_close(policy.actor(obs, **options), plan / 2)
        actions, _ = policy.predict(obs.numpy(), deterministic=True)
        np.testing.assert_allclose(actions, plan.detach(), rtol=1e-6)
        alone, _ = policy.actor.predict(obs.numpy(), deterministic=True)
        np.testing.assert_allclose(alone, actions, rtol=1e-6)

    def test_teaches_the_physics_where_the_plan_is_at_a_limit(self, policy_class):
        policy, obs = make_policy(policy_class), torch.tensor(observations(4))
        policy.actor(obs).sum().backward()
        assert policy.mpc.dynamics.gravity.grad.abs() > 0.0
        torque_weight = policy.mpc.cost.parametrizations.torque_weight.original
        assert torque_weight.grad.abs() > 0.0
        (gravity_of_plan,) = torch.autograd.grad(
            policy.plan(obs).controls[:, 0].sum(), policy.mpc.dynamics.gravity
        )
        assert gravity_of_plan == 0.0, "the plan's own control would have taught nothing"

    def test_is_made_anew_with_the_same_options(self, policy_class):
        policy = make_policy(policy_class, learn=("mass", "terminal"), starts=2)
        actor = policy.make_actor()
        assert actor is not policy.actor
        assert type(actor) is type(policy.actor)
        assert actor.plan_options == policy.plan_options
        assert not {id(each) for each in actor.parameters()} & {
            id(each) for each in policy.actor.parameters()
        }
        actor.load_state_dict(policy.actor.state_dict())

    def test_shares_its_controller_with_the_policy(self, policy_class):
        policy = make_policy(policy_class)
        assert policy.mpc is policy.actor.planner.mpc
        assert policy.planner is policy.actor.planner
        obs = held_and_free()
        torch.testing.assert_close(
            policy.plan(obs).controls, policy.actor.planner.plan(obs).controls
        )

    def test_acts_on_several_controls_each_within_its_own_limits(self, policy_class):
        limit = np.array([1.0, 0.5], dtype=np.float32)
        policy = policy_class(
            gym.spaces.Box(-9.0, 9.0, (2,)),
            gym.spaces.Box(-limit, limit),
            lambda _: 1e-3,
            mpc=two_masses,
            net_arch=[8],
        )
        obs = np.array([[0.3, 0.1], [5.0, -5.0], [0.1, 8.0]], dtype=np.float32)
        plan = policy.plan(obs).controls[:, 0].detach().numpy()
        np.testing.assert_allclose(policy.predict(obs, deterministic=True)[0], plan, atol=1e-6)
        random, _ = policy.predict(obs)
        assert (np.abs(random) <= limit).all()

    def test_has_no_place_for_state_dependent_exploration(self, policy_class):
        with pytest.raises(ValueError, match="use_sde=True is not supported"):
            make_policy(policy_class, use_sde=True)
        with pytest.raises(ValueError, match="features_extractor_class"):
            make_policy(policy_class, features_extractor_class=torch.nn.Identity)


class TestSquashedGaussian:
    def test_has_the_likelihood_of_tanh_of_a_gaussian(self):
        actor, obs = make_policy(SACMPCPolicy).actor, held_and_free()
        torch.manual_seed(0)
        actions, log_prob = actor.action_log_prob(obs)
        mean = actor.planner.action_limits.squashed_mean(actor.planner.mpc(obs, unclamped=True))
        std = actor.log_spread(obs).exp()
        independent = torch.distributions.TransformedDistribution(
            torch.distributions.Normal(mean, std), torch.distributions.TanhTransform()
        )
        expected = independent.log_prob(actions).sum(-1)
        clear = actions[:, 0].abs() < 0.99  # SB3 adds 1e-6 to what tanh's derivative is
        assert clear.sum() >= 2
        torch.testing.assert_close(log_prob[clear], expected[clear], rtol=0, atol=2e-3)
        torch.testing.assert_close(
            mean[:2], torch.atanh(actor.planner.plan(obs).controls[:2, 0] / 2), rtol=1e-4, atol=1e-5
        )

    def test_is_finite_and_still_explores_where_the_plan_is_at_a_limit(self):
        actor, obs = make_policy(SACMPCPolicy).actor, torch.tensor(observations(1)).expand(500, 3)
        for parameter in actor.log_std.parameters():  # a spread of one, whatever was drawn
            torch.nn.init.zeros_(parameter)
        actions, log_prob = actor.action_log_prob(obs)
        assert bool(log_prob.isfinite().all())
        assert actions.abs().max() <= 1.0
        assert actions.std() > 0.01

    @pytest.mark.parametrize("policy_class", [each for each in CLASSES if each is not TD3MPCPolicy])
    def test_is_what_predict_samples_from(self, policy_class):
        policy, obs = make_policy(policy_class), observations()
        torch.manual_seed(3)
        scaled = policy.actor(torch.tensor(obs)).detach().numpy()
        torch.manual_seed(3)
        found, _ = policy.predict(obs)
        np.testing.assert_allclose(found, 2 * scaled, atol=1e-5)

    def test_has_a_spread_that_its_network_learns(self):
        actor, obs = make_policy(SACMPCPolicy).actor, held_and_free()
        actor.action_log_prob(obs)[1].sum().backward()
        assert actor.log_std.weight.grad.abs().max() > 0.0
        assert len({round(each, 6) for each in actor.log_spread(obs)[:, 0].tolist()}) > 1


@pytest.mark.parametrize("algorithm", [TD3, DDPG])
def test_a_target_actor_follows_by_polyak_averaging_in_float64_too(algorithm):
    model = make_model(algorithm, tau=0.25, learning_rate=0.05, learning_starts=100)
    model.policy_delay = 1
    model.learn(8)
    actor, target = model.policy.actor, model.policy.actor_target
    assert isinstance(target, TD3MPCActor)
    old = {name: each.detach().clone() for name, each in target.named_parameters()}
    model.train(gradient_steps=1, batch_size=8)
    gravity = "planner.mpc.dynamics.gravity"
    assert old[gravity].dtype == torch.float64
    moved = dict(target.named_parameters())
    assert moved[gravity].item() != old[gravity].item()
    for name, each in actor.named_parameters():
        torch.testing.assert_close(moved[name], 0.75 * old[name] + 0.25 * each, check_dtype=True)


@pytest.mark.parametrize("algorithm", [TD3, DDPG])
def test_a_target_actor_follows_an_actor_that_was_loaded_from_other_physics(algorithm):
    model = make_model(algorithm, policy_kwargs={"learn": {"mass": None}}, tau=1.0)
    other = make_model(algorithm, policy_kwargs={"learn": {"mass": 3.0}})
    model.learn(STEPS)
    model.policy.actor.load_state_dict(other.policy.actor.state_dict())
    model.policy_delay = 1
    model.train(gradient_steps=1, batch_size=8)
    actors = (model.policy.actor, model.policy.actor_target)
    masses = [each.planner.mpc.dynamics.mass.item() for each in actors]
    assert masses[0] == pytest.approx(3.0, rel=0.01)
    assert masses[1] == masses[0]


def test_critics_are_those_of_sb3():
    policy = make_policy(TD3MPCPolicy, net_arch={"pi": [4], "qf": [8, 6]}, n_critics=3)
    assert type(policy.critic) is ContinuousCritic
    assert [layer.out_features for layer in policy.critic.qf0 if hasattr(layer, "weight")] == [
        8,
        6,
        1,
    ]
    assert len(policy.critic(held_and_free(), torch.zeros(6, 1))) == 3


@pytest.mark.parametrize("actor_class", [SACMPCActor, TD3MPCActor])
def test_an_actor_has_no_mean_network(actor_class):
    policy_class = SACMPCPolicy if actor_class is SACMPCActor else TD3MPCPolicy
    names = [name for name, _ in make_policy(policy_class).actor.named_parameters()]
    assert not [name for name in names if name.startswith("mu.")]
