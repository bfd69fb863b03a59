"""The planner that knows nothing of planning: a network that writes down a sequence of controls.

    s_0 = (0, 0),   y_0 = encode_state(x_init)
    s_{t+1} = (h_{t+1}, c_{t+1}) = LSTM(y_t, s_t)
    u_t = decode(c_{t+1}),   y_{t+1} = encode_control(u_t)

It is the baseline `nn` of Amos et al. (2018), section 5.3, with the sizes of the authors' program
(github.com/locuslab/differentiable-mpc).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.checks import check_count, check_size


class LSTMPlanner(nn.Module):
    """Controls for a whole horizon from the start state alone, without a model or limits.

    Args:
        n_state: number of states.
        n_ctrl: number of controls.
        horizon: number of controls in a plan.
        hidden: units of the LSTM cell, and of each of the two hidden layers of the encoders of
            state and control and of the decoder.

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(self, n_state: int, n_ctrl: int, horizon: int, hidden: int = 256) -> None:
        super().__init__()
        self.n_state = check_size("n_state", n_state)
        self.n_ctrl = check_size("n_ctrl", n_ctrl)
        self.horizon = check_size("horizon", horizon)
        check_count("hidden", hidden, 1, 2**14)  # the cell has 8 hidden^2 weights
        self.encode_state = _perceptron(n_state, hidden, hidden)
        self.encode_control = _perceptron(n_ctrl, hidden, hidden)
        self.cell = nn.LSTMCell(hidden, hidden)
        self.decode = _perceptron(hidden, hidden, n_ctrl)

    def forward(
        self, x_init: Float[Tensor, "batch n_state"]
    ) -> Float[Tensor, "batch horizon n_ctrl"]:
        """The controls, in the dtype of `x_init`; computed in that of the weights.

        Raises:
            ValueError: the start states have the wrong shape.
        """
        if x_init.ndim != 2 or x_init.shape[1] != self.n_state:
            raise ValueError(
                f"x_init must be [batch, n_state={self.n_state}], got {list(x_init.shape)}"
            )
        encoded = self.encode_state(x_init.to(self.cell.weight_ih.dtype))
        memory: tuple[Tensor, Tensor] | None = None
        controls = []
        for _ in range(self.horizon):
            memory = self.cell(encoded, memory)
            controls.append(self.decode(memory[1]))
            encoded = self.encode_control(controls[-1])
        return torch.stack(controls, 1).to(x_init.dtype)  # (B, T, m)


def _perceptron(size_in: int, hidden: int, size_out: int) -> nn.Sequential:
    """A multilayer perceptron with two hidden layers."""
    layers: list[nn.Module] = []
    for width in (size_in, hidden):
        layers += [nn.Linear(width, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, size_out))
