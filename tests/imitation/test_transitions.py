"""What a model is fitted to where observations are not its states, or actions not its controls."""

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from mpc_gym.imitation import (
    BehavioralCloning,
    Demonstrations,
    RandomAgent,
    SystemIdentification,
    collect,
    imitation_loss,
)
from mpc_gym.imitation.transitions import Transitions, transitions_of
from mpc_gym.models import CartPoleDynamics, LinearDynamics, PendulumDynamics, QuadraticCost
from mpc_gym.mpc import MPC
from mpc_gym.policies import DiscreteMPCPolicy, MPCPolicy
from tests.policies.environments import rescaled, slide_mpc, state_and_goal
from tests.policies.planners import ENV
from tests.policies.test_observations import Encoder

gym.register("Slide-v0", "tests.policies.environments:Slide")


def at_random(env: gym.Env, episodes: int = 4, **options) -> Demonstrations:
    return collect(RandomAgent(env), env, episodes, **options)


def policy_for(env: gym.Env, **options) -> MPCPolicy:
    return MPCPolicy(env.observation_space, env.action_space, lambda _: 1e-3, **options)


def test_actions_in_other_units_identify_the_physics():
    env = rescaled(0.0, 1.0)
    policy = policy_for(
        env, mpc=ENV, horizon=3, control_scale=(-2.0, 2.0), learn={"gravity": 14.0, "mass": 2.0}
    )
    demonstrations = at_random(env, max_steps=30)
    SystemIdentification(policy, demonstrations, learning_rate=0.1).train(80)
    assert policy.mpc.dynamics.gravity.item() == pytest.approx(10.0, rel=1e-2)
    assert policy.mpc.dynamics.mass.item() == pytest.approx(1.0, rel=1e-2)


def test_entries_of_a_dict_identify_the_physics():
    env = gym.make("Slide-v0")
    policy = policy_for(env, mpc=slide_mpc, state=state_and_goal)
    demonstrations = at_random(env)
    assert demonstrations.observations.shape == (32, 4)
    dynamics = policy.mpc.dynamics
    with torch.no_grad():
        dynamics.B.mul_(3.0)
        dynamics.A[0, 1] = 0.0
    SystemIdentification(policy, demonstrations, learning_rate=0.05).train(150)
    torch.testing.assert_close(dynamics.B, torch.tensor([[0.0], [0.3]]).double(), atol=1e-2, rtol=0)
    assert dynamics.A[0, 1].item() == pytest.approx(0.3, abs=1e-2)


def with_cosine(observation: Tensor) -> Tensor:
    position, velocity, theta, speed = observation.unbind(-1)
    return torch.stack((position, velocity, theta.cos(), theta.sin(), speed), -1)


def force(action: Tensor) -> Tensor:
    return 20.0 * action - 10.0


def test_dynamics_take_functions_for_states_and_controls():
    """CartPole-v1 has the angle itself, and two actions. It moves the cart by its old speed."""
    demonstrations = at_random(gym.make("CartPole-v1"), 6)
    assert set(demonstrations.actions.ravel()) == {0.0, 1.0}
    dynamics = CartPoleDynamics(dt=0.02, cart_mass=2.0)
    maps = {"state": with_cosine, "control": force}
    SystemIdentification(dynamics, demonstrations, learning_rate=0.05, **maps).train(150)
    assert dynamics.cart_mass.item() == pytest.approx(1.0, rel=0.05)


def balance(horizon: int = 3) -> MPC:
    cost = QuadraticCost(torch.ones(6, dtype=torch.float64))
    return MPC(CartPoleDynamics(dt=0.02, cart_mass=2.0), cost, horizon, -10.0, 10.0)


def test_a_policy_with_discrete_actions_says_their_controls():
    env = gym.make("CartPole-v1")
    options = {"mpc": balance, "state": with_cosine, "controls": [-10.0, 10.0]}
    policy = DiscreteMPCPolicy(env.observation_space, env.action_space, lambda _: 1e-3, **options)
    demonstrations = at_random(env, 2)
    ours = transitions_of(policy, demonstrations)
    theirs = transitions_of(policy.mpc.dynamics, demonstrations, with_cosine, force)
    torch.testing.assert_close(ours.inputs, theirs.inputs)
    torch.testing.assert_close(ours.next_states, theirs.next_states)


def test_a_network_of_a_policy_stays_as_it_is():
    env = gym.make(ENV)
    policy = policy_for(env, mpc=ENV, horizon=3, state=Encoder)
    before = policy.planner.observer.state_map.last.weight.clone()
    demonstrations = at_random(env, 2, max_steps=5)
    identification = SystemIdentification(policy, demonstrations)
    identification.train(2)
    assert torch.equal(policy.planner.observer.state_map.last.weight, before)
    losses = [row["train/loss"] for row in identification.history[1:]]
    assert losses[1] < losses[0]
    with pytest.raises(ValueError, match=r"prediction_weight must be 0 .* network that learns"):
        BehavioralCloning(policy, demonstrations, prediction_weight=1.0)


