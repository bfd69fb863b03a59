"""How the learners of Amos et al. (2018), sections 5.3 and 5.4, learn from an expert's plans.

The imitation loss of a learner is the mean squared error of the controls that it plans from the
expert's start states; the model loss that of the next states which its dynamics predict along the
expert's plans:

    mean_t (u_t - u_t_expert)^2,   mean_t (f(x_t_expert, u_t_expert) - x_{t+1}_expert)^2.

Methods, as the paper calls them: `nn` is a network without a model; `sysid` minimises the model
loss and plans with what comes out; `mpc.dx`, `mpc.cost` and `mpc.cost.dx` minimise the imitation
loss through the plan, by physics, cost, or both. All are chosen by the imitation loss of the
validation plans, each planned from nothing, as the learner would act.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym import MPC, Plan
from mpc_gym.experiments.methods import without_convergence_warnings
from mpc_gym.experiments.plots import thinned
from mpc_gym.imitation import (
    FallingRate,
    FallingSmoothing,
    Loss,
    Sum,
    Training,
    TrainingOptions,
    Value,
    WarmStartedLoss,
)
from reproduction.problems import TRAINING, Hessian, LearnedCost, PaperSystem, Plans

SYSID = "sysid"
NETWORK = "nn"
PLANNERS = (SYSID, "mpc.dx", "mpc.cost", "mpc.cost.dx")

BATCH = 32  # as in the authors' program
RATES = {"adam": 1e-4, "rmsprop": 1e-2}
WARM_START_EPOCHS = 50
# Of our learner: steps, learning rate at first and at last, first and last mu of smoothing and the
# part of the epochs in which it falls, and the weight of the model loss.
STEPS, OUR_RATE, FINAL_RATE = 1500, 2e-2, 1e-6
MUS, SMOOTHED, PREDICTION = (1.0, 1e-4), 0.3, 1.0
COST_EPOCHS = 10  # after which the learning of the cost passes between its two parts
POSITIVE = ("mass", "length", "cart_mass", "pole_mass", "pole_length")
LEAST = 0.01  # of masses [kg] and lengths [m]: a step could make them negative

SMALL, SMALL_EPOCHS = 1e-9, 50  # a loss that stays below it for so many epochs ends learning
FLAT = 0.99  # a loss that stays above this part of an earlier one is flat
HUNDREDFOLD = 0.01
ALL_DONE = "all epochs done"
CHECKPOINT_SECONDS = 5.0
LOG_EPOCHS = 5

History = list[dict[str, float]]


def make_planner(system: PaperSystem, method: str, hessian: Hessian, starts: int) -> MPC:
    """A learner that plans, with what it begins with, of which only what it learns has a gradient.

    Args:
        system: what is controlled.
        method: one of `PLANNERS`.
        hessian: "exact" or "gauss-newton", of plan and gradient.
        starts: initial guesses of a plan.

    Raises:
        ValueError: the method is unknown.
    """
    if method not in PLANNERS:
        raise ValueError(f"method must be one of {', '.join(PLANNERS)}, got {method!r}")
    learns_physics, learns_cost = method == SYSID or "dx" in method, "cost" in method
    dynamics = system.dynamics(**(system.learner if learns_physics else system.expert))
    for name, parameter in dynamics.named_parameters():
        parameter.requires_grad_(learns_physics and name in system.learner)
    cost: nn.Module = system.cost().requires_grad_(False)
    if learns_cost:
        cost = LearnedCost(dynamics.n_state + dynamics.n_ctrl)
    return system.controller(dynamics, cost, hessian, starts)


class NetworkLoss(Loss):
    """The imitation loss of a module that maps start states to controls."""

    def __init__(self, network: nn.Module, plans: Plans) -> None:
        self.learner = network
        self.plans = plans

    def __call__(self, rows: Tensor) -> Value:
        """The errors of these plans."""
        error = self.learner(self.plans.states[rows, 0]) - self.plans.controls[rows]
        return Value(((1.0, Sum.of(error.square())),), {})


class ModelLoss(Loss):
    """The model loss of a controller; without gradients (in validation), its imitation loss.

    Args:
        mpc: the learner.
        plans: the expert's.
    """

    def __init__(self, mpc: MPC, plans: Plans) -> None:
        self.learner = self.mpc = mpc
        self.plans = plans

    def __call__(self, rows: Tensor) -> Value:
        """The errors of these plans."""
        self._keep_positive()
        if torch.is_grad_enabled():
            return self.training_value(rows)
        plan = self.mpc(self.plans.states[rows, 0])
        # a plan that could not be computed is none: as many controls as zero
        error = plan.controls.nan_to_num(0.0) - self.plans.controls[rows]
        metrics = {"model_loss": self.model_error(rows), "not_converged": _not_converged(plan)}
        return Value(((1.0, Sum.of(error.square())),), metrics)

    def training_value(self, rows: Tensor) -> Value:
        """What is minimised."""
        error = self.model_error(rows)
        return Value(((1.0, error),), {"model_loss": error.detach()})

    def model_error(self, rows: Tensor) -> Sum:
        """The squared error of predicted states, along the expert's plans."""
        states, controls = self.plans.states[rows], self.plans.controls[rows]
        error = self.mpc.dynamics(states[:, :-1], controls[:, :-1]) - states[:, 1:]
        return Sum.of(error.square())

    def _keep_positive(self) -> None:
        with torch.no_grad():
            for name, parameter in self.mpc.dynamics.named_parameters():
                if name in POSITIVE and parameter.requires_grad:
                    parameter.clamp_(min=LEAST)


