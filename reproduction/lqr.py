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
As a constant rate leaves a floor of noise, it falls in 1,000 further steps, for all seeds alike.

The loss has more than one valley. Our learner therefore takes a path that begins at the same model
wherever the learner begins: it adds to the loss

    w (|A - I|^2 + |B|^2),

the distance from a system in which nothing changes, and w falls from 1 to 1e-4 in the first 2,000
steps, and is 0 from then on. It has 3,000 steps at the constant rate, and the same 1,000 after it.
"""

import math
import time
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
from reproduction.report import OURS, PAPER, Result

__all__ = ["run", "runs", "section"]

N_STATE = N_CTRL = 3
HORIZON = 5
EXPERT_SEED = 42
SPREAD = 0.2  # of A about the identity
BATCH = 128
LEARNING_RATE = 1e-2
FINAL_RATE = 1e-6  # at the end of the steps in which the rate falls
PATH = (1.0, 1e-4)  # the first and last weight of the distance from "nothing changes"

SEEDS, QUICK_SEEDS = 8, 2
# By learner: steps at the constant rate, and those of them in which the weight falls.
STEPS = {PAPER: (5000, 0), OURS: (3000, 2000)}
QUICK_STEPS = {PAPER: (300, 0), OURS: (300, 200)}
DECAY_STEPS, QUICK_DECAY_STEPS = 1000, 100
STRIDE = 50  # steps from one row of the log to the next
CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 3.0

Model = tuple[Float[Tensor, "n n"], Float[Tensor, "n m"]]


def runs(quick: bool, seed: int = 0) -> list[Run]:
    """Both learners, for every seed.

    Quick: two seeds and few steps.
    """
    decay_steps = QUICK_DECAY_STEPS if quick else DECAY_STEPS
    return [
        Run(
            f"lqr/{learner}/seed-{each}",
            f"{__name__}:run",
            {"seed": each, "steps": steps, "path_steps": path, "decay_steps": decay_steps},
        )
        for learner, (steps, path) in (QUICK_STEPS if quick else STEPS).items()
        for each in range(seed, seed + (QUICK_SEEDS if quick else SEEDS))
    ]


def run(folder: Path, seed: int, steps: int, path_steps: int, decay_steps: int) -> Result:
    """Let one learner imitate the expert.

    Args:
        folder: for log and checkpoint; the run goes on from a checkpoint there.
        seed: of initial model and start states.
        steps: at a constant rate.
        path_steps: of them, in which the weight of the distance from "nothing changes" falls; 0:
            there is none, as in the paper.
        decay_steps: after them, in which the rate falls.

    Returns:
        The settings, the "learner", and curves over "step" of "imitation_loss" (its expectation
        over the start states) and "model_loss"; "A", "B" at the end.
    """
    settings = {name: value for name, value in locals().items() if name != "folder"}
    expert = LQRExpert(make_expert())
    generator = Generator().manual_seed(seed)
    learner = LQRLearner(expert, draw_model(generator))
    rows: list[dict[str, float]] = []
    path = folder / CHECKPOINT
    if path.exists():
        state = read_checkpoint(path, settings)
        learner.load_state_dict(state["learner"])
        generator.set_state(state["generator"])
        rows = state["rows"]
    metrics = Metrics(folder, rows, by="step")
    rows = metrics.rows
    rate = FallingRate(LEARNING_RATE, FINAL_RATE, steps, decay_steps)
    saved = time.monotonic()
    while not rows or rows[-1]["step"] < steps + decay_steps:
        done = len(rows) * STRIDE
        batch_losses = [
            learner.step(draw_starts(generator), rate.at(step), path_weight(step, path_steps))
            for step in range(max(done - STRIDE, 0), done)
        ]
        row = {"step": float(done), **learner.losses()}
        metrics.record({**row, "batch_loss": batch_losses[-1]} if batch_losses else row)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            content = {"learner": learner.state_dict(), "generator": generator.get_state()}
            write_checkpoint(path, settings, {**content, "rows": rows})
            saved = time.monotonic()
    metrics.close()
    curves = {name: [row[name] for row in rows] for name in ("step", *learner.losses())}
    model = {name: value.tolist() for name, value in learner.mpc.dynamics.named_parameters()}
    return {**settings, "learner": OURS if path_steps else PAPER, **curves, **model}


def path_weight(step: int, path_steps: int) -> float:
    """The weight of the distance from "nothing changes" at a step, counted from 0."""
    first, last = PATH
    return first * (last / first) ** (step / path_steps) if step < path_steps else 0.0


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

    def step(self, x_init: Float[Tensor, "batch n"], rate: float, weight: float = 0.0) -> float:
        """Learn from these start states, near "nothing changes" by a weight.

        Returns:
            The imitation loss there, before the step.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self.imitation_loss(x_init)
        A, B = self.mpc.dynamics.parameters()
        distance = (A - torch.eye(N_STATE, dtype=A.dtype)).square().sum() + B.square().sum()
        self._optimizer.zero_grad()
        (loss + weight * distance).backward()  # type: ignore[no-untyped-call]
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


def _trajectory(mpc: MPC, x_init: Float[Tensor, "batch n"]) -> Float[Tensor, "batch T n+m"]:
    plan = mpc(x_init)
    return torch.cat([plan.states, plan.controls], -1)
