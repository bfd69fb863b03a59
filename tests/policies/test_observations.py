"""What a policy observes need not be the model's state, nor its action the model's control."""

import itertools
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize
from torch import Tensor, nn

from mpc_gym.imitation import BehavioralCloning, collect
from mpc_gym.make_mpc import make_mpc
from mpc_gym.policies import (
    MPCPolicy,
    RecedingHorizon,
    SACMPCPolicy,
    TD3MPCPolicy,
    load_pretrained,
)
from tests.covering import covering, covering_product
from tests.policies.environments import (
    Slide,
    actions,
    normalized,
    pendulum_mpc,
    rescaled,
    slide_mpc,
    state_alone,
    state_and_goal,
)
from tests.policies.planners import ENV, OFF_POLICY, ON_POLICY, STEPS, weights
from tests.policies.planners import make_model as make

ALGORITHMS = [*ON_POLICY, *OFF_POLICY]
one_of_each = pytest.mark.parametrize("algorithm", [PPO, SAC, TD3])


class Encoder(nn.Module):
    """From stacked frames to the state of a pendulum."""

    def __init__(self, observation_space: gym.spaces.Box) -> None:
        super().__init__()
        self.last = nn.Linear(gym.spaces.flatdim(observation_space), 3)

    def forward(self, observation: Tensor) -> Tensor:
        return self.last(observation.flatten(1))


def encoder_of_nine() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 3))


def last_frame(observation: Tensor) -> Tensor:
    return observation[:, -3:]


def unchanged(observation: Tensor) -> Tensor:
    return observation


GOAL = {"mpc": slide_mpc, "state": state_and_goal}
CASES = {
    "a goal": (lambda: DummyVecEnv([Slide]), GOAL),
    "a scale": (lambda: make_vec_env(rescaled), {}),
    "normalised": (normalized, {}),
    "an encoder": (
        lambda: VecFrameStack(make_vec_env(ENV, seed=0), 3),
        {"mpc": ENV, "state": Encoder},
    ),
    "a normalised goal": (lambda: normalized(Slide), GOAL),
}
ALL = [
    *itertools.product(ALGORITHMS, [name for name in CASES if name != "a normalised goal"]),
    (PPO, "a normalised goal"),
    (TD3, "a normalised goal"),
]


@pytest.mark.parametrize(("algorithm", "case"), covering(ALL))
def test_it_trains_saves_loads_and_goes_on(algorithm, case, tmp_path):
    make_env, policy_kwargs = CASES[case]
    envs = make_env()
    model = make(algorithm, envs, policy_kwargs=policy_kwargs)
    before = weights(model)
    model.learn(STEPS)
    learned = "state_map" if case == "an encoder" else "mpc"
    after = {name: each for name, each in weights(model).items() if learned in name}
    assert any(not torch.equal(each, before[name]) for name, each in after.items())
    observation = envs.reset()
    expected = actions(model, observation)
    model.save(tmp_path / "model")
    again = make_env()
    if isinstance(envs, VecNormalize):
        envs.save(tmp_path / "statistics")
        again = VecNormalize.load(tmp_path / "statistics", again.venv)
    resumed = algorithm.load(tmp_path / "model", env=again, device="cpu")
    np.testing.assert_array_equal(actions(resumed, observation), expected)
    resumed.learn(STEPS, reset_num_timesteps=False)
    assert resumed.num_timesteps == 2 * STEPS


@pytest.mark.parametrize(("algorithm", "case"), covering_product([PPO, TD3], CASES))
def test_it_acts_as_before_wherever_it_is_loaded_without_an_environment(algorithm, case, tmp_path):
    make_env, policy_kwargs = CASES[case]
    envs = make_env()
    model = make(algorithm, envs, policy_kwargs=policy_kwargs).learn(STEPS)
    observation = envs.reset()
    expected = actions(model, observation)
    model.save(tmp_path / "model")
    model.policy.save(tmp_path / "policy")
    model.policy.save_pretrained(tmp_path / "folder")
    functions = {name: each for name, each in policy_kwargs.items() if callable(each)}
    for again in (
        algorithm.load(tmp_path / "model", device="cpu"),
        type(model.policy).load(tmp_path / "policy", device="cpu"),
        load_pretrained(tmp_path / "folder", device="cpu", **functions),
        pickle.loads(pickle.dumps(model.policy)),
    ):
        np.testing.assert_array_equal(actions(again, observation), expected)


