"""MPCPolicy: a planning policy in SB3's on-policy algorithms."""

import functools
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from mpc_gym.make_mpc import make_mpc
from mpc_gym.models import LinearDynamics, QuadraticCost
from mpc_gym.mpc import MPC
from mpc_gym.policies import MPCPolicy

SHORT = {"horizon": 3, "max_iterations": 30}
ALGORITHMS = [PPO, A2C]


def tiny_mpc(horizon: int = 3, control_high: float = 2.0) -> MPC:
    """A linear-quadratic controller with the shapes of Pendulum-v1."""
    A = torch.eye(3, dtype=torch.float64) * 0.9
    B = torch.tensor([[0.0], [0.1], [1.0]], dtype=torch.float64)
    return MPC(
        LinearDynamics(A, B),
        QuadraticCost(torch.ones(4, dtype=torch.float64)),
        horizon,
        control_low=-2.0,
        control_high=control_high,
        backend="torch",  # nothing to gain here from compiling
    )


def makes_a_number() -> float:
    return 1.0


def make_model(algorithm=PPO, learning_rate: float = 3e-4, **policy_kwargs):
    batches = {"batch_size": 8, "n_epochs": 1} if algorithm is PPO else {}
    return algorithm(
        MPCPolicy,
        "DiffPendulum-v0",
        n_steps=8,
        learning_rate=learning_rate,
        policy_kwargs={**SHORT, **policy_kwargs},
        seed=0,
        **batches,
    )


def make_policy(env_id: str = "DiffPendulum-v0", **policy_kwargs) -> MPCPolicy:
    env = gym.make(env_id)
    kwargs = {**SHORT, **policy_kwargs}
    return MPCPolicy(env.observation_space, env.action_space, lambda _: 1e-3, **kwargs)


def observations(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle, speed = rng.uniform(-np.pi, np.pi, count), rng.uniform(-1, 1, count)
    return np.stack((np.cos(angle), np.sin(angle), speed), 1).astype(np.float32)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_trains_with_nothing_but_the_environments_id(algorithm):
    model = make_model(algorithm)
    before = model.policy.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    model.learn(16)
    after = model.policy.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not torch.equal(after["log_std"], before["log_std"])
    assert not torch.equal(after["value_net.weight"], before["value_net.weight"])


def test_the_physics_learn_from_the_likelihood_of_an_action():
    policy = make_policy(horizon=5)
    balanced = torch.tensor([[1.0, 0.0, 0.1], [0.999, 0.0447, -0.2]])  # controls within bounds
    _, log_prob, _ = policy.evaluate_actions(balanced, torch.zeros(2, 1))
    (-log_prob.sum()).backward()
    nn.utils.clip_grad_norm_(policy.parameters(), 0.5)  # float32 and float64 side by side
    before = policy.mpc.dynamics.mass.item()
    policy.optimizer.step()
    assert policy.mpc.dynamics.mass.dtype == torch.float64
    assert policy.mpc.dynamics.mass.item() != before


def test_the_mean_action_is_the_first_control_of_the_environments_own_optimal_plan():
    obs = observations(5)
    actions, _ = make_policy().predict(obs, deterministic=True)
    plan = make_mpc("DiffPendulum-v0", horizon=3)(torch.tensor(obs, dtype=torch.float64))
    np.testing.assert_allclose(actions, plan.controls[:, 0].detach().numpy(), atol=1e-5)


def test_the_first_update_without_learning_rate_finds_the_rollouts_own_policy():
    model = make_model(learning_rate=0.0)
    model.learn(8)
    assert abs(model.logger.name_to_value["train/approx_kl"]) < 1e-8


def test_an_action_does_not_depend_on_what_was_asked_before():
    policy, obs = make_policy(), observations(6)
    first, _ = policy.predict(obs, deterministic=True)
    policy.predict(observations(6, seed=1))
    again, _ = policy.predict(obs, deterministic=True)
    alone, _ = policy.predict(obs[2], deterministic=True)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(alone, first[2], atol=1e-6)


def test_the_log_likelihood_is_that_of_a_gaussian_that_clips_to_the_plan():
    policy = make_policy(log_std_init=-0.7)
    balanced = np.array([[1.0, 0.0, 0.1], [0.999, 0.0447, -0.2]], dtype=np.float32)
    obs = torch.tensor(np.concatenate((observations(4), balanced)))
    actions = torch.linspace(-2, 2, 6)[:, None]
    plan = policy.mpc(obs, unclamped=True)
    control, beyond = plan.controls[:, 0], plan.unclamped - plan.controls[:, 0]
    held = control.abs() == 2.0
    assert 0 < held.sum() < 6
    mean = torch.where(  # beyond a limit, logarithmic in units of a quarter of half the range
        held, control + 0.5 * control.sign() * torch.log1p(beyond.abs() / 0.5), control
    )
    _, log_prob, entropy = policy.evaluate_actions(obs, actions)
    expected = torch.distributions.Normal(mean, np.exp(-0.7))
    torch.testing.assert_close(log_prob, expected.log_prob(actions).sum(-1))
    torch.testing.assert_close(entropy, expected.entropy().sum(-1))
    torch.testing.assert_close(policy.get_distribution(obs).mode(), mean)
    torch.testing.assert_close(mean.clamp(-2, 2), control)
    np.testing.assert_allclose(policy.predict(obs.numpy(), deterministic=True)[0], control.detach())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_saved_algorithm_acts_as_before(algorithm, tmp_path):
    model = make_model(algorithm, learn={"gravity": 12.0, "mass": 2.0}).learn(8)
    model.save(tmp_path / "model.zip")
    loaded = algorithm.load(tmp_path / "model.zip")
    obs = observations(6)
    expected = model.predict(obs, deterministic=True)[0]
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], expected)
    assert loaded.policy.mpc.dynamics.gravity.dtype == torch.float64
    loaded.set_env(model.get_env())
    loaded.learn(8)


