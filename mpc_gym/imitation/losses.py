"""What imitation minimises, as functions of the rows of a set of demonstrations.

Every loss is dimensionless. Errors of actions are divided by half the action range, so that 1 is
the distance from the middle to a bound; errors of predicted states by the root mean square of the
observed change, so that 1 is the error of predicting no motion.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from mpc_gym.checks import check_count, check_floating
from mpc_gym.functional import call_with
from mpc_gym.imitation.demonstrations import Demonstrations
from mpc_gym.imitation.smoothing import FallingSmoothing
from mpc_gym.imitation.transitions import Transitions
from mpc_gym.mpc import Plan
from mpc_gym.policies import LSTMPolicy, PlanningPolicy

SMOOTHED = 0.3  # of the epochs, in which the smoothing falls

ALL = slice(None)

Rows = Int[Tensor, " rows"]


@dataclass(frozen=True)
class Sum:
    """A sum of errors, and how many there are of them."""

    total: Float[Tensor, ""]
    count: int

    @classmethod
    def of(cls, errors: Float[Tensor, "..."]) -> "Sum":
        """The sum of these errors, all of which count."""
        return cls(errors.sum(), errors.numel())

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(self.total + other.total, self.count + other.count)

    def mean(self) -> float:
        """The mean; infinity where there is nothing to take it of, as nothing is known then."""
        return self.total.item() / self.count if self.count else math.inf

    def detach(self) -> "Sum":
        """The same without a gradient."""
        return Sum(self.total.detach(), self.count)


@dataclass(frozen=True)
class Value:
    """A loss on some rows: a weighted sum of means. Values of several batches can be added.

    Attributes:
        terms: pairs of weight and errors, whose totals have a gradient.
        metrics: what to log about the rows.
    """

    terms: tuple[tuple[float, Sum], ...]
    metrics: dict[str, Sum]

    def __add__(self, other: "Value") -> "Value":
        return Value(
            tuple(
                (weight, here + there)
                for (weight, here), (_, there) in zip(self.terms, other.terms, strict=True)
            ),
            {name: here + other.metrics[name] for name, here in self.metrics.items()},
        )

    def mean(self) -> float:
        """The loss; infinity where a term has no errors to take a mean of."""
        return sum(weight * term.mean() for weight, term in self.terms)

    def objective(self) -> Float[Tensor, ""] | None:
        """The loss with its gradient, without the terms of no errors; None where all are."""
        terms = [
            weight * term.total.double() / term.count for weight, term in self.terms if term.count
        ]
        return torch.stack(terms).sum() if terms else None

    def detach(self) -> "Value":
        """The same without a gradient."""
        return Value(tuple((weight, term.detach()) for weight, term in self.terms), self.metrics)


class Loss:
    """A loss over rows of examples; a subclass that remembers something says what."""

    def __call__(self, rows: Rows) -> Value:
        """The errors of these rows."""
        raise NotImplementedError

    def begin(self, epochs: int) -> None:
        """Told before training, of how many epochs there will be in all."""

    def begin_epoch(self, epoch: int) -> None:
        """Told before every epoch."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers between calls, for a checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember that again."""


