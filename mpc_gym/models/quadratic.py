"""The quadratic stage cost."""

from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpc_gym.models.base import Cost
from mpc_gym.models.linear import own_parameter, plain_tensor


class QuadraticCost(Cost):
    """`1/2 tau' C tau + c' tau` with `tau = (x, u)`, the cost of Amos et al. (2018).

    Args:
        C: [n, n] with n = n_state + n_ctrl, or [T, n, n], one matrix a time step; or [n], a
            diagonal (see `diagonal` for diagonals that change with time).
        c: [n] or [T, n]; None for zero.

    An `nn.Parameter` is kept as it is; any other tensor is copied into a new one. A cost that
    changes with time is called on whole trajectories, `[..., T, n_state]`.

    Raises:
        TypeError: a tensor is not made of real numbers.
        ValueError: the shapes do not fit each other, or a tensor that is no `nn.Parameter`
            requires a gradient, which the copy would lose.
    """

    size: int
    positive_parameters = ("C",)

    def __init__(self, C: Tensor, c: Tensor | None = None) -> None:
        C = own_parameter("C", C)
        self._build("C", C, c, diagonal=C.ndim == 1)

    @classmethod
    def diagonal(cls, weights: Tensor, c: Tensor | None = None) -> "QuadraticCost":
        """`1/2 sum_i weights_i tau_i^2 + c' tau` with weights of shape [n] or [T, n]."""
        cost = cls.__new__(cls)
        cost._build("weights", own_parameter("weights", weights), c, diagonal=True)
        return cost

    @classmethod
    def from_goal(
        cls, goal_state: Tensor, goal_weights: Tensor, control_penalty: float | Tensor
    ) -> "QuadraticCost":
        """`1/2 sum_i w_i (x_i - goal_i)^2 + 1/2 sum_j penalty_j u_j^2`, less its constant.

        It is the cost of Amos et al. (2018), section 5, wherever the nonzero entries of the goal
        have weight one, as they do there.

        Args:
            goal_state: [n_state].
            goal_weights: [n_state].
            control_penalty: one weight for a single control, or [n_ctrl].

        Raises:
            TypeError: an argument is not made of real numbers.
            ValueError: the shapes do not fit each other, an entry is not finite, or a tensor
                requires a gradient: these are no parameters of the cost, which are `C` and `c`.
        """
        goal = plain_tensor("goal_state", goal_state)
        weights = plain_tensor("goal_weights", goal_weights)
        penalty = plain_tensor("control_penalty", control_penalty, weights.dtype)
        if goal.ndim != 1 or goal.shape != weights.shape:
            raise ValueError(
                "goal_state and goal_weights must both be [n_state], got "
                f"{list(goal.shape)} and {list(weights.shape)}"
            )
        if penalty.ndim > 1 or not penalty.numel():
            raise ValueError(
                f"control_penalty must be a number or [n_ctrl], got {list(penalty.shape)}"
            )
        penalty = penalty.reshape(-1)
        for name, value in (
            ("goal_state", goal),
            ("goal_weights", weights),
            ("control_penalty", penalty),
        ):
            if not bool(value.isfinite().all()):
                raise ValueError(f"{name} must be finite, got {value.tolist()}")
        return cls.diagonal(
            torch.cat((weights, penalty)),
            torch.cat((-weights * goal, torch.zeros_like(penalty))),
        )

    def _build(self, name: str, C: nn.Parameter, c: Tensor | None, *, diagonal: bool) -> None:
        super().__init__()
        matrix_dims = 1 if diagonal else 2
        shape = "[n] or [T, n]" if diagonal else "[n, n] or [T, n, n]"
        fits = C.ndim in (matrix_dims, matrix_dims + 1) and C.shape[-1] == C.shape[-matrix_dims]
        if not fits or C.numel() == 0:
            raise ValueError(f"{name} must be {shape}, got {list(C.shape)}")
        c = own_parameter("c", C.new_zeros(C.shape[-1]) if c is None else c)
        if c.ndim not in (1, 2) or c.shape[-1] != C.shape[-1]:
            raise ValueError(
                f"c must be [{C.shape[-1]}] or [T, {C.shape[-1]}], got {list(c.shape)}"
            )
        self.is_diagonal = diagonal
        self.C = C
        self.c = c
        self.size = c.shape[-1]

    @property
    def per_stage_parameters(self) -> Collection[str]:  # type: ignore[override]
        """Names of the parameters whose first dimension is time, as they are now."""
        has_time = {"C": self.C.ndim > (1 if self.is_diagonal else 2), "c": self.c.ndim > 1}
        return [name for name, value in has_time.items() if value]

    def forward(
        self, state: Float[Tensor, "*batch n_state"], control: Float[Tensor, "*batch n_ctrl"]
    ) -> Float[Tensor, "*batch"]:
        """The cost of each row; of each time step, where the cost changes with time."""
        tau = torch.cat((state, control), -1)
        C, c = self.C.to(tau.dtype), self.c.to(tau.dtype)
        curvature = C * tau if self.is_diagonal else (C @ tau.unsqueeze(-1)).squeeze(-1)
        return ((0.5 * curvature + c) * tau).sum(-1)
