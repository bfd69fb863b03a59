"""Behavioural cloning trains any SB3 policy, and a planning one from the wrong physics."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from mpc_gym.imitation import BehavioralCloning, DAgger, Demonstrations, imitation_loss
from mpc_gym.make_mpc import make_mpc
from mpc_gym.policies import MPCPolicy, PlanningPolicy, SACMPCPolicy, TD3MPCPolicy
from tests.killing import needs_fork

HORIZON = 12


@pytest.fixture(scope="module")
def demonstrations() -> Demonstrations:
    """Balancing from near upright, with a planner on the true model."""
    mpc = make_mpc("DiffPendulum-v0", horizon=HORIZON)
    env = gym.make("DiffPendulum-v0")
    parts = {"obs": [], "act": [], "final": []}
    rng = np.random.default_rng(0)
    state = rng.normal(size=(4, 2)) * [0.05, 0.3]
    x = np.stack((np.cos(state[:, 0]), np.sin(state[:, 0]), state[:, 1]), 1).astype(np.float32)
    for start in x:
        observation, _ = env.reset(options={"state": start})
        for _ in range(8):
            with torch.no_grad():
                action = mpc(torch.tensor(observation[None])).controls[0, 0].numpy()
            parts["obs"].append(observation)
            parts["act"].append(action)
            observation, *_ = env.step(action)
        parts["final"].append(observation)
    return Demonstrations(
        np.stack(parts["obs"]),
        np.stack(parts["act"]),
        np.zeros(32),
        np.full(4, 8),
        np.stack(parts["final"]),
        "DiffPendulum-v0",
    )


def make_policy(**options) -> MPCPolicy:
    torch.manual_seed(0)
    env = gym.make("DiffPendulum-v0")
    options = {"horizon": HORIZON, "learn": {"gravity": 12.0, "mass": 1.3}, **options}
    return MPCPolicy(env.observation_space, env.action_space, lambda _: 1e-3, **options)


OFF_POLICY = {SACMPCPolicy: SAC, TD3MPCPolicy: TD3}


def make_planner(policy_class: type[PlanningPolicy], **options) -> PlanningPolicy:
    options = {"horizon": HORIZON, "learn": {"gravity": 12.0, "mass": 1.3}, **options}
    algorithm = OFF_POLICY[policy_class]
    return algorithm(policy_class, "DiffPendulum-v0", policy_kwargs=options, device="cpu").policy


def make_mlp() -> ActorCriticPolicy:
    return PPO("MlpPolicy", "DiffPendulum-v0", seed=0).policy


@pytest.mark.parametrize(
    "settings",
    [{"loss": "action"}, {"loss": "plan", "plan_steps": 3}, {"loss": "plan"}],
    ids=["action", "first three", "whole plan"],
)
def test_a_planning_policy_learns_the_physics_from_the_actions_alone(demonstrations, settings):
    policy = make_policy()
    before = imitation_loss(policy, demonstrations)
    cloning = BehavioralCloning(
        policy,
        demonstrations,
        learning_rate=0.05,
        batch_size=24,
        validation_fraction=0.25,
        **settings,
    )
    cloning.train(80)
    assert imitation_loss(policy, demonstrations) < 0.1 * before


def test_the_prediction_of_observed_states_is_learned_with_the_actions(demonstrations):
    policy = make_policy(learn={"mass": 1.5})
    cloning = BehavioralCloning(
        policy,
        demonstrations,
        prediction_weight=1.0,
        learning_rate=0.05,
        batch_size=24,
        validation_fraction=0.25,
    )
    cloning.train(40)
    first, best = cloning.history[0], cloning.history[cloning.best_epoch]
    assert best["validation/prediction_loss"] < 1e-3 * first["validation/prediction_loss"]
    assert policy.mpc.dynamics.mass.item() == pytest.approx(1.0, rel=0.01)


@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_plans_that_fail_do_not_make_a_loss_of_nothing(demonstrations):
    policy = make_policy(max_iterations=1)
    cloning = BehavioralCloning(policy, demonstrations, validation_fraction=0.25)
    cloning.train(0)
    row = cloning.history[0]
    assert row["validation/not_converged"] > 0.5
    _, held_out = demonstrations.split(0.25, seed=0)
    assert row["validation/loss"] == pytest.approx(imitation_loss(policy, held_out), rel=1e-5)
    assert row["validation/loss"] > 0


def test_any_sb3_policy_learns(demonstrations):
    policy = make_mlp()
    before = imitation_loss(policy, demonstrations)
    BehavioralCloning(policy, demonstrations, learning_rate=5e-3, validation_fraction=0.25).train(
        150
    )
    assert imitation_loss(policy, demonstrations) < 0.1 * before


@pytest.mark.parametrize(
    ("policy_class", "settings"),
    [(SACMPCPolicy, {"loss": "plan", "plan_steps": 3}), (TD3MPCPolicy, {"loss": "action"})],
)
def test_a_planning_actor_learns_as_an_mpc_policy_does(demonstrations, policy_class, settings):
    options = {"learning_rate": 0.05, "validation_fraction": 0.25, "prediction_weight": 0.1}
    actor, policy = make_planner(policy_class), make_policy()
    assert imitation_loss(actor, demonstrations) == pytest.approx(
        imitation_loss(policy, demonstrations), rel=1e-4
    )
    histories = []
    for each in (actor, policy):
        cloning = BehavioralCloning(each, demonstrations, **options, **settings)
        cloning.train(5)
        histories.append([row["validation/loss"] for row in cloning.history])
    np.testing.assert_allclose(*histories, rtol=1e-3, atol=1e-9)
    learned, expected = actor.planner.mpc.dynamics.mass.item(), policy.mpc.dynamics.mass.item()
    assert learned == pytest.approx(expected, rel=1e-4)
    assert learned != pytest.approx(1.3, rel=1e-2)


@pytest.mark.parametrize(("algorithm", "name"), [(SAC, "SACPolicy"), (TD3, "TD3Policy")])
def test_the_network_of_an_off_policy_algorithm_learns(demonstrations, algorithm, name):
    kwargs = {"net_arch": [64, 64]}
    policy = algorithm("MlpPolicy", "DiffPendulum-v0", policy_kwargs=kwargs, seed=0).policy
    assert type(policy).__name__ == name
    before = imitation_loss(policy, demonstrations)
    cloning = BehavioralCloning(policy, demonstrations, learning_rate=5e-3, seed=1)
    cloning.train(100)
    assert imitation_loss(policy, demonstrations) < 0.1 * before


def off_policy_makers():
    return [
        lambda: make_planner(SACMPCPolicy),
        lambda: make_planner(TD3MPCPolicy),
        lambda: SAC("MlpPolicy", "DiffPendulum-v0", seed=0).policy,
        lambda: TD3("MlpPolicy", "DiffPendulum-v0", seed=0).policy,
    ]


@pytest.mark.parametrize("make", off_policy_makers(), ids=["SACMPC", "TD3MPC", "SAC", "TD3"])
def test_critics_are_left_as_they_are_and_td3s_target_follows(demonstrations, make):
    policy: BasePolicy = make()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    cloning = BehavioralCloning(policy, demonstrations, learning_rate=5e-3, seed=1)
    cloning.train(10)
    after = policy.state_dict()
    changed = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    targets = {"actor_target"} & {name.split(".")[0] for name in after}
    assert changed == {"actor"} | targets
    for name in targets:
        target, actor = getattr(policy, name).state_dict(), policy.actor.state_dict()
        assert all(torch.equal(target[key], actor[key]) for key in actor)


def test_td3_goes_on_from_the_clone(demonstrations):
    model = TD3(
        TD3MPCPolicy,
        "DiffPendulum-v0",
        policy_kwargs={"horizon": 3, "learn": {"mass": 1.3}},
        learning_rate=0.0,
        learning_starts=4,
        batch_size=4,
        device="cpu",
    )
    BehavioralCloning(model.policy, demonstrations, learning_rate=0.02).train(1)
    mass = model.actor.planner.mpc.dynamics.mass.item()
    assert mass != pytest.approx(1.3, abs=1e-3)
    model.learn(8)
    assert model.actor.planner.mpc.dynamics.mass.item() == mass
    assert model.actor_target.planner.mpc.dynamics.mass.item() == pytest.approx(mass, rel=1e-12)


def test_the_imitation_loss_is_the_mean_squared_error_in_units_of_half_the_range(demonstrations):
    policy = make_mlp()
    actions, _ = policy.predict(demonstrations.observations, deterministic=True)
    expected = np.mean(((actions - demonstrations.actions) / 2.0) ** 2)
    assert imitation_loss(policy, demonstrations) == pytest.approx(expected, rel=1e-5)


def full_torque() -> Demonstrations:
    """What a planner on the true model does where it holds a bound, one step each."""
    mpc = make_mpc("DiffPendulum-v0", horizon=HORIZON)
    theta = torch.linspace(1.0, 2.0, 6, dtype=torch.float64)
    with torch.no_grad():
        plan = mpc(torch.stack((theta.cos(), theta.sin(), 0.5 * theta.sin()), -1))
    assert (plan.controls[:, 0].abs() == 2).all()
    return Demonstrations(
        plan.states[:, 0],
        plan.controls[:, 0],
        np.zeros(6),
        np.ones(6, dtype=int),
        plan.states[:, 1],
        "DiffPendulum-v0",
    )


def mus_seen(policy: MPCPolicy) -> dict[bool, list[float]]:
    """Fills with the mu of every plan: with a gradient, in training; without, in validation."""
    seen: dict[bool, list[float]] = {True: [], False: []}
    policy.mpc.register_forward_pre_hook(
        lambda mpc, _: seen[torch.is_grad_enabled()].append(mpc.smoothing.item())
    )
    return seen


def smoothed_cloning(policy: MPCPolicy, demonstrations: Demonstrations, **options: Any) -> Any:
    given = {"loss": "plan", "smoothing": (0.1, 1e-4), "validation_fraction": 0.25, **options}
    return BehavioralCloning(policy, demonstrations, **given)


FALLING = [0.1, 0.1 * 10**-1.5, 1e-4]  # in 30 % of ten epochs


@pytest.mark.parametrize("own", [0.0, 0.03])
def test_smoothing_falls_and_ends_in_plans_that_are_the_policys_own(demonstrations, own):
    policy = make_policy()
    policy.mpc.smoothing = own
    seen = mus_seen(policy)
    smoothed_cloning(policy, demonstrations).train(10)
    np.testing.assert_allclose(seen[True], FALLING + [own] * 7, rtol=1e-6)
    np.testing.assert_allclose(seen[False], [own] * 11, rtol=1e-6)
    assert policy.mpc.smoothing.item() == pytest.approx(own)


def test_more_epochs_smooth_no_more(demonstrations, tmp_path):
    for folder in (None, tmp_path):
        policy = make_policy()
        cloning = smoothed_cloning(policy, demonstrations, folder=folder)
        cloning.train(4)
        seen = mus_seen(policy)
        if folder is not None:  # another process goes on
            cloning = smoothed_cloning(policy, demonstrations, folder=folder)
        cloning.train(20)  # 30 % of which are more than the epochs done
        assert seen[True] == [0.0] * 16


def test_smoothed_training_moves_what_plans_at_their_limits_do_not_move():
    for smoothing in (None, (0.1, 0.01)):
        policy = make_policy()
        cloning = BehavioralCloning(
            policy, full_torque(), smoothing=smoothing, validation_fraction=0.2
        )
        cloning.train(1)
        before, after = cloning.history
        for name in [name for name in before if name.startswith("parameters/")]:
            assert (after[name] != before[name]) is (smoothing is not None)


def test_smoothing_is_for_policies_that_plan(demonstrations):
    with pytest.raises(ValueError, match="smoothing is for a policy that plans"):
        BehavioralCloning(make_mlp(), demonstrations, smoothing=(0.1, 1e-4))
    with pytest.raises(TypeError, match="smoothing must be two numbers"):
        BehavioralCloning(make_policy(), demonstrations, smoothing=0.1)


@pytest.mark.parametrize("make", [make_policy, make_mlp])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path, demonstrations, make):
    def cloning(folder: str) -> BehavioralCloning:
        settings = {"loss": "plan"} if make is make_policy else {}
        return BehavioralCloning(
            make(),
            demonstrations,
            learning_rate=0.02,
            batch_size=16,
            warm_start_epochs=3,
            validation_fraction=0.25,
            folder=tmp_path / folder,
            **settings,
        )

    whole = cloning("whole")
    whole.train(4)
    cloning("parts").train(2)
    resumed = cloning("parts")
    resumed.train(4)
    assert resumed.history == whole.history
    for p, q in zip(resumed.policy.parameters(), whole.policy.parameters(), strict=True):
        assert torch.equal(p, q)


@needs_fork
def test_a_run_killed_at_any_moment_goes_on_where_it_was(tmp_path, demonstrations):
    demonstrations.save(tmp_path / "expert.npz")
    script = textwrap.dedent(
        f"""
        import torch
        from stable_baselines3 import PPO
        from mpc_gym.imitation import BehavioralCloning, Demonstrations
        torch.set_num_threads(1)  # as here: sums of float32 depend on it
        policy = PPO("MlpPolicy", "DiffPendulum-v0", seed=0).policy
        demonstrations = Demonstrations.load({str(tmp_path / "expert.npz")!r})
        cloning = BehavioralCloning(
            policy, demonstrations, validation_fraction=0.25, folder={str(tmp_path / "run")!r}
        )
        cloning.train(1_000_000)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    killed = BehavioralCloning(
        make_mlp(), demonstrations, validation_fraction=0.25, folder=tmp_path / "run"
    )
    done = len(killed.history) - 1
    killed.train(done + 2)
    whole = BehavioralCloning(make_mlp(), demonstrations, validation_fraction=0.25)
    whole.train(done + 2)
    assert killed.history == whole.history


