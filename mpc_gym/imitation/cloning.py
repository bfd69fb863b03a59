"""Behavioural cloning: a policy learns to do what a demonstration shows."""

import os
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.td3.policies import TD3Policy

from mpc_gym.checks import (
    check_count,
    check_instance,
    check_number,
    check_option,
    check_path,
    found,
)
from mpc_gym.imitation.demonstrations import Demonstrations, check_demonstrations, concatenate
from mpc_gym.imitation.losses import (
    ActionLoss,
    Loss,
    PlanLoss,
    PredictionLoss,
    SequenceLoss,
    WeightedLoss,
    half_range,
)
from mpc_gym.imitation.metrics import Row
from mpc_gym.imitation.rates import FallingRate
from mpc_gym.imitation.training import Training, TrainingOptions
from mpc_gym.imitation.transitions import transitions_of
from mpc_gym.policies import LSTMPolicy, PlanningPolicy

LOSSES = ("action", "plan")


class BehavioralCloning:
    """Train any SB3 policy with continuous observations and actions on demonstrations.

    What acts is trained: the actor, in a policy for SAC, TD3, DDPG or TQC, and all but the value
    function in one for PPO or A2C. Critics stay as they are. TD3's target actor becomes equal to
    its actor when `train` ends, so that TD3 goes on from the clone.

    Which loss is right for a planning policy:

    - "action" compares what both would do now. It asks nothing about what the expert planned, so
      it is right for any expert whose action is a function of the observation, and its minimum is
      the expert. Far from there it teaches little: where the plan's first control sits at a bound
      the gradient is exactly zero, and in a swing-up that is nearly everywhere.
    - "plan" compares the plan with what the expert went on to do (Amos et al., 2018). It looks past
      the bound to where the controls come off it. It is right for demonstrations that are single
      plans, carried out as planned. An expert that plans anew at every step departs from its plan
      towards the end of the horizon, so with it the minimum is biased; `plan_steps` leaves that
      part out.
    - `prediction_weight` adds the error of the policy's model on the observed next states. It is
      well conditioned everywhere, and right where the policy's model can be the true one; where it
      cannot, it pulls towards the best predictor, which need not be the best planner. Without it,
      episodes that are mostly balancing have a second, false minimum: a model with a strong
      motor, for which hardly any control is right at nearly every observation.

    From wrong physics and closed-loop episodes, "action" with `prediction_weight=1` is the pair to
    begin with: the prediction finds the physics, the actions decide where it leaves a choice.

    Args:
        policy: trained in place; its spaces are a `Box` each.
        demonstrations: of an environment with the policy's spaces.
        loss: "action", or "plan" for a policy that plans (or an `LSTMPolicy`).
        plan_steps: how many of the plan's controls count in "plan"; None for the whole horizon.
        prediction_weight: of the prediction loss of a policy that plans; 0 for none.
        optimizer, learning_rate, batch_size, seed: see `TrainingOptions`.
        validation_fraction: of the episodes, held out whole, to choose the best weights by; of a
            single episode, its end.
        warm_start_epochs: after which the warm starts of a planning policy's plans, kept for each
            example, are forgotten. 1: no warm starts, so that the plans trained are those that
            the policy would make. More (50 in Amos et al.) takes fewer iterations, but can hold a
            plan in a local optimum which the wrong model once led it to.
        smoothing: first and last mu of the plans that a planning policy is trained by (see `MPC`),
            in units of its cost: mu falls by the same factor in each of the first 30 % of the
            epochs that `train` is first called with (see `FallingSmoothing`). The gradient then
            lives where plans sit at their limits, as most do in a swing-up. In the other epochs,
            validated and acting, the policy's plans are its own. None: throughout.
        folder: for the checkpoint, the log and TensorBoard's events; None to keep nothing. A run
            that was stopped goes on from the checkpoint it finds there.
        checkpoint_seconds: how old a checkpoint becomes before the next is written; 0: every epoch
            has one; infinite: the last alone.

    Raises:
        TypeError: `policy` or `demonstrations` is something else.
        ValueError: an option is out of its range or does not fit the policy, the policy is
            recurrent, the demonstrations do not fit its spaces, or the folder holds the checkpoint
            of another run.
    """

    def __init__(
        self,
        policy: BasePolicy,
        demonstrations: Demonstrations,
        loss: Literal["action", "plan"] = "action",
        plan_steps: int | None = None,
        prediction_weight: float = 0.0,
        optimizer: str = "adam",
        learning_rate: float | FallingRate = 1e-3,
        batch_size: int = 64,
        validation_fraction: float = 0.1,
        warm_start_epochs: int = 1,
        smoothing: tuple[float, float] | None = None,
        seed: int = 0,
        folder: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = 0.0,
    ) -> None:
        check_trainable(policy)
        check_fit(policy, demonstrations)
        options = TrainingOptions(optimizer, learning_rate, batch_size, seed)
        smoothing = _checked_smoothing(policy, smoothing)
        check_number("validation_fraction", validation_fraction, above=0.0, below=1.0)
        training, validation = demonstrations.split(validation_fraction, seed)
        examples = concatenate([training, validation])
        self.policy = policy
        rows = torch.arange(len(examples))
        identity = {
            "method": "BehavioralCloning",
            "demonstrations": demonstrations.fingerprint(),
            "loss": loss,
            "plan_steps": plan_steps,
            "prediction_weight": prediction_weight,
            "validation_fraction": validation_fraction,
            "warm_start_epochs": warm_start_epochs,
            "smoothing": None if smoothing is None else list(smoothing),
            **vars(options),
            **describe(policy),
        }
        self._training = Training(
            getattr(policy, "actor", policy),
            _make_loss(
                policy, examples, loss, plan_steps, prediction_weight, warm_start_epochs, smoothing
            ),
            rows[: len(training)],
            rows[len(training) :],
            options,
            identity,
            None if folder is None else check_path("folder", folder),
            checkpoint_seconds,
        )

    @property
    def history(self) -> list[Row]:
        """What was logged, one row an epoch, the first before any training."""
        return self._training.history

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights had the lowest validation loss."""
        return self._training.best.epoch

    def train(self, epochs: int, progress_bar: bool | None = None) -> BasePolicy:
        """Train until `epochs` epochs are done in all.

        Args:
            epochs: how many, those of a resumed run included.
            progress_bar: whether to show one; None: in a terminal or a notebook, after two seconds.

        Returns:
            The policy, with the weights of the lowest validation loss.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        self._training.loss.begin(check_count("epochs", epochs, 0))
        self._training.run(epochs, progress_bar)
        follow_actor(self.policy)
        return self.policy


