"""Dynamics learned from transitions, where no model is known, or not all of it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpc_gym.checks import check_count, check_instance, check_number
from mpc_gym.imitation.demonstrations import Demonstrations
from mpc_gym.imitation.losses import Loss, PredictionLoss, Rows, Value, errors_of
from mpc_gym.imitation.metrics import Row
from mpc_gym.imitation.rates import FallingRate
from mpc_gym.imitation.training import Training, TrainingOptions
from mpc_gym.imitation.transitions import Transitions, check_dynamics, transitions_of
from mpc_gym.models import LearnedDynamics


@dataclass(frozen=True)
class FitOptions:
    """How dynamics are fitted to transitions.

    Args:
        epochs: at most, from what the dynamics were before.
        patience: epochs without a lower validation loss, after which it ends.
        learning_rate: of Adam, for the first half of the epochs; then it falls to a hundredth.
        batch_size: transitions in a mini-batch.
        validation_fraction: of the transitions, at random, held out to choose the best weights by.
        seed: of that choice, and of the order of the transitions.

    Raises:
        ValueError: an option is out of its range.
    """

    epochs: int = 100
    patience: int = 30
    learning_rate: float = 1e-3
    batch_size: int = 256
    validation_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_count("patience", self.patience)
        check_number("learning_rate", self.learning_rate, above=0.0)
        check_number("validation_fraction", self.validation_fraction, above=0.0, below=1.0)
        TrainingOptions("adam", self.learning_rate, self.batch_size, self.seed)


def fit_dynamics(
    dynamics: nn.Module,
    data: Transitions | Demonstrations,
    options: FitOptions | None = None,
    progress_bar: bool | None = None,
) -> list[Row]:
    """Fit dynamics to transitions, in place, from where they are.

    `LearnedDynamics` take means and scales from the transitions first, and each member is fitted on
    its own; any other dynamics are fitted as they are. The weights with the lowest validation loss
    are kept, those of before among them.

    Args:
        dynamics: whose parameters that require a gradient are trained.
        data: transitions, or demonstrations whose observations are states and whose actions are
            controls (`transitions_of` makes transitions of others).
        options: how; None for the defaults.
        progress_bar: whether to show one; None: in a terminal or a notebook, after two seconds.

    Returns:
        What was logged, one row an epoch, the first before any training.

    Raises:
        TypeError: an argument is something else.
        ValueError: there are fewer than two transitions, or no parameter to train.
        FloatingPointError: the loss is not finite.
    """
    check_dynamics(dynamics)
    options = FitOptions() if options is None else options
    check_instance("options", options, FitOptions, "FitOptions, or None")
    check_instance("data", data, (Transitions, Demonstrations), "Transitions or Demonstrations")
    transitions = data if isinstance(data, Transitions) else transitions_of(dynamics, data)
    if len(transitions) < 2:
        raise ValueError("data must hold at least 2 transitions, one of them to validate by, got 1")
    training_rows, validation_rows = _split(len(transitions), options)
    loss: Loss
    if isinstance(dynamics, LearnedDynamics):
        states, controls, *context = transitions.inputs
        dynamics.normalize(states, controls, transitions.next_states, *context)
        loss = EnsembleLoss(dynamics, transitions)
    else:
        loss = PredictionLoss(dynamics, transitions)
    half = options.epochs - options.epochs // 2
    rate = FallingRate(
        options.learning_rate, options.learning_rate / 100, options.epochs // 2, half
    )
    training = Training(
        dynamics,
        loss,
        training_rows,
        validation_rows,
        TrainingOptions("adam", rate, options.batch_size, options.seed),
        {},
        None,
    )

    def enough(history: list[Row]) -> bool:
        best = min(range(len(history)), default=0, key=lambda i: history[i]["validation/loss"])
        return len(history) - 1 - best >= options.patience

    return training.run(options.epochs, progress_bar, enough)


def _split(count: int, options: FitOptions) -> tuple[Tensor, Tensor]:
    """Rows to learn from, and rows to choose the best weights by, at least one of each."""
    generator = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(count, generator=generator)
    held_out = min(max(1, round(options.validation_fraction * count)), count - 1)
    return order[held_out:], order[:held_out]


class EnsembleLoss(Loss):
    """Mean squared error of each member's prediction, in units of the scale of the change."""

    def __init__(self, dynamics: LearnedDynamics, transitions: Transitions) -> None:
        self.dynamics = dynamics
        self.inputs, self.after = transitions.inputs, transitions.next_states

    def __call__(self, rows: Rows) -> Value:
        """The errors of these rows."""
        predicted = self.dynamics.each(*(each[rows] for each in self.inputs))
        error = (predicted - self.after[rows].unsqueeze(1)) / self.dynamics.scale
        return errors_of("prediction_loss", error.square())
