"""Dynamics learned from data by a neural network."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.models.base import Dynamics


class NeuralDynamics(Dynamics):
    """A residual multilayer perceptron, `x_next = x + net(x, u)`.

    The last layer starts small, so that the untrained model predicts almost no motion. The
    activation should be smooth: the solver uses second derivatives.

    Args:
        n_state: number of states.
        n_ctrl: number of controls.
        hidden: width of each hidden layer.
        activation: makes the activation module.

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(
        self,
        n_state: int,
        n_ctrl: int,
        hidden: Sequence[int] = (32, 32),
        activation: Callable[[], nn.Module] = nn.Tanh,
    ) -> None:
        widths = (n_state + n_ctrl, *hidden, n_state)
        if min(n_state, n_ctrl, *widths) < 1:
            raise ValueError(
                "n_state, n_ctrl and every hidden width must be at least 1, "
                f"got n_state={n_state}, n_ctrl={n_ctrl}, hidden={tuple(hidden)}"
            )
        super().__init__(n_state=n_state, n_ctrl=n_ctrl)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), activation()]
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