def test_a_single_episode_is_enough_to_learn_from(demonstrations):
    one = demonstrations.select([0])
    cloning = BehavioralCloning(make_policy(), one, prediction_weight=1.0, learning_rate=0.1)
    cloning.train(30)
    assert cloning.history[-1]["validation/best_loss"] < 0.1 * cloning.history[0]["validation/loss"]


class TestBadInput:
    def test_another_runs_folder_is_refused(self, tmp_path, demonstrations):
        BehavioralCloning(make_mlp(), demonstrations, folder=tmp_path).train(1)
        with pytest.raises(ValueError, match=r"another run: .*learning_rate was 0.001 and is 0.1"):
            BehavioralCloning(make_mlp(), demonstrations, folder=tmp_path, learning_rate=0.1)
        with pytest.raises(ValueError, match="another run: demonstrations was"):
            BehavioralCloning(make_mlp(), demonstrations.select([0, 1]), folder=tmp_path)
        with pytest.raises(ValueError, match=r"another run: .*policy was .*ActorCriticPolicy"):
            BehavioralCloning(make_policy(), demonstrations, folder=tmp_path)

    def test_demonstrations_of_another_system_are_refused(self, demonstrations):
        policy = PPO("MlpPolicy", "DiffCartPole-v0").policy
        with pytest.raises(ValueError, match=r"(?s)observations of 5 numbers.* got 3.*Pend"):
            BehavioralCloning(policy, demonstrations)

    def test_discrete_actions_are_refused_by_name(self, demonstrations):
        for policy in (
            PPO("MlpPolicy", "CartPole-v1").policy,
            DQN("MlpPolicy", "CartPole-v1").policy,
        ):
            message = r"policy must have continuous .*got Discrete"
            for call in (BehavioralCloning, imitation_loss):
                with pytest.raises(ValueError, match=message):
                    call(policy, demonstrations)
            with pytest.raises(ValueError, match=message):  # before anything is played
                DAgger(policy, make_policy(), "DiffPendulum-v0")

    def test_a_recurrent_policy_is_refused_with_what_to_take_instead(self, demonstrations):
        contrib = pytest.importorskip("sb3_contrib")
        policy = contrib.RecurrentPPO("MlpLstmPolicy", "DiffPendulum-v0").policy
        message = "policy must act by the observation alone .* take LSTMPolicy"
        with pytest.raises(ValueError, match=message):
            BehavioralCloning(policy, demonstrations)
        with pytest.raises(ValueError, match=message):
            DAgger(policy, make_policy(), "DiffPendulum-v0")
        assert imitation_loss(policy, demonstrations) > 0

    def test_the_plan_of_a_policy_that_has_none_is_refused(self, demonstrations):
        with pytest.raises(ValueError, match='use loss="action"'):
            BehavioralCloning(make_mlp(), demonstrations, loss="plan")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loss": "state"}, "loss must be one of"),
            ({"loss": "plan", "plan_steps": HORIZON + 1}, "plan_steps must be between 1 and"),
            ({"plan_steps": 2}, "plan_steps is for"),
            ({"prediction_weight": -1.0}, "prediction_weight"),
            ({"warm_start_epochs": 0}, "warm_start_epochs"),
            ({"smoothing": (0.0, 0.0)}, r"smoothing\[0\] must be a positive number"),
            ({"smoothing": (0.1, 0.2)}, r"smoothing\[1\] must be a positive number of at most 0.1"),
            ({"validation_fraction": 1.0}, "fraction must be between"),
        ],
    )
    def test_an_option_out_of_range_is_named(self, demonstrations, options, message):
        with pytest.raises(ValueError, match=message):
            BehavioralCloning(make_policy(), demonstrations, **options)
