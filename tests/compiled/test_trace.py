"""Capturing modules: what becomes an input, and errors that name the line."""

import inspect

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpc_gym.compiled import (
    Graph,
    ImpureModule,
    Program,
    ProgramTooLarge,
    UnsupportedOperation,
    derive,
    trace,
)
from mpc_gym.compiled import program as program_module
from mpc_gym.compiled.program import elements
from mpc_gym.models import LinearCost, NeuralDynamics, QuadraticCost, keep_positive
from tests.compiled.interpreter import derivatives, run, torch_derivatives


def constants(graph: Graph, stage: int = 0) -> dict[str, np.ndarray]:
    values = {**dict(graph.module.named_parameters()), **dict(graph.module.named_buffers())}
    return {
        name: (values[name][stage] if name in graph.per_stage else values[name])
        .detach().double().numpy().astype(object)
        for name in graph.parameter_shapes
    }  # fmt: skip


def evaluate(graph: Graph, *arguments: list[float], stage: int = 0) -> np.ndarray:
    program = Program()
    names = ("x", "u", "c")[: len(arguments)]
    arrays = [program.inputs(k, len(v)) for k, v in zip(names, arguments, strict=True)]
    context = arrays[2] if len(arrays) > 2 else None
    result = graph.evaluate(program, arrays[0], arrays[1], context, constants(graph, stage))
    pairs = zip(names, arguments, strict=True)
    return run(program, result, {f"{k}{i}": v for k, vs in pairs for i, v in enumerate(vs)})


def line_of(function: object, text: str) -> str:
    lines, first = inspect.getsourcelines(function)
    offset = next(i for i, line in enumerate(lines) if text in line)
    return f"{__file__}:{first + offset}"


class Bessel(nn.Module):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        angle = state + control
        return torch.special.bessel_j0(angle)


class Branches(nn.Module):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        if state[0] > 0:
            return state
        return state + control


class TakesNumber(nn.Module):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state * float(control[0])


class IndexesByState(nn.Module):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state[state.argsort()] + control


class WantsBatch(nn.Module):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state[:, 0] + control[:, 0]


class ReturnsTwo(nn.Module):
    def forward(self, state: Tensor, control: Tensor) -> tuple[Tensor, Tensor]:
        return state, control


class WithHelper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 2), Bessel2())

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.layers(state + control)


