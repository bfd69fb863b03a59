"""Physics from transitions by least squares, beside closed forms and the true physics."""

import math

import gymnasium as gym
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import A2C, PPO, SAC, TD3

from mpc_gym import make_mpc, make_sb3_vec_env
from mpc_gym.imitation import (
    LearnDynamics,
    RandomAgent,
    Stateless,
    Transitions,
    collect,
    evaluate,
    fit_dynamics,
    identify,
)
from mpc_gym.models import (
    CartPoleDynamics,
    Dynamics,
    LinearDynamics,
    PendulumDynamics,
    PlanarQuadrotorDynamics,
    current_values,
    keep_positive,
)
from tests.policies.planners import POLICIES

SYSTEMS = [PendulumDynamics, CartPoleDynamics, PlanarQuadrotorDynamics]


def observed(dynamics: Dynamics, count: int = 300, seed: int = 0) -> Transitions:
    """Steps of these dynamics from anywhere, as an environment shows them: in float32."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(count, dynamics.n_state, generator=generator)
    for pair in dynamics.unit_pairs:
        states[:, pair] /= states[:, pair].norm(dim=1, keepdim=True)
    controls = 2 * torch.randn(count, dynamics.n_ctrl, generator=generator)
    with torch.no_grad():
        after = dynamics(states.double(), controls.double())
    return Transitions(states, controls, after.float())


def identifiable(dynamics: Dynamics) -> dict[str, float]:
    """The combinations of the parameters that move the system."""
    of = {name: value.item() for name, value in current_values(dynamics).items()}
    if isinstance(dynamics, PendulumDynamics):
        scale = of["mass"] * of["length"] ** 2
        rest = {name: of[name] for name in ("damping", "wind")}
        return {"gravity / length": of["gravity"] / of["length"], "1 / (m l^2)": 1 / scale, **rest}
    if isinstance(dynamics, PlanarQuadrotorDynamics):
        return {"arm / inertia": of.pop("arm") / of.pop("inertia"), **of}
    return of


@given(st.sampled_from(SYSTEMS), st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_physics_that_is_off_by_a_factor_of_three_is_recovered(system, random):
    def off(factor: float) -> float:
        return math.exp(random.uniform(-1, 1) * math.log(factor))

    true = system(**{name: v.item() * off(2) for name, v in current_values(system()).items()})
    wrong = system(**{name: v.item() * off(3) for name, v in current_values(true).items()})
    keep_positive(wrong)
    history = identify(wrong, observed(true))
    assert history[-1]["train/loss"] < 1e-9
    found = identifiable(wrong)
    for name, value in identifiable(true).items():
        assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_a_linear_system_is_that_of_the_normal_equations():
    torch.manual_seed(0)
    x, u = torch.randn(100, 2).double(), torch.randn(100, 1).double()
    noisy = Transitions(x, u, torch.randn(100, 2).double())
    dynamics = LinearDynamics(torch.eye(2).double(), torch.zeros(2, 1).double())
    identify(dynamics, noisy)
    inputs = torch.cat((x, u), 1)
    # each entry of the next state is fitted on its own, whatever its scale
    best = torch.linalg.lstsq(inputs, noisy.next_states).solution.mT
    with torch.no_grad():
        predicted = dynamics(x, u)
    torch.testing.assert_close(predicted, inputs @ best.mT)


def test_what_does_not_move_the_system_stays_where_it_was():
    """The pendulum has the true ratios already, of a length that is not."""
    dynamics = PendulumDynamics(gravity=20.0, mass=0.25, length=2.0)
    identify(dynamics, observed(PendulumDynamics()))
    for name, value in (("gravity", 20.0), ("mass", 0.25), ("length", 2.0)):
        assert getattr(dynamics, name).item() == pytest.approx(value, rel=1e-4), name


def test_parameters_that_are_held_stay():
    dynamics = PendulumDynamics(gravity=15.0, length=2.0)
    dynamics.length.requires_grad_(False)
    identify(dynamics, observed(PendulumDynamics()))
    assert dynamics.length.item() == 2.0
    assert dynamics.gravity.item() == pytest.approx(20.0, rel=1e-4)
    with pytest.raises(ValueError, match="no parameter requires a gradient"):
        identify(dynamics.requires_grad_(False), observed(PendulumDynamics()))


def test_demonstrations_are_data_too_and_adam_does_no_better():
    env = gym.make("DiffPendulum-v0")
    demonstrations = collect(RandomAgent(env), env, 2, max_steps=50)
    exact, by_adam = (make_mpc(env, learn={"gravity": 14.0}).dynamics for _ in range(2))
    identify(exact, demonstrations)
    fit_dynamics(by_adam, demonstrations)
    error, theirs = (abs(each.gravity.item() - 10.0) for each in (exact, by_adam))
    assert error < 1e-4 < theirs


def test_predictions_that_are_not_finite_are_refused():
    dynamics = PendulumDynamics(gravity=1e308, max_speed=None)
    with pytest.raises(FloatingPointError, match="predictions are not finite"):
        identify(dynamics, observed(PendulumDynamics()))


@pytest.mark.parametrize("algorithm", [PPO, A2C, SAC, TD3])
def test_every_algorithm_recovers_the_physics_and_then_earns_what_the_truth_earns(algorithm):
    """A callback without arguments; what else there is are sizes, for the time of it."""
    sizes = {"n_steps": 64} if algorithm is PPO else {}
    off_policy = algorithm in (SAC, TD3)
    model = algorithm(
        POLICIES[algorithm],
        make_sb3_vec_env("DiffCartPole-v0", 16, seed=0),
        policy_kwargs={"learn": {"gravity": 4.0, "cart_mass": 0.4, "pole_length": 0.2}},
        seed=0,
        device="cpu",
        **({"batch_size": 32} if algorithm is not A2C else {}),
        **({"learning_starts": 900} if off_policy else sizes),
    )

    def score(agent) -> float:
        return evaluate(Stateless(agent), "DiffCartPole-v0", range(10_000, 10_010)).mean

    true = score(make_mpc("DiffCartPole-v0", max_iterations=50))
    assert score(model) < true - 100
    model.learn(1_200, callback=LearnDynamics())
    assert score(model) == pytest.approx(true, rel=1e-3)
    for name, value in {"gravity": 9.8, "cart_mass": 1.0, "pole_length": 0.5}.items():
        assert getattr(model.policy.mpc.dynamics, name).item() == pytest.approx(value, rel=1e-4)


def test_a_fit_that_is_cut_off_says_so():
    dynamics = keep_positive(PendulumDynamics(gravity=15.0, mass=3.0, length=0.5))
    with pytest.warns(UserWarning, match="used all of max_iterations=2"):
        history = identify(dynamics, observed(PendulumDynamics()), max_iterations=2)
    assert len(history) == 3


@pytest.mark.parametrize("fit", [identify, fit_dynamics])
def test_a_policy_or_a_controller_is_not_taken_for_dynamics(fit):
    policy = PPO("MPCPolicy", "DiffPendulum-v0").policy
    transitions = observed(PendulumDynamics())
    with pytest.raises(TypeError, match=r"got MPCPolicy: pass policy\.mpc\.dynamics"):
        fit(policy, transitions)
    with pytest.raises(TypeError, match=r"got MPC: pass mpc\.dynamics"):
        fit(policy.mpc, transitions)
