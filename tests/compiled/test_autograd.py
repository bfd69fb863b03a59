"""Derivatives of functions of rows, against PyTorch's of one row at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mpc_gym.compiled import autograd
from mpc_gym.compiled.autograd import first_derivatives, second_derivatives


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def mixture(z: Tensor) -> Tensor:
    """Three inputs, two outputs."""
    return torch.stack((z[..., 0] * z[..., 1].exp() - z[..., 2] ** 3, z[..., 1].sin()), -1)


@pytest.mark.parametrize("together", [autograd._MAX_NUMBERS, 1])
def test_jacobian_and_hessian_of_each_row_are_those_of_the_row_alone(together, monkeypatch):
    monkeypatch.setattr(autograd, "_MAX_NUMBERS", together)
    z = normal(4, 2, 3)
    jacobian, hessian = second_derivatives(mixture, z, outputs=2)
    for i in range(4):
        for t in range(2):
            found = torch.autograd.functional.jacobian(mixture, z[i, t])
            torch.testing.assert_close(jacobian[i, t], found)
            for k in range(2):
                found = torch.autograd.functional.hessian(lambda y, k=k: mixture(y)[k], z[i, t])
                torch.testing.assert_close(hessian[i, t, k], found)
    torch.testing.assert_close(first_derivatives(mixture, z, outputs=2), jacobian)


def test_a_cost_has_a_gradient_and_a_hessian():
    def cost(z: Tensor) -> Tensor:
        return mixture(z).prod(-1)

    z = normal(3, 3)
    gradient, hessian = second_derivatives(cost, z)
    for i in range(3):
        torch.testing.assert_close(gradient[i], torch.autograd.functional.jacobian(cost, z[i]))
        torch.testing.assert_close(hessian[i], torch.autograd.functional.hessian(cost, z[i]))
    torch.testing.assert_close(first_derivatives(cost, z), gradient)


def test_other_arguments_stay_with_their_rows():
    z, weight = normal(4, 3), normal(4, 2, seed=1)
    jacobian, hessian = second_derivatives(lambda z, w: mixture(z) * w, z, weight, outputs=2)
    plain = second_derivatives(mixture, z, outputs=2)
    torch.testing.assert_close(jacobian, plain[0] * weight[..., None])
    torch.testing.assert_close(hessian, plain[1] * weight[..., None, None])


def test_hessians_are_symmetric():
    _, hessian = second_derivatives(mixture, normal(5, 3, seed=1), outputs=2)
    assert torch.equal(hessian, hessian.mT)


def test_what_does_not_depend_on_its_argument_has_derivatives_zero():
    for constant in (lambda z: torch.ones(3, dtype=z.dtype), lambda z: z[..., 0] * 0 + 1.0):
        gradient, hessian = second_derivatives(constant, normal(3, 2))
        assert (gradient == 0).all()
        assert (hessian == 0).all()
        assert hessian.shape == (3, 2, 2)


def test_no_rows_have_no_derivatives():
    jacobian, hessian = second_derivatives(mixture, normal(0, 2, 3), outputs=2)
    assert jacobian.shape == (0, 2, 2, 3)
    assert hessian.shape == (0, 2, 2, 3, 3)


def test_they_can_be_differentiated_further():
    z = normal(2, 3).requires_grad_()
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def second(z: Tensor, scale: Tensor) -> Tensor:
        return second_derivatives(lambda y: mixture(scale * y), z, outputs=2)[1]

    assert torch.autograd.gradcheck(second, (z, scale))
    with torch.no_grad():
        assert not second(z, scale).requires_grad


def test_they_are_found_in_inference_mode_too():
    z = normal(2, 3)
    expected = second_derivatives(mixture, z, outputs=2)
    with torch.inference_mode():
        found = second_derivatives(mixture, z.clone(), outputs=2)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_attention_has_second_derivatives():
    def attention(z: Tensor) -> Tensor:
        keys = z.reshape(*z.shape[:-1], 2, 2)
        return F.scaled_dot_product_attention(keys, keys, keys).flatten(-2)

    z = normal(2, 4)
    _, hessian = second_derivatives(attention, z, outputs=4)
    step = 1e-5 * torch.eye(4, dtype=torch.float64)
    for j in range(4):
        ahead = first_derivatives(attention, z + step[j], outputs=4)
        behind = first_derivatives(attention, z - step[j], outputs=4)
        torch.testing.assert_close(hessian[..., j], (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-9)