class Bessel2(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return torch.special.bessel_j0(value)


def helper(value: Tensor) -> Tensor:
    return torch.special.bessel_j0(value)


class CallsHelper(nn.Module):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return helper(state + control)


@pytest.mark.parametrize(
    ("module", "culprit", "text"),
    [
        (CallsHelper(), helper, "bessel_j0"),
        (Bessel(), Bessel, "bessel_j0"),
        (IndexesByState(), IndexesByState, "argsort"),
        (WithHelper(), Bessel2, "bessel_j0"),
    ],
)
def test_an_operation_outside_the_table_is_named_with_its_line(
    module: nn.Module, culprit: type, text: str
) -> None:
    with pytest.raises(UnsupportedOperation) as error:
        trace(module, 2, 2)
    assert line_of(culprit, text) in str(error.value)
    assert "aten." in str(error.value)


@pytest.mark.parametrize(
    ("module", "text"),
    [(Branches(), "if state"), (TakesNumber(), "float("), (WantsBatch(), "state[:, 0]")],
)
def test_a_module_that_cannot_be_captured_is_refused_with_its_line(
    module: nn.Module, text: str
) -> None:
    with pytest.raises(UnsupportedOperation) as error:
        trace(module, 2, 2)
    assert line_of(type(module), text) in str(error.value)
    assert type(module).__name__ in str(error.value)


def test_a_module_that_returns_two_tensors_is_refused() -> None:
    with pytest.raises(UnsupportedOperation, match="ReturnsTwo returned 2 values"):
        trace(ReturnsTwo(), 2, 2)


class Tracking(nn.Module):
    """Has a parameter, a floating buffer, an integer buffer and a plain tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([2.0, 3.0]))
        self.register_buffer("scale", torch.tensor(0.5))
        self.register_buffer("order", torch.tensor([1, 0]))
        self.offset = torch.tensor([1.0, -1.0])

    def forward(self, state: Tensor, control: Tensor, context: Tensor) -> Tensor:
        error = (state - context)[self.order] * self.scale + self.offset
        return (self.gain * error).sum() + control[..., 0] ** 2


def test_parameters_buffers_and_context_are_inputs_and_the_rest_is_constant() -> None:
    module = Tracking()
    graph = trace(module, 2, 1, n_context=2)
    assert graph.parameter_shapes == {"gain": (2,), "scale": ()}
    assert graph.output_shape == ()
    for _ in range(2):
        found = evaluate(graph, [0.3, 0.7], [1.5], [1.0, 2.0])
        arguments = (torch.tensor([0.3, 0.7]), torch.tensor([1.5]), torch.tensor([1.0, 2.0]))
        np.testing.assert_allclose(found, module(*arguments).item(), rtol=1e-6)
        module.gain.data *= -2.0  # learning does not trace again


def test_tracing_leaves_the_module_and_the_random_numbers_as_they_were() -> None:
    module = NeuralDynamics(2, 1)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = torch.get_rng_state()
    trace(module, 2, 1)
    assert torch.equal(state, torch.get_rng_state())
    for name, value in module.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


class Composite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quadratic = QuadraticCost(torch.randn(5, 3, 3), torch.randn(3))

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return 2.0 * self.quadratic(state, control)


def test_a_parameter_with_a_time_axis_is_traced_with_one_stage_of_it() -> None:
    module = Composite()
    graph = trace(module, 2, 1)
    assert graph.per_stage == {"quadratic.C"}
    assert graph.parameter_shapes == {"quadratic.C": (3, 3), "quadratic.c": (3,)}
    C, c = module.quadratic.C.detach().double(), module.quadratic.c.detach().double()
    tau = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    expected = 2.0 * (0.5 * tau @ C[3] @ tau + c @ tau)
    found = evaluate(graph, [0.1, 0.2], [0.3], stage=3)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 3)])
def test_of_a_parametrised_one_with_a_time_axis_one_stage_of_all_that_it_is_made_of(shape) -> None:
    weights = torch.randn(shape).double().exp()
    if len(shape) == 3:
        inner = QuadraticCost(weights @ weights.mT, torch.randn(5, 3).double())
        made_of = {"parametrizations.C.original"}
    else:
        inner = QuadraticCost.diagonal(weights, torch.randn(5, 3).double())
        made_of = {"parametrizations.C.original", "parametrizations.C.0.running_start"}
    graph = trace(LinearCost(keep_positive(inner), 2, 1), 2, 1)
    assert graph.per_stage == {f"cost.{name}" for name in {"c", *made_of}}
    assert graph.parameter_shapes.keys() - graph.per_stage == {"p"}
    with torch.no_grad():
        for parameter in graph.module.parameters():
            parameter.add_(0.1)
    state = torch.tensor([0.1, 0.2], dtype=torch.float64).expand(5, 2)
    control = torch.tensor([0.3], dtype=torch.float64).expand(5, 1)
    expected = graph.module(state, control).detach()
    found = [evaluate(graph, [0.1, 0.2], [0.3], stage=stage).item() for stage in range(5)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_graph_may_be_evaluated_many_times_in_one_program() -> None:
    graph = trace(NeuralDynamics(2, 1), 2, 1)
    program = Program()
    x, u = program.inputs("x", 2), program.inputs("u", 1)
    parameters = constants(graph)
    once = graph.evaluate(program, x, u, None, parameters)
    length = len(program.operations)
    again = graph.evaluate(program, x, u, None, parameters)
    assert len(program.operations) == length
    assert [y.index for y in again] == [y.index for y in once]
    twice = graph.evaluate(program, once, u, None, parameters)
    module, state = graph.module.double(), torch.tensor([0.2, -0.4], dtype=torch.float64)
    control = torch.tensor([0.5], dtype=torch.float64)
    expected = module(module(state, control), control).detach().numpy()
    found = run(program, twice, {"x0": 0.2, "x1": -0.4, "u0": 0.5})
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_module_above_the_size_limit_is_refused() -> None:
    graph = trace(NeuralDynamics(2, 1), 2, 1)
    program = Program(limit=50)
    x, u = program.inputs("x", 2), program.inputs("u", 1)
    with pytest.raises(ProgramTooLarge, match="50 operations"):
        graph.evaluate(program, x, u, None, constants(graph))


class Hamiltonian(nn.Module):
    """Differentiates inside its forward."""

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        gradient = torch.func.grad(lambda x: (torch.cos(x[0]) * x[1] ** 2).sum())(state)
        return torch.stack((gradient[1], -gradient[0] + control[0]))


def test_a_module_may_differentiate_inside() -> None:
    found = evaluate(trace(Hamiltonian(), 2, 1), [0.3, 0.7], [0.1])
    expected = [2 * 0.7 * np.cos(0.3), np.sin(0.3) * 0.49 + 0.1]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize(
    "constant", [torch.tensor([3]), torch.tensor([True]), torch.tensor([1.25], dtype=torch.float32)]
)
def test_an_expanded_constant_of_any_dtype_is_compiled(constant: Tensor) -> None:
    class Expands(nn.Module):
        def forward(self, state: Tensor, control: Tensor) -> Tensor:
            return state * constant.expand(2) + control

    found = evaluate(trace(Expands(), 2, 1), [0.3, 0.7], [0.1])
    expected = np.array([0.3, 0.7]) * constant.double().item() + 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_what_is_too_large_is_told_how_large_it_is() -> None:
    class ChangesItsWeights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(250, 250))

        def forward(self, state: Tensor, control: Tensor) -> Tensor:
            return torch.tanh(self.weight) @ state + control.sum()

    # one for each weight, two in the product, two for each row, and the sum
    with pytest.raises(ProgramTooLarge, match=r"ChangesItsWeights takes about 188,\d{3} scalar"):
        trace(ChangesItsWeights(), 250, 1)


def test_programs_of_networks_grow_with_their_layers_not_their_width() -> None:
    def steps(width: int, layers: int) -> int:
        graph = trace(NeuralDynamics(6, 2, hidden=(width,) * layers), 6, 2)
        program = Program()
        x, u = program.inputs("x", 6), program.inputs("u", 2)
        parameters = {
            name: program.parameters(f"p{i}_", *shape)
            for i, (name, shape) in enumerate(graph.parameter_shapes.items())
        }
        y = elements(graph.evaluate(program, x, u, None, parameters))
        hessian = derive.hessian(program, y, [1.0] * 6, [*x, *u])
        kinds = [program.operations[i].kind for i in program.live(elements(hessian))]
        return sum(kind not in program_module.ALIASES for kind in kinds)

    assert steps(32, 2) == steps(128, 2)
    assert steps(32, 3) < 2 * steps(32, 2)


class HamiltonianNetwork(nn.Module):
    """A model of a Hamiltonian, differentiated by autograd inside its forward."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.energy = nn.Sequential(nn.Linear(2, 8), activation(), nn.Linear(8, 1)).double()

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        if not state.requires_grad:
            state = state.detach().requires_grad_()
        with torch.enable_grad():
            energy = self.energy(state).sum()
            (slope,) = torch.autograd.grad(energy, state, create_graph=True)
        return torch.stack((slope[..., 1], control[..., 0] - slope[..., 0]), -1)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid, nn.Softplus])
