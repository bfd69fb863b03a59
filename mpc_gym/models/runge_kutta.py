"""A step of a differential equation, y' = g(y), by the classical method of Runge and Kutta."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor


def runge_kutta(
    derivative: Callable[[Tensor], Tensor], y: Float[Tensor, "*batch n"], dt: float, substeps: int
) -> Float[Tensor, "*batch n"]:
    """The solution `dt` later, with an error of order (dt / substeps)^4.

    Args:
        derivative: g, [..., n] -> [..., n].
        y: the present value.
        dt: [s].
        substeps: equal steps in which it is made.
    """
    h = dt / substeps
    for _ in range(substeps):
        k1 = derivative(y)
        k2 = derivative(y + 0.5 * h * k1)
        k3 = derivative(y + 0.5 * h * k2)
        k4 = derivative(y + h * k3)
        y = y + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
    return y