class ImitationLoss(ModelLoss, WarmStartedLoss):
    """The imitation loss of a controller, through its plans, as the paper's learner follows it.

    The two parts of a cost are learned in turns, as in the authors' program.

    Args:
        mpc: the learner.
        plans: the expert's.
        guess: controls that training plans begin at, with one start; None: those of zero, with the
            learner's own starts.
    """

    def __init__(
        self,
        mpc: MPC,
        plans: Plans,
        guess: Float[Tensor, "plans horizon n_ctrl"] | None = None,
    ) -> None:
        super().__init__(mpc, plans)
        nothing = torch.zeros_like(plans.controls)
        WarmStartedLoss.__init__(self, nothing if guess is None else guess, WARM_START_EPOCHS)
        self.planner = mpc if guess is None else _from_one_start(mpc)

    def training_value(self, rows: Tensor) -> Value:
        """What is minimised."""
        plan = self.planner(self.plans.states[rows, 0], self.warm_starts[rows])
        self.remember(rows, plan)
        error = (plan.controls - self.plans.controls[rows])[plan.converged]
        return Value(((1.0, Sum.of(error.square())),), {"not_converged": _not_converged(plan)})

    def begin_epoch(self, epoch: int) -> None:
        """Forget the warm starts, and pass the turn, when it is time."""
        WarmStartedLoss.begin_epoch(self, epoch)
        if isinstance(self.mpc.cost, LearnedCost):
            weights_turn = (epoch // COST_EPOCHS) % 2 == 1
            self.mpc.cost.logits.requires_grad_(weights_turn)
            self.mpc.cost.p.requires_grad_(not weights_turn)


class OurLoss(ImitationLoss):
    """The imitation loss as our learner follows it, the same for all systems, methods and seeds.

    Training plans begin at the demonstrated controls, and are smoothed in the first epochs. The
    model loss is added, in units of the observed change of the states as the imitation loss is in
    units of the limit. All parameters are learned at once.

    Args:
        mpc: the learner.
        plans: the expert's.
        epochs: of the whole training.
        prediction: the weight of the model loss.
    """

    def __init__(self, mpc: MPC, plans: Plans, epochs: int, prediction: float = PREDICTION) -> None:
        super().__init__(mpc, plans, plans.controls)
        self.smoothing, self.epoch = FallingSmoothing(*MUS, max(round(SMOOTHED * epochs), 1)), 0
        change = plans.states[:TRAINING].diff(dim=1).square().mean().item()
        limit = float(torch.as_tensor(mpc.control_high).max())
        self.weight = prediction * limit**2 / change

    def training_value(self, rows: Tensor) -> Value:
        """What is minimised."""
        with self.smoothing.of(self.planner, self.epoch):
            value = super().training_value(rows)
        return Value((*value.terms, (self.weight, self.model_error(rows))), value.metrics)

    def begin_epoch(self, epoch: int) -> None:
        """Forget the warm starts when it is time."""
        WarmStartedLoss.begin_epoch(self, epoch)
        self.epoch = epoch


def epochs_of(steps: int, demonstrations: int) -> int:
    """In how many epochs a learner from so many plans takes so many steps."""
    return max(steps // -(-demonstrations // BATCH), 1)


def our_schedule(demonstrations: int, steps: int = STEPS) -> tuple[int, FallingRate]:
    """The epochs in which our learner takes its steps, and its learning rate in them."""
    epochs = epochs_of(steps, demonstrations)
    return epochs, FallingRate(OUR_RATE, FINAL_RATE, epochs - epochs // 2, epochs // 2)


def learn(
    folder: Path,
    loss: NetworkLoss | ModelLoss,
    training_rows: Tensor,
    validation_rows: Tensor,
    epochs: int,
    enough: Callable[[History], str | None],
    identity: dict[str, Any],
    rate: FallingRate | None = None,
) -> dict[str, Any]:
    """Train a learner, and measure it with the weights of the best validation epoch.

    Args:
        folder: for log and checkpoint; goes on from a checkpoint there.
        loss: of the learner, which is trained in place.
        training_rows: of the plans to learn from.
        validation_rows: of the plans of the curves, by which the best epoch is chosen.
        epochs: at most.
        enough: called after each epoch with the rows so far; says why to stop, or None to go on.
        identity: JSON data that tells this run from others, its "seed" among it.
        rate: the learning rate; None: the paper's, which is constant.

    Returns:
        "test_loss" with the best weights and "last_test_loss" with the last, and, of a controller,
        "test_model_loss" and "last_test_model_loss"; "validation_loss", "best_epoch", "epochs",
        "ended" (why), "hundredfold" (the first epoch with a hundredth of the first validation loss,
        or None), "unconverged" (share of the training plans), "parameters" (the best, of a
        controller), and curves over "epoch" of "imitation_loss", its best so far, "best_loss", and
        "model_loss".
    """
    optimizer = "adam" if isinstance(loss, NetworkLoss) else "rmsprop"
    training = Training(
        loss.learner,
        loss,
        training_rows,
        validation_rows,
        TrainingOptions(optimizer, rate or RATES[optimizer], BATCH, identity["seed"]),
        identity,
        folder,
        CHECKPOINT_SECONDS,
        LOG_EPOCHS,
    )
    with without_convergence_warnings():  # the results count such plans
        history = training.run(epochs, False, enough=lambda rows: enough(rows) is not None)
        last = _test(loss, training.last_weights)
        best = _test(loss, training.best.weights)
    return {
        **{f"last_{name}": value for name, value in last.items()},
        **best,
        "ended": enough(history) or ALL_DONE,
        **_course(training),
        **(_course_of_controller(training) if isinstance(loss, ModelLoss) else {}),
    }


def _course(training: Training) -> dict[str, Any]:
    """How learning went, of any learner, as `learn` returns it."""
    history = training.history
    first = history[0]["validation/loss"]
    below = (int(r["epoch"]) for r in history if r["validation/loss"] < HUNDREDFOLD * first)
    kept = [history[i] for i in thinned(len(history))]
    return {
        "validation_loss": training.best.loss,
        "best_epoch": training.best.epoch,
        "epochs": training.epoch,
        "hundredfold": next(below, None),
        "epoch": [row["epoch"] for row in kept],
        "imitation_loss": [row["validation/loss"] for row in kept],
        "best_loss": [row["validation/best_loss"] for row in kept],
    }


def _course_of_controller(training: Training) -> dict[str, Any]:
    """What `learn` returns of a controller beside."""
    history = training.history
    shares = [row["train/not_converged"] for row in history if "train/not_converged" in row]
    return {
        "model_loss": [history[i]["validation/model_loss"] for i in thinned(len(history))],
        "unconverged": sum(shares) / len(shares) if shares else 0.0,
        "parameters": {n: p.tolist() for n, p in training.best.weights.items() if "." in n},
    }


def _test(loss: NetworkLoss | ModelLoss, weights: dict[str, Tensor]) -> dict[str, float]:
    """The losses of the test plans, with these weights."""
    loss.learner.load_state_dict(weights)
    with torch.no_grad():
        value = loss(loss.plans.test)
    losses = {"test_loss": value.mean()}
    if "model_loss" in value.metrics:
        losses["test_model_loss"] = value.metrics["model_loss"].mean()
    return losses


def never(_: History) -> None:
    """No reason to end before all epochs are done."""


def small_or_flat(history: History, patience: int, fall: float) -> str | None:
    """Why learning may end: the best validation loss has long been small, or flat.

    Args:
        history: a row an epoch.
        patience: flat is a loss that has not fallen by 1 % in so many epochs.
        fall: a flat loss is no reason above this part of the first one; a learner may have a
            plateau to cross.
    """
    best = [row["validation/best_loss"] for row in history[-1 - max(patience, SMALL_EPOCHS) :]]
    if len(best) > SMALL_EPOCHS and best[-1 - SMALL_EPOCHS] < SMALL:
        return f"below {SMALL:.0e} for {SMALL_EPOCHS} epochs"
    down = best[-1] <= fall * history[0]["validation/loss"] if best else False
    if down and len(best) > patience and best[-1] > FLAT * best[-1 - patience]:
        return f"flat for {patience} epochs"
    return None


def _from_one_start(mpc: MPC) -> MPC:
    """The same controller on the same modules, with one initial guess."""
    limits = (mpc.control_low, mpc.control_high)
    return MPC(mpc.dynamics, mpc.cost, mpc.horizon, *limits, hessian=mpc.hessian)


def _not_converged(plan: Plan) -> Sum:
    return Sum((~plan.converged).sum(), len(plan.converged))
