"""Dynamics that are learned from transitions, and while an algorithm acts through them."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from mpc_gym.imitation import (
    Demonstrations,
    FitOptions,
    LearnDynamics,
    RandomAgent,
    SystemIdentification,
    Transitions,
    collect,
    fit_dynamics,
)
from mpc_gym.models import (
    LearnedDynamics,
    LinearDynamics,
    PendulumCost,
    PendulumDynamics,
    QuadraticCost,
)
from mpc_gym.mpc import MPC
from tests.policies.environments import LIMIT, Slide, rescaled, state_alone
from tests.policies.planners import ENV
from tests.policies.planners import make_model as make

QUICK = FitOptions(epochs=20, learning_rate=1e-2, batch_size=16)
KINDS = [PPO, SAC, TD3]


def pendulum_transitions(count: int, seed: int = 0) -> Transitions:
    """Steps of the true pendulum from anywhere."""
    generator = torch.Generator().manual_seed(seed)
    angle, speed, torque = (torch.rand(3, count, generator=generator).double() * 2 - 1).unbind(0)
    states = torch.stack(((np.pi * angle).cos(), (np.pi * angle).sin(), 6 * speed), 1)
    controls = 2 * torque[:, None]
    with torch.no_grad():
        return Transitions(states, controls, PendulumDynamics()(states, controls))


def error(dynamics: torch.nn.Module, transitions: Transitions) -> float:
    """Root mean square of the error, relative to that of the motion."""
    with torch.no_grad():
        wrong = dynamics(*transitions.inputs) - transitions.next_states
    moved = transitions.next_states - transitions.states
    return float((wrong / moved.std(0)).square().mean().sqrt())


class TestFit:
    def test_a_pendulum_is_learned_from_a_thousand_steps(self):
        torch.manual_seed(0)
        dynamics = LearnedDynamics(3, 1, hidden=(32, 32), members=1, unit_pairs=[(0, 1)])
        fresh = pendulum_transitions(500, seed=1)
        assert error(dynamics, fresh) > 0.5
        options = FitOptions(epochs=100, patience=100, learning_rate=1e-2, batch_size=64)
        history = fit_dynamics(dynamics, pendulum_transitions(1_000), options)
        assert error(dynamics, fresh) < 0.02
        best = min(row["validation/loss"] for row in history)
        assert history[-1]["validation/best_loss"] == best < history[0]["validation/loss"]

    def test_a_linear_system_is_learned_by_the_linear_part(self):
        torch.manual_seed(0)
        A = torch.tensor([[1.0, 0.1], [-0.1, 0.9]], dtype=torch.float64)
        B = torch.tensor([[0.0], [0.2]], dtype=torch.float64)
        true = LinearDynamics(A, B)
        x, u = torch.randn(300, 2).double(), torch.randn(300, 1).double()
        transitions = Transitions(x, u, true(x, u))
        dynamics = LearnedDynamics(2, 1, hidden=(8,), members=1)
        fit_dynamics(dynamics, transitions, FitOptions(learning_rate=1e-2, batch_size=32))
        assert error(dynamics, transitions) < 1e-2

    def test_known_physics_makes_it_more_exact(self):
        """Gravity is known, and a friction is not."""
        generator = torch.Generator().manual_seed(3)
        seen, fresh = pendulum_transitions(60), pendulum_transitions(300, seed=1)
        with torch.no_grad():
            seen, fresh = (
                Transitions(s.states, s.controls, PendulumDynamics(damping=0.3)(*s.inputs))
                for s in (seen, fresh)
            )
        errors = []
        for physics in (None, PendulumDynamics().requires_grad_(False)):
            torch.manual_seed(int(generator.initial_seed()))
            dynamics = LearnedDynamics(3, 1, (16,), 1, physics, unit_pairs=[(0, 1)])
            fit_dynamics(dynamics, seen, FitOptions(learning_rate=1e-2, batch_size=16))
            errors.append(error(dynamics, fresh))
        assert errors[1] < 0.3 * errors[0]

    def test_members_differ_where_no_data_were_and_their_mean_is_better_than_they_are(self):
        torch.manual_seed(0)
        dynamics = LearnedDynamics(3, 1, (16,), members=4, unit_pairs=[(0, 1)])
        fit_dynamics(dynamics, pendulum_transitions(200), QUICK)
        fresh = pendulum_transitions(300, seed=1)
        with torch.no_grad():
            each = dynamics.each(*fresh.inputs)
            wrong = (each - fresh.next_states[:, None]).square().mean((0, 2))
            mean = (dynamics(*fresh.inputs) - fresh.next_states).square().mean()
            far = dynamics.each(10 * fresh.states, 10 * fresh.controls)
        assert mean < wrong.mean()
        assert far.std(1).mean() > 3 * each.std(1).mean()

    def test_what_others_have_trained_is_gone_on_with(self):
        dynamics = LearnedDynamics(3, 1, (8,), members=1, unit_pairs=[(0, 1)])
        transitions = pendulum_transitions(300)
        optimizer = torch.optim.Adam(dynamics.parameters(), 1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            (dynamics(*transitions.inputs) - transitions.next_states).square().mean().backward()
            optimizer.step()
        before = error(dynamics, transitions)
        fit_dynamics(dynamics, transitions, FitOptions(epochs=1, learning_rate=1e-6))
        assert error(dynamics, transitions) == pytest.approx(before, rel=1e-2)

    def test_other_dynamics_are_fitted_as_they_are(self):
        dynamics = PendulumDynamics(gravity=12.0)
        options = FitOptions(epochs=40, learning_rate=0.1, batch_size=50)
        fit_dynamics(dynamics, pendulum_transitions(200), options)
        assert (dynamics.gravity / dynamics.length).item() == pytest.approx(10.0, rel=0.02)

    def test_demonstrations_are_data_too(self):
        env = gym.make(ENV)
        demonstrations = collect(RandomAgent(env), env, 2, max_steps=20)
        torch.manual_seed(0)
        dynamics = LearnedDynamics(3, 1, (8,), 1)
        history = fit_dynamics(dynamics, demonstrations, QUICK)
        assert history[-1]["validation/loss"] < history[0]["validation/loss"]
        assert dynamics.seen == 40

    def test_a_fit_repeats_itself(self):
        weights = []
        for _ in range(2):
            torch.manual_seed(0)
            dynamics = LearnedDynamics(3, 1, (8,), 2)
            fit_dynamics(dynamics, pendulum_transitions(50), QUICK)
            weights.append(dynamics.state_dict())
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    def test_patience_ends_it(self):
        x, u = torch.randn(40, 2).double(), torch.randn(40, 1).double()
        noise = Transitions(x, u, torch.randn(40, 2).double())
        history = fit_dynamics(
            LearnedDynamics(2, 1), noise, FitOptions(epochs=500, patience=5, learning_rate=0.02)
        )
        assert 5 < len(history) < 400

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"epochs": 0}, "epochs must be"),
            ({"patience": 0}, "patience must be"),
            ({"learning_rate": -1.0}, "learning_rate must be"),
            ({"batch_size": 0}, "batch_size must be"),
            ({"validation_fraction": 1.0}, "validation_fraction must be"),
            ({"seed": -1}, "seed must not be negative"),
        ],
    )
    def test_an_option_out_of_range_is_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            FitOptions(**options)

    def test_what_is_no_data_is_refused(self):
        with pytest.raises(TypeError, match="data must be Transitions or Demonstrations"):
            fit_dynamics(LearnedDynamics(3, 1), torch.zeros(3))
        with pytest.raises(ValueError, match="data must hold at least 2 transitions"):
            fit_dynamics(LearnedDynamics(3, 1), pendulum_transitions(1))
        with pytest.raises(ValueError, match="no parameter requires a gradient"):
            fit_dynamics(PendulumDynamics().requires_grad_(False), pendulum_transitions(9))


def learned_pendulum(horizon: int = 3, max_iterations: int = 5) -> MPC:
    torch.manual_seed(0)
    dynamics = LearnedDynamics(3, 1, (8,), 1, unit_pairs=[(0, 1)])
    mpc = MPC(dynamics, PendulumCost(), horizon, -2.0, 2.0, max_iterations=max_iterations)
    mpc.expected_unconverged = 1.0
    return mpc


def learned_slide(horizon: int = 3, max_iterations: int = 5) -> MPC:
    torch.manual_seed(0)
    cost = QuadraticCost(torch.ones(3, dtype=torch.float64))
    return MPC(LearnedDynamics(2, 1, (8,), 1), cost, horizon, -LIMIT, LIMIT)


PENDULUM = {"mpc": learned_pendulum, "max_iterations": None}


def learner(every: int = 20, **options) -> LearnDynamics:
    return LearnDynamics(every, options=QUICK, **options)


class TestCallback:
    @pytest.mark.parametrize("algorithm", KINDS)
    def test_it_learns_what_the_environment_does(self, algorithm):
        model = make(algorithm, make_vec_env(ENV, 2, seed=0), policy_kwargs=PENDULUM)
        dynamics = model.policy.mpc.dynamics
        untrained = copy.deepcopy(dynamics)
        callback = learner()
        model.learn(96, callback=callback)
        met = callback.known()
        assert error(dynamics, met) < 0.5 * error(untrained, met)
        logged = model.logger.name_to_value
        assert callback.transitions == 96
        assert logged.get("dynamics/validation_loss", 0.0) < 1.0
        assert all(parameter.requires_grad for parameter in dynamics.parameters())
        if algorithm is TD3:
            target = model.policy.actor_target.planner.mpc.dynamics
            for ours, theirs in zip(target.parameters(), dynamics.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs)

    @pytest.mark.parametrize("algorithm", KINDS)
    def test_between_fits_the_algorithm_does_not_move_them(self, algorithm):
        model = make(algorithm, policy_kwargs=PENDULUM)
        before = {k: v.clone() for k, v in model.policy.mpc.dynamics.state_dict().items()}
        model.learn(40, callback=learner(every=1_000))
        for name, value in model.policy.mpc.dynamics.state_dict().items():
            assert torch.equal(value, before[name]), name
        model.learn(40)
        after = model.policy.mpc.dynamics.state_dict()
        assert any(not torch.equal(after[name], before[name]) for name in before)

    @pytest.mark.parametrize("algorithm", KINDS)
    @pytest.mark.parametrize("wrapped", ["plain", "normalised", "rescaled"])
    def test_its_transitions_are_those_of_the_environment(self, algorithm, wrapped):
        """Ends of episodes, limits of actions and wrappers among them: they obey the physics."""
        if wrapped == "rescaled":
            envs = make_vec_env(rescaled, 2, seed=0)
        else:
            envs = make_vec_env(ENV, 2, seed=0, env_kwargs={"max_episode_steps": 10})
        if wrapped == "normalised":
            envs = VecNormalize(envs, clip_obs=1e3)
        state = {"state": unchanged} if wrapped == "normalised" else {}
        model = make(algorithm, envs, policy_kwargs={**PENDULUM, **state, **wide(algorithm)})
        seen = []
        callback = learner()
        fit = callback.fit

        def look() -> None:
            seen.append(callback.known())
            fit()

        callback.fit = look
        model.learn(48, callback=callback)
        transitions = seen[-1]
        assert len(transitions) > 20
        assert transitions.controls.abs().max() <= 2.0
        with torch.no_grad():
            predicted = PendulumDynamics()(*transitions.inputs)
        torch.testing.assert_close(predicted, transitions.next_states, atol=1e-4, rtol=0)

    def test_entries_of_a_dict_are_learned_from(self):
        options = {"mpc": learned_slide, "state": state_alone, "max_iterations": None}
        model = make(SAC, DummyVecEnv([Slide]), policy_kwargs=options)
        model.learn(60, callback=learner())
        dynamics = model.policy.mpc.dynamics
        with torch.no_grad():
            moved = dynamics(torch.tensor([[0.0, 1.0]]).double(), torch.zeros(1, 1).double())
        assert moved[0, 0] == pytest.approx(0.3, abs=0.15)

    def test_demonstrations_come_first(self):
        env = gym.make(ENV)
        demonstrations = collect(RandomAgent(env), env, 2, max_steps=30)
        model = make(PPO, policy_kwargs=PENDULUM)
        callback = learner(every=1_000, demonstrations=demonstrations)
        model.learn(8, callback=callback)
        assert model.policy.mpc.dynamics.seen == 60
        assert callback.transitions == 68

    def test_what_was_learned_is_saved_and_the_callback_goes_on(self, tmp_path):
        model, callback = make(SAC, policy_kwargs=PENDULUM), learner()
        model.learn(50, callback=callback)
        model.save(tmp_path / "model")
        loaded = SAC.load(tmp_path / "model", env=make_vec_env(ENV))
        for name, value in model.policy.mpc.dynamics.state_dict().items():
            assert torch.equal(value, loaded.policy.mpc.dynamics.state_dict()[name]), name
        loaded.learn(30, callback=callback, reset_num_timesteps=False)
        assert callback.transitions == 80

    def test_the_oldest_are_forgotten(self):
        callback = learner(capacity=30)
        make(PPO, policy_kwargs=PENDULUM).learn(64, callback=callback)
        assert callback.transitions == 30
        env = gym.make(ENV)
        before = collect(RandomAgent(env), env, 2, max_steps=30)
        assert learner(capacity=40, demonstrations=before).transitions == 40

    def test_demonstrations_of_another_environment_are_refused(self):
        env = gym.make("MountainCarContinuous-v0")
        callback = learner(demonstrations=collect(RandomAgent(env), env, 1, max_steps=9))
        with pytest.raises(ValueError, match=r"have 3 and 1 numbers, got 2 and 1"):
            make(PPO, policy_kwargs=PENDULUM).learn(8, callback=callback)
        with pytest.raises(ValueError, match="no transitions yet"):
            learner().known()

    def test_what_it_is_not_for_is_refused(self):
        model = PPO("MlpPolicy", ENV, n_steps=8, batch_size=4)
        with pytest.raises(ValueError, match="LearnDynamics is for a policy that plans"):
            model.learn(8, callback=learner())
        model = make(PPO, policy_kwargs={"learn": "cost"})
        with pytest.raises(ValueError, match="must have parameters that learn"):
            model.learn(8, callback=learner())
        for options, found in (({"every": 0}, ValueError), ({"options": 3}, TypeError)):
            with pytest.raises(found, match=next(iter(options))):
                LearnDynamics(**options)


def unchanged(observation: torch.Tensor) -> torch.Tensor:
    return observation


def wide(algorithm) -> dict[str, float]:
    """Actions beyond the limits, for a Gaussian that may draw them."""
    return {"log_std_init": 2.0} if algorithm is PPO else {}


def test_normalised_observations_identify_the_physics_in_the_units_of_the_environment():
    envs = VecNormalize(make_vec_env(ENV, seed=0))
    options = {"horizon": 3, "learn": {"gravity": 14.0}}
    policy = make(PPO, envs, policy_kwargs=options).policy
    env = gym.make(ENV)
    demonstrations: Demonstrations = collect(RandomAgent(env), env, 2, max_steps=30)
    SystemIdentification(policy, demonstrations, learning_rate=0.1).train(60)
    assert policy.mpc.dynamics.gravity.item() == pytest.approx(10.0, rel=2e-2)
