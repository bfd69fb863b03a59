"""What a person who gives `MPC` constraints can rely on."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from benchmarks.constrained_systems import OBSTACLE, ORIGIN, SLOW, SYSTEMS, TRACK, Within
from mpc_gym import MPC
from mpc_gym.models import LinearDynamics, QuadraticCost
from tests.covering import covering_product
from tests.mpc.formulas import LastRows, Rows

FLOAT = torch.float64
BACKENDS = ("native", "torch")


class Scaled(nn.Module):
    """A module's values in other units."""

    def __init__(self, module: nn.Module, unit: float) -> None:
        super().__init__()
        self.module, self.unit = module, unit

    def forward(self, *given):
        return self.unit * self.module(*given)


def integrator(**options: object) -> MPC:
    """x + u, at a cost of x^2 / 2 + u^2 / 2 a stage."""
    dynamics = LinearDynamics(torch.eye(1, dtype=FLOAT), torch.eye(1, dtype=FLOAT))
    options = {"control_low": None, "control_high": None, **options}
    return MPC(
        dynamics, QuadraticCost(torch.eye(2, dtype=FLOAT)), options.pop("horizon", 2), **options
    )


def solve(mpc: MPC, x_init, **arguments):
    with torch.no_grad():
        return mpc(x_init, **arguments)


