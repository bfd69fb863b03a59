import copy
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mpc_gym  # noqa: F401
from mpc_gym.envs.transition import Transition
from mpc_gym.models import (
    CartPoleDynamics,
    Dynamics,
    NeuralDynamics,
    PendulumCost,
    PendulumDynamics,
    QuadraticCost,
)

LOW, HIGH = np.array([-2.0]), np.array([2.0])


class Effort(nn.Module):
    """A cost that fits any dynamics with one control."""

    def forward(self, state: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        return (state**2).sum(-1) + control[..., 0] ** 2


class Switching(Dynamics):
    """Cannot be compiled: which way it goes depends on the state."""

    n_state, n_ctrl = 2, 1

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, state: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        return state * self.rate if state[0] > 0 else state + control


def transition(dynamics: Dynamics, cost: nn.Module | None = None) -> Transition:
    return Transition(dynamics, cost or Effort(), dynamics.n_state, LOW, HIGH)


def problem(dynamics: Dynamics, batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, dynamics.n_state)), rng.uniform(-3, 3, (batch, 1))


@pytest.mark.parametrize("batch", [1, 2, 15, 16, 17, 100])
@pytest.mark.parametrize(
    ("dynamics", "cost"),
    [
        (PendulumDynamics(damping=0.3, wind=0.2), PendulumCost()),
        (CartPoleDynamics(), QuadraticCost(torch.ones(6, dtype=torch.float64))),
        (NeuralDynamics(2, 1, hidden=(4,)), Effort()),
    ],
)
def test_it_steps_as_the_modules_do(dynamics: Dynamics, cost: nn.Module, batch: int) -> None:
    states, actions = problem(dynamics, batch)
    following, costs, controls = transition(dynamics, cost)(states, actions)
    np.testing.assert_array_equal(controls, actions.clip(-2, 2))
    with torch.no_grad():
        arguments = torch.tensor(states), torch.tensor(controls)
        exact = copy.deepcopy(dynamics).double()
        np.testing.assert_allclose(following, exact(*arguments), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(costs, cost(*arguments), rtol=1e-12)


def test_an_environment_moves_alike_alone_and_in_a_batch() -> None:
    step = transition(CartPoleDynamics())
    states, actions = problem(CartPoleDynamics(), 37)
    following, costs, _ = step(states, actions)
    for i in range(37):
        alone, cost, _ = step(states[i : i + 1], actions[i : i + 1])
        np.testing.assert_array_equal(alone[0], following[i])
        assert cost[0] == costs[i]


def changed_by_an_optimiser(dynamics: PendulumDynamics) -> None:
    dynamics.mass.grad = torch.tensor(-1.0, dtype=torch.float64)
    torch.optim.SGD([dynamics.mass], lr=2.0).step()


CHANGES = {
    "in place": lambda d: d.mass.data.fill_(3.0),
    "without a gradient": lambda d: torch.no_grad()(d.mass.copy_)(torch.tensor(3.0)),
    "by an optimiser": changed_by_an_optimiser,
    "by other data": lambda d: setattr(d.mass, "data", torch.tensor(3.0, dtype=torch.float64)),
    "by another parameter": lambda d: setattr(d, "mass", nn.Parameter(torch.tensor(3.0))),
    "by a state": lambda d: d.load_state_dict({**d.state_dict(), "mass": torch.tensor(3.0)}),
    "into shared memory": lambda d: (d.share_memory(), d.mass.data.fill_(3.0)),
    "to single precision": lambda d: (d.float(), d.mass.data.fill_(3.0)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_parameter_counts_at_the_next_step(change) -> None:
    dynamics = PendulumDynamics()
    step, expected = transition(dynamics), transition(PendulumDynamics(mass=3.0))
    states, actions = problem(dynamics, 3)
    step(states, actions)
    change(dynamics)
    for _ in range(2):
        np.testing.assert_array_equal(step(states, actions)[0], expected(states, actions)[0])


def test_each_environment_can_have_parameters_of_its_own() -> None:
    step = transition(PendulumDynamics())
    states, actions = problem(PendulumDynamics(), 20)
    parameters = np.tile(step.parameters(), (20, 1))
    lengths = np.linspace(0.5, 2.0, 20)
    parameters[:, step.parameter_names.index("dynamics.length")] = lengths
    following, *_ = step(states, actions, parameters)
    for i, length in enumerate(lengths):
        alone = transition(PendulumDynamics(length=length))
        expected, *_ = alone(states[i : i + 1], actions[i : i + 1])
        np.testing.assert_allclose(following[i], expected[0], rtol=1e-13)


def test_what_cannot_be_compiled_is_stepped_in_pytorch_with_one_warning() -> None:
    dynamics = Switching()
    with pytest.warns(UserWarning, match=r"stepped in PyTorch: .*branches on a tensor's value"):
        step = transition(dynamics)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transition(Switching())  # of the same structure: already known
    dynamics.rate.data.fill_(0.25)
    right, *_ = step(np.array([[4.0, 2.0]]), np.array([[1.0]]))
    left, cost, _ = step(np.array([[-4.0, 2.0]]), np.array([[5.0]]))
    np.testing.assert_array_equal(right, [[1.0, 0.5]])
    np.testing.assert_array_equal(left, [[-2.0, 4.0]])
    assert cost == 16.0 + 4.0 + 4.0
    parameters = np.array([[0.5], [0.25]])
    each, *_ = step(np.array([[4.0, 2.0]] * 2), np.zeros((2, 1)), parameters)
    np.testing.assert_array_equal(each, [[2.0, 1.0], [1.0, 0.5]])


class Asking(Dynamics):
    """Cannot be compiled, and takes a batch without a word: one state decides for all."""

    n_state, n_ctrl = 2, 1

    def forward(self, state: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        return state + control if bool((state > 1.0).any()) else 0.5 * state


class Bessel(Dynamics):
    """Cannot be compiled, and can be called with all rows at once."""

    n_state, n_ctrl, calls = 2, 1, 0

    def forward(self, state: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        Bessel.calls += 1
        return state + torch.special.bessel_j0(state) * control


@pytest.mark.filterwarnings("ignore:the environment is stepped in PyTorch")
@pytest.mark.parametrize("kind", [Switching, Asking, Bessel])
def test_many_that_are_stepped_in_pytorch_move_as_each_does_alone(kind) -> None:
    step = transition(kind())
    states, actions = problem(kind(), 30)
    assert 0 < (states > 1.0).any(1).sum() < 30
    following, costs, _ = step(states, actions)
    for i in range(30):
        expected, cost, _ = step(states[i : i + 1], actions[i : i + 1])
        np.testing.assert_allclose(following[i], expected[0], rtol=1e-14)
        np.testing.assert_allclose(costs[i], cost[0], rtol=1e-14)


@pytest.mark.filterwarnings("ignore:the environment is stepped in PyTorch")
def test_many_take_one_call_of_pytorch_where_that_can_tell_them_apart() -> None:
    step = transition(Bessel())
    Bessel.calls = 0
    step(*problem(Bessel(), 30))
    assert Bessel.calls == 1


def test_modules_that_differ_in_more_than_parameters_do_not_share_code() -> None:
    limited, free = PendulumDynamics(max_speed=1.0), PendulumDynamics(max_speed=None)
    states, actions = np.array([[-1.0, 0.0, 5.0]]), np.zeros((1, 1))
    assert transition(limited)(states, actions)[0][0, 2] == 1.0
    assert transition(free)(states, actions)[0][0, 2] == 5.0
    by_hook = PendulumDynamics()
    by_hook.register_forward_hook(lambda module, arguments, output: 2 * output)
    doubled = transition(by_hook)(states, actions)[0]
    np.testing.assert_allclose(doubled, 2 * transition(PendulumDynamics())(states, actions)[0])


def test_a_cost_that_changes_with_time_is_refused() -> None:
    cost = QuadraticCost(torch.ones(5, 4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"cost must be the same at all times.*cost\.C"):
        transition(PendulumDynamics(), cost)


def test_nan_is_refused_and_its_environment_named() -> None:
    states, actions = problem(PendulumDynamics(), 4)
    actions[2] = np.nan
    with pytest.raises(ValueError, match=r"action must be a number, got NaN in .*environment 2"):
        transition(PendulumDynamics())(states, actions)


def test_an_environment_steps_with_a_module_put_in_place_of_its_own() -> None:
    env = gym.make("DiffPendulum-v0").unwrapped
    env.reset(options={"state": [-1.0, 0.0, 0.0]})
    env.step([0.0])
    env.dynamics = PendulumDynamics(damping=5.0)
    env.cost = PendulumCost(angle_weight=0.0, speed_weight=0.0, torque_weight=1.0)
    state = torch.tensor(env.state)
    observation, reward, *_ = env.step([2.0])
    expected = env.dynamics(state, torch.tensor([2.0], dtype=torch.float64)).detach()
    np.testing.assert_allclose(observation, expected, rtol=1e-6)
    assert reward == pytest.approx(-4.0)


def test_other_attributes_count_from_the_next_reset() -> None:
    env = gym.make("DiffPendulum-v0").unwrapped
    fast = {"state": [-1.0, 0.0, 6.0]}
    env.reset(options=fast)
    env.dynamics.max_speed = 1.0
    assert env.step([0.0])[0][2] == 6.0
    env.reset(options=fast)
    assert env.step([0.0])[0][2] == 1.0


class Attached(Dynamics):
    """Reads its rate from an object of the user's own."""

    n_state, n_ctrl = 1, 1

    def __init__(self, config: object) -> None:
        super().__init__()
        self.config = config

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state + self.config.rate * control


class Config:
    rate = 0.5


def test_what_modules_read_elsewhere_is_seen_to_change_and_is_not_shared() -> None:
    config = Config()
    first, second = transition(Attached(config)), transition(Attached(Config()))
    assert first.is_current()
    config.rate = 2.0
    assert not first.is_current()
    assert second.is_current()
    state, action = np.array([[1.0]]), np.array([[0.5]])
    np.testing.assert_array_equal(transition(Attached(config))(state, action)[0], [[2.0]])
    np.testing.assert_array_equal(second(state, action)[0], [[1.25]])


class WritesIntoState(Dynamics):
    n_state, n_ctrl = 1, 1

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        if control.abs().sum() > 100.0:  # cannot be compiled
            return state
        state += 0.5 * control
        return state


@pytest.mark.filterwarnings("ignore:the environment is stepped in PyTorch")
def test_a_dynamics_that_writes_into_its_state_leaves_the_environments_alone() -> None:
    step, state = transition(WritesIntoState()), np.array([[1.0]])
    np.testing.assert_array_equal(step(state, np.array([[0.5]]))[0], [[1.25]])
    np.testing.assert_array_equal(state, [[1.0]])


class Stepping(Dynamics):
    """Reads its rate as an attribute, and cannot be compiled."""

    n_state, n_ctrl, rate = 1, 1, 0.5

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state + self.rate * control if state.sum() < 1e9 else state


@pytest.mark.filterwarnings("ignore:the environment is stepped in PyTorch")
def test_a_step_in_pytorch_is_that_of_its_own_modules() -> None:
    one, other = Stepping(), Stepping()
    transition(one)
    step = transition(other)
    one.rate = 7.0
    np.testing.assert_array_equal(step(np.array([[1.0]]), np.array([[0.5]]))[0], [[1.25]])
