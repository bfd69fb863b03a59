import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from mpc_gym import rollout
from mpc_gym.models import CartPoleDynamics, Dynamics, PendulumCost, PendulumDynamics, QuadraticCost

STEPS = 200
SYSTEMS = ["pendulum", "cart-pole"]


def system(name: str) -> tuple[Dynamics, nn.Module, torch.Tensor, torch.Tensor]:
    """Dynamics, cost, start states [2, n_state], and controls [2, 200, 1].

    Finite differences over 200 steps mean something here: nothing is chaotic (hanging, in short
    steps or with friction) and nothing has a kink (as theta^2 of Pendulum-v1 has, where it hangs).
    """
    torch.manual_seed(0)
    angle = torch.tensor([2.5, -2.8], dtype=torch.float64)
    hanging = torch.stack((angle.cos(), angle.sin(), torch.zeros_like(angle)), -1)
    time = torch.arange(STEPS, dtype=torch.float64)
    if name == "pendulum":
        controls = torch.stack([torch.sin(0.1 * time), 0.5 * torch.cos(0.07 * time)])[..., None]
        cost = QuadraticCost.diagonal(torch.tensor([1.0, 0.5, 0.1, 0.01]).double())
        return PendulumDynamics(damping=0.5, wind=0.1), cost, hanging, controls
    start = torch.cat((torch.zeros_like(hanging[:, :2]), hanging), -1)
    controls = torch.stack([torch.sin(0.2 * time), torch.cos(0.15 * time)])[..., None]
    cost = QuadraticCost.diagonal(torch.tensor([0.1, 0.1, 1.0, 1.0, 0.1, 0.01]).double())
    return CartPoleDynamics(dt=0.01), cost, start, controls


def difference(function, value: float, step: float) -> float:
    """The derivative of a scalar function, to fourth order in the step."""
    near = function(value + step) - function(value - step)
    far = function(value + 2 * step) - function(value - 2 * step)
    return (8 * near - far) / (12 * step)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_gradient_of_a_200_step_return_by_each_physical_parameter(name: str) -> None:
    dynamics, cost, start, controls = system(name)
    rollout(dynamics, cost, start, controls).returns.sum().backward()
    for parameter in dynamics.parameters():

        def score(value: float, parameter: nn.Parameter = parameter) -> float:
            before = parameter.item()
            with torch.no_grad():
                parameter.fill_(value)
                result = rollout(dynamics, cost, start, controls).returns.sum().item()
                parameter.fill_(before)
            return result

        expected = difference(score, parameter.item(), 1e-4)
        assert parameter.grad.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_gradient_of_a_200_step_return_by_start_state_and_actions(name: str) -> None:
    dynamics, cost, start, controls = system(name)
    inputs = start.requires_grad_(), controls.requires_grad_()
    rollout(dynamics, cost, *inputs).returns.sum().backward()
    generator = torch.Generator().manual_seed(1)
    for tensor in inputs:
        for _ in range(3):
            direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)

            def score(shift: float, tensor=tensor, direction=direction) -> float:
                shifted = [t + shift * direction if t is tensor else t for t in inputs]
                with torch.no_grad():
                    return rollout(dynamics, cost, *shifted).returns.sum().item()

            expected = difference(score, 0.0, 1e-4)
            assert (tensor.grad * direction).sum().item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_by_the_weights_of_a_policy() -> None:
    dynamics, cost, start, _ = system("pendulum")
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    rollout(dynamics, cost, start, policy, STEPS).returns.sum().backward()
    weight = policy[0].weight

    def score(value: float) -> float:
        with torch.no_grad():
            before = weight[1, 2].clone()
            weight[1, 2] = value
            result = rollout(dynamics, cost, start, policy, STEPS).returns.sum().item()
            weight[1, 2] = before
        return result

    expected = difference(score, weight[1, 2].item(), 1e-4)
    assert weight.grad[1, 2].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("env_id", ["DiffPendulum-v0", "DiffPendulumWindy-v0", "DiffCartPole-v0"])
def test_it_does_what_the_environment_does(env_id: str) -> None:
    env = gym.make(env_id)
    env.reset(seed=0)
    env.action_space.seed(0)
    model, space = env.unwrapped, env.action_space
    start = torch.tensor(model.state)
    controls = torch.stack([1.5 * torch.tensor(space.sample()) for _ in range(50)]).double()
    limits = {
        "control_low": torch.tensor(space.low).double(),
        "control_high": torch.tensor(space.high).double(),
    }
    result = rollout(model.dynamics, model.cost, start, controls, **limits)
    assert result.states.shape == (51, len(start))
    assert result.actions.shape == (50, 1)
    np.testing.assert_allclose(result.actions, controls.clamp(-space.high[0], space.high[0]))
    for t, control in enumerate(controls):
        observation, reward, *_ = env.step(control.numpy())
        np.testing.assert_allclose(result.states[t + 1].detach(), observation, rtol=1e-5, atol=1e-5)
        assert result.rewards[t].item() == pytest.approx(reward, rel=1e-5, abs=1e-5)


