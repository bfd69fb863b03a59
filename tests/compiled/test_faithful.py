"""What is compiled is what the module does: everything else is refused, with its cause."""

import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpc_gym.compiled import ImpureModule, UnsupportedOperation, trace
from mpc_gym.compiled.evaluate import evaluate
from mpc_gym.compiled.program import Program
from mpc_gym.compiled.trace import captured


class Model(nn.Module):
    """A model with a goal that is no tensor, a parameter, and a counter among its buffers."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([2.0, 3.0]))
        self.goal = np.array([1.0, 2.0])
        self.calls = 0
        self.register_buffer("count", torch.zeros((), dtype=torch.long))


class NumpyGoal(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return (state - self.goal) ** 2 + control


class NumpySine(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return torch.from_numpy(np.sin(state.detach().numpy())) + control


class ListOfState(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state * torch.tensor([math.sin(x) for x in state.tolist()]) + control


class BranchOnList(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state + control if state.tolist()[0] > 0 else state - control


class ListOfParameter(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state * torch.tensor(self.gain.tolist()) + control


class Dlpack(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return torch.from_dlpack(np.from_dlpack(state.detach())) + control


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize(
    "kind", [NumpyGoal, NumpySine, ListOfState, BranchOnList, ListOfParameter, Dlpack]
)
def test_numbers_that_leave_pytorch_are_refused_with_their_line(kind: type[nn.Module]) -> None:
    for look in (trace, captured):
        with pytest.raises(ImpureModule) as error:
            look(kind(), 2, 2)
        assert f"{__file__}:{kind.forward.__code__.co_firstlineno + 1}" in str(error.value)
        assert "register_buffer" in str(error.value)


class Noise(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state + control + torch.randn(2)


class PythonNoise(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state * random.random() + control


class NumpyNoise(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state * np.random.rand() + control  # noqa: NPY002  # what users write


class Counts(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        self.calls += 1
        return state * self.calls + control


class InAnotherOrder(Model):
    """The same sum in another order at each call, as a threaded or an unaligned routine has it."""

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        self.calls += 1
        parts = torch.stack((0.1 * state, 0.2 * state, 0.3 * control))
        order = (0, 1, 2) if self.calls % 2 else (2, 1, 0)
        return parts[order[0]] + parts[order[1]] + parts[order[2]]


def test_a_module_whose_calls_differ_by_rounding_is_one_function() -> None:
    module, ones = InAnotherOrder(), torch.ones(2, dtype=torch.float64)
    assert not torch.equal(module(ones, ones), module(ones, ones))
    trace(InAnotherOrder(), 2, 2)


class Drops(Model):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.layers(state) + control


class DropsByFunction(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return F.dropout(state, training=self.training) + control


@pytest.mark.parametrize("kind", [Noise, PythonNoise, NumpyNoise, Counts, Drops, DropsByFunction])
def test_a_module_that_is_another_function_at_each_call_is_refused(kind) -> None:
    with pytest.raises(ImpureModule, match=f"{kind.__name__} returned two different values"):
        trace(kind(), 2, 2)


def test_the_part_that_is_random_in_training_mode_is_named_and_eval_helps() -> None:
    module = Drops()
    with pytest.raises(ImpureModule, match=r"layers\.1 \(Dropout\).*eval\(\)"):
        trace(module, 2, 2)
    trace(module.eval(), 2, 2)
    trace(DropsByFunction().eval(), 2, 2)


def test_looking_for_noise_leaves_the_random_numbers_of_others_as_they_were() -> None:
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(3)
    expected = (torch.rand(1).item(), np.random.rand(), random.random())  # noqa: NPY002
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(3)
    for kind in (Noise, PythonNoise, NumpyNoise):
        with pytest.raises(ImpureModule):
            trace(kind(), 2, 2)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected  # noqa: NPY002


class WritesIntoBuffer(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        self.count.add_(1)
        return state + control


class Normalises(Model):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        both = torch.stack((state, control))
        return self.norm(both)[0]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (WritesIntoBuffer, r"changes count of WritesIntoBuffer"),
        (Normalises, r"changes norm\.running_mean of BatchNorm1d.*eval\(\)"),
    ],
)
def test_a_forward_that_changes_a_buffer_is_refused(kind, message) -> None:
    module = kind()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ImpureModule, match=message):
        trace(module, 2, 2)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(_: object, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(_: object, slope: Tensor) -> Tensor:
        return slope


class Rounds(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return StraightThrough.apply(state) + control


class RoundsParameter(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return StraightThrough.apply(1.3 * self.gain) * state + control


class WithoutGradient(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        with torch.no_grad():
            wave = torch.sin(state)
        return wave + control


class ForgetsCreateGraph(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        state = state if state.requires_grad else state.detach().requires_grad_()
        energy = torch.tanh(self.gain * state).square().sum()
        return torch.autograd.grad(energy, state)[0] + control


@pytest.mark.parametrize("kind", [Rounds, RoundsParameter])
def test_a_backward_of_its_own_is_left_to_the_reference(kind: type[nn.Module]) -> None:
    with pytest.raises(UnsupportedOperation, match=f"derivative of {kind.__name__} is .* by torch"):
        trace(kind(), 2, 2)
    assert captured(kind(), 2, 2) is None


@pytest.mark.parametrize(("kind", "offset"), [(WithoutGradient, 2), (ForgetsCreateGraph, 3)])
def test_what_autograd_cannot_follow_is_refused_with_its_line(kind, offset) -> None:
    for look in (trace, captured):
        with pytest.raises(ImpureModule) as error:
            look(kind(), 2, 2)
        assert f"{__file__}:{kind.forward.__code__.co_firstlineno + offset}" in str(error.value)


class Detaches(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        rounded = state + (state.round() - state).detach()
        return rounded * self.gain.data + control


class Wraps(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state - 6.0 * (state // 6.0) + F.hardsigmoid(control)


class OnlyPositive(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return torch.log(state) + torch.acos(control)


class InSinglePrecision(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return torch.sin(state.float()).double() + control


class WritesIntoState(Model):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        state[..., 0] += control[..., 0] ** 2
        return state


@pytest.mark.parametrize(
    "kind", [Detaches, Wraps, OnlyPositive, InSinglePrecision, WritesIntoState]
)
def test_unusual_models_that_pytorch_sees_whole_are_compiled(kind) -> None:
    trace(kind(), 2, 2)


def test_an_operation_that_is_compiled_wrongly_is_refused(monkeypatch) -> None:
    from mpc_gym.compiled.operations import OPERATIONS

    class Sine(nn.Module):
        def forward(self, state: Tensor, control: Tensor) -> Tensor:
            return torch.sin(state) + control

    monkeypatch.setitem(OPERATIONS, "aten.sin.default", OPERATIONS["aten.tanh.default"])
    with pytest.raises(UnsupportedOperation, match=r"value of Sine .*compiled wrongly"):
        trace(Sine(), 2, 2)


class PlainLinear(nn.Module):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state + control


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(2)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.layer(torch.cat((state, control), -1))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_what_others_compiled_and_what_has_no_shape_yet_is_refused_with_the_remedy() -> None:
    with pytest.raises(ImpureModule, match=r"TorchScript.*plain module"):
        trace(torch.jit.script(PlainLinear()), 2, 2)
    with pytest.raises(ImpureModule, match=r"torch\.compile.*plain module"):
        trace(torch.compile(PlainLinear()), 2, 2)
    compiled = PlainLinear()
    compiled.compile()
    with pytest.raises(ImpureModule, match=r"torch\.compile.*plain module"):
        trace(compiled, 2, 2)
    with pytest.raises(ImpureModule, match=r"Lazy\.layer .*call the module once"):
        trace(Lazy(), 2, 2)


def test_a_program_runs_at_several_points_at_once() -> None:
    program = Program()
    x = program.input("x")
    found = evaluate(program, [x * x, x < 1.0, 2.0], {"x": np.array([0.5, 3.0])}, 2)
    np.testing.assert_array_equal(found, [[0.25, 9.0], [1.0, 0.0], [2.0, 2.0]])


class DefinedNearZero(nn.Module):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        square = (0.03 - state.square()).unsqueeze(-1)
        return torch.linalg.cholesky(square).squeeze(-1) + control


def test_a_model_that_cannot_be_tried_out_is_refused() -> None:
    with pytest.raises(UnsupportedOperation, match="DefinedNearZero could not be tried out"):
        trace(DefinedNearZero(), 1, 1)
