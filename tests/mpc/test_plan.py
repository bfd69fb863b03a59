"""What a solve returns."""

import torch

from mpc_gym.mpc import Plan


def test_a_shifted_plan_drops_the_first_control_and_repeats_the_last():
    controls = torch.arange(12.0, requires_grad=True).reshape(2, 3, 2)
    done = torch.ones(2, dtype=torch.bool)
    plan = Plan(torch.zeros(2, 3, 4), controls, torch.zeros(2), done, done.long())
    warm_start = plan.shift()
    assert warm_start[0].tolist() == [[2.0, 3.0], [4.0, 5.0], [4.0, 5.0]]
    assert warm_start.shape == controls.shape
    assert not warm_start.requires_grad


def test_a_plan_of_one_stage_shifts_to_itself():
    controls = torch.tensor([[[3.0]]])
    done = torch.ones(1, dtype=torch.bool)
    plan = Plan(torch.zeros(1, 1, 2), controls, torch.zeros(1), done, done.long())
    assert plan.shift().tolist() == [[[3.0]]]


def test_a_plan_prints_in_one_line_with_what_it_costs():
    done = torch.tensor([True, False, True])
    states, controls = torch.zeros(3, 40, 4), torch.zeros(3, 40, 2, requires_grad=True)
    plan = Plan(states, controls, torch.tensor([1.5, 3.0, 2.0]), done, torch.tensor([4, 200, 7]))
    assert repr(plan) == (
        "Plan(batch=3, horizon=40, n_state=4, n_ctrl=2, cost=1.5 to 3, converged=2 of 3, "
        "iterations=4 to 200)"
    )
    one = Plan(states[:1], controls[:1], plan.cost[:1], done[:1], plan.iterations[:1])
    assert repr(one) == (
        "Plan(batch=1, horizon=40, n_state=4, n_ctrl=2, cost=1.5, converged=True, iterations=4)"
    )
    none = Plan(states[:0], controls[:0], plan.cost[:0], done[:0], plan.iterations[:0])
    assert repr(none) == "Plan(batch=0, horizon=40, n_state=4, n_ctrl=2, no instance)"