def test_each_of_a_batch_is_what_it_is_alone() -> None:
    dynamics, cost, start, controls = system("pendulum")
    batch = rollout(dynamics, cost, start.expand(3, 2, 3), controls.expand(3, 2, STEPS, 1))
    assert batch.states.shape == (3, 2, STEPS + 1, 3)
    assert batch.actions.shape == (3, 2, STEPS, 1)
    assert batch.rewards.shape == (3, 2, STEPS)
    assert batch.returns.shape == (3, 2)
    for i in range(2):
        alone = rollout(dynamics, cost, start[i], controls[i])
        torch.testing.assert_close(batch.states[1, i], alone.states)
        torch.testing.assert_close(batch.returns[1, i], alone.returns)


@pytest.mark.parametrize("checkpoint", [1, 7, 10, 40, 100])
@pytest.mark.parametrize("truncate", [None, 10])
def test_checkpoints_change_neither_values_nor_gradients(checkpoint, truncate) -> None:
    def run(**options) -> list[torch.Tensor]:
        dynamics, cost, start, controls = system("pendulum")
        inputs = [start.requires_grad_(), controls.requires_grad_(), *dynamics.parameters()]
        result = rollout(dynamics, cost, start, controls, 40, truncate=truncate, **options)
        gradients = torch.autograd.grad(result.returns.sum(), inputs)
        return [result.states, result.rewards, *gradients]

    for found, expected in zip(run(checkpoint=checkpoint), run(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_checkpoints_save_memory() -> None:
    def kept(checkpoint: int | None) -> int:
        dynamics, cost, start, controls = system("pendulum")
        count = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            rollout(dynamics, cost, start, controls, checkpoint=checkpoint)
        return count

    assert kept(14) < kept(None) / 5


def test_truncated_gradients_reach_back_to_the_last_cut_only() -> None:
    dynamics, cost, start, controls = system("pendulum")
    controls.requires_grad_()
    result = rollout(dynamics, cost, start, controls, 20, truncate=5)
    (gradient,) = torch.autograd.grad(result.rewards[:, 12].sum(), controls)
    reached = torch.nonzero(gradient[0, :, 0]).flatten().tolist()
    assert reached == [10, 11, 12]
    whole = rollout(dynamics, cost, start, controls, 20)
    torch.testing.assert_close(result.states, whole.states, rtol=0, atol=0)
    from_the_cut = rollout(dynamics, cost, whole.states[:, 10].detach(), controls[:, 10:13])
    (expected,) = torch.autograd.grad(from_the_cut.rewards[:, 2].sum(), controls)
    torch.testing.assert_close(gradient, expected)


def test_no_gradient_flows_through_a_clipped_action_or_speed() -> None:
    dynamics, cost = PendulumDynamics(), PendulumCost()
    start = torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64)
    controls = torch.tensor([[5.0], [1.0], [-5.0]], dtype=torch.float64, requires_grad=True)
    limited = rollout(dynamics, cost, start, controls, control_low=-2.0, control_high=2.0)
    (gradient,) = torch.autograd.grad(limited.returns, controls)
    assert (gradient[:, 0] != 0).tolist() == [False, True, False]
    fast = torch.tensor([0.0, 1.0, 7.9], dtype=torch.float64)
    inside = controls.detach().clamp(1.0, 2.0).requires_grad_()
    result = rollout(dynamics, cost, fast, inside)
    assert result.states[1:, 2].tolist()[0] == 8.0
    (gradient,) = torch.autograd.grad(result.states[1].sum(), inside)
    assert gradient.tolist() == [[0.0], [0.0], [0.0]]


def test_float32_stays_float32() -> None:
    dynamics, cost, start, controls = system("pendulum")
    result = rollout(dynamics, cost, start.float(), controls.float(), 3, control_low=-1.0)
    assert result.states.dtype == result.actions.dtype == result.rewards.dtype == torch.float32


@pytest.mark.parametrize(
    ("start", "action", "options", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(5, 1), {}, r"controls must be .* batch \[2\]"),
        (torch.zeros(2, 3), torch.zeros(3, 5, 1), {}, r"controls must be .* got \[3, 5, 1\]"),
        (torch.zeros(3), torch.zeros(5, 1), {"horizon": 6}, "at most the number of controls, 5"),
        (torch.zeros(3), torch.zeros(0, 1), {}, "horizon must be at least 1"),
        (torch.zeros(3), nn.Linear(3, 1), {}, "horizon must be given with a policy"),
        (torch.tensor(0.0), torch.zeros(5, 1), {}, r"x_init must be \[..., n_state\]"),
        (torch.zeros(3), torch.zeros(5, 1), {"truncate": 0}, "truncate must be at least 1"),
        (torch.zeros(3), torch.zeros(5, 1), {"checkpoint": -1}, "checkpoint must be at least 1"),
    ],
)
def test_a_users_mistake_is_named(start, action, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rollout(PendulumDynamics(), PendulumCost(), start, action, **options)


def test_a_rollout_prints_in_one_line() -> None:
    env = gym.make("DiffPendulum-v0").unwrapped
    result = rollout(env.dynamics, env.cost, torch.zeros(5, 3) + 0.5, torch.zeros(5, 30, 1))
    assert repr(result).startswith("Rollout(batch=[5], horizon=30, n_state=3, n_ctrl=1, mean ret")
    assert len(repr(result)) < 100