def imitation_loss(policy: BasePolicy, demonstrations: Demonstrations) -> float:
    """Mean squared error of a policy's deterministic actions, in units of half the action range.

    Each action is a function of its observation alone (`predict` without a recurrent state).

    Raises:
        ValueError: the demonstrations do not fit the policy's spaces.
    """
    check_fit(policy, demonstrations)
    shape = policy.observation_space.shape or ()
    actions, _ = policy.predict(demonstrations.observations.reshape(-1, *shape), deterministic=True)
    error = actions.reshape(len(actions), -1) - demonstrations.actions
    return float(np.mean((error / half_range(policy.action_space)) ** 2))


def check_fit(policy: BasePolicy, demonstrations: Demonstrations) -> None:
    """Refuse demonstrations of another system.

    Raises:
        TypeError: one of them is something else.
        ValueError: the observations or actions are not as large as the policy's, or one of its
            spaces is no `Box`.
    """
    check_continuous(policy)
    check_demonstrations("demonstrations", demonstrations)
    for name, given, space in (
        ("observations", demonstrations.observations, policy.observation_space),
        ("actions", demonstrations.actions, policy.action_space),
    ):
        size = int(np.prod(space.shape or ()))
        if given.shape[1] != size:
            raise ValueError(
                f"demonstrations must have {name} of {size} numbers, as the policy's space "
                f"{space}, got {given.shape[1]}: they are of {demonstrations.env_id}"
            )


def check_continuous(policy: BasePolicy) -> None:
    """Refuse what is no policy for continuous observations and actions.

    Raises:
        TypeError: it is no policy.
        ValueError: one of its spaces is no `Box`.
    """
    check_instance("policy", policy, BasePolicy, "an SB3 policy (of an algorithm, model.policy)")
    for space in (policy.observation_space, policy.action_space):
        if not isinstance(space, Box):
            raise ValueError(
                f"policy must have continuous observations and actions (a Box) to be cloned or "
                f"compared, got {space}"
            )


