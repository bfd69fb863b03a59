"""The generated stage functions."""

import re
import sys

import numba
import pytest
import torch

from mpc_gym.compiled import ProgramTooLarge, program
from mpc_gym.models import LinearDynamics, NeuralDynamics, QuadraticCost
from mpc_gym.mpc.native import generate
from mpc_gym.mpc.stages import sensitivity, solver
from tests.compiled.assembly import assert_vectorised, packed_share


def generated(name, address):
    """The function behind the address of a stage."""
    modules = [m for key, m in sys.modules.items() if key.startswith("mpc_gym_generated")]
    module = next(m for m in modules if getattr(m, f"{name}_address", None) == address)
    function = getattr(module, name)
    function.compile((numba.float64[::1],) * 5)
    return function


@pytest.mark.parametrize("name", ["forward", "backward", "adjoint", "response"])
def test_every_stage_runs_its_lanes_in_packed_instructions(paper, name):
    n = paper.x_init.shape[1]
    model = generate.trace_model(paper.dynamics(), paper.cost(), n, 1, 0)
    if name in ("forward", "backward"):
        address = getattr(generate.solver_stages(model)[0], name)
    else:
        (adjoint, response), _ = generate.sensitivity_stages(model)
        address = adjoint if name == "adjoint" else response
    function = generated(name, address)
    assert_vectorised(function)
    assert packed_share(function) > 0.4  # the rest is a scalar loop for arrays that overlap


def test_stages_that_are_not_needed_are_not_made():
    dynamics = LinearDynamics(torch.eye(2).double(), torch.ones(2, 1).double())
    cost = QuadraticCost(torch.ones(3).double())
    stages, _ = generate.solver_stages(generate.trace_model(dynamics, cost, 2, 1, 0))
    assert stages.forward
    assert stages.backward
    assert stages.expansion == stages.value == 0


@pytest.mark.parametrize("stage", [solver.backward, sensitivity.adjoint])
def test_gauss_newton_writes_no_second_derivatives_of_the_dynamics(stage):
    network, cost = NeuralDynamics(2, 1, hidden=(8,)), QuadraticCost(torch.ones(3))
    lengths = []
    for second_order in (True, False):
        model = generate.trace_model(network, cost, 2, 1, 0, second_order=second_order)
        written, outputs = stage(model)
        lengths.append(len(written.live(outputs.values())))
    assert lengths[1] < 0.9 * lengths[0]


@pytest.mark.parametrize(
    ("stages", "what"),
    [(generate.solver_stages, "step of the solver"), (generate.sensitivity_stages, "derivative")],
)
def test_what_is_too_large_says_how_large_the_model_is(stages, what, monkeypatch):
    network = NeuralDynamics(2, 1, hidden=(8,))
    model = generate.trace_model(network, QuadraticCost(torch.ones(3)), 2, 1, 0)
    monkeypatch.setattr(program.Program.__init__, "__defaults__", (300,))
    # the layers have 8 * (3 + 1) and 2 * (8 + 1) parameters, the cost 3 + 3
    message = rf"{what}.* 2 states, 1 controls and 56 parameters.* about (\d+) .*matrix product"
    with pytest.raises(ProgramTooLarge, match=message) as found:
        stages(model)
    operations = int(re.search(message, str(found.value))[1])
    products = 2 * (8 * 3 + 2 * 8)  # a product and a sum each
    assert products < operations < 1.5 * products