def test_a_saved_policy_acts_as_before(tmp_path):
    policy = make_policy(net_arch=[8], log_std_init=-1.0, learn=["gravity"])
    with torch.no_grad():
        policy.mpc.dynamics.gravity.fill_(7.0)
    policy.save(tmp_path / "policy.pt")
    loaded = MPCPolicy.load(tmp_path / "policy.pt", device="cpu")
    obs = observations(6)
    expected = policy.predict(obs, deterministic=True)[0]
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], expected)
    assert loaded.mpc.dynamics.gravity.item() == 7.0
    assert not loaded.mpc.dynamics.mass.requires_grad


def test_a_smoothed_policy_acts_inside_its_limits_and_is_saved_as_such(tmp_path):
    policy = make_policy(smoothing=0.1)
    obs = torch.tensor(observations(6))
    plain = make_policy().plan(obs).controls[:, 0]
    mean = policy.get_distribution(obs).mode()
    assert (plain.abs() == 2).any()
    assert (mean.abs() < 2).all()
    torch.testing.assert_close(mean, policy.plan(obs).controls[:, 0])
    held = plain[:, 0].abs() == 2
    mean[held].sum().backward()
    assert all(each.grad != 0 for each in policy.mpc.dynamics.parameters())
    policy.save(tmp_path / "policy.pt")
    policy.save_pretrained(tmp_path / "shared")
    for loaded in (
        MPCPolicy.load(tmp_path / "policy.pt", device="cpu"),
        MPCPolicy.from_pretrained(tmp_path / "shared"),
    ):
        assert loaded.mpc.smoothing == 0.1
        torch.testing.assert_close(loaded.get_distribution(obs).mode(), mean)


def test_parameters_survive_the_way_through_a_vector_in_their_own_dtype():
    policy, other = make_policy(), make_policy(learn={"gravity": 3.3})
    other.load_from_vector(policy.parameters_to_vector())
    assert other.mpc.dynamics.gravity.dtype == torch.float64
    for p, q in zip(policy.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, check_dtype=True)


def test_plans_on_an_environment_of_others_with_a_named_model():
    policy = make_policy("Pendulum-v1", mpc="DiffPendulum-v0")
    obs = observations(3)
    np.testing.assert_array_equal(
        policy.predict(obs, deterministic=True)[0],
        make_policy().predict(obs, deterministic=True)[0],
    )


