"""A planning policy in an algorithm that it is not for: one sentence that names the right one."""

import gymnasium as gym
import pytest
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy

import mpc_gym.policies
from mpc_gym.policies import LSTMPolicy, MPCPolicy, SACMPCPolicy, TD3MPCPolicy
from mpc_gym.policies.algorithms import calling_algorithm
from tests.policies.planners import ENV, POLICIES, SHORT

contrib = pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")
TQCMPCPolicy = mpc_gym.policies.TQCMPCPolicy
TQC = contrib.TQC

PLANNING = (MPCPolicy, SACMPCPolicy, TD3MPCPolicy, TQCMPCPolicy)
SWAPPED = [
    (algorithm, policy)
    for algorithm in (PPO, A2C, SAC, TD3, DDPG, TQC)
    for policy in PLANNING
    if policy is not POLICIES[algorithm]
]


class MyPPO(PPO):
    """An algorithm of the user's own."""


class MySAC(SAC):
    """An algorithm of the user's own."""


class MyPolicy(MPCPolicy):
    """A policy of the user's own."""


def make(algorithm, policy):
    return algorithm(policy, ENV, policy_kwargs={**SHORT}, device="cpu")


@pytest.mark.parametrize(
    ("algorithm", "policy"), SWAPPED, ids=lambda each: getattr(each, "__name__", each)
)
def test_swapped_policies_are_refused_and_the_right_one_is_named(algorithm, policy):
    right, name = POLICIES[algorithm].__name__, algorithm.__name__
    message = (
        rf"^{policy.__name__} is for .*; for {name} take {right} .*: {name}\({right}, \.\.\.\)"
    )
    with pytest.raises(ValueError, match=message):
        make(algorithm, policy)


@pytest.mark.parametrize("policy", PLANNING)
@pytest.mark.parametrize(
    ("name", "reason", "instead"),
    [
        ("TRPO", "second derivatives", "PPO(MPCPolicy"),
        ("RecurrentPPO", "LSTMs", "PPO(MPCPolicy"),
        ("CrossQ", "batch normalisation", "SAC(SACMPCPolicy"),
        ("ARS", "parameters at zero", "PPO(MPCPolicy"),
    ],
)
def test_an_algorithm_for_which_there_is_none_is_refused_with_the_reason(
    policy, name, reason, instead
):
    with pytest.raises(ValueError, match=f"{policy.__name__} cannot be trained by {name}") as error:
        make(getattr(contrib, name), policy)
    assert reason in str(error.value)
    assert f"Take {instead}" in str(error.value)


@pytest.mark.parametrize("name", ["DQN", "QRDQN", "MaskablePPO"])
def test_algorithms_for_discrete_actions_are_refused_with_the_reason(name):
    algorithm = DQN if name == "DQN" else getattr(contrib, name)
    with pytest.raises(ValueError, match=f"cannot be trained by {name}.*discrete actions"):
        algorithm(MPCPolicy, "CartPole-v1", policy_kwargs={"mpc": "DiffCartPole-v0"})


def test_a_class_of_the_users_own_counts_as_what_it_is_made_from():
    make(MyPPO, MyPolicy)
    make(MySAC, SACMPCPolicy)
    with pytest.raises(ValueError, match=r"MyPolicy is for PPO and A2C; for SAC take SACMPCPolicy"):
        make(MySAC, MyPolicy)


def test_a_policy_that_is_trained_by_imitation_says_so():
    with pytest.raises(ValueError, match=r"LSTMPolicy is trained by imitation"):
        PPO(LSTMPolicy, ENV)
    env = gym.make(ENV)
    LSTMPolicy(env.observation_space, env.action_space, lambda _: 1e-3)


class Nested(gym.Env):
    """An environment with an opponent, whose policy is made while an algorithm trains another."""

    observation_space = gym.make(ENV).observation_space
    action_space = gym.make(ENV).action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        MPCPolicy(self.observation_space, self.action_space, lambda _: 1e-3, **SHORT)
        assert calling_algorithm("_setup_model") is None
        return self.observation_space.sample(), options or {}

    def step(self, action):  # noqa: ARG002
        return self.observation_space.sample(), 0.0, True, False, {}


def test_a_policy_that_is_made_by_hand_is_no_algorithms():
    SAC("MlpPolicy", Nested(), learning_starts=2, device="cpu").learn(4)


@pytest.mark.parametrize("algorithm", [PPO, A2C, SAC, TD3, DDPG, TQC])
def test_an_algorithm_takes_the_name_of_its_policy(algorithm):
    policy = POLICIES[algorithm]
    model = make(algorithm, policy.__name__)
    assert type(model.policy) is policy


def test_the_name_of_another_policy_is_refused_with_the_right_one():
    with pytest.raises(ValueError, match="for SAC take SACMPCPolicy"):
        make(SAC, "MPCPolicy")


class TestNetArch:
    """What SB3's own policy takes, of which the layers of the values count."""

    @pytest.mark.parametrize(
        "net_arch",
        [None, [], [8], (8, 4), {"pi": [4], "vf": [8]}, {"vf": [8]}, {"pi": [4]}, {}, {"vf": ()}],
    )
    def test_makes_the_layers_that_sb3_makes(self, net_arch):
        model = PPO(MPCPolicy, ENV, policy_kwargs={**SHORT, "net_arch": net_arch})
        sb3 = PPO("MlpPolicy", ENV, policy_kwargs={"net_arch": net_arch})
        assert values(model.policy) == values(sb3.policy)

    @pytest.mark.parametrize("policy", [MPCPolicy, "MlpPolicy"])
    def test_in_the_old_form_is_taken_with_a_warning(self, policy):
        kwargs = {"net_arch": [{"vf": [16], "pi": [8]}]}
        with pytest.warns(UserWarning, match=r"net_arch=dict\(pi=\.\.\., vf=\.\.\.\)"):
            model = PPO(policy, ENV, policy_kwargs=kwargs)
        assert values(model.policy) == [(16, 3), (1, 16)]

    @pytest.mark.parametrize("net_arch", [8, "64", [8, {"pi": [8]}], {"vf": 8}, [8.0], [[8]]])
    def test_of_another_kind_is_refused(self, net_arch):
        with pytest.raises(TypeError, match=r"net_arch must be a list of layer sizes or a dict"):
            PPO(MPCPolicy, ENV, policy_kwargs={**SHORT, "net_arch": net_arch})


def values(policy: ActorCriticPolicy) -> list[tuple[int, ...]]:
    """Shapes of the layers of the critic."""
    modules = [*policy.mlp_extractor.value_net.modules(), policy.value_net]
    return [tuple(each.weight.shape) for each in modules if hasattr(each, "weight")]
