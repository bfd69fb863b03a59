import numpy as np
import pytest
import torch

from mpc_gym.models import LinearDynamics

RNG = np.random.default_rng(0)
A, B, OFFSET = RNG.normal(size=(3, 3)), RNG.normal(size=(3, 2)), RNG.normal(size=3)


@pytest.mark.parametrize("shape", [(), (5,), (5, 4)])
@pytest.mark.parametrize("offset", [None, OFFSET])
def test_it_is_the_affine_map(shape: tuple[int, ...], offset: np.ndarray | None) -> None:
    dynamics = LinearDynamics(
        torch.tensor(A), torch.tensor(B), None if offset is None else torch.tensor(offset)
    )
    x, u = RNG.normal(size=(*shape, 3)), RNG.normal(size=(*shape, 2))
    expected = np.einsum("ij,...j->...i", A, x) + np.einsum("ij,...j->...i", B, u)
    if offset is not None:
        expected = expected + offset
    following = dynamics(torch.tensor(x), torch.tensor(u)).detach()
    np.testing.assert_allclose(following, expected, rtol=1e-12)
    assert (dynamics.n_state, dynamics.n_ctrl) == (3, 2)


def test_it_keeps_copies_of_the_matrices() -> None:
    matrix = torch.tensor(A)
    dynamics = LinearDynamics(matrix, torch.tensor(B))
    matrix.zero_()
    np.testing.assert_array_equal(dynamics.A.detach(), A)


def test_a_parameter_is_kept_itself_so_that_it_can_be_shared() -> None:
    matrix = torch.nn.Parameter(torch.tensor(A))
    dynamics = LinearDynamics(matrix, torch.tensor(B))
    assert dynamics.A is matrix
    dynamics(torch.ones(3).double(), torch.ones(2).double()).sum().backward()
    np.testing.assert_allclose(matrix.grad, np.ones((3, 3)))


@pytest.mark.parametrize("name", ["A", "B", "offset"])
def test_a_tensor_whose_gradient_would_be_lost_is_refused(name: str) -> None:
    values = {"A": torch.tensor(A), "B": torch.tensor(B), "offset": torch.tensor(OFFSET)}
    values[name].requires_grad_()
    with pytest.raises(ValueError, match=rf"{name} must not require a gradient.*{name}\.detach"):
        LinearDynamics(**values)
    LinearDynamics(**{**values, name: values[name].detach()})


def test_its_parameters_can_be_learned() -> None:
    dynamics = LinearDynamics(torch.tensor(A), torch.tensor(B), torch.tensor(OFFSET))
    assert {name for name, _ in dynamics.named_parameters()} == {"A", "B", "offset"}
    dynamics(torch.ones(3).double(), torch.ones(2).double()).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in dynamics.parameters())


def test_the_state_says_the_dtype() -> None:
    dynamics = LinearDynamics(torch.tensor(A), torch.tensor(B))
    assert dynamics(torch.zeros(3), torch.zeros(2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3, 2), (3, 2), (3,)), r"A must be \[n_state, n_state\], got \[3, 2\]"),
        (((3,), (3, 2), (3,)), "A must be"),
        (((3, 3), (2, 2), (3,)), r"B must be \[n_state=3, n_ctrl\], got \[2, 2\]"),
        (((3, 3), (3,), (3,)), "B must be"),
        (((3, 3), (3, 2), (2,)), r"offset must be \[n_state=3\], got \[2\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearDynamics(*(torch.zeros(shape) for shape in shapes))