def test_plans_with_a_function_of_the_users_that_survives_pickling():
    env = gym.make("Pendulum-v1")
    policy = MPCPolicy(
        env.observation_space, env.action_space, lambda _: 1e-3, mpc=tiny_mpc, horizon=5
    )
    assert policy.mpc.horizon == 5
    parameters = policy._get_constructor_parameters()
    copy = MPCPolicy(
        **pickle.loads(pickle.dumps({**parameters, "lr_schedule": None}))
        | {"lr_schedule": lambda _: 1e-3}
    )
    obs = observations(3)
    np.testing.assert_array_equal(
        copy.predict(obs, deterministic=True)[0], policy.predict(obs, deterministic=True)[0]
    )


def test_without_a_model_the_environment_of_others_is_refused():
    with pytest.raises((TypeError, ValueError), match="env"):
        make_policy("Pendulum-v1")


class TestPlanAsCritic:
    """`value="plan"`: minus the plan's cost times a scale, plus a residual."""

    def test_is_at_first_minus_the_optimal_cost_of_the_plan(self):
        policy, obs = make_policy(value="plan"), observations(5)
        cost = make_mpc("DiffPendulum-v0", horizon=3)(torch.tensor(obs)).cost
        torch.testing.assert_close(policy.predict_values(torch.tensor(obs))[:, 0], -cost)
        _, values, _ = policy(torch.tensor(obs))
        torch.testing.assert_close(values[:, 0], -cost)
        values, _, _ = policy.evaluate_actions(torch.tensor(obs), torch.zeros(5, 1))
        torch.testing.assert_close(values[:, 0], -cost)

    def test_is_scaled_and_corrected_by_what_it_learns(self):
        policy, obs = make_policy(value="plan"), torch.tensor(observations(5))
        with torch.no_grad():
            policy.value_scale.fill_(3.0)
            policy.value_net.bias.fill_(7.0)
        expected = 7.0 - 3.0 * policy.plan(obs).cost
        torch.testing.assert_close(policy.predict_values(obs)[:, 0], expected)

    def test_does_not_change_the_plan_by_its_loss(self):
        policy, obs = make_policy(value="plan"), torch.tensor(observations(5))
        values, _, _ = policy.evaluate_actions(obs, torch.zeros(5, 1))
        (values**2).sum().backward()
        assert policy.value_scale.grad.abs() > 0.0
        assert policy.value_net.weight.grad.abs().max() > 0.0
        assert all(each.grad is None or not each.grad.any() for each in policy.mpc.parameters())

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_trains_saves_and_loads(self, algorithm, tmp_path):
        model = make_model(algorithm, value="plan").learn(16)
        assert model.policy.value_scale.item() != 1.0
        model.save(tmp_path / "model")
        loaded = algorithm.load(tmp_path / "model.zip")
        obs = torch.tensor(observations(5))
        torch.testing.assert_close(
            loaded.policy.predict_values(obs), model.policy.predict_values(obs)
        )

    def test_of_another_kind_is_refused(self):
        with pytest.raises(ValueError, match=r"value must be one of .*'network', 'plan'.*got 'q'"):
            make_policy(value="q")


