"""Planning policies in the algorithms of Stable-Baselines3: train, evaluate, save, load, resume."""

import copy
import functools

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tests.policies.planners import (
    ENV,
    OFF_POLICY,
    POLICIES,
    SHORT,
    STEPS,
    assert_same,
    make_model,
    observations,
    weights,
)


def quickly(algorithms, quick):
    """Over all of these algorithms, but left to the slow tests where not among `quick`."""
    return pytest.mark.parametrize(
        "algorithm",
        [
            pytest.param(each, marks=[] if each in quick else pytest.mark.slow, id=each.__name__)
            for each in algorithms
        ],
    )


every_algorithm = quickly(POLICIES, POLICIES)
some_quickly = quickly(POLICIES, (PPO, SAC))
off_policy = quickly(OFF_POLICY, (SAC, TD3))
noise = NormalActionNoise(np.zeros(1), 0.1 * np.ones(1))


class Watched(gym.Wrapper):
    """Keeps what it was told to do."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.taken: list[np.ndarray] = []

    def step(self, action):
        self.taken.append(action.copy())
        return super().step(action)


def short_env(steps: int = 5) -> gym.Env:
    return gym.make(ENV, max_episode_steps=steps)


def act(model) -> np.ndarray:
    return model.predict(observations(), deterministic=True)[0]


@pytest.fixture(scope="module")
def trained():
    """A model of each algorithm after `STEPS` steps, its environment and its first weights."""

    @functools.cache
    def train(algorithm):
        env = Watched(gym.make(ENV))
        model = make_model(algorithm, env)
        before = weights(model)
        return model.learn(STEPS), env, before

    return train


@every_algorithm
def test_training_changes_networks_and_physics_and_nothing_becomes_nan(algorithm, trained):
    model, _, before = trained(algorithm)
    after = weights(model)
    assert all(bool(value.isfinite().all()) for value in after.values())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.endswith("mpc.dynamics.gravity") for name in changed)
    assert any("critic" in name or "value_net" in name for name in changed)


@every_algorithm
def test_actions_are_within_the_limits_and_scaled_in_a_replay_buffer(algorithm, trained):
    model, env, _ = trained(algorithm)
    taken = np.array(env.taken[:STEPS])
    assert np.abs(taken).max() <= 2.0
    assert len(set(taken.ravel().tolist())) > 2
    if algorithm in OFF_POLICY:
        scaled = model.replay_buffer.actions[:STEPS, 0]
        np.testing.assert_allclose(scaled, taken / 2, atol=1e-6)


@some_quickly
def test_the_same_seed_gives_the_same_weights_and_actions(algorithm, trained):
    first, _, _ = trained(algorithm)
    again = make_model(algorithm).learn(STEPS)
    assert_same(weights(again), weights(first))
    drawn = []
    for model in (first, again):
        torch.manual_seed(0)
        drawn.append(model.predict(observations())[0])
    np.testing.assert_array_equal(*drawn)


def test_another_seed_gives_other_weights(trained):
    first, _, _ = trained(PPO)
    other = make_model(PPO, seed=1).learn(STEPS)
    assert other.policy.mpc.dynamics.gravity.item() != first.policy.mpc.dynamics.gravity.item()


@some_quickly
def test_an_action_space_of_doubles_is_one_like_others(algorithm):
    """That of most environments that wrap a simulator, such as DeepMind Control's."""
    doubles = gym.spaces.Box(-2.0, 2.0, (1,), np.float64)
    env = gym.wrappers.TransformAction(short_env(), lambda action: action, doubles)
    model = make_model(algorithm, env).learn(STEPS)
    np.testing.assert_array_equal(act(model), act(make_model(algorithm).learn(STEPS)))


@some_quickly
def test_with_normalised_rewards_it_learns_as_ever(algorithm):
    env = VecNormalize(DummyVecEnv([short_env]), norm_obs=False)
    model = make_model(algorithm, env).learn(STEPS)
    assert env.ret_rms.count > STEPS / 2
    assert np.isfinite(act(model)).all()


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (PPO, {"learn": None}),
        (PPO, {"learn": "linear"}),
        (PPO, {"learn": "terminal"}),
        (PPO, {"learn": "cost_map", "value": "plan"}),
        (PPO, {"learn": ("mass", "cost_map", "terminal", "linear"), "starts": 4}),
        (A2C, {"learn": "mass", "value": "plan"}),
    ],
    ids=lambda each: each.__name__ if isinstance(each, type) else str(each["learn"]),
)
def test_without_learning_rate_an_update_finds_the_rollouts_own_policy(algorithm, options):
    model = make_model(algorithm, learning_rate=0.0, policy_kwargs=options)
    before = weights(model)
    model.learn(8)
    assert_same(weights(model), before)
    if algorithm is PPO:
        assert abs(model.logger.name_to_value["train/approx_kl"]) < 1e-8
    buffer = model.rollout_buffer
    obs, actions = (torch.tensor(each) for each in (buffer.observations, buffer.actions))
    _, log_prob, _ = model.policy.evaluate_actions(obs.reshape(8, 3), actions.reshape(8, 1))
    kept = torch.tensor(buffer.log_probs).reshape(8)
    torch.testing.assert_close(log_prob, kept, rtol=1e-5, atol=1e-5)


