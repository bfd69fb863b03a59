"""`mpc` 0.0.6, the library of Amos et al. (2018), with its own systems and its own settings.

The gradient it gives is approximate: it leaves out the curvature of the dynamics.
"""

from typing import Any

import mpc.util
import numpy as np
import torch
from mpc.env_dx.cartpole import CartpoleDx
from mpc.env_dx.pendulum import PendulumDx
from mpc.mpc import MPC, GradMethods, QuadCost

from benchmarks.problems import Array, PaperProblem
from benchmarks.rivals.base import Prepared
from reproduction.problems import HORIZON

mpc.util.bdiag = torch.diag_embed  # its own indexes with bytes, which torch takes no more

LQR_ITERATIONS = 500  # as the paper's experiments; it stops earlier once the cost stays


class PaperLibrary:
    """The library as its own imitation experiments call it."""

    name = "mpc 0.0.6"

    def prepare(self, problem: PaperProblem, x_init: Array) -> Prepared:
        """Parameters are copied for each state, so that each has its own gradient."""
        forward, forward_backward, _ = _functions(problem, x_init)
        return Prepared(forward, forward_backward, _controls)

    def gradients(self, problem: PaperProblem, x_init: Array) -> tuple[Array, Array]:
        """All states at once."""
        _, forward_backward, leaves = _functions(problem, x_init)
        found = forward_backward()
        gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
        return _controls(found), torch.cat(gradients, 1).numpy()


def _functions(problem: PaperProblem, x_init: Array) -> tuple[Any, Any, list[torch.Tensor]]:
    batch = len(x_init)
    physical = np.tile(list(problem.parameters.values()), (batch, 1))
    costs = (np.tile(problem.q, (batch, 1)), np.tile(problem.p, (batch, 1)))
    leaves = [torch.tensor(v, requires_grad=True) for v in (x_init, physical, *costs)]
    start, parameters, q, p = leaves
    system = {"pendulum": PendulumDx, "cartpole": CartpoleDx}[problem.name]

    def forward() -> Any:
        dx = system(parameters.T)
        cost = QuadCost(torch.diag_embed(q).expand(HORIZON, -1, -1, -1), p.expand(HORIZON, -1, -1))
        solver = MPC(
            dx.n_state,
            dx.n_ctrl,
            HORIZON,
            u_lower=dx.lower,
            u_upper=dx.upper,
            lqr_iter=LQR_ITERATIONS,
            verbose=-1,
            grad_method=GradMethods.AUTO_DIFF,
            exit_unconverged=False,
            detach_unconverged=False,
            linesearch_decay=dx.linesearch_decay,
            max_linesearch_iter=dx.max_linesearch_iter,
            eps=dx.mpc_eps,
            n_batch=batch,
        )
        return solver(start, cost, dx)

    def forward_backward() -> Any:
        for leaf in leaves:
            leaf.grad = None
        found = forward()
        found[1].square().mean((0, 2)).sum().backward()
        return found

    return forward, forward_backward, leaves


def _controls(found: Any) -> Array:
    controls: Array = found[1].detach().numpy()[:, :, 0].T
    return controls