class TestRecurrentState:
    def test_is_the_last_plan_moved_on_by_one_step(self):
        policy, obs = make_policy(), observations(3)
        _, state = policy.predict(obs, deterministic=True)
        assert isinstance(state, tuple)
        controls = policy.plan(torch.tensor(obs)).controls.detach().numpy()
        np.testing.assert_array_equal(state[0][:, :-1], controls[:, 1:])
        np.testing.assert_array_equal(state[0][:, -1], controls[:, -1])

    def test_shortens_the_next_solve(self):
        policy, obs = make_policy(horizon=20), observations(8)
        plan = policy.plan(torch.tensor(obs))
        again = policy.plan(torch.tensor(obs), plan.controls)
        assert int(again.iterations.max()) < int(plan.iterations.max())

    def test_is_forgotten_where_an_episode_begins_and_left_as_the_caller_has_it(self):
        policy = make_policy(horizon=20)
        obs = np.tile(np.array([[-1.0, 0.0, 0.0]], dtype=np.float32), (2, 1))  # two optima
        cold, _ = policy.predict(obs, deterministic=True)
        state = (np.full((2, 20, 1), 2.0),)
        warm, _ = policy.predict(obs, state, np.array([True, False]), deterministic=True)
        assert warm[0] == cold[0]
        assert warm[1] != cold[1]
        assert (state[0] == 2.0).all()

    def test_is_threaded_by_sb3s_evaluation(self, monkeypatch):
        policy = make_policy()
        predict, given, returned = policy.predict, [], []

        def spied(observation, state=None, **kwargs):
            action, following = predict(observation, state, **kwargs)
            given.append(state)
            returned.append(following)
            return action, following

        monkeypatch.setattr(policy, "predict", spied)
        env = gym.make("DiffPendulum-v0", max_episode_steps=3)
        evaluate_policy(policy, env, n_eval_episodes=2, warn=False)
        assert len(given) == 6
        assert given[0] is None
        for state, last in zip(given[1:], returned[:-1], strict=True):
            np.testing.assert_array_equal(state[0], last[0])

    def test_of_another_shape_is_refused(self):
        policy = make_policy()
        with pytest.raises(ValueError, match=r"state .*\[3, 3, 1\].*\[2, 3, 1\]"):
            policy.predict(observations(3), (np.zeros((2, 3, 1)),))

    def test_that_is_not_finite_is_refused_instead_of_acting_as_if_nothing_were_to_do(self):
        state = (np.full((1, 3, 1), np.nan),)
        with pytest.raises(ValueError, match="state must be finite"):
            make_policy().predict(observations(1), state, deterministic=True)

    def test_with_flags_of_another_number_of_environments_is_refused(self):
        policy, state = make_policy(), (np.zeros((3, 3, 1)),)
        with pytest.raises(ValueError, match=r"episode_start .* 3 observations, got shape \[2\]"):
            policy.predict(observations(3), state, np.ones(2, dtype=bool))