OPTIONS = [
    (PPO, {"clip_range_vf": 0.2}),
    (SAC, {"ent_coef": "auto_0.01", "train_freq": (1, "episode")}),
    (SAC, {"policy_kwargs": {"n_critics": 3}, "train_freq": (2, "step"), "gradient_steps": -1}),
    (TD3, {"action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(1), 0.1 * np.ones(1))}),
]
MORE_OPTIONS = [
    (PPO, {"normalize_advantage": False, "n_steps": 2, "batch_size": 2}),
    (A2C, {"normalize_advantage": True}),
    (A2C, {"policy_kwargs": {"net_arch": {"pi": [4], "vf": [4, 4]}}}),
    (SAC, {"ent_coef": 0.01}),
    (SAC, {"policy_kwargs": {"n_critics": 1}, "action_noise": noise}),
    (TD3, {"action_noise": noise}),
    (DDPG, {"action_noise": noise}),
]


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [*OPTIONS, *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE_OPTIONS)],
    ids=lambda each: each.__name__ if isinstance(each, type) else "-".join(each),
)
def test_the_options_of_an_algorithm_work_as_with_its_own_policy(algorithm, options):
    model = make_model(algorithm, short_env(), **options)
    before = model.policy.mpc.dynamics.gravity.item()
    model.learn(STEPS)
    assert np.isfinite(model.policy.mpc.dynamics.gravity.item())
    assert model.policy.mpc.dynamics.gravity.item() != before


@off_policy
def test_several_environments_share_a_buffer_of_returns_over_several_steps(algorithm):
    env = make_vec_env(short_env, n_envs=2)
    model = make_model(algorithm, env, n_steps=3, train_freq=2, gradient_steps=-1)
    model.learn(20)
    assert isinstance(model.replay_buffer, NStepReplayBuffer)
    assert model.replay_buffer.actions.shape[1:] == (2, 1)
    # from the tenth step on, as many updates as transitions
    assert model._n_updates == 20 - 8
    assert np.isfinite(act(model)).all()