def test_the_derivative_of_a_model_that_calls_autograd_inside_is_exact(activation) -> None:
    module = HamiltonianNetwork(activation)
    x, u = torch.tensor([0.4, -0.9]).double(), torch.tensor([0.3]).double()
    found = derivatives(module, x, u, [0.7, -1.3])
    for ours, theirs in zip(found, torch_derivatives(module, x, u, [0.7, -1.3]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


class InDtype(nn.Module):
    """The next state in some type of number, as it is returned or on the way."""

    def __init__(self, dtype: torch.dtype, *, returned: bool) -> None:
        super().__init__()
        self.dtype, self.returned = dtype, returned
        self.table = torch.tensor([0.1, 0.2], dtype=torch.float16)

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        found = (state + control).to(self.dtype)
        return found if self.returned else state + found.to(state.dtype) * self.table


@pytest.mark.parametrize("returned", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_precision_lower_than_that_of_float32_is_refused_with_its_line(
    dtype: torch.dtype, returned: bool
) -> None:
    with pytest.raises(ImpureModule, match="lower than float32") as error:
        trace(InDtype(dtype, returned=returned), 2, 2)
    assert f"{dtype} ({line_of(InDtype.forward, '.to(self.dtype)')})" in str(error.value)


class Masked(nn.Module):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state + control * (state > 0).half()


def test_a_mask_in_half_precision_is_exact_and_compiled() -> None:
    found = evaluate(trace(Masked(), 2, 2), [1.5, -2.0], [0.1, 0.2])
    assert found.tolist() == [1.6, -2.0]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.int64])
def test_a_module_that_returns_no_real_numbers_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(UnsupportedOperation, match=rf"InDtype returns {dtype}, expected"):
        trace(InDtype(dtype, returned=True), 2, 2)


@pytest.mark.parametrize(
    ("dtype", "on_the_way"),
    [(torch.bool, [1.0, 1.0]), (torch.int32, [3.0, -1.0]), (torch.float64, [3.5, -1.5])],
)
def test_on_the_way_it_may_compute_them_and_read_a_table_in_half_precision(
    dtype: torch.dtype, on_the_way: list[float]
) -> None:
    module = InDtype(dtype, returned=False)
    expected = torch.tensor([1.5, -2.0]).double() + torch.tensor(on_the_way) * module.table.double()
    assert evaluate(trace(module, 2, 2), [1.5, -2.0], [2.0, 0.5]).tolist() == expected.tolist()