class TestBadInput:
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_an_observation_that_is_not_finite_is_refused(self, bad):
        obs = observations(3)
        obs[1, 2] = bad
        with pytest.raises(ValueError, match=r"observation .*row\(s\) \[1\] of 3"):
            make_policy().predict(obs)

    @pytest.mark.parametrize(
        ("env_id", "options"),
        [
            ("DiffPendulum-v0", {}),
            ("DiffCartPole-v0", {}),
            ("Pendulum-v1", {"mpc": "DiffPendulum-v0"}),
        ],
    )
    def test_normalised_observations_are_made_states_again(self, env_id, options):
        envs = VecNormalize(DummyVecEnv([lambda: gym.make(env_id)]), clip_obs=1e4)
        policy_kwargs = {**SHORT, **options}
        model = PPO(
            MPCPolicy, envs, n_steps=4, batch_size=4, n_epochs=1, policy_kwargs=policy_kwargs
        ).learn(4)
        start = model.policy.plan(envs.reset()).states[:, 0].detach()
        np.testing.assert_allclose(start, envs.get_original_obs(), atol=1e-5)

    def test_a_model_of_the_users_may_have_any_state(self):
        scaled = 3.0 * observations(2)
        env = gym.make("Pendulum-v1")
        own = MPCPolicy(env.observation_space, env.action_space, lambda _: 1e-3, mpc=tiny_mpc)
        own.predict(scaled)
        with pytest.raises(ValueError, match=r"cos\^2 \+ sin\^2 = 9 in row 0 of 2"):
            make_policy().predict(scaled)

    @pytest.mark.parametrize(
        "wrong", [np.ones(3, dtype=complex), np.array(["1", "0", "0"]), np.array([1, 0, None])]
    )
    def test_an_observation_that_is_not_of_real_numbers_is_refused(self, wrong):
        with pytest.raises(TypeError, match="observation must be an array of real numbers, got on"):
            make_policy().predict(wrong)

    def test_a_single_observation_to_plan_from_is_refused_with_the_remedy(self):
        with pytest.raises(ValueError, match=r"must be a batch.*\[3\].*observation\[None\]"):
            make_policy().plan(torch.tensor([1.0, 0.0, 0.0]))

    def test_lists_and_numbers_of_any_real_kind_act_as_the_array_does(self):
        policy, obs = make_policy(), np.array([1.0, 0.0, 0.5], dtype=np.float32)
        expected = policy.predict(obs, deterministic=True)[0]
        for same in (obs.tolist(), tuple(obs), obs.astype(float), obs.astype(np.float16)):
            np.testing.assert_allclose(policy.predict(same, deterministic=True)[0], expected)
        upright = policy.predict(np.array([1, 0, 0]), deterministic=True)[0]
        np.testing.assert_allclose(upright, 0.0, atol=1e-6)

    @pytest.mark.parametrize("log_std", ["-1", float("nan"), float("inf"), None])
    def test_an_initial_spread_that_is_no_number_is_refused(self, log_std):
        with pytest.raises(ValueError, match="log_std_init must be a finite number"):
            make_policy(log_std_init=log_std)

    def test_an_observation_that_is_a_dict_is_refused(self):
        with pytest.raises(TypeError, match=r"observation must be an array, .*\['speed'\]"):
            make_policy().predict({"speed": np.zeros(1)})

    def test_what_reset_returns_is_refused_with_the_remedy(self):
        env = gym.make("DiffPendulum-v0")
        with pytest.raises(ValueError, match=r"mixing Gym API.*obs, info = env\.reset"):
            make_policy().predict(env.reset(seed=0))

    def test_state_dependent_exploration_is_refused(self):
        with pytest.raises(ValueError, match="use_sde"):
            PPO(MPCPolicy, "DiffPendulum-v0", use_sde=True)

    @pytest.mark.parametrize(
        "mpc",
        [lambda horizon=3: tiny_mpc(horizon), functools.partial(tiny_mpc, 3), MPC],
        ids=["lambda", "partial", "class that needs arguments"],
    )
    def test_a_model_that_cannot_be_made_anew_is_refused(self, mpc):
        with pytest.raises(TypeError, match="mpc"):
            make_policy("Pendulum-v1", mpc=mpc)

    def test_an_mpc_instance_is_refused_with_the_remedy(self):
        with pytest.raises(TypeError, match=r"mpc must be .*function.* got MPC"):
            make_policy("Pendulum-v1", mpc=tiny_mpc())

    def test_a_function_that_returns_something_else_is_refused(self):
        env = gym.make("Pendulum-v1")
        with pytest.raises(TypeError, match=r"makes_a_number must return an MPC, got float"):
            MPCPolicy(env.observation_space, env.action_space, lambda _: 1e-3, mpc=makes_a_number)

    def test_an_option_that_is_not_plain_data_is_refused(self):
        with pytest.raises(TypeError, match=r"learn\['gravity'\] .* got Tensor"):
            make_policy(learn={"gravity": torch.tensor(1.0)})

    def test_a_model_of_another_size_is_refused(self):
        with pytest.raises(ValueError, match=r"observation_space must be a Box of 3 numbers"):
            make_policy("DiffCartPole-v0", mpc="DiffPendulum-v0")

    def test_a_model_that_plans_beyond_the_action_limits_is_refused(self):
        env = gym.make("Pendulum-v1")
        narrow = gym.spaces.Box(-1.0, 1.0, (1,))
        with pytest.raises(ValueError, match="control bounds must lie within"):
            MPCPolicy(env.observation_space, narrow, lambda _: 1e-3, mpc=tiny_mpc)

    def test_a_discrete_action_space_is_refused(self):
        env = gym.make("DiffPendulum-v0")
        with pytest.raises(ValueError, match="action_space must be a Box"):
            MPCPolicy(env.observation_space, gym.spaces.Discrete(2), lambda _: 1e-3)

    def test_features_other_than_the_observation_are_refused(self):
        with pytest.raises(ValueError, match="features_extractor_class"):
            make_policy(features_extractor_class=nn.Identity)
