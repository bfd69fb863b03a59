"""The baseline without a model: a network that gives a sequence of controls, and its policy.

    s_0 = (0, 0),   y_0 = encode_state(x_init)
    s_{t+1} = (h_{t+1}, c_{t+1}) = LSTM(y_t, s_t)
    u_t = decode(c_{t+1}),   y_{t+1} = encode_control(u_t)

It is the baseline `nn` of Amos et al. (2018), section 5.3, with the sizes of the authors' program
(github.com/locuslab/differentiable-mpc).
"""

from typing import Any, TypeVar

import torch
from gymnasium import spaces
from jaxtyping import Float
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from mpc_gym.checks import check_count, check_size
from mpc_gym.policies.algorithms import calling_algorithm
from mpc_gym.policies.sharing.pretrained import Pretrained

P = TypeVar("P", bound="LSTMPolicy")


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


class LSTMPolicy(Pretrained, BasePolicy):
    """A policy that acts by the first control of `LSTMPlanner`; to be trained by imitation.

    The network works in units of half the action range, from its middle. Nothing holds it within
    the range; `predict` clips what it gives.

    Args:
        observation_space: Box.
        action_space: Box with finite limits.
        lr_schedule: SB3's learning rate schedule.
        horizon: controls in a sequence.
        hidden: units of the LSTM cell, see `LSTMPlanner`.

    Raises:
        ValueError: a space is no Box, the actions have no limits, or a size is not positive.
    """

    def __new__(cls: type[P], *_: Any, **__: Any) -> P:
        """A new policy.

        Raises:
            ValueError: an algorithm makes it, that has no use for a policy without a distribution.
        """
        if calling_algorithm("_setup_model") is not None:
            raise ValueError(
                f"{cls.__name__} is trained by imitation (mpc_gym.imitation), not by an algorithm: "
                "it has no distribution of actions and no critic. Take MPCPolicy, or MlpPolicy"
            )
        return super().__new__(cls)

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        horizon: int = 20,
        hidden: int = 256,
    ) -> None:
        super().__init__(observation_space, action_space)
        if not isinstance(observation_space, spaces.Box):
            raise ValueError(f"observation_space must be a Box, got {observation_space}")
        if not isinstance(action_space, spaces.Box) or not action_space.is_bounded():
            raise ValueError(f"action_space must be a Box with finite limits, got {action_space}")
        self.horizon, self.hidden = check_size("horizon", horizon), check_size("hidden", hidden)
        n_observation, n_action = map(spaces.flatdim, (observation_space, action_space))
        self.lstm = LSTMPlanner(n_observation, n_action, horizon, hidden)
        low, high = (torch.tensor(b.ravel()) for b in (action_space.low, action_space.high))
        self.register_buffer("_middle", (low + high) / 2, persistent=False)
        self.register_buffer("_half_range", (high - low) / 2, persistent=False)
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "horizon": self.horizon,
            "hidden": self.hidden,
            "lr_schedule": self._dummy_schedule,  # as in SB3's own policies
        }

    def controls(
        self, observation: Float[Tensor, "batch *observation"]
    ) -> Float[Tensor, "batch horizon n_ctrl"]:
        """The whole sequence from each observation, in the units of the action; not clipped."""
        middle, half_range = self._middle, self._half_range
        assert isinstance(middle, Tensor)
        assert isinstance(half_range, Tensor)
        sequence: Tensor = self.lstm(observation.float().flatten(1))
        return middle + half_range * sequence

    def forward(self, observation: PyTorchObs, deterministic: bool = True) -> Tensor:
        """The first control of each sequence."""
        return self._predict(observation, deterministic)

    def _predict(
        self,
        observation: PyTorchObs,
        deterministic: bool = False,  # noqa: ARG002  (there is no noise)
    ) -> Tensor:
        assert isinstance(observation, Tensor), "the constructor admits Box observations only"
        shape = self.action_space.shape or ()
        return self.controls(observation)[:, 0].reshape(-1, *shape)


def _perceptron(size_in: int, hidden: int, size_out: int) -> nn.Sequential:
    """A multilayer perceptron with two hidden layers."""
    layers: list[nn.Module] = []
    for width in (size_in, hidden):
        layers += [nn.Linear(width, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, size_out))
