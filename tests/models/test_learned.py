"""An ensemble of networks, on top of known physics or of none."""

import numpy as np
import pytest
import torch
from torch import nn

from mpc_gym.compiled import compile_module
from mpc_gym.models import LearnedDynamics, PendulumDynamics


def data(count: int = 50) -> tuple[torch.Tensor, ...]:
    """Transitions in which the second state is a thousand times the first, and the third rests."""
    generator = torch.Generator().manual_seed(0)
    states, steps = torch.randn(2, count, 3, generator=generator, dtype=torch.float64)
    controls = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    scale = torch.tensor([1.0, 1000.0, 0.0], dtype=torch.float64)
    return states * scale + 5.0, controls, (states + 0.1 * steps) * scale + 5.0


def moved(dynamics: nn.Module) -> nn.Module:
    """The same with other weights."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in dynamics.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return dynamics


def test_a_prediction_is_the_mean_of_the_members_written_out():
    torch.manual_seed(0)
    dynamics = moved(LearnedDynamics(3, 1, hidden=(8, 7), members=2))
    states, controls, following = data()
    dynamics.normalize(states, controls, following)
    inputs = torch.cat((states, controls), 1)
    spread = inputs.std(0, correction=0)
    spread[2] = 1.0  # it does not vary
    change = following - states
    out = change.std(0, correction=0)
    out[2] = 1.0
    members = []
    for k in range(2):
        h = (inputs - inputs.mean(0)) / spread
        for i, (weight, bias) in enumerate(zip(dynamics.weights, dynamics.biases, strict=True)):
            h = h if i == 0 else nn.functional.silu(h)
            h = h @ weight[k].T + bias[k]
        h = h + (inputs - inputs.mean(0)) / spread @ dynamics.linear[k].T
        members.append(states + change.mean(0) + out * h)
    torch.testing.assert_close(dynamics.each(states, controls), torch.stack(members, 1))
    torch.testing.assert_close(dynamics(states, controls), (members[0] + members[1]) / 2)
    assert not torch.allclose(members[0], members[1])


def test_other_scales_leave_a_trained_model_as_it_is():
    dynamics = LearnedDynamics(3, 1, hidden=(8,), members=2)
    states, controls, following = data()
    dynamics.normalize(states[:10], controls[:10], following[:10])
    moved(dynamics)
    before, scale = dynamics(states, controls), dynamics.input_scale.clone()
    dynamics.normalize(states, controls, following)
    assert not torch.equal(dynamics.input_scale, scale)
    torch.testing.assert_close(dynamics(states, controls), before)


def test_known_physics_is_what_an_untrained_model_predicts_nearly():
    physics = PendulumDynamics()
    dynamics = LearnedDynamics(3, 1, physics=physics)
    states = torch.tensor([[0.6, 0.8, 1.0], [1.0, 0.0, -2.0]], dtype=torch.float64)
    controls, known = torch.ones(2, 1, dtype=torch.float64), physics(states, torch.ones(2, 1))
    dynamics.normalize(states, controls, known)
    torch.testing.assert_close(dynamics(states, controls), known, atol=0.3, rtol=0)
    for parameter in dynamics.weights[-1:]:
        nn.init.zeros_(parameter)
    torch.testing.assert_close(dynamics(states, controls), known)


def test_angles_stay_on_the_circle():
    dynamics = moved(LearnedDynamics(3, 1, members=2, unit_pairs=[(0, 1)]))
    states, controls = torch.randn(20, 3).double(), torch.randn(20, 1).double()
    for each in (dynamics(states, controls), dynamics.each(states, controls)):
        torch.testing.assert_close(each[..., :2].norm(dim=-1), torch.ones(each.shape[:-1]).double())
    assert LearnedDynamics(3, 1, physics=PendulumDynamics()).unit_pairs == ((0, 1),)


def test_it_compiles_with_its_derivatives_and_other_weights_do_not_compile_again():
    torch.manual_seed(0)
    dynamics = LearnedDynamics(3, 1, hidden=(16, 12), members=3, unit_pairs=[(0, 1)])
    compiled = compile_module(dynamics, 3, 1)
    states, controls, following = data(5)
    graph = compiled.graph
    for _ in range(2):
        expected = dynamics(states, controls).detach()
        np.testing.assert_allclose(compiled.value(states, controls), expected, rtol=1e-9)
        by_state, by_control = torch.func.vmap(torch.func.jacrev(dynamics, (0, 1)))(
            states, controls
        )
        np.testing.assert_allclose(
            compiled.jacobian(states, controls), torch.cat((by_state, by_control), -1).detach()
        )
        dynamics.normalize(states, controls, following)
        moved(dynamics)
    assert compiled.graph is graph


def test_a_context_goes_to_the_physics():
    class Windy(PendulumDynamics):
        def forward(self, state, control, context):
            return super().forward(state, control + context)

    dynamics = LearnedDynamics(3, 1, physics=Windy())
    assert dynamics.takes_context
    states, controls = torch.tensor([[0.6, 0.8, 1.0]]).double(), torch.zeros(1, 1).double()
    wind = torch.ones(1, 1, dtype=torch.float64)
    blown = dynamics(states, controls, wind) - dynamics(states, controls, 0 * wind)
    expected = PendulumDynamics()(states, wind) - PendulumDynamics()(states, 0 * wind)
    torch.testing.assert_close(blown, expected, atol=1e-2, rtol=0)
    assert not LearnedDynamics(3, 1).takes_context


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hidden": (0,)}, ValueError, r"hidden\[0\] must be at least 1"),
        ({"members": 0}, ValueError, "members must be at least 1"),
        ({"physics": 3}, TypeError, "physics must be"),
        ({"unit_pairs": [(0, 3)]}, ValueError, "unit_pairs must be pairs of two entries of the 3"),
        ({"unit_pairs": [(1, 1)]}, ValueError, "unit_pairs must be pairs"),
        ({"activation": 3}, TypeError, "activation must be a function"),
    ],
)
def test_what_makes_no_model_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        LearnedDynamics(3, 1, **options)


def test_it_is_shown_in_a_line():
    shown = repr(LearnedDynamics(3, 1, hidden=(8, 16), members=2, physics=PendulumDynamics()))
    assert shown == (
        "LearnedDynamics(n_state=3, n_ctrl=1, hidden=[8, 16], members=2, "
        "physics=PendulumDynamics(max_speed=8.0, dt=0.05))"
    )