def check_trainable(policy: BasePolicy) -> None:
    """Refuse a policy that cannot be cloned.

    Raises:
        TypeError: it is no policy.
        ValueError: one of its spaces is no `Box`, its observations are normalised, or its actions
            need the state of an LSTM, as those of sb3-contrib's RecurrentPPO do.
    """
    check_continuous(policy)
    if isinstance(policy, PlanningPolicy) and policy.planner.observer.normalization is not None:
        raise ValueError(
            "policy must take observations as the environment gives them to be cloned, and it was "
            "made for those of VecNormalize: make it for an environment without"
        )
    if hasattr(policy, "lstm_actor"):
        raise ValueError(
            f"policy must act by the observation alone to be cloned, got {type(policy).__name__}, "
            "which carries the state of an LSTM: take LSTMPolicy of mpc_gym.policies, or a policy "
            "of another algorithm than RecurrentPPO"
        )


def follow_actor(policy: BasePolicy) -> None:
    """Make TD3's target actor equal to the actor; nothing to do for other policies."""
    if isinstance(policy, TD3Policy):
        policy.actor_target.load_state_dict(policy.actor.state_dict())


def describe(policy: BasePolicy) -> dict[str, Any]:
    """What tells one policy from another, apart from its weights, as JSON data."""
    arguments = policy._get_constructor_parameters()
    shapes = {name: list(value.shape) for name, value in policy.state_dict().items()}
    return {
        "policy": f"{type(policy).__module__}.{type(policy).__qualname__}",
        "arguments": {name: _plain(value) for name, value in sorted(arguments.items())},
        "shapes": shapes,
    }


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    # by its name, where it has one: the representation of a function holds its address
    return getattr(value, "__qualname__", None) or str(value)


def _checked_smoothing(
    policy: BasePolicy, smoothing: tuple[float, float] | None
) -> tuple[float, float] | None:
    if smoothing is None:
        return None
    if not isinstance(policy, PlanningPolicy):
        raise ValueError(
            "smoothing is for a policy that plans (MPCPolicy and the like), got "
            f"{type(policy).__name__}; leave it at None"
        )
    if not isinstance(smoothing, list | tuple) or len(smoothing) != 2:
        raise TypeError(
            f"smoothing must be two numbers, the first and the last mu, got {found(smoothing)}"
        )
    first = check_number("smoothing[0]", smoothing[0], above=0.0)
    return first, check_number("smoothing[1]", smoothing[1], above=0.0, most=first)


def _make_loss(
    policy: BasePolicy,
    examples: Demonstrations,
    loss: str,
    plan_steps: int | None,
    prediction_weight: float,
    warm_start_epochs: int,
    smoothing: tuple[float, float] | None,
) -> Loss:
    check_option("loss", loss, LOSSES)
    check_count("warm_start_epochs", warm_start_epochs)
    check_number("prediction_weight", prediction_weight, least=0.0)
    if plan_steps is not None and loss != "plan":
        raise ValueError(f'plan_steps is for loss="plan", got loss={loss!r}')
    if prediction_weight and not isinstance(policy, PlanningPolicy):
        raise ValueError(
            "prediction_weight is for a policy with a model (MPCPolicy and the like), got "
            f"{type(policy).__name__}; leave it at 0"
        )
    if isinstance(policy, LSTMPolicy) and loss == "plan":
        return SequenceLoss(policy, examples, _plan_steps(plan_steps, policy.horizon))
    if not isinstance(policy, PlanningPolicy):
        if loss == "plan":
            raise ValueError(
                'loss="plan" is for a policy that plans (MPCPolicy and the like) or LSTMPolicy, '
                f'got {type(policy).__name__}; use loss="action"'
            )
        return ActionLoss(policy, examples)
    steps = 1 if loss == "action" else _plan_steps(plan_steps, policy.mpc.horizon)
    plans = PlanLoss(policy, examples, steps, warm_start_epochs, smoothing)
    parts: list[tuple[float, Loss]] = [(1.0, plans)]
    if prediction_weight:
        if any(p.requires_grad for p in policy.planner.observer.parameters()):
            raise ValueError(
                "prediction_weight must be 0 for a policy whose state= is a network that learns: "
                "the states that its model is to predict change with it"
            )
        transitions = transitions_of(policy, examples)
        parts.append((prediction_weight, PredictionLoss(policy.mpc.dynamics, transitions)))
    return WeightedLoss(parts)


def _plan_steps(plan_steps: int | None, horizon: int) -> int:
    steps = horizon if plan_steps is None else check_count("plan_steps", plan_steps)
    if steps > horizon:
        raise ValueError(f"plan_steps must be between 1 and the horizon {horizon}, got {steps}")
    return steps
