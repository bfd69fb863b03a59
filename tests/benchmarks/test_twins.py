"""A system and its twin in CasADi are the same: what is compared is the solver alone."""

import numpy as np
import pytest
import torch

from benchmarks.system_models import NAMED

ca = pytest.importorskip("casadi")


@pytest.mark.parametrize("system", NAMED.values(), ids=NAMED)
def test_a_model_and_its_twin_agree(system):
    from benchmarks.rivals.twins import twin

    state = system.start_states(8, seed=3)
    limit = torch.tensor(system.limit, dtype=torch.float64)
    control = limit.clamp(max=10.0) * (2 * torch.rand(len(state), system.n_ctrl).double() - 1)
    x, u = ca.SX.sym("x", system.n_state), ca.SX.sym("u", system.n_ctrl)
    for module in (system.dynamics(), system.cost()):
        theirs = ca.Function("twin", [x, u], [twin(module, x, u)]).map(len(state))
        with torch.no_grad():
            ours = module(state, control)
        found = np.array(theirs(state.numpy().T, control.numpy().T)).T
        np.testing.assert_allclose(found.reshape(ours.shape), ours.numpy(), rtol=1e-12, atol=1e-12)
