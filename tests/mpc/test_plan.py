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
