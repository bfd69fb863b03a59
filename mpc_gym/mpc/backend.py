"""What the controller asks of a solver, and the PyTorch reference behind that interface."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mpc_gym.compiled.parameters import per_stage_names
from mpc_gym.functional import LOCK
from mpc_gym.mpc.problem import Problem, RowFunction
from mpc_gym.mpc.reference import ddp, sensitivity
from mpc_gym.mpc.reference.sensitivity import Gradients
from mpc_gym.mpc.solution import Solution


@dataclass(frozen=True)
class Settings:
    """Options of the solver; see `MPC`."""

    exact: bool
    tolerance: float
    max_iterations: int


class BackendProblem(Protocol):
    """A batch of control problems, with the values that the model had when it was made."""

    def rows(self, index: Int[Tensor, " rows"]) -> "BackendProblem":
        """The same problem for some instances of the batch."""

    def lifted(self) -> "BackendProblem":
        """The same problem without the bounds of the first stage."""

    def reference(self) -> "ReferenceProblem":
        """The same problem, with the same values, for the PyTorch reference."""

    def first_stages(self, count: int) -> "BackendProblem":
        """The same problem with a shorter horizon."""

    def costs(
        self,
        x_init: Float[Tensor, "batch n_state"],
        U: Float[Tensor, "batch time n_ctrl"],
    ) -> Float[Tensor, " batch"]:
        """What the controls cost."""

    def solve(
        self,
        x_init: Float[Tensor, "batch n_state"],
        guesses: Float[Tensor, "starts*batch time n_ctrl"],
    ) -> Solution:
        """Solve from one or more guesses, all instances of a guess together."""

    def gradients(
        self,
        X: Float[Tensor, "batch time n_state"],
        U: Float[Tensor, "batch time n_ctrl"],
        g_X: Float[Tensor, "batch time n_state"],
        g_U: Float[Tensor, "batch time n_ctrl"],
        g_cost: Float[Tensor, " batch"],
    ) -> Gradients:
        """Derivatives of a loss whose gradient by the solution (X, U) and its cost is given."""

    def first_step(
        self, X: Float[Tensor, "batch time n_state"], U: Float[Tensor, "batch time n_ctrl"]
    ) -> Float[Tensor, "batch n_ctrl"]:
        """The Newton step of the first controls, from a solution but for their bounds."""


@dataclass(frozen=True)
class ReferenceProblem:
    """The PyTorch reference solver (`ddp.py`) and derivative (`sensitivity.py`)."""

    problem: Problem
    settings: Settings

    @classmethod
    def of(
        cls,
        modules: tuple[nn.Module, nn.Module],
        bounds: tuple[Float[Tensor, "time n_ctrl"], Float[Tensor, "time n_ctrl"]],
        context: Float[Tensor, "batch time n_context"] | None,
        settings: Settings,
    ) -> "ReferenceProblem":
        """The problem of dynamics and cost, within bounds; live, that is, not detached."""
        f, l = (RowFunction.of(module) for module in modules)
        return cls(Problem(f, l, *bounds, context), settings)

    def rows(self, index: Int[Tensor, " rows"]) -> "ReferenceProblem":
        """The same problem for some instances of the batch."""
        return replace(self, problem=self.problem.rows(index))

    def detached(self) -> "ReferenceProblem":
        """The same problem, cut off from autograd."""
        return replace(self, problem=self.problem.detached())

    def lifted(self) -> "ReferenceProblem":
        """See `BackendProblem`."""
        return replace(self, problem=self.problem.lifted())

    def reference(self) -> "ReferenceProblem":
        """See `BackendProblem`."""
        return self

    def as_function_of(self, inputs: tuple[Tensor | None, ...]) -> "ReferenceProblem":
        """The same problem, as a differentiable function of what it depends on.

        Args:
            inputs: low, high, context (or None), the parameters of the dynamics and those of the
                cost, as the controller's caller has them (see `ImplicitSolution.attach`).
        """
        low, high, context, *parameters = inputs
        values = [
            value.double() if value.is_floating_point() else value
            for value in parameters
            if value is not None
        ]
        f, l = self.problem.f, self.problem.l
        count = len(f.parameters())
        if context is not None and context.ndim == 2:
            context = context.unsqueeze(1).expand(-1, self.problem.horizon, -1)
        assert low is not None
        assert high is not None
        problem = Problem(
            f=f.with_parameters(values[:count]),
            l=l.with_parameters(values[count:]),
            low=low.double().expand_as(self.problem.low),
            high=high.double().expand_as(self.problem.high),
            context=None if context is None else context.double(),
        )
        return replace(self, problem=problem)

    def first_stages(self, count: int) -> "ReferenceProblem":
        """See `BackendProblem`."""
        whole = self.problem
        staged = per_stage_names(whole.l.module, whole.l.values)
        values = {k: v[:count] if k in staged else v for k, v in whole.l.values.items()}
        context = whole.context_at(slice(0, count))
        part = replace(
            whole,
            l=replace(whole.l, values=values),
            low=whole.low[:count],
            high=whole.high[:count],
            context=context,
        )
        return replace(self, problem=part)

    def costs(self, x_init: Tensor, U: Tensor) -> Tensor:
        """See `BackendProblem`."""
        return self.problem.total_cost(self.problem.rollout(x_init, U), U)

    def solve(self, x_init: Tensor, guesses: Tensor) -> Solution:
        """See `BackendProblem`."""
        batch = x_init.shape[0]
        index = torch.arange(batch, device=x_init.device).repeat(len(guesses) // max(batch, 1))
        return self.rows(index).iterate(x_init[index], guesses)

    def iterate(
        self, x_init: Float[Tensor, "batch n_state"], U: Float[Tensor, "batch time n_ctrl"]
    ) -> Solution:
        """Solve from the controls U; autograd can follow."""
        settings = self.settings
        with LOCK:
            return ddp.solve(
                self.problem,
                x_init,
                U,
                exact=settings.exact,
                tolerance=settings.tolerance,
                max_iterations=settings.max_iterations,
            )

    def gradients(
        self, X: Tensor, U: Tensor, g_X: Tensor, g_U: Tensor, g_cost: Tensor
    ) -> Gradients:
        """See `BackendProblem`."""
        with LOCK:
            return sensitivity.gradients(
                self.problem, X, U, g_X, g_U, g_cost, exact=self.settings.exact
            )

    def first_step(self, X: Tensor, U: Tensor) -> Tensor:
        """See `BackendProblem`."""
        with LOCK:
            return sensitivity.first_step(self.problem, X, U, exact=self.settings.exact)
