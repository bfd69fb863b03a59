import pytest
import torch
from torch import nn

from mpc_gym.models import NeuralDynamics


@pytest.mark.parametrize("shape", [(), (5,), (5, 4)])
def test_it_maps_state_and_control_to_a_state(shape: tuple[int, ...]) -> None:
    following = NeuralDynamics(3, 2)(torch.zeros(*shape, 3), torch.zeros(*shape, 2))
    assert following.shape == (*shape, 3)


def test_it_moves_little_before_training() -> None:
    torch.manual_seed(0)
    states, controls = torch.randn(200, 3), torch.randn(200, 1)
    moved = NeuralDynamics(3, 1)(states, controls) - states
    assert 0 < moved.abs().mean() < 0.1


def test_it_is_a_residual_network() -> None:
    dynamics = NeuralDynamics(2, 1, hidden=(8,))
    state, control = torch.randn(6, 2), torch.randn(6, 1)
    hidden, _, last = dynamics.net
    joined = torch.cat((state, control), 1)
    step = torch.tanh(joined @ hidden.weight.T + hidden.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(dynamics(state, control), state + step)


def test_hidden_layers_and_activation_are_as_asked_for() -> None:
    layers = list(NeuralDynamics(2, 1, hidden=(8, 9), activation=nn.SiLU).net)
    kinds = [type(layer) for layer in layers]
    assert kinds == [nn.Linear, nn.SiLU, nn.Linear, nn.SiLU, nn.Linear]
    assert [layer.out_features for layer in layers[::2]] == [8, 9, 2]


def test_without_hidden_layers_it_is_linear() -> None:
    dynamics = NeuralDynamics(2, 1, hidden=())
    x, u = torch.randn(2), torch.randn(1)
    twice = dynamics(2 * x, 2 * u)
    torch.testing.assert_close(twice, 2 * dynamics(x, u))


def test_its_derivatives_match_finite_differences() -> None:
    dynamics = NeuralDynamics(3, 1).double()
    state = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    control = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dynamics, (state, control))
    assert torch.autograd.gradgradcheck(dynamics, (state, control))


def test_it_learns_a_linear_system() -> None:
    torch.manual_seed(0)
    states, controls = torch.randn(256, 2), torch.randn(256, 1)
    following = states @ torch.tensor([[1.0, 0.1], [-0.1, 0.9]]).T + 0.1 * controls
    dynamics = NeuralDynamics(2, 1)
    optimizer = torch.optim.Adam(dynamics.parameters(), lr=1e-2)
    losses = []
    for _ in range(200):
        loss = (dynamics(states, controls) - following).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]


@pytest.mark.parametrize("sizes", [(0, 1, (8,)), (2, 0, (8,)), (2, 1, (8, 0))])
def test_sizes_below_one_are_refused(sizes) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        NeuralDynamics(*sizes)
