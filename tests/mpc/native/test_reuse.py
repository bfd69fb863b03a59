"""What one plan leaves for the next, a prepared problem and idle lanes, never shows in a result."""

import copy
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from mpc_gym import MPC, Plan, make_mpc
from mpc_gym.mpc.native import backend


@pytest.fixture(autouse=True)
def _no_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def mpc() -> MPC:
    """A controller that has planned before."""
    mpc = make_mpc("DiffPendulum-v0", horizon=20, backend="native")
    mpc(start_states(1))
    return mpc


def start_states(batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 3, generator=generator, dtype=torch.float64)
    return torch.cat((nn.functional.normalize(x[:, :2]), x[:, 2:]), 1)


def assert_same(found: Plan, expected: Plan) -> None:
    for name in ("states", "controls", "cost", "converged", "iterations"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def mass(mpc: MPC) -> nn.Parameter:
    found = mpc.dynamics.mass
    assert isinstance(found, nn.Parameter)
    return found


def replace_the_parameter(mpc: MPC) -> None:
    mpc.dynamics.mass = nn.Parameter(1.1 * mass(mpc).detach())


def replace_its_numbers(mpc: MPC) -> None:
    mass(mpc).data = 1.1 * mass(mpc).data


CHANGES: dict[str, Callable[[MPC], object]] = {
    "in place": lambda mpc: mass(mpc).data.mul_(1.1),
    "through NumPy": lambda mpc: mass(mpc).detach().numpy().fill(1.2),
    "its numbers": replace_its_numbers,
    "the parameter": replace_the_parameter,
    "its dtype": lambda mpc: mpc.cost.float().torque_weight.data.mul_(2.0),
    "tolerance": lambda mpc: setattr(mpc, "tolerance", 0.1),
    "iterations": lambda mpc: setattr(mpc, "max_iterations", 2),
    "hessian": lambda mpc: setattr(mpc, "hessian", "gauss-newton"),
    "horizon": lambda mpc: setattr(mpc, "horizon", 19),
    "a bound": lambda mpc: setattr(mpc, "control_high", 1.0),
    "the number of a bound": lambda mpc: mpc.control_high.fill_(1.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_is_seen_by_the_next_plan(mpc: MPC, change) -> None:
    before = mpc(start_states(20))
    change(mpc)
    found = mpc(start_states(20))
    assert_same(found, copy.deepcopy(mpc)(start_states(20)))  # which has prepared nothing
    assert not torch.equal(found.controls[:, :19], before.controls[:, :19])


def test_a_parameter_that_is_not_finite_is_refused_each_time_until_it_is(mpc: MPC) -> None:
    before = mpc(start_states(3))
    mass_before = mass(mpc).item()
    mass(mpc).data.fill_(torch.nan)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"dynamics\.mass is not finite"):
            mpc(start_states(3))
    mass(mpc).data.fill_(mass_before)
    assert_same(mpc(start_states(3)), before)


def interrupt(kernel: Callable[[tuple[int, int], threading.Event], None], tasks: int) -> None:
    """What `in_threads` does where another thread has to stop, too."""
    kernel((0, tasks), threading.Event())
    raise KeyboardInterrupt


def stop(kernel: Callable[[int], bool], _: threading.Event) -> bool:
    return kernel(3)


@pytest.mark.parametrize("batch", [1, 30])
def test_a_solve_that_is_interrupted_leaves_nothing_behind(mpc: MPC, batch, monkeypatch) -> None:
    before = mpc(start_states(20))
    with monkeypatch.context() as patch:
        patch.setattr(backend, "in_threads", interrupt)
        patch.setattr(backend, "in_slices", stop)
        with pytest.raises(KeyboardInterrupt):
            mpc(start_states(batch, seed=1))
    assert_same(mpc(start_states(20)), before)


def test_python_threads_that_plan_at_once_find_what_each_finds_alone(mpc: MPC) -> None:
    batches = [start_states(1 + seed % 20, seed) for seed in range(40)]
    expected = [copy.deepcopy(mpc)(batches[0]), *map(mpc, batches[1:])]
    found: list[list[Plan]] = [[], []]
    plan = torch.no_grad()(mpc)  # whether there are gradients is a matter of the thread
    threads = [threading.Thread(target=lambda to=to: to.extend(map(plan, batches))) for to in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for plans in found:
        for each, alone in zip(plans, expected, strict=True):
            assert_same(each, alone)
