"""The reference backend: what the controller asks of a solver, in PyTorch."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.compiled.parameters import per_stage_names
from mpc_gym.functional import LOCK
from mpc_gym.mpc.backend import Gradients, Settings
from mpc_gym.mpc.plan import Plan
from mpc_gym.mpc.problem import Problem, RowFunction
from mpc_gym.mpc.reference import ddp, sensitivity


@dataclass(frozen=True)
class ReferenceProblem(Problem):
    """A problem with the PyTorch solver (`ddp.py`) and derivative (`sensitivity.py`)."""

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
        return cls(f, l, *bounds, context, settings)

    def as_function_of(self, inputs: tuple[Tensor | None, ...]) -> "ReferenceProblem":
        """See `BackendProblem`."""
        low, high, context, *parameters = inputs
        values = [
            value.double() if value.is_floating_point() else value
            for value in parameters
            if value is not None
        ]
        count = len(self.f.parameters())
        if context is not None and context.ndim == 2:
            context = context.unsqueeze(1).expand(-1, self.horizon, -1)
        assert low is not None
        assert high is not None
        return replace(
            self,
            f=self.f.with_parameters(values[:count]),
            l=self.l.with_parameters(values[count:]),
            low=low.double().expand_as(self.low),
            high=high.double().expand_as(self.high),
            context=None if context is None else context.double(),
        )

    def patient(self) -> "ReferenceProblem":
        """See `BackendProblem`."""
        return replace(self, settings=self.settings._replace(kinked=False))

    def stages(self, start: int, stop: int) -> "ReferenceProblem":
        """See `BackendProblem`."""
        which = slice(start, stop)
        staged = per_stage_names(self.l.module, self.l.values)
        values = {k: v[which] if k in staged else v for k, v in self.l.values.items()}
        return replace(
            self,
            l=replace(self.l, values=values),
            low=self.low[which],
            high=self.high[which],
            context=self.context_at(which),
        )

    def costs(self, x_init: Tensor, U: Tensor) -> Tensor:
        """See `BackendProblem`."""
        return self.total_cost(self.rollout(x_init, U), U)

    def solve(self, x_init: Tensor, guesses: Tensor) -> Plan:
        """See `BackendProblem`."""
        batch = x_init.shape[0]
        index = torch.arange(batch, device=x_init.device).repeat(len(guesses) // max(batch, 1))
        return self.rows(index).iterate(x_init[index], guesses)

    def iterate(
        self, x_init: Float[Tensor, "batch n_state"], U: Float[Tensor, "batch time n_ctrl"]
    ) -> Plan:
        """Solve from the controls U; autograd can follow."""
        settings = self.settings
        with LOCK:
            return ddp.solve(
                self,
                x_init,
                U,
                exact=settings.exact,
                tolerance=settings.tolerance,
                max_iterations=settings.max_iterations,
                kinked=settings.kinked,
            )

    def gradients(
        self, X: Tensor, U: Tensor, g_X: Tensor, g_U: Tensor, g_cost: Tensor
    ) -> Gradients:
        """See `BackendProblem`."""
        with LOCK:
            return sensitivity.gradients(self, X, U, g_X, g_U, g_cost, exact=self.settings.exact)

    def first_step(self, X: Tensor, U: Tensor) -> Tensor:
        """See `BackendProblem`."""
        with LOCK:
            return sensitivity.first_step(self, X, U, exact=self.settings.exact)
