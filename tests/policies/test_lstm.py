"""The network that writes down a sequence of controls."""

import pytest
import torch
from torch import nn

from mpc_gym.policies.lstm import LSTMPlanner


def make(seed: int = 0) -> LSTMPlanner:
    torch.manual_seed(seed)
    return LSTMPlanner(3, 2, horizon=4, hidden=8)


def test_the_controls_are_those_of_the_equations_written_out() -> None:
    planner = make()
    x_init = torch.randn(5, 3)
    cell = planner.cell
    h = c = torch.zeros(5, 8)
    y = planner.encode_state(x_init)
    for control in planner(x_init).unbind(1):
        gates = y @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        torch.testing.assert_close(control, planner.decode(c))
        y = planner.encode_control(control)


def test_its_parts_have_two_hidden_layers_of_the_papers_size() -> None:
    planner = LSTMPlanner(5, 1, horizon=20)
    for part in (planner.encode_state, planner.encode_control, planner.decode):
        linear = [layer for layer in part if isinstance(layer, nn.Linear)]
        assert [layer.in_features for layer in linear[1:]] == [256, 256]
    assert planner(torch.zeros(2, 5)).shape == (2, 20, 1)


def test_plans_come_in_the_dtype_of_the_start_states_with_a_gradient() -> None:
    planner = make()
    controls = planner(torch.randn(3, 3, dtype=torch.float64))
    assert controls.dtype == torch.float64
    controls.square().sum().backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in planner.parameters())


def test_each_start_state_has_a_plan_of_its_own() -> None:
    planner = make()
    x_init = torch.randn(6, 3)
    one_by_one = torch.cat([planner(x[None]) for x in x_init])
    torch.testing.assert_close(planner(x_init), one_by_one)


@pytest.mark.parametrize("size", ["n_state", "n_ctrl", "horizon", "hidden"])
def test_a_size_that_is_not_positive_is_refused(size: str) -> None:
    sizes = {"n_state": 3, "n_ctrl": 2, "horizon": 4, "hidden": 8, size: 0}
    with pytest.raises(ValueError, match="must be at least 1"):
        LSTMPlanner(**sizes)


def test_start_states_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x_init must be \[batch, n_state=3\], got \[5, 4\]"):
        make()(torch.zeros(5, 4))