@pytest.mark.parametrize("loss", ["action", "plan"])
def test_a_clone_is_compared_in_the_units_of_the_action(loss):
    env = rescaled(0.0, 1.0)
    policy = policy_for(env, mpc=ENV, horizon=2, control_scale=(-2.0, 2.0))
    demonstrations = at_random(env, 2, max_steps=5)
    cloning = BehavioralCloning(
        policy,
        demonstrations,
        loss=loss,
        plan_steps=1 if loss == "plan" else None,
        prediction_weight=1.0,
    )
    cloning.train(0)
    _, validation = demonstrations.split(0.1, 0)
    row = cloning.history[0]
    assert row["validation/action_loss"] == pytest.approx(
        imitation_loss(policy, validation), rel=1e-4
    )
    assert row["validation/prediction_loss"] < 1e-6, "the model is the true one"


class TestRefused:
    def test_functions_beside_a_policys_own(self):
        policy, demonstrations = (
            policy_for(gym.make(ENV), horizon=3),
            at_random(gym.make(ENV), 2, max_steps=3),
        )
        with pytest.raises(TypeError, match="state must be None for a policy"):
            SystemIdentification(policy, demonstrations, state=with_cosine)

    def test_functions_that_return_something_else(self):
        demonstrations = at_random(gym.make(ENV), 2, max_steps=3)
        for wrong in (lambda _: 3, lambda rows: rows[0], lambda rows: rows[:2]):
            with pytest.raises(TypeError, match=r"control must be a function that maps \[6, 1\]"):
                SystemIdentification(PendulumDynamics(), demonstrations, control=wrong)

    def test_actions_that_are_no_controls(self):
        demonstrations = at_random(gym.make(ENV), 2, max_steps=3)

        def with_a_column(actions):
            return torch.cat((torch.zeros_like(actions), actions), 1)

        with pytest.raises(ValueError, match="1 numbers of a control of PendulumDynamics, got 2"):
            SystemIdentification(PendulumDynamics(), demonstrations, control=with_a_column)
        with pytest.raises(ValueError, match="5 numbers of a state of CartPoleDynamics, got 3"):
            SystemIdentification(CartPoleDynamics(), demonstrations)
        with pytest.raises(TypeError, match="control must be a function, got 2"):
            SystemIdentification(PendulumDynamics(), demonstrations, control=2.0)

    @pytest.mark.parametrize("actions", [[[-1.0]], [[0.9]], [[2.0]], [[0.0, 1.0]]])
    def test_numbers_of_no_action(self, actions):
        env = gym.make("CartPole-v1")
        options = {"mpc": "CartPole-v1", "horizon": 3}
        spaces = env.observation_space, env.action_space
        planner = DiscreteMPCPolicy(*spaces, lambda _: 1e-3, **options).planner
        with pytest.raises(ValueError, match=r"actions must be .* numbers from 0 to 1, got"):
            planner.controls(torch.tensor(actions))

    def test_a_checkpoint_of_a_policy_with_other_units(self, tmp_path):
        env = gym.make(ENV)
        demonstrations = at_random(env, 2, max_steps=3)
        for scale in (2.0, 4.0):
            policy = policy_for(env, horizon=3, control_scale=(-scale, scale))
            if scale == 2.0:
                SystemIdentification(policy, demonstrations, folder=tmp_path).train(1)
                continue
            with pytest.raises(ValueError, match="control_scale"):
                SystemIdentification(policy, demonstrations, folder=tmp_path)

    def test_demonstrations_of_another_size(self):
        policy = policy_for(gym.make("Slide-v0"), mpc=slide_mpc, state=state_and_goal)
        with pytest.raises(ValueError, match=r"observations of 4 numbers.*got 3"):
            SystemIdentification(policy, at_random(gym.make(ENV), 2, max_steps=3))

    @pytest.mark.parametrize(
        ("part", "value", "message"),
        [
            ("controls", torch.zeros(3, 1), "controls must be"),
            ("next_states", torch.zeros(2, 3), "next_states must be"),
            ("states", torch.full((2, 2), torch.nan), "states must be finite"),
        ],
    )
    def test_transitions_that_do_not_fit(self, part, value, message):
        parts = {"states": torch.zeros(2, 2), "controls": torch.zeros(2, 1)}
        parts["next_states"] = torch.zeros(2, 2)
        with pytest.raises(ValueError, match=message):
            Transitions(**{**parts, part: value})


def test_a_model_with_a_context_predicts_by_that_of_each_step():
    class Windy(LinearDynamics):
        def forward(self, state, control, context):
            return super().forward(state, control) + context

    eye = torch.eye(1, dtype=torch.float64)
    x, u, w = torch.randn(3, 5, 1, dtype=torch.float64)
    transitions = Transitions(x, u, x + u + w, w)
    torch.testing.assert_close(Windy(eye, eye)(*transitions.inputs), transitions.next_states)


def test_they_are_shown_in_a_line():
    rows = Transitions(torch.zeros(5, 3), torch.zeros(5, 1), torch.zeros(5, 3), torch.zeros(5, 2))
    assert repr(rows) == "Transitions(steps=5, n_state=3, n_ctrl=1, n_context=2)"
