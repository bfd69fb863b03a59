"""`compile_module` against PyTorch: batches, contexts, parameters that change, and bad input."""

import gc
import linecache
import sys
import time
from collections.abc import Callable

import numba
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpc_gym.compiled import UnsupportedOperation, compile_module
from mpc_gym.models import NeuralDynamics, PendulumCost, QuadraticCost
from tests.compiled.interpreter import torch_derivatives


class CartPoleRK4(nn.Module):
    """A cart-pole, theta = 0 upright, integrated by four steps of Runge and Kutta."""

    def __init__(self) -> None:
        super().__init__()
        self.physics = nn.Parameter(torch.tensor([9.8, 1.0, 0.1, 0.5], dtype=torch.float64))

    def rate(self, state: Tensor, control: Tensor) -> Tensor:
        gravity, cart, pole, length = self.physics.unbind()
        _, speed, angle, turn = state.unbind(-1)
        force, c, s = control[..., 0], angle.cos(), angle.sin()
        push = (force + pole * length * turn**2 * s) / (cart + pole)
        swing = (gravity * s - c * push) / (length * (4 / 3 - pole * c**2 / (cart + pole)))
        drive = push - pole * length * swing * c / (cart + pole)
        return torch.stack((speed, drive, turn, swing), -1)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        h = 0.05 / 4
        for _ in range(4):
            k1 = self.rate(state, control)
            k2 = self.rate(state + h / 2 * k1, control)
            k3 = self.rate(state + h / 2 * k2, control)
            k4 = self.rate(state + h * k3, control)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return state


def assert_matches(module: nn.Module, n_state: int, n_ctrl: int, rtol: float) -> None:
    compiled = compile_module(module, n_state, n_ctrl)
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(3, n_state, generator=generator, dtype=torch.float64)
    control = torch.randn(3, n_ctrl, generator=generator, dtype=torch.float64)
    shape = compiled.graph.output_shape
    weights = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    values = compiled.value(state, control)
    jacobians = compiled.jacobian(state, control)
    hessians = compiled.hessian(weights, state, control)
    for i in range(3):
        w = weights[i].reshape(-1).tolist()
        expected = torch_derivatives(module, state[i], control[i], w)
        found = (values[i].ravel(), jacobians[i].reshape(len(w), -1), hessians[i])
        for ours, theirs in zip(found, expected, strict=True):
            scale = max(1.0, np.abs(theirs).max())
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * scale)


def test_a_cart_pole_of_four_runge_kutta_steps_is_exact(
    record_property: Callable[[str, object], None],
) -> None:
    start = time.perf_counter()
    assert_matches(CartPoleRK4(), 4, 1, rtol=1e-12)
    record_property("seconds", time.perf_counter() - start)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.GELU(), nn.SiLU()])
def test_a_network_of_32_units_is_exact(activation: nn.Module) -> None:
    layers = nn.Sequential(nn.Linear(4, 32), activation, nn.Linear(32, 3)).double()

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, state: Tensor, control: Tensor) -> Tensor:
            return state + self.layers(torch.cat((state, control), -1))

    assert_matches(Network(), 3, 1, rtol=1e-12)


def test_stage_costs_have_derivatives_without_an_output_axis() -> None:
    cost = PendulumCost().double()
    assert_matches(cost, 3, 1, rtol=1e-12)
    compiled = compile_module(cost, 3, 1)
    state, control = np.array([0.6, 0.8, 0.5]), np.array([0.3])
    assert compiled.value(state, control).shape == ()
    assert compiled.jacobian(state, control).shape == (4,)
    assert compiled.hessian(2.0, state, control).shape == (4, 4)


class Tracking(nn.Module):
    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        return ((state - context[..., :2]) ** 2).sum(-1) * context[..., 2] + control[..., 0] ** 2


def test_batches_and_contexts_are_broadcast() -> None:
    compiled = compile_module(Tracking(), 2, 1, n_context=3)
    state, control = torch.randn(4, 1, 2), torch.randn(5, 1)
    context = torch.randn(4, 5, 3)
    expected = Tracking()(state, control, context).numpy()
    np.testing.assert_allclose(compiled.value(state, control, context), expected, rtol=1e-5)
    hessian = compiled.hessian(np.ones(5), state.numpy(), control.numpy(), context.numpy())
    assert hessian.shape == (4, 5, 3, 3)
    np.testing.assert_allclose(hessian[..., 0, 0], 2 * context[..., 2].numpy(), rtol=1e-6)
    assert compiled.value(state[:0], control, context[:0]).shape == (0, 5)


