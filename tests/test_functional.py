"""A module with other values: PyTorch's own result, and nothing of it seen from outside."""

import functools
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from mpc_gym.functional import call_with


class Scaled(nn.Module):
    """x -> layer(x), found in the ways in which models find their layers."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.other = self.layer  # the same module by another name
        self.weight = self.layer.weight  # and the same parameter
        self.method = self.layer.forward
        self.chain = [self.layer, torch.tanh]
        self.table = {"first": (self.layer,)}
        self.part = functools.partial(self.layer)
        layer = self.layer
        self.closure = lambda x: layer(x) + 0.0
        self.held = SimpleNamespace(layer=self.layer)
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        found = {
            "name": lambda: self.other(x),
            "parameter": lambda: x @ self.weight.mT,
            "method": lambda: self.method(x),
            "list": lambda: self.chain[1](self.chain[0](x)),
            "dict": lambda: self.table["first"][0](x),
            "partial": lambda: self.part(x),
            "closure": lambda: self.closure(x),
            "object": lambda: self.held.layer(x),
            "function": lambda: Doubled.apply(x, self.weight),
            "vmap": lambda: torch.func.vmap(lambda w: x @ w)(self.weight).mT,
        }
        result: Tensor = found[self.by]()
        return result.sin()


class Doubled(torch.autograd.Function):
    """2 x w', with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return 2 * x @ w.mT

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return 2 * g @ w, 2 * g.mT @ x


class Slotted(Scaled):
    __slots__ = ("hidden",)

    def __init__(self) -> None:
        super().__init__("name")
        object.__setattr__(self, "hidden", self.layer)

    def forward(self, x: Tensor) -> Tensor:
        layer: nn.Module = self.hidden
        result: Tensor = layer(x)
        return result


class Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.layer.register_forward_hook(lambda module, _, y: y + module.bias)
        self.layer.register_forward_pre_hook(self.before)

    def before(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0] * self.layer.weight.sum(),)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


def parametrised() -> nn.Module:
    module = nn.Linear(3, 3)
    parametrize.register_parametrization(module, "weight", nn.Tanh())
    return module


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.lstm(x.unsqueeze(1))[0][:, 0]
        return result


WAYS = ("name", "parameter", "method", "list", "dict", "partial", "closure", "object", "function")
MODULES: dict[str, Callable[[], nn.Module]] = {
    **{way: functools.partial(Scaled, way) for way in (*WAYS, "vmap")},
    "parametrised": parametrised,
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(3, 3)),
    "weight norm by hooks": lambda: nn.utils.weight_norm(nn.Linear(3, 3)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(3, 3)).eval(),
    "batch norm": lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval(),
    "hooks": Hooked,
    "LSTM": Last,
    "slots": Slotted,
    "script": lambda: nn.Sequential(torch.jit.script(nn.Linear(3, 3))),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MODULES)
def test_other_values_give_the_output_and_the_gradients_that_pytorch_gives(name: str) -> None:
    module = MODULES[name]().double()
    x = torch.randn(4, 3, dtype=torch.float64)
    values = {
        k: (v.detach() + 0.1 * torch.randn_like(v)).requires_grad_()
        for k, v in module.named_parameters()
    }
    expected = torch.func.functional_call(module, values, (x,))
    slopes = torch.autograd.grad(expected.square().sum(), [*values.values()], allow_unused=True)
    before = [(k, id(v)) for k, v in module.named_parameters()]
    found = call_with(module, values, (x,))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    again = torch.autograd.grad(found.square().sum(), [*values.values()], allow_unused=True)
    torch.testing.assert_close(again, slopes, rtol=0, atol=0)
    assert any(slope is not None and slope.any() for slope in again)
    assert [(k, id(v)) for k, v in module.named_parameters()] == before


OUTSIDE = nn.Linear(3, 3)


class Global(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = OUTSIDE

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = OUTSIDE(x)
        return result


def test_a_parameter_that_is_read_through_a_global_variable_is_replaced_too() -> None:
    module = Global()
    values = {k: v.detach() + 1.0 for k, v in module.named_parameters()}
    x = torch.randn(4, 3)
    expected = x @ values["layer.weight"].mT + values["layer.bias"]
    torch.testing.assert_close(call_with(module, values, (x,)), expected)
    assert isinstance(OUTSIDE.weight, nn.Parameter)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "object"])
def test_nobody_else_sees_the_values_while_they_are_in_use(way: str) -> None:
    module = Scaled(way)
    before = dict(module.named_parameters())
    inside, checked = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        assert checked.wait(60)

    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> Tensor:
            wait()
            result: Tensor = self.inner(x)
            return result

    values = {f"inner.{k}": torch.zeros_like(v) for k, v in before.items()}
    x = torch.randn(2, 3)
    results: list[Tensor] = []
    thread = threading.Thread(target=lambda: results.append(call_with(Slow(), values, (x,))))
    expected = module(x)
    thread.start()
    assert inside.wait(60)
    try:
        assert all(v is before[k] for k, v in module.named_parameters())
        torch.testing.assert_close(module(x), expected)
    finally:
        checked.set()
        thread.join(60)
    torch.testing.assert_close(results[0], torch.zeros_like(expected))