class TestNormalised:
    @one_of_each
    def test_plans_start_from_what_the_environment_gave(self, algorithm):
        envs = normalized()
        model = make(algorithm, envs).learn(24)
        observation = envs.reset()
        plain = make(algorithm)
        plain.policy.load_state_dict(
            {k: v for k, v in weights(model).items() if "normalization" not in k}
        )
        expected = actions(plain, envs.get_original_obs())
        np.testing.assert_allclose(actions(model, observation), expected, atol=1e-4)

    def test_an_update_finds_the_rollouts_own_policy_although_the_statistics_have_moved(self):
        model = make(PPO, normalized(), learning_rate=0.0, n_steps=16)
        model.learn(32)
        assert abs(model.logger.name_to_value["train/approx_kl"]) < 1e-6

    def test_a_clipped_observation_is_said(self):
        with pytest.warns(UserWarning, match=r"VecNormalize has clipped.*clip_obs=1e3"):
            make(PPO, normalized(clip_obs=0.1)).learn(8)

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda envs: VecFrameStack(envs, 3),
            lambda envs: VecNormalize(envs, norm_reward=False),
            lambda envs: VecNormalize(envs, norm_obs=False),
        ],
    )
    def test_statistics_of_something_else_are_refused(self, wrap):
        with pytest.raises(ValueError, match="must be the last that changes observations, and the"):
            make(PPO, wrap(normalized()), policy_kwargs={"mpc": ENV, "state": last_frame})

    def test_a_model_of_ones_own_must_say_what_the_state_is(self):
        with pytest.raises(ValueError, match=r"norm_obs=False.*or say.*state=\.\.\."):
            make(PPO, normalized(), policy_kwargs={"mpc": pendulum_mpc})
        make(PPO, normalized(), policy_kwargs={"mpc": pendulum_mpc, "state": unchanged}).learn(8)

    def test_an_environment_of_the_other_kind_is_refused(self, tmp_path):
        plain, model = make(PPO), make(PPO, normalized())
        for each, other, message in (
            (plain, normalized(), "made for observations as the environment gives them"),
            (model, make_vec_env(ENV), "made for observations that VecNormalize normalises"),
        ):
            each.set_env(other)
            with pytest.raises(ValueError, match=message):
                each.learn(8)
        plain.save(tmp_path / "plain")
        with pytest.raises(RuntimeError, match="made for observations as the environment gives"):
            PPO.load(tmp_path / "plain", env=normalized(), device="cpu")

    def test_gymnasiums_is_refused_for_a_known_state_too(self):
        env = gym.wrappers.NormalizeObservation(gym.make("Pendulum-v1"))
        with pytest.raises(ValueError, match="NormalizeObservation normalises them: remove it"):
            make(PPO, env, policy_kwargs={"mpc": ENV, "state": unchanged})


class TestGoals:
    def test_the_goal_is_where_the_plan_goes(self):
        model = make(
            PPO, Slide(), policy_kwargs={"mpc": slide_mpc, "state": state_and_goal, "horizon": 20}
        )
        observation, _ = Slide().reset(seed=0)
        for goal in (-1.0, 0.5):
            observation["desired_goal"][:] = goal
            batch = {name: each[None] for name, each in observation.items()}
            end = model.policy.plan(batch).states[0, -1, 0].item()
            assert end == pytest.approx(goal, abs=0.1)

    @pytest.mark.parametrize("algorithm", OFF_POLICY)
    def test_past_goals_are_learned_from(self, algorithm):
        model = make(
            algorithm,
            Slide(),
            policy_kwargs=GOAL,
            replay_buffer_class=HerReplayBuffer,
            replay_buffer_kwargs={"n_sampled_goal": 2, "goal_selection_strategy": "future"},
            learning_starts=16,
        )
        before = weights(model)
        model.learn(24)
        name = next(name for name in before if name.endswith("mpc.cost.weight"))
        assert not torch.equal(weights(model)[name], before[name])

    def test_critics_have_the_features_of_all_entries(self):
        kwargs = GOAL
        on, off = make(PPO, Slide(), policy_kwargs=kwargs), make(SAC, Slide(), policy_kwargs=kwargs)
        assert isinstance(on.policy.vf_features_extractor, CombinedExtractor)
        assert isinstance(off.policy.critic.features_extractor, CombinedExtractor)
        assert on.policy.features_dim == 4

    def test_a_cost_map_has_no_place_beside_a_goal(self):
        kwargs = {"mpc": slide_mpc, "state": state_and_goal, "learn": "cost_map"}
        with pytest.raises(ValueError, match="'cost_map' gives the cost its context"):
            make(PPO, Slide(), policy_kwargs=kwargs)

    def test_a_goal_that_is_missing_or_of_no_use_is_refused(self):
        kwargs = {"mpc": slide_mpc, "state": state_alone}
        with pytest.raises(ValueError, match=r"wants a context.*state= a function that returns"):
            make(PPO, Slide(), policy_kwargs=kwargs)
        with pytest.raises(ValueError, match="state= must return states only"):
            make(PPO, Slide(), policy_kwargs={"mpc": "DiffPendulum-v0", "state": state_and_goal})

    def test_a_dict_without_a_state_is_refused_with_the_remedy(self):
        with pytest.raises(ValueError, match=r"got Dict.*policy_kwargs=dict\(state=function\)"):
            make(PPO, Slide(), policy_kwargs={"mpc": slide_mpc})

    def test_an_observation_of_another_kind_is_refused(self):
        model = make(PPO, Slide(), policy_kwargs=GOAL)
        with pytest.raises(TypeError, match="must be a dict with entries"):
            model.policy.predict(np.zeros(2, np.float32))
        with pytest.raises(TypeError, match="must be a dict with entries"):
            model.policy.predict({"observation": np.zeros(2, np.float32)})


