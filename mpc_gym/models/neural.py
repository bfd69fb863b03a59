"""Dynamics learned from data by a neural network."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.checks import check_instance, check_size, found
from mpc_gym.models.base import Dynamics


class NeuralDynamics(Dynamics):
    """A residual multilayer perceptron, `x_next = x + net(x, u)`.

    The last layer starts small, so that the untrained model predicts almost no motion. A
    smooth activation plans several times faster than one with kinks, such as relu: the solver uses
    second derivatives (see `mpc/rounded.py`).

    Args:
        n_state: number of states.
        n_ctrl: number of controls.
        hidden: width of each hidden layer.
        activation: makes the activation module.

    Raises:
        TypeError: `hidden` is no sequence, or `activation` makes no module.
        ValueError: a size is not positive.
    """

    def __init__(
        self,
        n_state: int,
        n_ctrl: int,
        hidden: Sequence[int] = (32, 32),
        activation: Callable[[], nn.Module] = nn.Tanh,
    ) -> None:
        super().__init__(check_size("n_state", n_state), check_size("n_ctrl", n_ctrl))
        check_instance("hidden", hidden, (list, tuple), "a list of the layers' widths")
        inner = [check_size(f"hidden[{i}]", width) for i, width in enumerate(hidden)]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((self.n_state + self.n_ctrl, *inner, self.n_state)):
            layers += [nn.Linear(fan_in, fan_out), made_activation(activation)]
        self.net = nn.Sequential(*layers[:-1])
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()

    def forward(
        self, state: Float[Tensor, "*batch n_state"], control: Float[Tensor, "*batch n_ctrl"]
    ) -> Float[Tensor, "*batch n_state"]:
        """The next state."""
        step: Tensor = self.net(torch.cat((state, control), -1))
        return state + step


def made_activation(activation: Callable[[], nn.Module]) -> nn.Module:
    """The activation of a network.

    Raises:
        TypeError: `activation` makes no module.
    """
    made = None if isinstance(activation, nn.Module) or not callable(activation) else activation()
    wanted = "a function or class that makes a module without arguments, such as torch.nn.Tanh"
    if not isinstance(made, nn.Module):
        raise TypeError(f"activation must be {wanted}, got {found(activation)}")
    return made
