"""The training loop that behavioural cloning and system identification share."""

import math
import operator
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpc_gym.checks import (
    check_count,
    check_instance,
    check_module,
    check_number,
    check_option,
    check_path,
    check_seed,
    found,
)
from mpc_gym.imitation.checkpoint import alone_in, read_checkpoint, write_checkpoint
from mpc_gym.imitation.losses import Loss
from mpc_gym.imitation.metrics import Metrics, Row
from mpc_gym.imitation.progress import progress
from mpc_gym.imitation.rates import FallingRate
from mpc_gym.models import current_values

OPTIMIZERS = ("adam", "rmsprop")
RMSPROP_ALPHA = 0.5  # as in Amos et al. (2018)
CHECKPOINT = "checkpoint.pt"

Enough = Callable[[list[Row]], bool]


@dataclass(frozen=True)
class TrainingOptions:
    """How a loss is minimised.

    Args:
        optimizer: "adam" or "rmsprop" (with alpha 0.5).
        learning_rate: of the optimiser; one that falls does so by epochs.
        batch_size: rows in a mini-batch.
        seed: of the order of the rows, and of whatever the module draws while it trains.

    Raises:
        ValueError: an option is out of its range.
    """

    optimizer: str = "adam"
    learning_rate: float | FallingRate = 1e-3
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_option("optimizer", self.optimizer, OPTIMIZERS)
        rate = self.learning_rate
        if not isinstance(rate, FallingRate):
            rate = check_number("learning_rate", rate, least=0.0)
        batch_size = check_count("batch_size", self.batch_size)
        # as Python's own numbers, which the file of a run can hold
        self.__dict__.update(
            learning_rate=rate, batch_size=batch_size, seed=check_seed("seed", self.seed)
        )

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        rate = self.learning_rate
        return rate.at(epoch) if isinstance(rate, FallingRate) else rate


@dataclass
class Best:
    """The weights with the lowest validation loss so far."""

    epoch: int
    loss: float
    weights: dict[str, Tensor]