@some_quickly
class TestSaving:
    def test_the_algorithm_keeps_all_that_it_learned_and_goes_on(
        self, algorithm, trained, tmp_path
    ):
        model, _, _ = trained(algorithm)
        model.save(tmp_path / "model")
        loaded = algorithm.load(tmp_path / "model.zip", env=short_env())
        assert_same(weights(loaded), weights(model))
        np.testing.assert_array_equal(act(loaded), act(model))
        assert loaded.policy.plan_options == model.policy.plan_options
        loaded.learn(STEPS, reset_num_timesteps=False)
        assert loaded.num_timesteps == 2 * STEPS
        gravities = [each.policy.mpc.dynamics.gravity.item() for each in (loaded, model)]
        assert gravities[0] != gravities[1]

    def test_the_policy_alone_acts_as_before(self, algorithm, tmp_path):
        model = make_model(algorithm, policy_kwargs={"learn": ("gravity", "cost_map")})
        scatter(model.policy)
        model.policy.save(tmp_path / "policy.pt")
        loaded = POLICIES[algorithm].load(tmp_path / "policy.pt", device="cpu")
        assert_same(loaded.state_dict(), model.policy.state_dict())
        found, _ = loaded.predict(observations(), deterministic=True)
        np.testing.assert_array_equal(found, act(model))
        learned = {name for name, each in loaded.mpc.named_parameters() if each.requires_grad}
        assert learned == {"dynamics.gravity"}

    def test_parameters_are_set_by_name_and_what_does_not_fit_is_refused(self, algorithm):
        model, other = make_model(algorithm), make_model(algorithm, seed=1)
        scatter(other.policy)
        given = copy.deepcopy(other.get_parameters())
        model.set_parameters(given, exact_match=True)
        assert_same(weights(model), weights(other))
        with pytest.raises(ValueError, match="nothing"):
            model.set_parameters({**given, "nothing": {}}, exact_match=False)
        with pytest.raises(ValueError, match="policy"):
            model.set_parameters({name: given[name] for name in given if name != "policy"})
        name = next(name for name in given["policy"] if name.endswith("dynamics.gravity"))
        gravity = given["policy"].pop(name)
        with pytest.raises(RuntimeError, match=r"mpc\.dynamics\.gravity"):
            model.set_parameters(given, exact_match=True)
        model.set_parameters({"policy": {name: gravity + 1.0}}, exact_match=False)
        assert model.policy.state_dict()[name] == gravity + 1.0

    def test_parameters_go_through_a_vector_in_their_own_dtype(self, algorithm):
        policy, other = make_model(algorithm).policy, make_model(algorithm, seed=1).policy
        scatter(other)
        policy.load_from_vector(other.parameters_to_vector())
        for found, expected in zip(policy.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(found, expected, check_dtype=True)

    def test_it_moves_to_more_environments_by_loading_only(self, algorithm, trained, tmp_path):
        model, _, _ = trained(algorithm)
        with pytest.raises(AssertionError, match="number of environments"):
            model.set_env(DummyVecEnv([short_env] * 2))
        model.save(tmp_path / "model")
        loaded = algorithm.load(tmp_path / "model", env=DummyVecEnv([short_env] * 2))
        loaded.learn(2 * STEPS)
        assert np.isfinite(act(loaded)).all()
        loaded.set_env(DummyVecEnv([lambda: short_env(4)] * 2))
        loaded.learn(2 * STEPS)
        assert loaded.num_timesteps == 2 * STEPS


@off_policy
def test_an_actor_is_saved_and_loaded_alone(algorithm, tmp_path):
    actor = make_model(algorithm, policy_kwargs={"learn": ("mass", "terminal")}).policy.actor
    scatter(actor)
    actor.save(tmp_path / "actor.pt")
    loaded = type(actor).load(tmp_path / "actor.pt", device="cpu")
    assert_same(loaded.state_dict(), actor.state_dict())
    found, _ = loaded.predict(observations(), deterministic=True)
    np.testing.assert_array_equal(found, actor.predict(observations(), deterministic=True)[0])


@off_policy
def test_a_replay_buffer_is_saved_and_training_goes_on_from_it(algorithm, trained, tmp_path):
    model, _, _ = trained(algorithm)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = algorithm.load(tmp_path / "model", env=short_env())
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.replay_buffer.size() == STEPS
    np.testing.assert_array_equal(loaded.replay_buffer.actions, model.replay_buffer.actions)
    loaded.learn(4, reset_num_timesteps=False)
    assert loaded.replay_buffer.size() == STEPS + 4
    assert loaded._n_updates == model._n_updates + 4


def scatter(module: torch.nn.Module) -> None:
    """Move all parameters a little, as training does."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for each in module.parameters():
            each.add_(0.1 * torch.rand(each.shape, generator=generator))


@some_quickly
class TestEvaluation:
    def test_passes_each_plan_on_to_the_next_step(self, algorithm, monkeypatch):
        model = make_model(algorithm)
        seen = watch_states(model.policy, monkeypatch)
        env = make_vec_env(lambda: short_env(3), n_envs=2)
        rewards, lengths = evaluate_policy(
            model, env, n_eval_episodes=4, return_episode_rewards=True, warn=False
        )
        assert lengths == [3, 3, 3, 3]
        assert np.isfinite(rewards).all()
        given, begins = zip(*seen, strict=True)
        assert given[0] is None
        assert [state[0].shape for state in given[1:]] == [(2, SHORT["horizon"], 1)] * 5
        assert [flags.all() for flags in begins] == [True, False, False] * 2

    def test_and_checkpoints_and_stopping_are_those_of_sb3s_callbacks(
        self, algorithm, tmp_path, monkeypatch
    ):
        model = make_model(algorithm, short_env())
        seen = watch_states(model.policy, monkeypatch)
        evaluation = EvalCallback(
            make_vec_env(lambda: short_env(3), n_envs=2),
            callback_on_new_best=StopTrainingOnRewardThreshold(reward_threshold=1.0),
            callback_after_eval=StopTrainingOnNoModelImprovement(3, min_evals=9),
            eval_freq=8,
            n_eval_episodes=2,
            best_model_save_path=str(tmp_path),
            log_path=str(tmp_path),
            warn=False,
        )
        events = EveryNTimesteps(6, CheckpointCallback(1, str(tmp_path), name_prefix="event"))
        model.learn(STEPS, callback=[evaluation, events, StopTrainingOnMaxEpisodes(100)])
        assert any(state is not None for state, _ in seen)
        assert np.load(tmp_path / "evaluations.npz")["results"].shape == (2, 2)
        assert {path.name for path in tmp_path.glob("event*")} == {
            "event_6_steps.zip",
            "event_12_steps.zip",
        }
        best = algorithm.load(tmp_path / "best_model.zip")
        assert np.isfinite(act(best)).all()
        stopped = make_model(algorithm, short_env())
        stopped.learn(100, callback=StopTrainingOnMaxEpisodes(2))
        assert stopped.num_timesteps == 10


def watch_states(policy, monkeypatch) -> list:
    """What `predict` is given, in an evaluation, as state and episode_start."""
    seen = []
    predict = policy.predict

    def watched(observation, state=None, episode_start=None, deterministic=False):
        if deterministic:
            seen.append((state, copy.copy(episode_start)))  # SB3 writes into it
        return predict(observation, state, episode_start, deterministic)

    monkeypatch.setattr(policy, "predict", watched)
    return seen
