"""System identification: a model learns to predict what followed each action."""

import os
from typing import Any

import torch
from stable_baselines3.common.policies import BasePolicy
from torch import nn

from mpc_gym.checks import check_module, check_number, check_path
from mpc_gym.imitation.cloning import follow_actor
from mpc_gym.imitation.demonstrations import Demonstrations, check_demonstrations, concatenate
from mpc_gym.imitation.losses import PredictionLoss
from mpc_gym.imitation.metrics import Row
from mpc_gym.imitation.rates import FallingRate
from mpc_gym.imitation.training import Training, TrainingOptions
from mpc_gym.imitation.transitions import Map, transitions_of
from mpc_gym.mpc import MPC
from mpc_gym.policies import PlanningPolicy


class SystemIdentification:
    """Fit a model's parameters to observed transitions.

    It is the baseline `sysid` of Amos et al. (2018): level with imitation where the model can be
    the true one, worse where it cannot.

    Args:
        model: trained in place: dynamics, or a policy that plans, whose dynamics are
            meant (TD3's target actor becomes equal to its actor in the end). A policy's options
            say what its model's state, context and control are; a network among them stays as it
            is.
        demonstrations: whose transitions are fitted; the actions need not be an expert's.
        optimizer, learning_rate, batch_size, seed: see `TrainingOptions`.
        validation_fraction: of the episodes, held out whole, to choose the best weights by; of a
            single episode, its end.
        folder: for the checkpoint, the log and TensorBoard's events; None to keep nothing. A run
            that was stopped goes on from the checkpoint it finds there.
        checkpoint_seconds: how old a checkpoint becomes before the next is written; 0: every epoch
            has one; infinite: the last alone.
        state, control: of dynamics, functions that map the demonstrations' observations [N, n_obs]
            to states, and their actions [N, n_act] to controls. None: they are the same.

    Raises:
        TypeError: `model` or `demonstrations` is something else, or `state` or `control`.
        ValueError: an option is out of its range, the folder holds the checkpoint of another run,
            or the demonstrations do not fit the policy's spaces.
    """

    def __init__(
        self,
        model: nn.Module | PlanningPolicy,
        demonstrations: Demonstrations,
        optimizer: str = "adam",
        learning_rate: float | FallingRate = 1e-2,
        batch_size: int = 64,
        validation_fraction: float = 0.1,
        seed: int = 0,
        folder: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = 0.0,
        state: Map | None = None,
        control: Map | None = None,
    ) -> None:
        _check_model(model)
        check_demonstrations("demonstrations", demonstrations)
        options = TrainingOptions(optimizer, learning_rate, batch_size, seed)
        check_number("validation_fraction", validation_fraction, above=0.0, below=1.0)
        training, validation = demonstrations.split(validation_fraction, seed)
        examples = concatenate([training, validation])
        rows = torch.arange(len(examples))
        self._model = model
        self.dynamics = model.mpc.dynamics if isinstance(model, PlanningPolicy) else model
        identity: dict[str, Any] = {
            "method": "SystemIdentification",
            "demonstrations": demonstrations.fingerprint(),
            "validation_fraction": validation_fraction,
            **vars(options),
            "dynamics": str(self.dynamics),
            "shapes": {n: list(v.shape) for n, v in self.dynamics.state_dict().items()},
        }
        given: dict[str, Any] = {"state": state, "control": control}
        if isinstance(model, PlanningPolicy):
            options_of = model.plan_options
            given = {"state": options_of.state, "control_scale": options_of.control_scale}
        for name, value in given.items():
            if value is not None:
                identity[name] = getattr(value, "__qualname__", str(value))
        self._training = Training(
            self.dynamics,
            PredictionLoss(self.dynamics, transitions_of(model, examples, state, control)),
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

    def train(self, epochs: int, progress_bar: bool | None = None) -> nn.Module:
        """Train until `epochs` epochs are done in all.

        Args:
            epochs: how many, those of a resumed run included.
            progress_bar: whether to show one; None: in a terminal or a notebook, after two seconds.

        Returns:
            The dynamics, with the weights of the lowest validation loss.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        self._training.run(epochs, progress_bar)
        if isinstance(self._model, PlanningPolicy):
            follow_actor(self._model)
        return self.dynamics


def _check_model(model: object) -> None:
    check_module("model", model)
    if isinstance(model, MPC) or (
        isinstance(model, BasePolicy) and not isinstance(model, PlanningPolicy)
    ):
        raise TypeError(
            "model must be dynamics (of an MPC, mpc.dynamics) or a policy that plans, got "
            f"{type(model).__name__}"
        )
