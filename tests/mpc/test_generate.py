"""The generated stage functions."""

import sys

import numba
import pytest
import torch

from mpc_gym.models import LinearDynamics, QuadraticCost
from mpc_gym.mpc import generate
from tests.compiled.assembly import assert_vectorised, packed_share


def generated(name, address):
    """The function behind the address of a stage."""
    modules = [m for key, m in sys.modules.items() if key.startswith("mpc_gym_generated")]
    module = next(m for m in modules if getattr(m, f"{name}_address", None) == address)
    function = getattr(module, name)
    function.compile((numba.float64[::1],) * 4)
    return function


@pytest.mark.parametrize("name", ["forward", "backward", "adjoint", "response"])
def test_every_stage_runs_its_lanes_in_packed_instructions(paper, name):
    n = paper.x_init.shape[1]
    model = generate.trace_model(paper.dynamics(), paper.cost(), n, 1, 0)
    if name in ("forward", "backward"):
        address = getattr(generate.solver_stages(model), name)
    else:
        adjoint, response = generate.sensitivity_stages(model)
        address = adjoint if name == "adjoint" else response
    function = generated(name, address)
    assert_vectorised(function)
    assert packed_share(function) > 0.4  # the rest is a scalar loop for arrays that overlap


def test_stages_that_are_not_needed_are_not_made():
    dynamics = LinearDynamics(torch.eye(2).double(), torch.ones(2, 1).double())
    cost = QuadraticCost(torch.ones(3).double())
    stages = generate.solver_stages(generate.trace_model(dynamics, cost, 2, 1, 0))
    assert stages.forward
    assert stages.backward
    assert stages.expansion == stages.value == 0
