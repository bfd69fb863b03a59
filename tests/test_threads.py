"""Several threads at once: what one thread alone gets, and modules that stay as they are."""

import itertools
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpc_gym import MPC
from mpc_gym.compiled import compile_module
from mpc_gym.policies import load_shipped
from tests.covering import covering
from tests.killing import needs_fork

Result = TypeVar("Result")
THREADS = 4


class Swing(nn.Module):
    """A pendulum whose constant `offset` makes each instance another program."""

    n_state, n_ctrl = 2, 1

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.stiffness = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.offset = offset

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        force = self.stiffness * torch.sin(x[..., 0]) + u[..., 0] + self.offset
        return torch.stack((x[..., 0] + 0.1 * x[..., 1], x[..., 1] + 0.1 * force), -1)


class Effort(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 0.1], dtype=torch.float64))

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        return (self.weight * x * x).sum(-1) + 0.1 * (u * u).sum(-1)


X = torch.tensor([[1.0, 0.0], [0.5, -1.0]], dtype=torch.float64)


def at_once(function: Callable[[], Result], meanwhile: Callable[[], None]) -> list[Result]:
    """What the function returns in each of several threads; `meanwhile` is repeated in this one."""
    barrier = threading.Barrier(THREADS + 1)
    results: list[Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        barrier.wait()
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    for thread in threads:
        while thread.is_alive():
            meanwhile()
            thread.join(0.001)  # or this thread would take the others' time
    for error in errors:
        raise error
    return results


def identities(module: nn.Module) -> list[tuple[str, int]]:
    return [(name, id(value)) for name, value in module.named_parameters()]


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_first_plans_from_several_threads_are_those_of_one_and_leave_the_model_alone(
    backend: Any,
) -> None:
    u = torch.zeros(2, 1, dtype=torch.float64)
    for repetition in range(3):
        dynamics = Swing(0.001 * repetition)
        mpc = MPC(dynamics, Effort(), 6, backend=backend)
        parameters, own = list(mpc.parameters()), identities(mpc)
        following = dynamics(X, u)

        def plan(mpc: MPC = mpc, parameters: list[nn.Parameter] = parameters) -> list[Tensor]:
            controls = mpc(X).controls
            return [controls, *torch.autograd.grad(controls.square().sum(), parameters)]

        def look(
            dynamics: nn.Module = dynamics,
            mpc: MPC = mpc,
            following: Tensor = following,
            own: list[tuple[str, int]] = own,
        ) -> None:
            assert torch.equal(dynamics(X, u), following)
            assert identities(mpc) == own

        found = at_once(plan, look)
        alone = plan()
        assert identities(mpc) == own
        for each in found:
            for value, expected in zip(each, alone, strict=True):
                assert torch.equal(value, expected)


class Slow(nn.Module):
    """The swing's speed is at most `limit`, either way."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(0.25, dtype=torch.float64))

    def forward(self, x: Tensor, _u: Tensor) -> Tensor:
        return torch.stack((x[..., 1] - self.limit, -self.limit - x[..., 1]), -1)


# each thread has start states of its own, so that one that took another's problem would show
STARTS = torch.stack([X * (0.3 + 0.1 * thread) for thread in range(THREADS)])


@pytest.mark.parametrize(
    ("backend", "smoothing", "constrained"),
    covering(
        (backend, *plans)
        for backend in ("native", "torch")
        for plans in ((0.05, False), (0.0, True), (0.05, True))
    ),
)
def test_threads_that_share_a_smoothed_or_constrained_controller_get_their_own_plans(
    backend: Any, smoothing: float, constrained: bool
) -> None:
    constraints = Slow() if constrained else None
    options: Any = {"smoothing": smoothing, "constraints": constraints, "backend": backend}
    mpc = MPC(Swing(0.0), Effort(), 6, -4.0, 4.0, **options)
    parameters, own = list(mpc.parameters()), identities(mpc)
    bounds = mpc.control_low.clone(), mpc.control_high.clone()

    def plan(thread: int) -> list[Tensor]:
        found = mpc(STARTS[thread])
        assert found.converged.all()
        assert found.multipliers is None or (found.multipliers > 0.1).any()  # some are pressed
        return [
            found.controls,
            *torch.autograd.grad(found.controls.square().sum(), parameters),
        ]

    def look() -> None:
        assert identities(mpc) == own
        assert (mpc.smoothing, mpc.control_low, mpc.control_high) == (smoothing, *bounds)

    threads = itertools.count()
    found = at_once(lambda: (thread := next(threads), plan(thread)), look)
    assert sorted(thread for thread, _ in found) == list(range(THREADS))
    for thread, values in found:
        for value, expected in zip(values, plan(thread), strict=True):
            assert torch.equal(value, expected)


def test_threads_that_ask_one_fresh_policy_get_the_actions_of_one_thread() -> None:
    observation = np.array([[0.6, 0.8, -1.0]], dtype=np.float32)
    expected = load_shipped("DiffPendulum-v0/mpc", "cpu").predict(observation, deterministic=True)[
        0
    ]
    for _ in range(3):
        policy = load_shipped("DiffPendulum-v0/mpc", "cpu")
        own = identities(policy)

        def act(policy: Any = policy) -> Any:
            return policy.predict(observation, deterministic=True)[0]

        for action in at_once(act, lambda: None):
            np.testing.assert_array_equal(action, expected)
        assert identities(policy) == own


def test_threads_may_compile_one_module_while_it_is_being_used() -> None:
    dynamics = Swing(0.123)
    u = torch.zeros(2, 1, dtype=torch.float64)
    following = dynamics(X, u)

    def compiled() -> list[Any]:
        module = compile_module(dynamics, 2, 1)
        return [module.value(X, u), module.jacobian(X, u), module.hessian(torch.ones(2, 2), X, u)]

    def look() -> None:
        assert torch.equal(dynamics(X, u), following)

    found = at_once(compiled, look)
    np.testing.assert_allclose(found[0][0], following.detach(), rtol=1e-14)
    for each in found:
        for value, expected in zip(each, found[0], strict=True):
            np.testing.assert_array_equal(value, expected)


@needs_fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.skipif(
    torch.backends.cuda.is_built(), reason="PyTorch with CUDA has no autograd in a forked child"
)
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_child_forked_while_a_thread_compiles_can_plan() -> None:
    mpc = MPC(Swing(0.321), Effort(), 6, backend="native")
    started = threading.Event()

    def compile_it() -> None:
        started.set()
        mpc(X)

    thread = threading.Thread(target=compile_it)
    thread.start()
    assert started.wait(60)
    child = os.fork()
    if child == 0:
        # pytest must not run on in the child, whatever happens in it
        try:
            right = bool(MPC(Swing(0.321), Effort(), 6, backend="native")(X).converged.all())
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
