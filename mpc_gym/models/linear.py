"""Linear dynamics."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mpc_gym.checks import check_floating, real_tensor
from mpc_gym.models.base import Dynamics, refuse_gradient


class LinearDynamics(Dynamics):
    """`x_next = A x + B u + offset`.

    Args:
        A: [n_state, n_state].
        B: [n_state, n_ctrl].
        offset: [n_state], or None for none.

    An `nn.Parameter` is kept as it is; any other tensor is copied into a new one.

    Raises:
        TypeError: a tensor is not made of real numbers.
        ValueError: the shapes do not fit each other, or a tensor that is no `nn.Parameter`
            requires a gradient, which the copy would lose.
    """

    offset: nn.Parameter | None

    def __init__(self, A: Tensor, B: Tensor, offset: Tensor | None = None) -> None:
        A, B = own_parameter("A", A), own_parameter("B", B)
        if A.ndim != 2 or A.shape[0] != A.shape[1] or len(A) == 0:
            raise ValueError(f"A must be [n_state, n_state], got {list(A.shape)}")
        if B.ndim != 2 or B.shape[0] != A.shape[0] or B.shape[1] == 0:
            raise ValueError(f"B must be [n_state={A.shape[0]}, n_ctrl], got {list(B.shape)}")
        super().__init__(n_state=B.shape[0], n_ctrl=B.shape[1])
        self.A = A
        self.B = B
        if offset is None:
            self.register_parameter("offset", None)
        else:
            offset = own_parameter("offset", offset)
            if offset.shape != A.shape[:1]:
                raise ValueError(f"offset must be [n_state={A.shape[0]}], got {list(offset.shape)}")
            self.offset = offset

    def forward(
        self, state: Float[Tensor, "*batch n_state"], control: Float[Tensor, "*batch n_ctrl"]
    ) -> Float[Tensor, "*batch n_state"]:
        """The next state."""
        A, B = self.A.to(state.dtype), self.B.to(state.dtype)
        offset = None if self.offset is None else self.offset.to(state.dtype)
        return functional.linear(state, A, offset) + functional.linear(control, B)


def own_parameter(name: str, value: Tensor) -> nn.Parameter:
    """The parameter that a module keeps for a tensor.

    A floating-point `nn.Parameter` is kept itself, so that it can be shared; of any other value it
    is a copy (integers become the default dtype).

    Raises:
        TypeError: `value` is not made of real numbers.
        ValueError: `value` requires a gradient and is no `nn.Parameter`, or is not finite.
    """
    if isinstance(value, nn.Parameter) and value.is_floating_point():
        check_floating(name, value)
        return value
    return nn.Parameter(plain_tensor(name, value).detach().clone())


def plain_tensor(name: str, value: Tensor | float, dtype: torch.dtype | None = None) -> Tensor:
    """A floating-point tensor of some dtype; None: the value's own, or the default for integers.

    Raises:
        TypeError: `value` is not made of real numbers.
        ValueError: it requires a gradient, which a copy would lose.
    """
    refuse_gradient(name, value)
    tensor = real_tensor(name, value, dtype)
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
