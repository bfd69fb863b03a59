"""The paper's systems: what an independent check says of the experts' plans."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from reproduction.problems import (
    CARTPOLE,
    HORIZON,
    PENDULUM,
    LearnedCost,
    PaperSystem,
    Plans,
    expert_plans,
    windy_pendulum,
)

Array = NDArray[np.float64]
SYSTEMS = [PENDULUM, CARTPOLE, windy_pendulum(0)]


def next_state(system: PaperSystem, state: Array, control: float) -> Array:
    """The equations of motion, written out a second time."""
    p, dt = system.expert, 0.05
    if "cart_mass" not in p:
        theta = np.arctan2(state[1], state[0])
        pull = 1.5 * p["gravity"] / p["length"] * np.sin(theta + p.get("wind", 0.0))
        push = 3 * control / (p["mass"] * p["length"] ** 2)
        speed = state[2] + dt * (pull + push - p.get("damping", 0.0) * state[2])
        theta += dt * speed
        return np.array([np.cos(theta), np.sin(theta), speed])
    x, v, cosine, sine, w = state
    total, moment = p["cart_mass"] + p["pole_mass"], p["pole_mass"] * p["pole_length"]
    push = (control + moment * w**2 * sine) / total
    turn = (p["gravity"] * sine - cosine * push) / (
        p["pole_length"] * (4 / 3 - p["pole_mass"] * cosine**2 / total)
    )
    theta = np.arctan2(sine, cosine) + dt * w
    acceleration = push - moment * turn * cosine / total
    return np.array(
        [x + dt * v, v + dt * acceleration, np.cos(theta), np.sin(theta), w + dt * turn]
    )


def total_cost(system: PaperSystem, x_init: Array, controls: Array) -> float:
    """The paper's objective: weighted squared distance from the goal, up to a constant."""
    pendulum = "cart_mass" not in system.expert
    goal = np.array([1.0, 0, 0] if pendulum else [0.0, 0, 1, 0, 0])
    weights = np.array([1.0, 1, 0.1] if pendulum else [0.1, 0.1, 1, 1, 0.1])
    state, cost = x_init, 0.0
    for control in controls:
        cost += 0.5 * np.sum(weights * (state - goal) ** 2) + 0.5 * 0.001 * control**2
        state = next_state(system, state, control)
    return cost


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.title)
def test_no_other_solver_improves_an_experts_plan(system: PaperSystem) -> None:
    plans = expert_plans(system, seed=0)
    for row in (0, 57, 119):
        x_init, controls = plans.states[row, 0].numpy(), plans.controls[row, :, 0].numpy()
        scale = system.limit  # so that scipy's steps fit

        def cost(scaled: Array, x_init: Array = x_init, scale: float = scale) -> float:
            return total_cost(system, x_init, scale * scaled)

        bounds = [(-1.0, 1.0)] * HORIZON
        found = minimize(cost, controls / scale, method="L-BFGS-B", bounds=bounds)
        assert found.fun > cost(controls / scale) - 1e-6
        np.testing.assert_allclose(scale * found.x, controls, atol=2e-2 * scale)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.title)
def test_the_experts_states_follow_from_its_controls(system: PaperSystem) -> None:
    plans = expert_plans(system, seed=3)
    for row in (0, 100):
        state = plans.states[row, 0].numpy()
        for t in range(1, HORIZON):
            state = next_state(system, state, plans.controls[row, t - 1, 0].item())
            np.testing.assert_allclose(plans.states[row, t], state, atol=1e-9)
    assert plans.controls.abs().max() <= system.limit


def test_with_several_starts_the_expert_never_plans_worse_and_sometimes_better() -> None:
    one, eight = (expert_plans(CARTPOLE, 0, starts) for starts in (1, 8))
    torch.testing.assert_close(one.states[:, 0], eight.states[:, 0])
    saved = [
        total_cost(CARTPOLE, x_init, u_one) - total_cost(CARTPOLE, x_init, u_eight)
        for x_init, u_one, u_eight in zip(
            one.states[:, 0].numpy(),
            one.controls[..., 0].numpy(),
            eight.controls[..., 0].numpy(),
            strict=True,
        )
    ]
    assert min(saved) > -1e-6
    better = sum(each > 1e-3 for each in saved)
    assert 0.2 < better / len(saved) < 0.5


def test_start_states_are_those_of_the_paper() -> None:
    angles = []
    for system in (PENDULUM, CARTPOLE):
        x_init = expert_plans(system, 1).states[:, 0]
        cosine, sine, speed = x_init[:, -3:].T
        angles.append(torch.atan2(sine, cosine).abs().max().item())
        assert 0.9 < speed.abs().max() < 1
    assert 0.95 * np.pi / 2 < angles[0] < np.pi / 2
    assert 0.95 * np.pi < angles[1] < np.pi
    assert 0.45 < x_init[:, :2].abs().max() < 0.5


def test_start_states_differ_between_seeds_and_not_between_numbers_of_plans() -> None:
    a, b = expert_plans(PENDULUM, 0), expert_plans(PENDULUM, 0, test=30)
    assert torch.equal(a.states, b.states[:120])
    assert not torch.equal(a.states, expert_plans(PENDULUM, 1).states)


def test_training_validation_and_test_plans_are_different_ones() -> None:
    plans = expert_plans(PENDULUM, 0)
    rows = [*plans.training(100).tolist(), *plans.validation.tolist(), *plans.test.tolist()]
    assert rows == list(range(120))
    assert Plans.training(10).tolist() == list(range(10))
    with pytest.raises(ValueError, match="between 1 and 100, got 101"):
        Plans.training(101)


def test_further_plans_come_after_those_of_the_test_and_change_none() -> None:
    few, many = expert_plans(PENDULUM, 0, test=20), expert_plans(PENDULUM, 0, test=20, more=30)
    assert torch.equal(many.states[:130], few.states)
    assert many.test.tolist() == few.test.tolist() == list(range(110, 130))
    assert many.more.tolist() == list(range(130, 160))
    assert not len(few.more)


def test_the_learner_in_wind_begins_near_the_papers_guess_and_does_not_know_of_wind() -> None:
    guesses = [windy_pendulum(seed).learner for seed in range(50)]
    assert guesses[0] != guesses[1]
    for name, low, high in (("gravity", 3.5, 6.5), ("mass", 0.5, 1.5), ("length", 0.5, 1.5)):
        values = [guess[name] for guess in guesses]
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values) <= high
    assert set(guesses[0]) == {"gravity", "mass", "length"}


def test_the_learned_cost_has_the_papers_cost_in_its_class() -> None:
    learned = LearnedCost(4)
    weights = torch.tensor([0.5, 0.5, 0.05, 0.0005], dtype=torch.float64)  # half the paper's
    with torch.no_grad():
        learned.logits.copy_(weights.logit())
        learned.p[0] = -(0.5**0.5)
    x_init = expert_plans(PENDULUM, 0).states[:5, 0]
    plans = [
        PENDULUM.controller(PENDULUM.dynamics(**PENDULUM.expert), cost, "exact", 1)(x_init)
        for cost in (learned, PENDULUM.cost())
    ]
    torch.testing.assert_close(plans[0].controls, plans[1].controls, atol=1e-6, rtol=0)


def test_the_learned_cost_begins_with_equal_weights_and_no_goal() -> None:
    cost = LearnedCost(4)
    state, control = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[4.0]])
    assert cost(state, control).item() == pytest.approx(0.25 * (1 + 4 + 9 + 16))
