import numpy as np
import pytest
import torch

from mpc_gym.models import QuadraticCost

RNG = np.random.default_rng(0)
N_STATE, N_CTRL, TIME = 3, 2, 4
N = N_STATE + N_CTRL


def tau(*shape: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    values = RNG.normal(size=(*shape, N))
    return torch.tensor(values[..., :N_STATE]), torch.tensor(values[..., N_STATE:]), values


def by_hand(values: np.ndarray, C: np.ndarray, c: np.ndarray) -> np.ndarray:
    curvature = np.einsum("...i,...ij,...j->...", values, C, values)
    return 0.5 * curvature + (c * values).sum(-1)


@pytest.mark.parametrize("shape", [(), (6,), (6, TIME)])
def test_one_matrix_holds_for_every_row(shape: tuple[int, ...]) -> None:
    C, c = RNG.normal(size=(N, N)), RNG.normal(size=N)
    state, control, values = tau(*shape)
    cost = QuadraticCost(torch.tensor(C), torch.tensor(c))(state, control).detach()
    np.testing.assert_allclose(cost, by_hand(values, C, c), rtol=1e-12)


@pytest.mark.parametrize("per_stage", [("C",), ("c",), ("C", "c")])
def test_a_cost_may_change_with_time(per_stage: tuple[str, ...]) -> None:
    C = RNG.normal(size=(TIME, N, N) if "C" in per_stage else (N, N))
    c = RNG.normal(size=(TIME, N) if "c" in per_stage else N)
    module = QuadraticCost(torch.tensor(C), torch.tensor(c))
    state, control, values = tau(6, TIME)
    np.testing.assert_allclose(module(state, control).detach(), by_hand(values, C, c), rtol=1e-12)
    assert set(module.per_stage_parameters) == set(per_stage)


@pytest.mark.parametrize("shape", [(N,), (TIME, N)])
def test_diagonal_weights_are_a_diagonal_matrix(shape: tuple[int, ...]) -> None:
    weights = torch.tensor(RNG.normal(size=shape))
    state, control, _ = tau(6, TIME)
    diagonal = QuadraticCost.diagonal(weights)
    full = QuadraticCost(torch.diag_embed(weights))
    torch.testing.assert_close(diagonal(state, control), full(state, control))
    assert set(diagonal.per_stage_parameters) == ({"C"} if len(shape) == 2 else set())


def test_a_vector_is_a_diagonal() -> None:
    weights = torch.tensor(RNG.normal(size=N))
    state, control, _ = tau(6)
    torch.testing.assert_close(
        QuadraticCost(weights)(state, control), QuadraticCost.diagonal(weights)(state, control)
    )


@pytest.mark.parametrize("penalty", [0.3, [0.3, 0.7]])
def test_a_goal_gives_the_squared_distance_but_for_a_constant(penalty) -> None:
    goal, weights = RNG.normal(size=N_STATE), RNG.uniform(0.1, 2.0, N_STATE)
    n_ctrl = np.size(penalty)
    x, u = RNG.normal(size=(50, N_STATE)), RNG.normal(size=(50, n_ctrl))
    cost = QuadraticCost.from_goal(
        torch.tensor(goal), torch.tensor(weights), torch.tensor(penalty, dtype=torch.float64)
    )
    distance = 0.5 * (weights * (x - goal) ** 2).sum(1) + 0.5 * (penalty * u**2).sum(1)
    difference = distance - cost(torch.tensor(x), torch.tensor(u)).detach().numpy()
    np.testing.assert_allclose(difference, 0.5 * (weights * goal**2).sum(), rtol=1e-10)


def test_the_paper_cost_of_its_pendulum_is_least_upright() -> None:
    cost = QuadraticCost.from_goal(
        torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.1]), 0.001
    )
    theta = torch.linspace(-torch.pi, torch.pi, 101)
    states = torch.stack((theta.cos(), theta.sin(), torch.zeros_like(theta)), 1)
    costs = cost(states, torch.zeros(101, 1))
    assert theta[costs.argmin()].abs() < 1e-6
    torch.testing.assert_close(costs, 0.5 - theta.cos())


def test_its_derivatives_match_finite_differences() -> None:
    module = QuadraticCost(torch.tensor(RNG.normal(size=(N, N))), torch.tensor(RNG.normal(size=N)))
    state, control, _ = tau(3)

    def cost(C, c, x, u):
        return torch.func.functional_call(module, {"C": C, "c": c}, (x, u))

    inputs = (module.C.detach(), module.c.detach(), state, control)
    assert torch.autograd.gradcheck(cost, tuple(v.clone().requires_grad_() for v in inputs))


def test_integers_and_arguments_are_copied_to_floating_point() -> None:
    matrix = torch.eye(N, dtype=torch.int64)
    cost = QuadraticCost(matrix)
    matrix.zero_()
    assert cost(torch.ones(N_STATE), torch.ones(N_CTRL)).item() == pytest.approx(N / 2)


def test_a_parameter_is_kept_itself_so_that_it_can_be_shared() -> None:
    C, c = torch.nn.Parameter(torch.eye(N)), torch.nn.Parameter(torch.zeros(N).double())
    cost = QuadraticCost(C, c)
    assert cost.C is C
    assert cost.c is c
    cost(torch.ones(N_STATE), torch.ones(N_CTRL)).backward()
    np.testing.assert_allclose(C.grad, np.full((N, N), 0.5))
    np.testing.assert_allclose(c.grad, np.ones(N))


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda leaf: QuadraticCost(torch.diag(leaf)), "C"),
        (QuadraticCost, "C"),
        (lambda leaf: QuadraticCost(torch.eye(3), leaf), "c"),
        (QuadraticCost.diagonal, "weights"),
        (lambda leaf: QuadraticCost.from_goal(leaf, torch.ones(3), 0.1), "goal_state"),
        (lambda leaf: QuadraticCost.from_goal(torch.ones(3), leaf, 0.1), "goal_weights"),
        (lambda leaf: QuadraticCost.from_goal(torch.ones(3), torch.ones(3), leaf), "control_pen"),
    ],
)
def test_a_tensor_whose_gradient_would_be_lost_is_refused(build, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}\w* must not require a gradient"):
        build(torch.ones(3, requires_grad=True))
    build(torch.ones(3))


def test_it_says_its_size() -> None:
    assert QuadraticCost(torch.eye(N)).size == N


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: QuadraticCost(torch.zeros(3, 2)), r"C must be \[n, n\] or \[T, n, n\]"),
        (lambda: QuadraticCost(torch.zeros(2, 2, 3, 3)), "C must be"),
        (lambda: QuadraticCost(torch.tensor(1.0)), "C must be"),
        (
            lambda: QuadraticCost.diagonal(torch.zeros(2, 3, 3)),
            r"weights must be \[n\] or \[T, n\]",
        ),
        (lambda: QuadraticCost(torch.eye(3), torch.zeros(2)), r"c must be \[3\] or \[T, 3\]"),
        (
            lambda: QuadraticCost.from_goal(torch.zeros(3), torch.zeros(2), 0.1),
            r"both be \[n_state\], got \[3\] and \[2\]",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_control_penalty_keeps_the_digits_of_the_weights() -> None:
    float64 = torch.float64
    cost = QuadraticCost.from_goal(
        torch.zeros(2, dtype=float64), torch.ones(2, dtype=float64), control_penalty=0.001
    )
    assert cost.C[-1].item() == 0.001