def constrained_starts(count: int):
    """Start states of the slow pendulum whose plans constraints hold."""
    x_init = SLOW.start_states(96, 0)
    held = solve(SLOW.controller(), x_init).multipliers.flatten(1).any(1)
    return x_init[held][:count]


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_from_random_feasible_starts_plans_satisfy_their_constraints(system) -> None:
    plan = solve(system.controller(), system.start_states(256, 0))
    assert plan.converged.float().mean() >= 0.99
    assert plan.violation[plan.converged].max() <= 1e-7


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_the_plan_is_that_of_slsqp(system) -> None:
    mpc = system.controller()
    mpc.horizon = 8
    limit = {"to the origin": 20.0}.get(system.name, system.limit)
    mpc.control_low, mpc.control_high = -limit, limit
    x_init = system.start_states(3, 2)
    plan = solve(mpc, x_init)
    assert plan.converged.all()
    shape = plan.controls[0].shape
    for i, start in enumerate(x_init):

        def rolled(u, start=start):
            u = torch.as_tensor(u, dtype=FLOAT).reshape(shape)
            states = [start]
            for t in range(len(u) - 1):
                states.append(mpc.dynamics(states[-1], u[t]))
            return torch.stack(states), u

        def cost(u):
            u = torch.tensor(u, requires_grad=True)
            value = mpc.cost(*rolled(u)).sum()
            return value.item(), torch.autograd.grad(value, u)[0].numpy()

        def rows(u):
            return -mpc.constraints(*rolled(u))[1:].flatten()

        def equalities(u):
            return mpc.terminal_equalities(rolled(u)[0][-1])

        asked = []
        parts = ((mpc.constraints, "ineq", rows), (mpc.terminal_equalities, "eq", equalities))
        for part, kind, function in parts:
            if part is None:
                continue
            asked.append(
                {
                    "type": kind,
                    "fun": lambda u, f=function: f(u).detach().numpy(),
                    "jac": lambda u, f=function: torch.autograd.functional.jacobian(
                        f, torch.tensor(u)
                    ).numpy(),
                }
            )
        found = minimize(
            cost,
            np.zeros(shape.numel()),
            jac=True,
            bounds=[(-limit, limit)] * shape.numel(),
            constraints=asked,
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert plan.cost[i].item() == pytest.approx(found.fun, rel=1e-6, abs=1e-9)
        np.testing.assert_allclose(plan.controls[i].flatten(), found.x, atol=2e-3 * limit)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_constraint_that_is_never_active_changes_nothing(backend: str) -> None:
    x_init = SLOW.start_states(8, 0)
    far, without = (
        SLOW.controller(constraints=rows, backend=backend) for rows in (Within(2, 50.0), None)
    )
    plan, expected = solve(far, x_init), solve(without, x_init)
    torch.testing.assert_close(plan.controls, expected.controls, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(plan.cost, expected.cost, rtol=1e-9, atol=1e-9)
    assert not plan.multipliers.any()
    assert not plan.violation.any()
    assert expected.multipliers is None
    assert not expected.violation.any()


@pytest.mark.parametrize(("system", "unit"), covering_product(SYSTEMS, [1e-6, 1e6]))
def test_units_of_cost_and_constraints_change_nothing_of_the_plan(system, unit: float) -> None:
    x_init = system.start_states(8, 0)
    plan = solve(system.controller(), x_init)
    mpc = system.controller()
    for name in ("constraints", "terminal_equalities"):
        if getattr(mpc, name) is not None:
            setattr(mpc, name, Scaled(getattr(mpc, name), unit))
    scaled = solve(mpc, x_init)
    mpc = system.controller()
    mpc.cost = Scaled(mpc.cost, unit)
    dearer = solve(mpc, x_init)
    for other, factor in ((scaled, 1 / unit), (dearer, unit)):
        assert other.converged.all()
        torch.testing.assert_close(other.controls, plan.controls, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(
            other.multipliers / factor, plan.multipliers, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_multipliers_are_what_a_unit_of_room_is_worth(backend: str) -> None:
    x_init = constrained_starts(3)
    mpc = SLOW.controller(backend=backend, tolerance=1e-9)
    plan, h = solve(mpc, x_init), 1e-5
    costs = []
    for limit in (0.5 - h, 0.5 + h):
        with torch.no_grad():
            mpc.constraints.limit.fill_(limit)
        costs.append(solve(mpc, x_init).cost)
    torch.testing.assert_close(
        plan.multipliers.sum((1, 2)), (costs[0] - costs[1]) / (2 * h), rtol=1e-4, atol=1e-6
    )


def test_a_high_price_gives_the_plan_of_hard_constraints() -> None:
    x_init = constrained_starts(8)
    hard = solve(SLOW.controller(), x_init)
    soft = solve(SLOW.controller(soft=2 * hard.multipliers.max().item()), x_init)
    torch.testing.assert_close(soft.controls, hard.controls, rtol=1e-7, atol=1e-7)
    assert soft.violation.max() <= 1e-7


def test_multipliers_of_soft_constraints_are_prices_at_most() -> None:
    x_init = constrained_starts(8)
    plan = solve(SLOW.controller(soft=[0.02, 0.005]), x_init)
    assert plan.converged.all()
    prices = torch.tensor([0.02, 0.005], dtype=FLOAT)
    assert bool((plan.multipliers >= 0).all() & (plan.multipliers <= prices).all())
    rows = SLOW.controller().constraints(plan.states, plan.controls).detach()
    paid = (rows > 1e-6)[:, 1:]
    assert paid.any()
    assert torch.equal(plan.multipliers[:, 1:][paid], prices.expand_as(rows)[:, 1:][paid])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("w", [0.3, 1.5, 4.0])
def test_a_soft_constraint_is_violated_as_little_as_it_pays(backend: str, w: float) -> None:
    """x_1 = u >= 5 costs u^2 / 2 + u^2 / 2, a unit too little w: u = w / 2."""
    mpc = integrator(constraints=Rows(lambda x, u: 5.0 - x), soft=w, backend=backend)
    plan = solve(mpc, torch.zeros(1, 1, dtype=FLOAT))
    assert plan.converged.all()
    assert plan.controls[0, 0].item() == pytest.approx(w / 2, rel=1e-6)
    assert plan.violation.item() == pytest.approx(5 - w / 2, rel=1e-6)
    assert plan.cost.item() == pytest.approx(w**2 / 4, rel=1e-6)


def test_what_cannot_be_satisfied_is_reported_and_disturbs_no_other() -> None:
    x_init = SLOW.start_states(6, 0)
    fast = x_init.clone()
    fast[2, 2] = 5.0
    mpc = SLOW.controller()
    plan, others = solve(mpc, fast), [0, 1, 3, 4, 5]
    assert plan.converged.tolist() == [True, True, False, True, True, True]
    assert plan.violation[2] > 1.0
    assert plan.violation[others].max() < 1e-9
    for name in ("controls", "cost", "multipliers"):
        assert torch.equal(getattr(plan, name)[others], getattr(solve(mpc, x_init[others]), name))
    soft = solve(SLOW.controller(soft=10.0), fast)
    assert soft.converged.all()
    assert (soft.controls[2, 0] == -2.0).all(), "it brakes as hard as it can"


def test_a_start_state_that_is_not_finite_spoils_its_own_instance_only() -> None:
    x_init = SLOW.start_states(4, 0)
    mpc, fresh = SLOW.controller(), SLOW.controller()
    spoilt = x_init.clone()
    spoilt[0, 1] = torch.nan
    plan, expected = solve(mpc, spoilt), solve(fresh, x_init)
    assert plan.converged.tolist() == [False, True, True, True]
    assert plan.cost[0].isnan()
    assert torch.equal(plan.controls[1:], expected.controls[1:])
    assert torch.equal(solve(mpc, x_init).controls, expected.controls), "nothing is kept of it"


def test_rows_of_the_control_are_asked_of_the_first_stage_and_rows_of_the_state_are_not() -> None:
    x_init = torch.full((1, 1), 3.0, dtype=FLOAT)
    of_state = solve(integrator(constraints=Rows(lambda x, u: x - 1.0)), x_init)
    assert of_state.converged.all()
    assert of_state.states[0, :, 0].tolist() == pytest.approx([3.0, 1.0])
    of_control = solve(integrator(constraints=Rows(lambda x, u: -0.5 - u)), x_init)
    assert of_control.controls[0, 0].item() == pytest.approx(-0.5)
    both = solve(
        integrator(constraints=Rows(lambda x, u: torch.cat((x - 1.0, -0.5 - u), -1))), x_init
    )
    assert not both.converged.any(), "one step of 0.5 does not get there"
    assert both.multipliers[0, 0, 0] == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_constraints_on_the_last_state_are_asked_of_it_alone(backend: str) -> None:
    x_init = torch.full((1, 1), 3.0, dtype=FLOAT)
    below = integrator(terminal_constraints=LastRows(lambda x: x - 0.1), horizon=4, backend=backend)
    plan = solve(below, x_init)
    assert plan.states[0, -1].item() == pytest.approx(0.1, abs=1e-9)
    assert plan.states[0, 1].item() > 0.5
    assert plan.multipliers.shape == (1, 4, 1)
    assert plan.multipliers[0, :-1].count_nonzero() == 0
    at = integrator(terminal_equalities=LastRows(lambda x: x + 1.0), horizon=4, backend=backend)
    assert solve(at, x_init).states[0, -1].item() == pytest.approx(-1.0, abs=1e-9)
    all_three = integrator(
        constraints=Rows(lambda x, u: -1.5 - u),
        terminal_constraints=LastRows(lambda x: x - 0.1),
        terminal_equalities=LastRows(lambda x: x + 1.0),
        horizon=4,
        backend=backend,
    )
    plan = solve(all_three, x_init)
    assert plan.multipliers.shape == (1, 4, 3)
    assert plan.states[0, -1].item() == pytest.approx(-1.0, abs=1e-9)
    assert plan.controls[0, :3].min().item() == pytest.approx(-1.5, abs=1e-9)


def test_more_guesses_find_the_better_side_of_an_obstacle() -> None:
    x_init = OBSTACLE.start_states(32, 5) * torch.tensor([1.0, 1.0, 1.0, 3.0])
    mpc = OBSTACLE.controller()
    one, several = solve(mpc, x_init), solve(mpc, x_init, starts=8)
    assert several.converged.all()
    assert (several.cost <= one.cost * (1 + 1e-9)).all()
    assert (several.cost < 0.99 * one.cost).any()
    assert several.violation.max() <= 1e-7


def test_a_neural_network_in_float32_can_be_a_constraint_and_a_cost() -> None:
    x_init = SLOW.start_states(2, 0).float()
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    mpc = SLOW.controller(constraints=Rows(lambda x, u: network(x) - 5.0))
    mpc.constraints.network = network
    plan = mpc(x_init)
    assert plan.converged.all()
    assert plan.violation.dtype == plan.multipliers.dtype == torch.float32
    plan.controls.square().sum().backward()
    assert network[0].weight.grad.dtype == torch.float32


def test_copies_and_pickles_plan_the_same_and_their_own() -> None:
    x_init = constrained_starts(4)
    mpc = SLOW.controller(soft=5.0)
    expected = solve(mpc, x_init)
    for other in (copy.deepcopy(mpc), pickle.loads(pickle.dumps(mpc))):
        assert torch.equal(solve(other, x_init).controls, expected.controls)
        with torch.no_grad():
            other.constraints.limit.fill_(0.45)
        assert not torch.equal(solve(other, x_init).controls, expected.controls)
        assert torch.equal(solve(mpc, x_init).controls, expected.controls)


def test_the_parameters_of_constraints_are_in_the_state_dict() -> None:
    x_init = constrained_starts(4)
    mpc, other = SLOW.controller(), SLOW.controller(constraints=Within(2, 0.3))
    solve(other, x_init)
    other.load_state_dict(mpc.state_dict())
    assert torch.equal(solve(other, x_init).controls, solve(mpc, x_init).controls)


def test_settings_may_be_changed_between_calls() -> None:
    x_init = constrained_starts(4)
    mpc = SLOW.controller()
    solve(mpc, x_init)
    for name, value in (
        ("constraints", Within(2, 0.45)),
        ("soft", 0.01),
        ("soft", [0.02, 0.03]),
        ("horizon", 12),
        ("control_high", 1.5),
        ("soft", None),
        ("hessian", "gauss-newton"),
        ("terminal_constraints", LastRows(lambda x: x[..., 2:] - 0.1)),
        ("constraints", None),
        ("terminal_constraints", None),
    ):
        setattr(mpc, name, value)
        names = ("constraints", "terminal_constraints", "soft", "hessian")
        fresh = SLOW.controller(**{each: getattr(mpc, each) for each in names})
        fresh.horizon, fresh.control_high = mpc.horizon, mpc.control_high
        assert torch.equal(solve(mpc, x_init).controls, solve(fresh, x_init).controls), name


def test_a_warm_start_saves_iterations_and_ends_at_the_same_plan() -> None:
    x_init = constrained_starts(8)
    mpc = SLOW.controller()
    cold = solve(mpc, x_init)
    warm = solve(mpc, x_init, warm_start=cold.controls)
    torch.testing.assert_close(warm.controls, cold.controls, rtol=1e-6, atol=1e-6)
    assert warm.iterations.sum() < cold.iterations.sum()
    following = solve(mpc, cold.states[:, 1], warm_start=cold.shift())
    assert following.converged.all()
    torch.testing.assert_close(
        following.cost, solve(mpc, cold.states[:, 1]).cost, rtol=1e-7, atol=1e-9
    )
    arrived = solve(ORIGIN.controller(), ORIGIN.start_states(8, 0))
    again = solve(ORIGIN.controller(), ORIGIN.start_states(8, 0), warm_start=arrived.controls)
    assert again.converged.all(), "an equality that the guess satisfies already"


def test_two_threads_at_a_time_get_the_plans_of_one() -> None:
    mpc = TRACK.controller()
    batches = [TRACK.start_states(32, seed) for seed in range(6)]
    expected = [solve(mpc, x_init).controls for x_init in batches]
    found = {}

    def run(first: int) -> None:
        for i in range(first, 6, 2):
            found[i] = solve(mpc, batches[i]).controls

    threads = [threading.Thread(target=run, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], expected[i]) for i in range(6))


def test_a_plan_that_is_asked_for_its_unclamped_control_has_it() -> None:
    mpc = SLOW.controller()
    x_init = torch.cat((SLOW.start_states(8, 0), torch.tensor([[1.0, 0.0, 5.0]], dtype=FLOAT)))
    plan = solve(mpc, x_init, unclamped=True)
    held = plan.controls[:, 0].abs() == 2.0
    assert held.any()
    assert not held.all()
    assert (plan.unclamped[:-1][held[:-1]].abs() > 2.0).all()
    torch.testing.assert_close(
        plan.unclamped[~held], plan.controls[:, 0][~held], rtol=1e-6, atol=1e-6
    )
    assert not plan.converged[-1]
    assert torch.equal(plan.unclamped[-1], plan.controls[-1, 0])


def test_an_empty_batch_is_an_empty_plan_and_nothing_is_kept_of_it() -> None:
    mpc = SLOW.controller()
    plan = solve(mpc, torch.zeros(0, 3))
    assert plan.multipliers.shape == (0, 20, 2)
    assert plan.violation.shape == (0,)
    x_init = constrained_starts(4)
    assert torch.equal(solve(mpc, x_init).controls, solve(SLOW.controller(), x_init).controls)


@pytest.mark.parametrize("growth", [3.0, 10.0])
def test_a_guess_that_runs_away_does_not_loosen_the_constraint(growth: float) -> None:
    """Zero controls let x grow up to 1e8, and 1e-7 of that would be a lot."""
    dynamics = LinearDynamics(torch.full((1, 1), growth, dtype=FLOAT), torch.eye(1, dtype=FLOAT))
    cost = QuadraticCost(torch.diag(torch.tensor([0.0, 1.0], dtype=FLOAT)))
    rows = Rows(lambda x, u: torch.cat((x - 1.0, -x - 1.0), -1))
    mpc = MPC(dynamics, cost, 9, None, None, constraints=rows)
    plan = solve(mpc, torch.ones(1, 1, dtype=FLOAT))
    assert bool(plan.converged) == (plan.violation.item() <= 1e-6)
    assert bool(plan.converged) or growth > 3.0


@pytest.mark.parametrize("max_iterations", [1, 5])
def test_iterations_are_bounded(max_iterations: int) -> None:
    plan = solve(OBSTACLE.controller(max_iterations=max_iterations), OBSTACLE.start_states(4, 0))
    assert not plan.converged.any()
    assert plan.iterations.max() < 2 * max_iterations
