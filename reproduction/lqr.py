"""Imitation of a linear-quadratic regulator (Amos et al., 2018, section 5.2).

Expert and learner plan T = 5 steps by

    minimise   sum_t 1/2 tau_t' tau_t + p' tau_t,   tau_t = (x_t, u_t),   x_t, u_t in R^3
    subject to x_{t+1} = A x_t + B u_t

from the same start states x_0 ~ N(0, I). Both know p; the expert knows A and B, and the learner
draws its own and follows the gradient, through its plan, of the imitation loss

    mean (x - x_expert)^2 + mean (u - u_expert)^2.

The model loss, mean (A - A_expert)^2 + mean (B - B_expert)^2, is only watched. All numbers are
drawn in the order of the authors' program (github.com/locuslab/differentiable-mpc), so that expert,
initial models and start states are theirs, and so is RMSprop at a rate of 1e-2 for 5,000 steps.
Two things are added, alike for all seeds. As a constant rate leaves a floor of noise, it falls in
1,000 further steps. And as the loss has more than one valley, a second learner gives an initial
model up which does not imitate a hundred times better after 300 steps than at first, and draws
another.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mpc_gym import MPC, QuadraticCost
from mpc_gym.experiments.runs import Run
from mpc_gym.imitation import FallingRate, Metrics, read_checkpoint, write_checkpoint
from mpc_gym.models import LinearDynamics
from reproduction.lqr_section import section
from reproduction.report import Result

__all__ = ["run", "runs", "section"]

N_STATE = N_CTRL = 3
HORIZON = 5
EXPERT_SEED = 42
SPREAD = 0.2  # of A about the identity
BATCH = 128
LEARNING_RATE = 1e-2
FINAL_RATE = 1e-6  # at the end of the steps in which the rate falls
TRIAL_STEPS, PROMISING = 300, 0.01  # an initial model has so many steps for such a fall of the loss

SEEDS, QUICK_SEEDS = 8, 2
# At the constant rate, by the number of initial models that may be tried; some four are needed.
STEPS, QUICK_STEPS = {1: 5000, 50: 1000}, {1: 300, 2: 100}
DECAY_STEPS, QUICK_DECAY_STEPS = 1000, 100
STRIDE = 50  # steps from one row of the log to the next
CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 3.0

Model = tuple[Float[Tensor, "n n"], Float[Tensor, "n m"]]


def runs(quick: bool, seed: int = 0) -> list[Run]:
    """The paper's learner, and the one that gives initial models up, for every seed.

    Quick: two seeds and few steps.
    """
    fixed = {
        "trial_steps": TRIAL_STEPS,
        "decay_steps": QUICK_DECAY_STEPS if quick else DECAY_STEPS,
    }
    return [
        Run(
            f"lqr/guesses-{guesses}/seed-{each}",
            f"{__name__}:run",
            {"seed": each, "guesses": guesses, "steps": steps, **fixed},
        )
        for guesses, steps in (QUICK_STEPS if quick else STEPS).items()
        for each in range(seed, seed + (QUICK_SEEDS if quick else SEEDS))
    ]


def run(
    folder: Path, seed: int, guesses: int, trial_steps: int, steps: int, decay_steps: int
) -> Result:
    """Let one learner imitate the expert.

    Args:
        folder: for log and checkpoint; the run goes on from a checkpoint there.
        seed: of initial models and start states.
        guesses: initial models, at most; 1: the only one is not put to trial.
        trial_steps: that each initial model has to show promise.
        steps: at a constant rate, after the trials.
        decay_steps: after them, in which the rate falls.

    Returns:
        The settings, and curves over "step" of "imitation_loss" (its expectation over the start
        states) and "model_loss"; "A", "B" at the end; "tried", the number of initial models.
    """
    settings = {name: value for name, value in locals().items() if name != "folder"}
    expert = LQRExpert(make_expert())
    generator = Generator().manual_seed(seed)
    learner, tried = LQRLearner(expert, draw_model(generator)), 1
    rows: list[dict[str, float]] = []
    path = folder / CHECKPOINT
    if path.exists():
        state = read_checkpoint(path, settings)
        learner.load_state_dict(state["learner"])
        generator.set_state(state["generator"])
        rows, tried = state["rows"], state["tried"]

    def save(learner: LQRLearner, tried: int) -> None:
        content = {"learner": learner.state_dict(), "generator": generator.get_state()}
        write_checkpoint(path, settings, {**content, "rows": rows, "tried": tried})

    if not rows and guesses > 1:
        trial = (generator, guesses, trial_steps)
        learner, tried = choose_learner(*trial, learner, tried, save)
    metrics = Metrics(folder, rows, by="step")
    rows = metrics.rows
    rate = FallingRate(LEARNING_RATE, FINAL_RATE, steps, decay_steps)
    saved = time.monotonic()
    while not metrics.rows or metrics.rows[-1]["step"] < steps + decay_steps:
        done = len(metrics.rows) * STRIDE
        batch_losses = [
            learner.step(draw_starts(generator), rate.at(step))
            for step in range(max(done - STRIDE, 0), done)
        ]
        row = {"step": float(done), **learner.losses()}
        metrics.record({**row, "batch_loss": batch_losses[-1]} if batch_losses else row)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            save(learner, tried)
            saved = time.monotonic()
    metrics.close()
    curves = {name: [row[name] for row in metrics.rows] for name in ("step", *learner.losses())}
    model = {name: value.tolist() for name, value in learner.mpc.dynamics.named_parameters()}
    return {**settings, "tried": tried, **curves, **model}


class LQRExpert:
    """What the expert plans, and what it knows.

    Its controls have no limits, so its plan is affine in the start state, and four plans are all.
    """

    def __init__(self, mpc: MPC) -> None:
        self.mpc = mpc
        axes_and_origin = torch.eye(N_STATE + 1, N_STATE, dtype=torch.float64)
        with torch.no_grad():
            plans = _trajectory(mpc, axes_and_origin)
        self._offset = plans[-1]  # (T, n + m)
        self._gains = plans[:-1] - plans[-1]  # (n, T, n + m)

    def __call__(self, x_init: Float[Tensor, "batch n"]) -> Float[Tensor, "batch T n+m"]:
        """The states and controls from these start states."""
        return self._offset + torch.einsum("bi,itk->btk", x_init, self._gains)


class LQRLearner:
    """A controller that comes to plan as an expert does.

    Args:
        expert: whom to imitate, and whose cost it knows.
        model: the A and B that it begins with.
    """

    def __init__(self, expert: LQRExpert, model: Model) -> None:
        self.expert = expert
        self.mpc = make_controller(model, expert.mpc.cost)
        self._optimizer = torch.optim.RMSprop(self.mpc.dynamics.parameters(), lr=LEARNING_RATE)
        # mean zero and covariance one: what is quadratic in x_0, as the loss is, has the same mean
        # over them as over N(0, I)
        axes = math.sqrt(N_STATE) * torch.eye(N_STATE, dtype=torch.float64)
        self._representative = torch.cat([axes, -axes])

    def imitation_loss(self, x_init: Float[Tensor, "batch n"]) -> Float[Tensor, ""]:
        """How far its plans from these start states are from the expert's."""
        error = (_trajectory(self.mpc, x_init) - self.expert(x_init)).square()
        return error[..., :N_STATE].mean() + error[..., N_STATE:].mean()

    def step(self, x_init: Float[Tensor, "batch n"], rate: float) -> float:
        """Learn from these start states; returns the imitation loss there, before the step."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self.imitation_loss(x_init)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.item()

    @torch.no_grad()
    def losses(self) -> dict[str, float]:
        """The expected imitation loss, and the model loss."""
        imitation = self.imitation_loss(self._representative).item()
        models = (self.mpc.dynamics.parameters(), self.expert.mpc.dynamics.parameters())
        errors = [(mine - true).square().mean() for mine, true in zip(*models, strict=True)]
        return {"imitation_loss": imitation, "model_loss": torch.stack(errors).sum().item()}

    def state_dict(self) -> dict[str, Any]:
        """What it has learned so far, and the optimiser's state."""
        return {
            "dynamics": self.mpc.dynamics.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.mpc.dynamics.load_state_dict(state["dynamics"])
        self._optimizer.load_state_dict(state["optimizer"])


def make_expert() -> MPC:
    """The expert, with nothing to learn."""
    generator = Generator().manual_seed(EXPERT_SEED)
    # the authors' program draws p twice, and takes the second
    _, p = torch.randn(2, N_STATE + N_CTRL, generator=generator)
    identity = torch.eye(N_STATE + N_CTRL, dtype=torch.float64)
    cost = QuadraticCost(identity, p.double())
    return make_controller(draw_model(generator), cost).requires_grad_(False)


def make_controller(model: Model, cost: torch.nn.Module) -> MPC:
    """A controller with linear dynamics, and without limits of the controls."""
    return MPC(LinearDynamics(*model), cost, HORIZON, None, None, backend="native")


def draw_model(generator: Generator) -> Model:
    """A and B; in single precision, as the authors drew them."""
    A = torch.eye(N_STATE) + SPREAD * torch.randn(N_STATE, N_STATE, generator=generator)
    B = torch.randn(N_STATE, N_CTRL, generator=generator)
    return A.double(), B.double()


def draw_starts(generator: Generator) -> Float[Tensor, "batch n"]:
    """The start states of one step."""
    return torch.randn(BATCH, N_STATE, generator=generator).double()


def choose_learner(
    generator: Generator,
    guesses: int,
    trial_steps: int,
    learner: LQRLearner,
    tried: int,
    save: Callable[[LQRLearner, int], None],
) -> tuple[LQRLearner, int]:
    """A learner with the first initial model that stands its trial, and how many were tried.

    Where none does it has the last one.

    Args:
        generator: of initial models and start states.
        guesses: initial models, at most.
        trial_steps: that each has to show promise.
        learner, tried: the one whose trial comes next, and its number.
        save: called with these before each trial.
    """
    while True:
        save(learner, tried)
        untrained = learner.losses()["imitation_loss"]
        for _ in range(trial_steps):
            learner.step(draw_starts(generator), LEARNING_RATE)
        if learner.losses()["imitation_loss"] < PROMISING * untrained or tried == guesses:
            return learner, tried
        learner, tried = LQRLearner(learner.expert, draw_model(generator)), tried + 1


def _trajectory(mpc: MPC, x_init: Float[Tensor, "batch n"]) -> Float[Tensor, "batch T n+m"]:
    plan = mpc(x_init)
    return torch.cat([plan.states, plan.controls], -1)