class Training:
    """Mini-batch training of a module, with a log, the best weights kept, and checkpoints.

    With a folder, an epoch ends in `checkpoint.pt`, and `run` goes on from the one it finds:
    stopped at any moment and started again, it does what it would have done without the stop.

    Args:
        module: what is trained.
        loss: over rows of the examples.
        training_rows: numbers of the rows to train on.
        validation_rows: numbers of the rows by which the best weights are chosen.
        options: how.
        identity: JSON data; a checkpoint with another identity is refused.
        folder: for `checkpoint.pt`, `metrics.csv` and TensorBoard's events; None for none.
        checkpoint_seconds: how old a checkpoint becomes before the next is written. 0: every epoch
            has one; infinite: the last alone. Epochs after the last one are done again by a run
            that is resumed.
        log_epochs: of so many epochs, one is logged.

    Attributes:
        history: a row for every epoch done, the first before any training.
        best: the weights with the lowest validation loss.
        last_weights: those after the last epoch.

    Raises:
        TypeError: the module, the rows or the options are something else.
        ValueError: an argument is out of its range, no parameter requires a gradient, or the
            folder holds the checkpoint of another run.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        training_rows: Tensor,
        validation_rows: Tensor,
        options: TrainingOptions,
        identity: dict[str, Any],
        folder: Path | None,
        checkpoint_seconds: float = 0.0,
        log_epochs: int = 1,
    ) -> None:
        check_module("module", module)
        check_instance("options", options, TrainingOptions, "TrainingOptions")
        for name, rows in (("training_rows", training_rows), ("validation_rows", validation_rows)):
            if not isinstance(rows, Tensor) or rows.ndim != 1 or rows.dtype != torch.int64:
                raise TypeError(f"{name} must be a tensor of row numbers, got {found(rows)}")
        if not (isinstance(checkpoint_seconds, float) and checkpoint_seconds == math.inf):
            check_number("checkpoint_seconds", checkpoint_seconds, least=0.0)
        self.checkpoint_seconds = checkpoint_seconds
        self.module = module
        self.loss = loss
        self.training_rows = training_rows
        self.validation_rows = validation_rows
        self.options = options
        self.identity = identity
        self.folder = None if folder is None else check_path("folder", folder)
        self.log_epochs = check_count("log_epochs", log_epochs)
        self.history: list[Row] = []
        self.best = Best(-1, math.inf, _copy(module))
        self._optimizer = _make_optimizer(module, options)
        self._random_state = torch.Generator().manual_seed(options.seed).get_state()
        self.last_weights = _copy(module)
        self._saved, self._saved_epochs = time.monotonic(), 0
        if self.folder is not None and (self.folder / CHECKPOINT).exists():
            state = read_checkpoint(self.folder / CHECKPOINT, identity)
            try:
                self._resume(state)
            except Exception as error:  # a whole file of torch, with something else in it
                raise ValueError(
                    f"{self.folder / CHECKPOINT} is damaged: {error!r}. Remove it to start the run "
                    "anew"
                ) from error

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return max(len(self.history) - 1, 0)

    def run(
        self, epochs: int, progress_bar: bool | None = None, enough: Enough | None = None
    ) -> list[Row]:
        """Train until `epochs` epochs are done in all, and leave the best weights in the module.

        Args:
            epochs: how many, at most.
            progress_bar: whether to show one; None: in a terminal or a notebook, after two seconds.
            enough: asked after each epoch, with all rows so far, whether to stop there.

        Returns:
            One row an epoch, the first before any training.

        Raises:
            ValueError: `epochs` is no count, or `progress_bar` no truth value.
            FloatingPointError: the loss is not finite.
            InUseError: another process trains in the folder.
            OSError: the folder cannot be written to; the disk is full, for instance. With room
                there, training goes on from the last checkpoint.
        """
        check_count("epochs", epochs, 0)
        with alone_in(self.folder), self._log() as log:
            self._run(epochs, progress_bar, enough, log)
        self.module.load_state_dict(self.best.weights)
        self.module.eval()
        return self.history

    def _run(
        self, epochs: int, progress_bar: bool | None, enough: Enough | None, log: Metrics | None
    ) -> None:
        self.module.load_state_dict(self.last_weights)
        self._saved = time.monotonic()
        bar = progress("training", epochs, progress_bar, "epoch")
        with _random_state(self._random_state), bar as update:
            while len(self.history) <= epochs and not (enough and enough(self.history)):
                row = self._train_epoch() if self.history else {}
                self.module.eval()
                with torch.no_grad():
                    row |= self._epoch(self.validation_rows, "validation")
                self._finish_epoch(row, log)
                if time.monotonic() - self._saved >= self.checkpoint_seconds:
                    self._save()
                update(self.epoch, f"validation loss {row['validation/loss']:.2e}")
        if self._saved_epochs < len(self.history):
            self._save()

    def _train_epoch(self) -> Row:
        self.loss.begin_epoch(self.epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = self.options.rate(self.epoch)
        self.module.train()
        order = torch.randperm(len(self.training_rows))
        return self._epoch(self.training_rows[order], "train")

    def _epoch(self, rows: Tensor, name: str) -> Row:
        """Means over all that counts, and, where gradients are enabled, one step a batch."""
        values = []
        for batch in torch.split(rows, self.options.batch_size):
            value = self.loss(batch)
            objective = value.objective()
            if objective is None:
                values.append(value)
                continue
            if not math.isfinite(objective.item()):
                raise FloatingPointError(
                    f"the {name} loss is {objective.item()} in epoch {len(self.history)}: lower "
                    "the learning_rate, or check the demonstrations"
                )
            if torch.is_grad_enabled():
                self._optimizer.zero_grad()
                objective.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
            values.append(value.detach())
        whole = reduce(operator.add, values)
        means = {key: errors.mean() for key, errors in whole.metrics.items()}
        return {f"{name}/{key}": mean for key, mean in {"loss": whole.mean(), **means}.items()}

    def _finish_epoch(self, row: Row, log: Metrics | None) -> None:
        epoch = len(self.history)
        row |= {
            f"parameters/{name}": value.item()
            for name, value in current_values(self.module).items()
            if value.ndim == 0 and value.requires_grad
        }
        if row["validation/loss"] < self.best.loss:
            self.best = Best(epoch, row["validation/loss"], _copy(self.module))
        row = {"epoch": float(epoch), **row, "validation/best_loss": self.best.loss}
        self.history.append(row)
        self._random_state = torch.get_rng_state()
        self.last_weights = _copy(self.module)
        if log is not None and epoch % self.log_epochs == 0:
            log.record(row)

    def _save(self) -> None:
        if self.folder is not None:
            write_checkpoint(self.folder / CHECKPOINT, self.identity, self._state())
        self._saved, self._saved_epochs = time.monotonic(), len(self.history)

    def _state(self) -> dict[str, Any]:
        return {
            "weights": self.last_weights,
            "optimizer": self._optimizer.state_dict(),
            "loss": self.loss.state_dict(),
            "random_state": self._random_state,
            "best": vars(self.best),
            "history": self.history,
        }

    def _resume(self, state: dict[str, Any]) -> None:
        self.last_weights = state["weights"]
        self.module.load_state_dict(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.loss.load_state_dict(state["loss"])
        self._random_state = state["random_state"]
        self.best = Best(**state["best"])
        self.history = state["history"]
        self._saved_epochs = len(self.history)

    @contextmanager
    def _log(self) -> Iterator[Metrics | None]:
        """The log, with the rows of a resumed run written again."""
        if self.folder is None:
            yield None
            return
        log = Metrics(self.folder, self.history[:: self.log_epochs], by="epoch")
        try:
            yield log
        except BaseException:
            log.abandon()
            raise
        log.close()


def _make_optimizer(module: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("there is nothing to train: no parameter requires a gradient")
    if options.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=options.rate(0))
    return torch.optim.RMSprop(parameters, lr=options.rate(0), alpha=RMSPROP_ALPHA)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@contextmanager
def _random_state(state: Tensor) -> Iterator[None]:
    """Draw from this state, and give the caller's back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(state)
        yield
