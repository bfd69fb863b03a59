"""Malformed controllers and plans are answered in words, whatever is wrong with them."""

import numpy as np
import torch
from torch import nn

from mpc_gym.models import PendulumCost, PendulumDynamics
from mpc_gym.mpc import MPC
from mpc_gym.mpc.constraints import Rows
from tests.malformed import Case, failures, rows

HORIZON = 3


def make(**options: object) -> MPC:
    return MPC(PendulumDynamics(), PendulumCost(), HORIZON, backend="torch", **options)


class Tracking(nn.Module):
    """A cost whose context is a goal."""

    def forward(self, state, control, context):
        return (state[..., 0] - context[..., 0]) ** 2 + control[..., 0] ** 2


def start() -> torch.Tensor:
    return torch.tensor([[1.0, 0.0, 0.5]], dtype=torch.float64)


def plan(x_init=None, **arguments: object) -> object:
    return make()(x_init, **arguments)


def plan_with_context(context) -> object:
    return MPC(PendulumDynamics(), Tracking(), HORIZON, backend="torch")(start(), context=context)


def sized(n_state=3, n_ctrl=1) -> MPC:
    """A controller of dynamics that say these sizes of themselves."""
    dynamics = nn.Linear(4, 3)
    dynamics.n_state, dynamics.n_ctrl = n_state, n_ctrl
    return MPC(dynamics, PendulumCost(), HORIZON)


CASES = {
    "MPC": Case(
        MPC,
        {
            "dynamics": PendulumDynamics,
            "cost": PendulumCost,
            "horizon": lambda: HORIZON,
            "backend": lambda: "torch",
        },
        {
            **dict.fromkeys(("dynamics", "cost"), "module"),
            **dict.fromkeys(("horizon", "max_iterations", "starts"), "count"),
            **dict.fromkeys(("control_low", "control_high"), "numbers"),
            **dict.fromkeys(("hessian", "differentiate", "backend"), "word"),
            "tolerance": "positive",
            "smoothing": "not negative",
            "soft": "prices",
            **dict.fromkeys(Rows.NAMES, "module"),
        },
        none=("control_low", "control_high", "soft", *Rows.NAMES),
    ),
    "MPC.forward": Case(
        plan,
        {"x_init": start},
        {
            **dict.fromkeys(("x_init", "warm_start"), "floats"),
            **dict.fromkeys(("starts", "max_iterations"), "count"),
            "unclamped": "flag",
        },
        none=("starts", "max_iterations"),
    ),
    "MPC.forward with context": Case(plan_with_context, {}, {"context": "floats"}),
    "dynamics": Case(
        sized, {}, {"n_state": "count", "n_ctrl": "count"}, none=("n_state", "n_ctrl")
    ),
}


@rows(CASES)
def test_a_bad_argument_is_named_with_what_was_found(case: Case, argument: str) -> None:
    assert not failures(case, argument)


def test_numbers_of_numpy_are_as_good_as_pythons() -> None:
    mpc = MPC(
        PendulumDynamics(mass=np.float32(2.0)),
        PendulumCost(angle_weight=np.array(3.0)),
        np.int64(HORIZON),
        control_low=np.float64(-1.0),
        control_high=[1.0],
        starts=np.int32(2),
        tolerance=np.float32(1e-3),
    )
    assert type(mpc.horizon) is int
    assert (mpc.horizon, mpc.starts, mpc.dynamics.mass.item()) == (HORIZON, 2, 2.0)
    assert mpc.control_low.item() == -1.0


def test_an_empty_batch_gives_an_empty_plan() -> None:
    for backend in ("torch", "native"):
        mpc = MPC(PendulumDynamics(), PendulumCost(), HORIZON, backend=backend)
        plan = mpc(torch.zeros(0, 3))
        assert plan.controls.shape == (0, HORIZON, 1)
        assert plan.shift().shape == (0, HORIZON, 1)