def test_parameters_are_read_at_every_call() -> None:
    module = CartPoleRK4()
    compiled = compile_module(module, 4, 1)
    state, control = torch.randn(2, 4).double(), torch.randn(2, 1).double()
    for gravity in (9.8, 3.7):
        with torch.no_grad():
            module.physics[0] = gravity
        expected = module(state, control).detach().numpy()
        np.testing.assert_allclose(compiled.value(state, control), expected, rtol=1e-12)


def test_a_time_varying_cost_is_taken_at_its_stage() -> None:
    cost = QuadraticCost(torch.randn(4, 3, 3).double(), torch.randn(4, 3).double())
    compiled = compile_module(cost, 2, 1)
    tau = torch.randn(3).double()
    for stage in (0, 3):
        expected = 0.5 * tau @ cost.C[stage] @ tau + cost.c[stage] @ tau
        found = compiled.value(tau[:2], tau[2:], stage=stage)
        np.testing.assert_allclose(found, expected.detach(), rtol=1e-12)


def test_kernels_can_be_called_from_numba_code() -> None:
    module = NeuralDynamics(2, 1, hidden=(4,)).double()
    compiled = compile_module(module, 2, 1)
    value, jacobian, hessian = (
        compiled.value_kernel,
        compiled.jacobian_kernel,
        compiled.hessian_kernel,
    )

    @numba.njit
    def twice(state, control, context, parameters, y, F, H):
        value(state, control, context, parameters, y)
        value(y.copy(), control, context, parameters, y)
        jacobian(y, control, context, parameters, F)
        hessian(y, y, control, context, parameters, H)

    state, control = torch.tensor([0.3, -0.2]).double(), torch.tensor([0.5]).double()
    y, F, H = np.empty(2), np.empty((2, 3)), np.empty((3, 3))
    twice(state.numpy(), control.numpy(), np.empty(0), compiled.parameters(), y, F, H)
    expected = module(module(state, control), control).detach()
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    np.testing.assert_allclose(F, compiled.jacobian(y, control), rtol=1e-12)
    np.testing.assert_allclose(H, compiled.hessian(y, y, control), rtol=1e-12)


class Bessel(nn.Module):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return torch.special.bessel_j0(state) + control


def test_what_cannot_be_compiled_is_found_before_the_first_call() -> None:
    with pytest.raises(
        UnsupportedOperation, match=r"aten\.special_bessel_j0.*test_modules\.py:\d+"
    ):
        compile_module(Bessel(), 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0, 3.0], [1.0], [0.0] * 3), r"state has shape \[3\], expected \[..., 2\]"),
        ((1.0, [1.0], [0.0] * 3), r"state has shape \[\], expected \[..., 2\]"),
        (([1.0, 2.0], [1.0, 2.0], [0.0] * 3), r"control has shape \[2\], expected \[..., 1\]"),
        (([1.0, 2.0], [1.0], [0.0]), r"context has shape \[1\], expected \[..., 3\]"),
        (([1.0, 2.0], [1.0]), "context is None, .* n_context=3"),
        ((np.ones((3, 2)), np.ones((2, 1)), np.ones(3)), "shapes .* broadcast"),
    ],
)
def test_arguments_of_the_wrong_shape_are_refused_by_name(arguments: tuple, message: str) -> None:
    compiled = compile_module(Tracking(), 2, 1, n_context=3)
    with pytest.raises(ValueError, match=message):
        compiled.value(*arguments)


def test_weights_of_the_wrong_shape_are_refused() -> None:
    compiled = compile_module(NeuralDynamics(2, 1, hidden=(4,)), 2, 1)
    with pytest.raises(ValueError, match=r"weights has shape \[3\], expected \[..., 2\]"):
        compiled.hessian(np.ones(3), np.ones(2), np.ones(1))


class Offset(nn.Module):
    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u + self.offset


def test_modules_that_are_gone_leave_nothing_in_pythons_tables() -> None:
    def ours() -> list[str]:
        names = [*sys.modules, *linecache.cache]
        return [name for name in names if "mpc_gym_generated_Offset" in name]

    for offset in (1.5, 2.5):
        compiled = compile_module(Offset(offset), 1, 1)
        assert compiled.value(np.ones(1), np.ones(1)) == 2.0 + offset
        assert ours()
        del compiled
        gc.collect()
        assert not ours()