class WarmStartedLoss(Loss):
    """A loss of plans of which each is solved, in training, from the last one of its row.

    That keeps it in its local optimum while the model changes. Every `epochs` epochs all are solved
    from the guess again.

    Args:
        guess: of the plans' controls, a row an example.
        epochs: after which the warm starts are forgotten.

    Raises:
        TypeError: the guess is no tensor of floating-point numbers.
        ValueError: the number of epochs is not positive.
    """

    def __init__(self, guess: Float[Tensor, "N horizon n_ctrl"], epochs: int) -> None:
        check_floating("guess", guess)
        self.guess = guess
        self.warm_starts = guess.clone()
        self.warm_start_epochs = check_count("epochs", epochs)

    def remember(self, rows: Rows, plan: Plan) -> None:
        """Take the plans of these rows, where they converged, as the next warm starts."""
        self.warm_starts[rows] = torch.where(
            plan.converged[:, None, None], plan.controls.detach().double(), self.guess[rows]
        )

    def begin_epoch(self, epoch: int) -> None:
        """Forget the warm starts when it is time."""
        if epoch % self.warm_start_epochs == 0:
            self.warm_starts.copy_(self.guess)

    def state_dict(self) -> dict[str, Any]:
        """The warm starts."""
        return {"warm_starts": self.warm_starts.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take these warm starts."""
        self.warm_starts.copy_(state["warm_starts"])


class ActionLoss(Loss):
    """Mean squared error of a policy's deterministic action."""

    def __init__(self, policy: BasePolicy, demonstrations: Demonstrations) -> None:
        self.policy = policy
        self.observations = torch.as_tensor(demonstrations.observations, device=policy.device)
        self.actions = torch.as_tensor(demonstrations.actions, device=policy.device)
        self.scale = torch.as_tensor(half_range(policy.action_space), device=policy.device)
        self.observation_shape = policy.observation_space.shape or ()

    def __call__(self, rows: Rows) -> Value:
        """The errors of these rows."""
        observations = self.observations[rows].reshape(-1, *self.observation_shape)
        actions = self.policy._predict(observations, deterministic=True).flatten(1)
        if self.policy.squash_output:  # the actor works in [-1, 1]
            low, high = (
                torch.as_tensor(bound, device=actions.device).flatten()
                for bound in (self.policy.action_space.low, self.policy.action_space.high)  # type: ignore[attr-defined]
            )
            actions = low + 0.5 * (actions + 1) * (high - low)
        return errors_of("action_loss", ((actions - self.actions[rows]) / self.scale).square())


class _WindowLoss(Loss):
    """The next actions after each row, which a sequence of controls is compared with."""

    def __init__(
        self, policy: PlanningPolicy | LSTMPolicy, demonstrations: Demonstrations, steps: int
    ) -> None:
        windows, mask = demonstrations.action_windows(steps)
        device = policy.device
        self.observations = torch.as_tensor(demonstrations.observations, device=device)
        self.windows: Float[Tensor, "N steps n_ctrl"] = torch.as_tensor(windows).to(device)
        self.mask: Bool[Tensor, "N steps"] = torch.as_tensor(mask).to(device)
        self.scale = torch.as_tensor(half_range(policy.action_space), device=device)
        self.steps = steps


class PlanLoss(_WindowLoss, WarmStartedLoss):
    """Mean squared error of the first `steps` controls of a plan against the actions that followed.

    Actions past the end of an episode do not count; nor, in training, do plans that did not
    converge, which have no gradient: their share is logged as `not_converged`. Their warm starts
    are forgotten every `warm_start_epochs` epochs.

    Without gradients (in validation) the policy is judged as it acts: all plans are solved from
    nothing and count, converged or not. Else weights under which the hard plans fail would be
    judged by the easy ones alone, and win.

    With `smoothing`, first and last mu of a `FallingSmoothing`, the plans in training are smoothed
    in the first `SMOOTHED` of the epochs that training is begun with, and then no more.
    """

    def __init__(
        self,
        policy: PlanningPolicy,
        demonstrations: Demonstrations,
        steps: int,
        warm_start_epochs: int,
        smoothing: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(policy, demonstrations, steps)
        self.policy = policy
        self.smoothing = smoothing
        self._falling: FallingSmoothing | None = None
        self._epoch = 0
        size = (len(self.windows), policy.mpc.horizon, policy.mpc.n_ctrl)
        guess = torch.zeros(size, dtype=torch.float64, device=policy.device)
        WarmStartedLoss.__init__(self, guess, warm_start_epochs)

    def begin(self, epochs: int) -> None:
        """Spread the values of mu over the epochs, once: a run that goes on keeps to them."""
        if self.smoothing is not None and self._falling is None:
            self._falling = FallingSmoothing(*self.smoothing, max(round(SMOOTHED * epochs), 1))

    def begin_epoch(self, epoch: int) -> None:
        """Forget the warm starts when it is time."""
        WarmStartedLoss.begin_epoch(self, epoch)
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """The warm starts, and over how many epochs mu falls."""
        epochs = None if self._falling is None else self._falling.epochs
        return {**WarmStartedLoss.state_dict(self), "smoothed_epochs": epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take these."""
        WarmStartedLoss.load_state_dict(self, state)
        epochs = state["smoothed_epochs"]
        if self.smoothing is not None and epochs is not None:
            self._falling = FallingSmoothing(*self.smoothing, epochs)

    def _plan(self, rows: Rows, training: bool) -> Plan:
        if not training:
            return self.policy.planner.plan(self.observations[rows])
        falling = self._falling
        smoothed = falling.of(self.policy.mpc, self._epoch) if falling else nullcontext()
        with smoothed:
            return self.policy.planner.plan(self.observations[rows], self.warm_starts[rows])

    def __call__(self, rows: Rows) -> Value:
        """The errors of these rows."""
        training = torch.is_grad_enabled()
        plan = self._plan(rows, training)
        converged = plan.converged
        if training:
            self.remember(rows, plan)
        actions = self.policy.planner.action_limits.action(plan.controls[:, : self.steps])
        error = ((actions - self.windows[rows]) / self.scale).square()
        error = error.mean(-1)  # (rows, steps)
        mask = self.mask[rows]
        counts = mask & converged[:, None] if training else mask
        return Value(
            ((1.0, _masked_sum(error, counts)),),
            {
                "plan_loss": _masked_sum(error.detach(), counts),
                "action_loss": _masked_sum(error[:, 0].detach(), counts[:, 0]),
                "not_converged": Sum((~converged).sum(), len(rows)),
            },
        )


class SequenceLoss(_WindowLoss):
    """Mean squared error of the first `steps` controls of an LSTM's sequence, as in `PlanLoss`."""

    def __init__(self, policy: LSTMPolicy, demonstrations: Demonstrations, steps: int) -> None:
        super().__init__(policy, demonstrations, steps)
        self.policy = policy

    def __call__(self, rows: Rows) -> Value:
        """The errors of these rows."""
        controls = self.policy.controls(self.observations[rows])[:, : self.steps]
        error = ((controls - self.windows[rows]) / self.scale).square().mean(-1)  # (rows, steps)
        mask = self.mask[rows]
        metrics = {
            "plan_loss": _masked_sum(error.detach(), mask),
            "action_loss": _masked_sum(error[:, 0].detach(), mask[:, 0]),
        }
        return Value(((1.0, _masked_sum(error, mask)),), metrics)


class PredictionLoss(Loss):
    """Mean squared error of a model's prediction of the next state (float64)."""

    def __init__(self, dynamics: nn.Module, transitions: Transitions) -> None:
        self.dynamics = dynamics
        self.transitions = transitions
        change = (transitions.next_states - transitions.states).square().mean(0)
        self.scale = torch.where(change > 0, change, 1.0).sqrt()  # an entry that never changes

    def __call__(self, rows: Rows) -> Value:
        """The errors of these rows."""
        parameters = {name: value.double() for name, value in self.dynamics.named_parameters()}
        return errors_of("prediction_loss", self.errors(parameters, rows).square())

    def errors(
        self, parameters: Mapping[str, Tensor], rows: Rows | slice = ALL
    ) -> Float[Tensor, "rows n_state"]:
        """The scaled errors of these rows with these values in the place of the parameters.

        Raises:
            ValueError: the model cannot be called with these states and controls, or returns
                something else than their next states.
        """
        inputs = tuple(each[rows] for each in self.transitions.inputs)
        after = self.transitions.next_states[rows]
        try:
            predicted: Tensor = call_with(self.dynamics, parameters, inputs)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise _misfit(self.dynamics, inputs, after, str(error).partition("\n")[0]) from error
        if predicted.shape != after.shape:
            raise _misfit(self.dynamics, inputs, after, f"got {list(predicted.shape)}")
        return (predicted - after) / self.scale


def _misfit(
    dynamics: nn.Module, inputs: Sequence[Tensor], after: Tensor, reason: str
) -> ValueError:
    return ValueError(
        f"{type(dynamics).__name__} must map states {list(inputs[0].shape)} and controls "
        f"{list(inputs[1].shape)} to next states {list(after.shape)}: {reason}. Where observations "
        "are not the model's states, or actions not its controls, say how these follow: with "
        "state=... and control=... of SystemIdentification, or of transitions_of, which makes "
        "Transitions"
    )


class WeightedLoss(Loss):
    """A weighted sum of losses."""

    def __init__(self, parts: Sequence[tuple[float, Loss]]) -> None:
        self.parts = parts

    def __call__(self, rows: Rows) -> Value:
        """The errors of these rows."""
        terms: list[tuple[float, Sum]] = []
        metrics: dict[str, Sum] = {}
        for weight, part in self.parts:
            value = part(rows)
            terms += [(weight * inner, term) for inner, term in value.terms]
            metrics |= value.metrics
        return Value(tuple(terms), metrics)

    def begin_epoch(self, epoch: int) -> None:
        """Told before every epoch."""
        for _, part in self.parts:
            part.begin_epoch(epoch)

    def begin(self, epochs: int) -> None:
        """Told before training."""
        for _, part in self.parts:
            part.begin(epochs)

    def state_dict(self) -> dict[str, Any]:
        """What the parts remember."""
        return {str(i): part.state_dict() for i, (_, part) in enumerate(self.parts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the parts remember that again."""
        for i, (_, part) in enumerate(self.parts):
            part.load_state_dict(state[str(i)])


def half_range(space: spaces.Space[Any]) -> NDArray[np.floating]:
    """Half the width of an action space, one entry an action; 1 where it has no bounds."""
    assert isinstance(space, spaces.Box), "SB3's continuous policies act in a Box"
    half = (space.high.astype(float) - space.low.astype(float)).ravel() / 2
    return np.where(np.isfinite(half), half, 1.0).astype(space.dtype)


def errors_of(name: str, errors: Float[Tensor, "rows ..."]) -> Value:
    """Errors of which all count, also logged under this name."""
    total = Sum.of(errors)
    return Value(((1.0, total),), {name: total.detach()})


def _masked_sum(values: Tensor, mask: Tensor) -> Sum:
    return Sum(torch.where(mask, values, 0.0).sum(), int(mask.sum()))
