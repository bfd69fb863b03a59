"""Dynamics of which nothing, or not all, is known: an ensemble of networks on top of what is."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.checks import check_floating, check_instance, check_module, check_size
from mpc_gym.models.base import Dynamics, takes_context, unit_pairs
from mpc_gym.models.neural import made_activation

SMALLEST = 1e-6  # relative to 1, of a scale: an entry that does not vary has none


class LearnedDynamics(Dynamics):
    """The mean of an ensemble of residual networks, on top of known physics or of none.

        x_next = f(x, u) + offset + scale * 1/K sum_k net_k((x, u) normalised)

    f(x, u) = x where no physics is known. A net is a multilayer perceptron plus a linear map of its
    inputs, which is zero at first. Means and scales are buffers, which `normalize` takes
    from data. Parameters are in float64, as plans are.

    Args:
        n_state: number of states.
        n_ctrl: number of controls.
        hidden: width of each hidden layer.
        members: number of networks K, which differ in their initial values. Their mean predicts
            better than they do one by one, at K times the price of a plan.
        physics: f, dynamics; None: the state itself.
        unit_pairs: the pairs of entries of the state that are the cosine and the sine of an angle,
            which are kept on the circle; None: those of `physics`.
        activation: makes the activation module; a smooth one plans several times faster (see
            `NeuralDynamics`).

    Attributes:
        seen: number of transitions that `normalize` has taken means and scales from; 0 at first.

    Raises:
        TypeError: `physics` is no module, `hidden` no sequence, or `activation` makes no module.
        ValueError: a size is not positive, or a pair has no two entries of the state.
    """

    input_mean: Float[Tensor, " n_state+n_ctrl"]
    input_scale: Float[Tensor, " n_state+n_ctrl"]
    offset: Float[Tensor, " n_state"]
    scale: Float[Tensor, " n_state"]
    seen: Tensor

    def __init__(
        self,
        n_state: int,
        n_ctrl: int,
        hidden: Sequence[int] = (64, 64),
        members: int = 1,
        physics: nn.Module | None = None,
        unit_pairs: Sequence[tuple[int, int]] | None = None,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__(check_size("n_state", n_state), check_size("n_ctrl", n_ctrl))
        check_instance("hidden", hidden, (list, tuple), "a list of the layers' widths")
        inner = [check_size(f"hidden[{i}]", width) for i, width in enumerate(hidden)]
        if physics is not None:
            check_module("physics", physics)
        self.members = check_size("members", members)
        self.physics = physics
        self.unit_pairs = _checked_pairs(unit_pairs, physics, self.n_state)
        self.takes_context = physics is not None and takes_context(physics)
        self.activation = made_activation(activation)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        n_input = self.n_state + self.n_ctrl
        for fan_in, fan_out in pairwise((n_input, *inner, self.n_state)):
            layers = [nn.Linear(fan_in, fan_out).double() for _ in range(self.members)]
            self.weights.append(torch.stack([layer.weight.detach() for layer in layers]))
            self.biases.append(torch.stack([layer.bias.detach() for layer in layers]))
        self.linear = nn.Parameter(
            torch.zeros(self.members, self.n_state, n_input, dtype=torch.float64)
        )
        with torch.no_grad():  # the untrained model predicts almost no motion
            self.weights[-1].mul_(0.1)
            self.biases[-1].zero_()
        for name, value in (
            ("input_mean", torch.zeros(n_input)),
            ("input_scale", torch.ones(n_input)),
            ("offset", torch.zeros(self.n_state)),
            ("scale", torch.ones(self.n_state)),
        ):
            self.register_buffer(name, value.double())
        # in floating point, as what else is in a buffer is a constant of the compiled model
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def __repr__(self) -> str:
        hidden = [len(bias[0]) for bias in self.biases[:-1]]
        sizes = f"n_state={self.n_state}, n_ctrl={self.n_ctrl}, hidden={hidden}"
        return f"LearnedDynamics({sizes}, members={self.members}, physics={self.physics!r})"

    def forward(
        self,
        state: Float[Tensor, "*batch n_state"],
        control: Float[Tensor, "*batch n_ctrl"],
        context: Float[Tensor, "*batch n_context"] | None = None,
    ) -> Float[Tensor, "*batch n_state"]:
        """The next state."""
        change = self._networks(state, control).mean(-2)
        return self._on_circle(self._known(state, control, context) + change)

    def each(
        self,
        state: Float[Tensor, "*batch n_state"],
        control: Float[Tensor, "*batch n_ctrl"],
        context: Float[Tensor, "*batch n_context"] | None = None,
    ) -> Float[Tensor, "*batch members n_state"]:
        """The next state as each member predicts it."""
        known = self._known(state, control, context).unsqueeze(-2)
        return self._on_circle(known + self._networks(state, control))

    def normalize(
        self,
        states: Float[Tensor, "N n_state"],
        controls: Float[Tensor, "N n_ctrl"],
        next_states: Float[Tensor, "N n_state"],
        context: Float[Tensor, "N n_context"] | None = None,
    ) -> None:
        """Take means and scales from transitions.

        The networks, once trained, are rewritten for that, so that the model stays as it is.

        Raises:
            TypeError: one is no tensor of floating-point numbers.
        """
        for name, value in (("states", states), ("controls", controls)):
            check_floating(name, value)
        with torch.no_grad():
            inputs = torch.cat((states, controls), -1).double()
            change = next_states.double() - self._known(states, controls, context).double()
            mean, scale = inputs.mean(0), _spread(inputs)
            offset, out = change.mean(0), _spread(change)
            if self.seen > 0 or self.linear.any():  # zero until somebody trains it
                moved, stretched = mean - self.input_mean, scale / self.input_scale
                for weight, bias in ((self.weights[0], 0), (self.linear, -1)):
                    self.biases[bias].add_(weight @ (moved / self.input_scale))
                    weight.mul_(stretched)
                for weight in (self.weights[-1], self.linear):
                    weight.mul_((self.scale / out).unsqueeze(-1))
                self.biases[-1].mul_(self.scale).add_(self.offset - offset).div_(out)
            self.input_mean.copy_(mean)
            self.input_scale.copy_(scale)
            self.offset.copy_(offset)
            self.scale.copy_(out)
            self.seen.fill_(len(states))

    def _known(self, state: Tensor, control: Tensor, context: Tensor | None) -> Tensor:
        if self.physics is None:
            return state
        arguments = (state, control) if context is None else (state, control, context)
        known: Tensor = self.physics(*arguments)
        return known

    def _networks(self, state: Tensor, control: Tensor) -> Float[Tensor, "*batch members n_state"]:
        """What each network adds, in the units of the state."""
        inputs: Tensor = (torch.cat((state, control), -1) - self.input_mean) / self.input_scale
        layers = list(zip(self.weights, self.biases, strict=True))
        hidden = torch.einsum("koi,...i->...ko", layers[0][0], inputs) + layers[0][1]
        for weight, bias in layers[1:]:
            hidden = torch.einsum("koi,...ki->...ko", weight, self.activation(hidden)) + bias
        straight = torch.einsum("koi,...i->...ko", self.linear, inputs)
        added: Tensor = self.offset + self.scale * (hidden + straight)
        return added

    def _on_circle(self, state: Tensor) -> Tensor:
        entries = list(state.unbind(-1))
        for i, j in self.unit_pairs:
            radius = (entries[i].square() + entries[j].square()).sqrt()
            entries[i], entries[j] = entries[i] / radius, entries[j] / radius
        return torch.stack(entries, -1)


def _spread(values: Float[Tensor, "N columns"]) -> Float[Tensor, " columns"]:
    """The standard deviation of each column; 1 where it does not vary."""
    spread = values.std(0, correction=0)
    return torch.where(spread > SMALLEST * (1 + values.abs().mean(0)), spread, 1.0)


def _checked_pairs(
    pairs: Sequence[tuple[int, int]] | None, physics: nn.Module | None, n_state: int
) -> Sequence[tuple[int, int]]:
    if pairs is None:
        return () if physics is None else unit_pairs(physics)
    for pair in pairs:
        if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= i < n_state for i in pair):
            raise ValueError(
                f"unit_pairs must be pairs of two entries of the {n_state} of a state, the cosine "
                f"and the sine of an angle, got {pair}"
            )
    return tuple((int(i), int(j)) for i, j in pairs)