class TestEncoder:
    @one_of_each
    def test_what_it_starts_from_is_learned_through_the_plan(self, algorithm):
        envs = VecFrameStack(make_vec_env(ENV), 3)
        policy = make(algorithm, envs, policy_kwargs={"mpc": ENV, "state": Encoder}).policy
        observation = torch.as_tensor(envs.reset()) + torch.randn(6, 9)
        planner = policy.planner
        planner.action_limits.gaussian_mean(
            planner.plan(observation, unclamped=True)
        ).sum().backward()
        assert planner.observer.state_map.last.weight.grad.abs().max() > 0.0

    def test_it_may_be_made_by_a_function(self):
        envs = VecFrameStack(make_vec_env(ENV), 3)
        for source in (encoder_of_nine, last_frame):
            make(PPO, envs, policy_kwargs={"mpc": ENV, "state": source}).learn(8)

    def test_the_critic_may_have_features_of_its_own(self):
        space = gym.spaces.Box(0, 255, (1, 36, 36), np.uint8)
        policy = MPCPolicy(
            space,
            gym.make(ENV).action_space,
            lambda _: 1e-3,
            mpc=ENV,
            state=Encoder,
            horizon=3,
            features_extractor_class=NatureCNN,
        )
        assert isinstance(policy.vf_features_extractor, NatureCNN)


def test_demonstrations_are_of_observations_as_the_environment_gives_them():
    demonstrations = collect(RecedingHorizon(make_mpc(ENV, 3)), ENV, 1)
    policy = make(PPO, normalized()).policy
    with pytest.raises(ValueError, match="made for those of VecNormalize"):
        BehavioralCloning(policy, demonstrations)


def of_two(observation: Tensor) -> Tensor:
    return observation[:, :2]


def of_one(observation: Tensor) -> Tensor:
    return observation[:, 0]


def of_integers(observation: Tensor) -> Tensor:
    return observation.int()


def nothing_but_nan(observation: Tensor) -> Tensor:
    return observation / 0.0


def of_the_mean(observation: Tensor) -> Tensor:
    return observation - observation.mean(0)


def of_the_largest(observation: Tensor) -> Tensor:
    return observation if bool((observation[:, 2] > 5.0).any()) else 0.5 * observation


def of_the_mean_beside_large_numbers(observation: Tensor) -> Tensor:
    x, y, speed = observation.unbind(-1)
    return torch.stack((x - x.mean(), y, 1e6 * speed), -1)


def goal_of_all(observation: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    state, goal = state_and_goal(observation)
    return state, goal.flip(0)


def within_its_range(observation: Tensor) -> Tensor:
    assert bool((observation.abs() <= 1.5).all())
    return observation


def no_module() -> int:
    return 3


class OfTwo(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.last = nn.Linear(n_in, n_out)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (of_two, ValueError, r"state=of_two must return the states.*n_state=3\], got 2"),
        (of_one, ValueError, r"state=of_one must map .*got states of shape \[2\]"),
        (of_integers, TypeError, "state=of_integers must map .*floating point"),
        (of_the_mean, ValueError, "state=of_the_mean must map each observation on its own"),
        (of_the_mean_beside_large_numbers, ValueError, "must map each observation on its own"),
        (of_the_largest, ValueError, r"on its own.* an `if` on a tensor.*torch\.where"),
        (no_module, TypeError, "state=no_module must map .*return a torch.nn.Module"),
        (OfTwo, TypeError, "state=OfTwo must be made of nothing.*it takes n_in, n_out"),
        (Encoder(gym.spaces.Box(-1, 1, (3,))), TypeError, "state must be an importable function"),
        ("position", TypeError, "state must be an importable function"),
        (lambda observation: observation, TypeError, "state must be a function .*imported"),
    ],
)
@pytest.mark.parametrize("policy", [MPCPolicy, SACMPCPolicy, TD3MPCPolicy])
def test_what_gives_no_states_is_refused_before_the_first_action(policy, state, error, message):
    env = gym.make(ENV)
    with pytest.raises(error, match=message):
        policy(env.observation_space, env.action_space, lambda _: 1e-3, horizon=3, state=state)


def test_a_context_of_other_observations_is_refused():
    with pytest.raises(ValueError, match="state=goal_of_all must map each observation on its own"):
        make(PPO, Slide(), policy_kwargs={"mpc": slide_mpc, "state": goal_of_all})


def test_a_map_may_refuse_what_no_environment_shows():
    make(PPO, policy_kwargs={"state": within_its_range})


def test_a_state_that_is_not_finite_is_refused():
    model = make(PPO, policy_kwargs={"state": nothing_but_nan})
    with pytest.raises(ValueError, match=r"the state that nothing_but_nan returns must be finite"):
        model.predict(np.float32([1.0, 0.0, 0.5]))
