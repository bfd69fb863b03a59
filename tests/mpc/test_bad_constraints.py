"""What is no constraint is answered in words that name the argument."""

import pytest
import torch

from benchmarks.constrained_systems import SLOW, Within
from mpc_gym import MPC
from mpc_gym.models import PendulumCost, PendulumDynamics
from tests.mpc.formulas import LastRows, Rows

FLOAT = torch.float64
BACKENDS = ("native", "torch")

BAD = {
    "constraints must map each row": [
        Rows(lambda x, u: x[..., 2:] - x[..., 2:].mean(0, keepdim=True)),
        Rows(lambda x, u: x[..., 2:] - x[..., 2:].mean(-2, keepdim=True)),
        Rows(lambda x, u: (x[0, ..., 2:] - 9.0).expand(*x.shape[:-1], 1)),
        Rows(lambda x, u: x[..., 2:] - 9.0 - torch.rand(1, dtype=x.dtype)),
    ],
    "constraints must map states": [
        Rows(lambda x, u: x[..., 2] - 1.0),
        Rows(lambda x, u: torch.zeros(1, dtype=x.dtype)),
        Rows(lambda x, u: x[..., :0]),
    ],
    "constraints must return a tensor": [Rows(lambda x, u: None)],
    "constraints must take the state and the control": [LastRows(lambda x: x[..., 2:] - 1.0)],
    "constraints fails on states": [Rows(lambda x, u: x[..., 7])],
    "constraints must compute in the dtype": [Rows(lambda x, u: (x[..., 2:] - 1.0).float())],
    "constraints: the first derivative": [Rows(lambda x, u: x[..., 2:].detach() - 9.0)],
    "parameter constraints.limit is not finite": [Within(2, float("nan"))],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("message", "rows"), [(k, row) for k, v in BAD.items() for row in v])
def test_a_constraint_that_is_none_is_answered_in_words(message, rows, backend: str) -> None:
    mpc = MPC(PendulumDynamics(), PendulumCost(), 4, constraints=rows, backend=backend)
    x_init = torch.tensor([[1.0, 0.0, 0.2], [1.0, 0.0, -0.3]], dtype=FLOAT)
    with pytest.raises((TypeError, ValueError), match=message):
        mpc(x_init)


@pytest.mark.parametrize("name", ["terminal_constraints", "terminal_equalities"])
def test_a_constraint_on_the_last_state_takes_no_control(name: str) -> None:
    mpc = SLOW.controller(**{name: Rows(lambda x, u: x[..., 2:])})
    with pytest.raises(TypeError, match=f"{name} must take the state alone"):
        mpc(SLOW.start_states(2, 0))


def test_a_price_fits_the_rows() -> None:
    mpc = SLOW.controller(soft=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"soft must be .* 2 rows .* \[3\]"):
        mpc(SLOW.start_states(2, 0))
    for bad in (0.0, -1.0, float("nan"), float("inf"), [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="soft must be a positive number"):
            mpc.soft = bad


def test_what_constraints_do_not_know_is_said() -> None:
    mpc = SLOW.controller(differentiate="unrolled", backend="torch")
    with pytest.raises(ValueError, match="differentiate='unrolled'"):
        mpc(SLOW.start_states(2, 0))
