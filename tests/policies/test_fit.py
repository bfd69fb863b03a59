"""A policy acts and observes in the model's units, or is refused with what to do about it."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces, wrappers
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)
from torch import nn

from mpc_gym.envs import DiffEnv
from mpc_gym.make_mpc import make_mpc
from mpc_gym.models import LinearDynamics, QuadraticCost
from mpc_gym.mpc import MPC
from mpc_gym.policies import MPCPolicy, SACMPCPolicy, TD3MPCPolicy
from tests.covering import covering_product
from tests.policies.planners import ENV, SHORT, two_masses

Wrapper = Callable[[gym.Env], gym.Env]

UNITS = r"control bounds must lie within the action space.*RescaleAction"
SCALED = r"observation_space must be that of DiffPendulum-v0.*RescaleObservation.*make_mpc"
ANGLE = r"cos\^2 \+ sin\^2"


def pendulum_mpc(**options) -> MPC:
    """The pendulum's model as a user's own."""
    return make_mpc(ENV, **options)


SOURCES = {"named": ENV, "function": pendulum_mpc}

REFUSED: dict[str, tuple[Wrapper, dict[str, str]]] = {
    "actions to half the units": (
        lambda env: wrappers.RescaleAction(env, np.float32(-4), np.float32(4)),
        {"named": UNITS, "function": UNITS},
    ),
    "actions to [-1, 1]": (
        lambda env: wrappers.RescaleAction(env, np.float32(-1), np.float32(1)),
        {"named": UNITS, "function": UNITS},
    ),
    "actions shifted": (
        lambda env: wrappers.RescaleAction(env, np.float32(0), np.float32(4)),
        {"named": UNITS, "function": UNITS},
    ),
    "actions a little more": (
        lambda env: wrappers.RescaleAction(env, np.float32(-2.001), np.float32(2.001)),
        {"named": UNITS, "function": UNITS},
    ),
    "actions in bins": (
        lambda env: wrappers.DiscretizeAction(env, 5),
        dict.fromkeys(SOURCES, "action_space must be a Box, got Discrete.*continuous"),
    ),
    "observations to [-1, 1]": (
        lambda env: wrappers.RescaleObservation(env, np.float32(-1), np.float32(1)),
        {"named": SCALED},
    ),
    "the speed alone in other units": (
        lambda env: wrappers.TransformObservation(
            env,
            lambda o: o * np.float32([1, 1, 0.1]),
            spaces.Box(np.float32([-1, -1, -0.8]), np.float32([1, 1, 0.8])),
        ),
        {"named": SCALED},
    ),
    "observations normalised": (wrappers.NormalizeObservation, {"named": ANGLE}),
    "observations doubled": (
        lambda env: wrappers.TransformObservation(env, lambda o: 2 * o, None),
        {"named": ANGLE},
    ),
    "the time added": (
        wrappers.TimeAwareObservation,
        dict.fromkeys(SOURCES, "(?s)observation_space must be a Box of 3 numbers.*wrapper"),
    ),
    "three frames": (
        lambda env: wrappers.FrameStackObservation(env, 3),
        dict.fromkeys(SOURCES, "(?s)observation_space must be a Box of 3 numbers.*wrapper"),
    ),
    "observations in bins": (
        lambda env: wrappers.DiscretizeObservation(env, 5),
        dict.fromkeys(SOURCES, "observation_space must be a Box, got .*Discrete"),
    ),
    "pictures beside observations": (
        lambda env: wrappers.AddRenderObservation(env, render_only=False),
        dict.fromkeys(SOURCES, "observation_space must be a Box, got Dict"),
    ),
}

if not hasattr(wrappers, "DiscretizeAction"):  # of which Gymnasium 1.1 has none
    REFUSED = {case: each for case, each in REFUSED.items() if "in bins" not in case}

UNCHANGED: dict[str, Wrapper] = {
    "nothing": lambda env: env,
    "flat": wrappers.FlattenObservation,
    "double": lambda env: wrappers.DtypeObservation(env, np.float64),
    "column": lambda env: wrappers.ReshapeObservation(env, (3, 1)),
    "rewards": lambda env: wrappers.TransformReward(env, lambda reward: 0.1 * reward),
    "normalised rewards": wrappers.NormalizeReward,
    "statistics": wrappers.RecordEpisodeStatistics,
    "limit": lambda env: wrappers.TimeLimit(env, 50),
    "the same units": lambda env: wrappers.RescaleAction(env, np.float32(-2), np.float32(2)),
}


def wrapped(wrapper: Wrapper, **options: Any) -> gym.Env:
    return wrapper(gym.make(ENV, **options))


def make_policy(env: gym.Env, policy=MPCPolicy, **options: Any):
    arguments = {**SHORT, "horizon": 10, **options}
    return policy(env.observation_space, env.action_space, lambda _: 1e-3, **arguments)


CASES = [(name, source) for name, (_, messages) in REFUSED.items() for source in messages]


@pytest.mark.parametrize(("name", "source"), CASES)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_wrapper_that_changes_units_or_observations_is_refused(name, source):
    wrapper, messages = REFUSED[name]
    env = wrapped(wrapper, render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match=messages[source]):
        make_policy(env, mpc=SOURCES[source]).predict(observation)


@pytest.mark.parametrize("policy", [SACMPCPolicy, TD3MPCPolicy])
def test_so_it_is_by_the_policies_of_off_policy_algorithms(policy):
    env = wrapped(lambda env: wrappers.RescaleAction(env, np.float32(-4), np.float32(4)))
    for source in (None, *SOURCES.values()):
        with pytest.raises(ValueError, match=UNITS):
            make_policy(env, policy, mpc=source)


@pytest.mark.parametrize(("name", "source"), covering_product(UNCHANGED, SOURCES))
def test_a_wrapper_that_leaves_them_as_they_are_leaves_the_control_as_it_is(name, source):
    """What is applied to the pendulum is the first control of the plan from its state."""
    env = wrapped(UNCHANGED[name])
    policy = make_policy(env, mpc=SOURCES[source])
    observation, _ = env.reset(seed=3)
    state = np.asarray(env.unwrapped.state)
    action, _ = policy.predict(observation, deterministic=True)
    env.step(action)
    plan = make_mpc(ENV, horizon=10)(torch.tensor(state)[None])
    applied = next_state(env.unwrapped, state, plan.controls[0, 0].detach())
    np.testing.assert_allclose(env.unwrapped.state, applied, atol=1e-5)


def next_state(env: DiffEnv, state: np.ndarray, control: torch.Tensor) -> np.ndarray:
    return env.dynamics(torch.tensor(state), control).detach().numpy()


LIMIT = torch.tensor([0.1, 1 / 3], dtype=torch.float64)


def integrators() -> MPC:
    eye = torch.eye(2, dtype=torch.float64)
    cost = QuadraticCost(torch.ones(4, dtype=torch.float64))
    return MPC(LinearDynamics(eye, eye), cost, 3, -LIMIT, LIMIT, backend="torch")


def test_limits_in_float32_are_those_of_a_model_in_float64():
    high = LIMIT.numpy().astype(np.float32)
    states = spaces.Box(-9.0, 9.0, (2,))
    MPCPolicy(states, spaces.Box(-high, high), lambda _: 1e-3, mpc=integrators)
    for factor in (0.999, 1.001, 1e-3, 1e3):
        scaled = spaces.Box(-np.float32(factor) * high, np.float32(factor) * high)
        with pytest.raises(ValueError, match=UNITS):
            MPCPolicy(states, scaled, lambda _: 1e-3, mpc=integrators)


def test_limits_of_small_units_are_compared_in_their_own_size():
    """An absolute tolerance would take micrometres for millimetres."""
    states, tiny = spaces.Box(-9.0, 9.0, (1,)), np.float32([1e-7])
    MPCPolicy(states, spaces.Box(-tiny, tiny), lambda _: 1e-3, mpc=micrometres)
    with pytest.raises(ValueError, match=UNITS):
        MPCPolicy(states, spaces.Box(-2 * tiny, 2 * tiny), lambda _: 1e-3, mpc=micrometres)


def micrometres() -> MPC:
    one = torch.ones(1, 1, dtype=torch.float64)
    cost = QuadraticCost(torch.ones(2, dtype=torch.float64))
    return MPC(LinearDynamics(one, one), cost, 3, -1e-7, 1e-7, backend="torch")


def test_a_model_of_ones_own_may_hold_some_of_its_controls_back():
    actions = spaces.Box(-1.0, 1.0, (2,))
    policy = MPCPolicy(spaces.Box(-9.0, 9.0, (2,)), actions, lambda _: 1e-3, mpc=two_masses)
    action, _ = policy.predict(np.float32([5.0, 5.0]), deterministic=True)
    np.testing.assert_allclose(action, [-1.0, -0.5], atol=1e-6)


class TwoMasses(gym.Env):
    """What `two_masses` models, with the same limits of each control."""

    observation_space = spaces.Box(-9.0, 9.0, (2,))
    action_space = spaces.Box(np.float32([-1.0, -0.5]), np.float32([1.0, 0.5]))

    def reset(self, *, seed=None, options=None):  # noqa: ARG002
        super().reset(seed=seed)
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action):  # noqa: ARG002
        return np.zeros(2, dtype=np.float32), 0.0, False, False, {}


def test_so_it_may_behind_a_wrapper_that_rescales_one_of_them():
    """Half the control would arrive of the one whose limit is not 1 already."""
    rescaled = wrappers.RescaleAction(TwoMasses(), np.float32(-1), np.float32(1))
    rescaled.unwrapped.spec = gym.envs.registration.EnvSpec("TwoMasses-v0", TwoMasses)
    plain, scaled = (
        PPO(MPCPolicy, env, policy_kwargs={"mpc": two_masses}, device="cpu")
        for env in (TwoMasses(), rescaled)
    )
    for state in (np.float32([0.3, 0.1]), np.float32([5.0, 5.0])):
        action, _ = plain.predict(state, deterministic=True)
        found, _ = scaled.predict(state, deterministic=True)
        np.testing.assert_allclose(rescaled.action(found), action, atol=1e-6)


def test_an_action_space_without_limits_says_nothing_of_units():
    env = wrapped(wrappers.ClipAction)
    for source in SOURCES.values():
        action, _ = make_policy(env, mpc=source).predict(env.reset(seed=1)[0], deterministic=True)
        assert np.abs(action) <= 2.0


class TestVecEnvs:
    """Stable-Baselines3's own wrappers, around a model of the user's own and ours."""

    @staticmethod
    def model(env, algorithm=PPO, policy=MPCPolicy, **options):
        kwargs = {"policy_kwargs": {**SHORT, **options}, "seed": 0, "device": "cpu"}
        steps = {"learning_starts": 2} if algorithm is SAC else {"n_steps": 4}
        return algorithm(policy, env, **kwargs, **steps)

    @pytest.mark.parametrize(
        ("algorithm", "policy"), [(PPO, MPCPolicy), (A2C, MPCPolicy), (SAC, SACMPCPolicy)]
    )
    def test_normalised_observations_are_refused_with_the_remedy(self, algorithm, policy):
        envs = VecMonitor(VecNormalize(make_vec_env(ENV)))
        with pytest.raises(ValueError, match=r"VecNormalize normalises them: pass it norm_obs=Fal"):
            self.model(envs, algorithm, policy, mpc=pendulum_mpc)
        allowed = VecNormalize(make_vec_env(ENV), norm_obs=False)
        self.model(allowed, algorithm, policy, mpc=pendulum_mpc).learn(4)

    def test_gymnasiums_are_too(self):
        normalise = wrappers.NormalizeObservation
        for env in (wrapped(normalise), make_vec_env(ENV, wrapper_class=normalise)):
            with pytest.raises(ValueError, match="NormalizeObservation normalises them: remove it"):
                self.model(env, mpc=pendulum_mpc)

    @pytest.mark.parametrize(("algorithm", "policy"), [(PPO, MPCPolicy), (SAC, SACMPCPolicy)])
    def test_so_they_are_where_they_come_later(self, algorithm, policy, tmp_path):
        model = self.model(make_vec_env(ENV), algorithm, policy, mpc=pendulum_mpc)
        model.save(tmp_path / "model")
        normalised = VecNormalize(make_vec_env(ENV))
        with pytest.raises(ValueError, match="VecNormalize normalises them"):
            algorithm.load(tmp_path / "model", env=normalised, device="cpu")
        model.set_env(normalised)
        with pytest.raises(ValueError, match="VecNormalize normalises them"):
            model.learn(4)
        model.set_env(make_vec_env(ENV))
        model.learn(4)

    @pytest.mark.parametrize("source", [None, *SOURCES.values()])
    def test_stacked_observations_are_refused(self, source):
        with pytest.raises(ValueError, match="wrapper"):
            self.model(VecFrameStack(make_vec_env(ENV), 2), mpc=source)

    @pytest.mark.parametrize("source", [None, *SOURCES.values()])
    def test_those_that_only_watch_are_welcome(self, source):
        self.model(VecCheckNan(VecMonitor(make_vec_env(ENV))), mpc=source).learn(4)


class TestWhoseModel:
    """Where nobody says whose model to plan with, the message says how to."""

    def test_a_newcomer_is_told_of_policy_kwargs(self):
        message = (
            r"^Pendulum-v1 does not say whose model to plan with\. Its own is known here: "
            r'policy_kwargs=dict\(mpc="Pendulum-v1"\)$'
        )
        with pytest.raises(ValueError, match=message):
            PPO(MPCPolicy, "Pendulum-v1")
        with pytest.raises(ValueError, match=message):
            SAC(SACMPCPolicy, "Pendulum-v1")
        for known in ("Pendulum-v1", "DiffPendulum-v0"):
            PPO(MPCPolicy, "Pendulum-v1", policy_kwargs={"mpc": known}, device="cpu")

    def test_with_an_unknown_environment_of_the_models_there_are(self):
        message = (
            r"^HalfCheetah-v5 does not say whose model to plan with\. Say it: "
            r'policy_kwargs=dict\(mpc="DiffPendulum-v0"\) .*'
            r"\(DiffPendulum-v0, DiffPendulumWindy-v0, DiffCartPole-v0, DiffAcrobot-v0, "
            r"DiffPlanarQuadrotor-v0, DiffCar-v0\) or of one that is known "
            r"\(Acrobot-v1, .*\), or dict\(mpc=function\)"
        )
        with pytest.raises(ValueError, match=message):
            PPO(MPCPolicy, "HalfCheetah-v5")

    @pytest.mark.parametrize(
        ("wrapper", "name"),
        [
            (wrappers.FlattenObservation, "FlattenObservation"),
            (wrappers.TimeAwareObservation, "TimeAwareObservation"),
            (wrappers.NormalizeObservation, "NormalizeObservation"),
        ],
    )
    def test_a_wrapper_is_named_that_has_replaced_the_observation_space(self, wrapper, name):
        message = (
            rf"a wrapper has replaced the observation space of DiffPendulum-v0: behind {name} it "
            r'is Box.*remove the wrapper.*policy_kwargs=dict\(mpc="DiffPendulum-v0"\)'
        )
        with pytest.raises(ValueError, match=message):
            PPO(MPCPolicy, wrapped(wrapper))
        with pytest.raises(ValueError, match=message):
            PPO(MPCPolicy, make_vec_env(ENV, 2, wrapper_class=wrapper))

    def test_so_is_a_wrapper_of_vector_environments(self):
        with pytest.raises(ValueError, match="of DiffPendulum-v0: behind VecFrameStack it is Box"):
            PPO(MPCPolicy, VecFrameStack(make_vec_env(ENV), 2))

    def test_a_policy_made_by_hand_is_told_of_both(self):
        env = wrapped(wrappers.FlattenObservation)
        message = r"environment does not say.*policy_kwargs=dict\(mpc=.*in a wrapper\?.*remove it"
        with pytest.raises(ValueError, match=message):
            make_policy(env)

    def test_an_environment_without_a_specification_is_no_trouble(self):
        with pytest.raises(ValueError, match="the environment does not say"):
            PPO(MPCPolicy, DummyVecEnv([TwoMasses]))

    def test_discrete_actions_come_before_the_model(self):
        with pytest.raises(ValueError, match=r"action_space must be a Box, got Discrete\(2\)"):
            PPO(MPCPolicy, "CartPole-v1")


class Drifting(nn.Module):
    """A model that wants to be told the drift."""

    n_state, n_ctrl = 2, 2

    def forward(self, state, control, context):
        return state + control + context


class Pulled(nn.Module):
    """A cost that wants to be told its goal."""

    def forward(self, state, control, context):
        return ((state - context) ** 2).sum(-1) + (control**2).sum(-1)


def drifting() -> MPC:
    return MPC(Drifting(), QuadraticCost(torch.ones(4)), 3, -1.0, 1.0)


def pulled() -> MPC:
    eye = torch.eye(2, dtype=torch.float64)
    return MPC(LinearDynamics(eye, eye), Pulled(), 3, -1.0, 1.0)


@pytest.mark.parametrize(
    ("mpc", "part"), [(drifting, "dynamics, Drifting"), (pulled, "cost, Pulled")]
)
@pytest.mark.parametrize("learn", [None, ("linear", "terminal"), "cost_map"])
def test_a_model_that_wants_a_context_is_refused_before_the_first_action(mpc, part, learn):
    with pytest.raises(ValueError, match=rf"mpc={mpc.__name__} .*{part}, wants a context"):
        PPO(MPCPolicy, TwoMasses(), policy_kwargs={"mpc": mpc, "learn": learn})
