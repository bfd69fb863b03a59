"""What a solver hands back, on either backend."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass
class Solution:
    """States, controls and cost at the last iterate of every instance."""

    X: Float[Tensor, "batch time n_state"]
    U: Float[Tensor, "batch time n_ctrl"]
    cost: Float[Tensor, " batch"]
    converged: Bool[Tensor, " batch"]
    iterations: Int[Tensor, " batch"]

    @classmethod
    def unsolved(
        cls, x_init: Float[Tensor, "batch n_state"], U: Float[Tensor, "batch time n_ctrl"]
    ) -> "Solution":
        """Where nothing can be solved: states and cost NaN, controls U."""
        batch, horizon = U.shape[:2]
        return cls(
            X=x_init.new_full((batch, horizon, x_init.shape[1]), torch.nan),
            U=U,
            cost=x_init.new_full((batch,), torch.nan),
            converged=torch.zeros(batch, dtype=torch.bool, device=U.device),
            iterations=torch.zeros(batch, dtype=torch.long, device=U.device),
        )

    def rows(self, index: Int[Tensor, " rows"]) -> "Solution":
        """Some instances of the batch."""
        return Solution(*(value[index] for value in vars(self).values()))

    def with_rows(self, index: Int[Tensor, " rows"], other: "Solution") -> "Solution":
        """The same with some instances replaced by those of another solution."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Solution(*(mine.index_copy(0, index, theirs) for mine, theirs in pairs))
