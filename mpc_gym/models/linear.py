"""Linear dynamics."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mpc_gym.models.base import Dynamics


class LinearDynamics(Dynamics):
    """`x_next = A x + B u + offset`.

    Args:
        A: [n_state, n_state].
        B: [n_state, n_ctrl].
        offset: [n_state], or None for none.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    offset: nn.Parameter | None

    def __init__(self, A: Tensor, B: Tensor, offset: Tensor | None = None) -> None:
        A, B = as_floating(A), as_floating(B)
        if A.ndim != 2 or A.shape[0] != A.shape[1]:
            raise ValueError(f"A must be [n_state, n_state], got {list(A.shape)}")
        if B.ndim != 2 or B.shape[0] != A.shape[0]:
            raise ValueError(f"B must be [n_state={A.shape[0]}, n_ctrl], got {list(B.shape)}")
        super().__init__(n_state=B.shape[0], n_ctrl=B.shape[1])
        self.A = nn.Parameter(A)
        self.B = nn.Parameter(B)
        if offset is None:
            self.register_parameter("offset", None)
        else:
            offset = as_floating(offset)
            if offset.shape != A.shape[:1]:
                raise ValueError(f"offset must be [n_state={A.shape[0]}], got {list(offset.shape)}")
            self.offset = nn.Parameter(offset)

    def forward(
        self, state: Float[Tensor, "*batch n_state"], control: Float[Tensor, "*batch n_ctrl"]
    ) -> Float[Tensor, "*batch n_state"]:
        """The next state."""
        A, B = self.A.to(state.dtype), self.B.to(state.dtype)
        offset = None if self.offset is None else self.offset.to(state.dtype)
        return functional.linear(state, A, offset) + functional.linear(control, B)


def as_floating(value: Tensor) -> Tensor:
    """A detached floating-point copy of `value` (integers become the default dtype)."""
    tensor = torch.as_tensor(value).detach().clone()
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
