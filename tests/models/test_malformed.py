"""Malformed calls of the models are answered in words, whatever is wrong with them."""

import torch
from torch import nn

from mpc_gym.models import (
    AcrobotCost,
    AcrobotDynamics,
    AcrobotRiseCost,
    AcrobotSwingUpCost,
    CarDynamics,
    CartPoleDynamics,
    CartPoleSwingUpCost,
    CartPoleTrack,
    ChainDynamics,
    ContextualCost,
    DiscObstacle,
    DoublePendulumCost,
    Dynamics,
    LearnedDynamics,
    LinearCost,
    LinearDynamics,
    MountainCarCost,
    MountainCarDynamics,
    NeuralDynamics,
    ParkingCost,
    PendulumCost,
    PendulumDynamics,
    PlanarQuadrotorDynamics,
    QuadraticCost,
    ReacherCost,
    RoadWalls,
    TerminalCost,
    current_values,
    keep_positive,
)
from tests.malformed import Case, failures, rows


def positive_cost() -> nn.Module:
    return keep_positive(PendulumCost())


CASES = {
    "AcrobotDynamics": Case(
        AcrobotDynamics,
        {},
        {
            **dict.fromkeys(("gravity", "shoulder_damping", "elbow_damping"), "number"),
            **dict.fromkeys(AcrobotDynamics.positive_parameters, "positive"),
            **dict.fromkeys(("max_shoulder_speed", "max_elbow_speed", "dt"), "positive"),
            "substeps": "count",
        },
        none=("max_shoulder_speed", "max_elbow_speed"),
    ),
    "AcrobotCost": Case(AcrobotCost, {}, dict.fromkeys(AcrobotCost.positive_parameters, "number")),
    "CarDynamics": Case(
        CarDynamics,
        {},
        {"drag": "number", **dict.fromkeys(("front", "rear", "dt"), "positive")},
    ),
    "ParkingCost": Case(ParkingCost, {}, dict.fromkeys(ParkingCost.positive_parameters, "number")),
    "RoadWalls": Case(
        RoadWalls,
        {"half_width": lambda: 0.5, "length": lambda: 0.5, "width": lambda: 0.2},
        dict.fromkeys(("half_width", "length", "width"), "positive"),
    ),
    "PlanarQuadrotorDynamics": Case(
        PlanarQuadrotorDynamics,
        {},
        {
            **dict.fromkeys(("gravity", "drag", "trim"), "number"),
            **dict.fromkeys(("mass", "inertia", "arm", "dt"), "positive"),
        },
    ),
    "DiscObstacle": Case(
        DiscObstacle,
        {"radius": lambda: 1.0, "centre": lambda: (0.0, 1.0)},
        {"radius": "positive", "centre": "numbers"},
    ),
    "PendulumDynamics": Case(
        PendulumDynamics,
        {},
        {
            **dict.fromkeys(("gravity", "damping", "wind"), "number"),
            **dict.fromkeys(("mass", "length", "max_speed", "dt"), "positive"),
        },
        none=("max_speed",),
    ),
    "CartPoleDynamics": Case(
        CartPoleDynamics,
        {},
        {
            "gravity": "number",
            **dict.fromkeys(("cart_mass", "pole_mass", "pole_length", "dt"), "positive"),
        },
    ),
    "ChainDynamics": Case(
        ChainDynamics,
        {
            **dict.fromkeys(("link_mass", "link_centre", "link_inertia", "damping"), lambda: [1.0]),
            "gear": lambda: [1.0],
            "motors": lambda: [0],
            "dt": lambda: 0.1,
        },
        {
            **dict.fromkeys(("link_mass", "link_centre", "link_inertia", "damping"), "numbers"),
            "gear": "numbers",
            "gravity": "number",
            "cart_mass": "positive",
            "dt": "positive",
            "substeps": "count",
        },
        none=("cart_mass",),
    ),
    "MountainCarDynamics": Case(
        MountainCarDynamics, {}, dict.fromkeys(("power", "gravity"), "positive")
    ),
    "MountainCarCost": Case(
        MountainCarCost,
        {},
        {**dict.fromkeys(MountainCarCost.positive_parameters, "number"), "gravity": "positive"},
    ),
    "DoublePendulumCost": Case(
        DoublePendulumCost,
        {},
        {**dict.fromkeys(DoublePendulumCost.positive_parameters, "number"), "length": "positive"},
    ),
    "ReacherCost": Case(
        ReacherCost,
        {},
        {**dict.fromkeys(ReacherCost.positive_parameters, "number"), "width": "positive"},
    ),
    "CartPoleSwingUpCost": Case(CartPoleSwingUpCost, {}, {"scale": "positive"}),
    "AcrobotSwingUpCost": Case(
        AcrobotSwingUpCost,
        {"dynamics": AcrobotDynamics},
        dict.fromkeys(AcrobotSwingUpCost.positive_parameters, "number"),
    ),
    "AcrobotRiseCost": Case(
        AcrobotRiseCost,
        {"dynamics": AcrobotDynamics},
        dict.fromkeys(AcrobotRiseCost.positive_parameters, "number"),
    ),
    "CartPoleTrack": Case(CartPoleTrack, {"limit": lambda: 1.0}, {"limit": "positive"}),
    "PendulumCost": Case(
        PendulumCost,
        {},
        dict.fromkeys(("angle_weight", "speed_weight", "torque_weight"), "number"),
    ),
    "Dynamics": Case(
        Dynamics, {}, {"n_state": "count", "n_ctrl": "count"}, none=("n_state", "n_ctrl")
    ),
    "LearnedDynamics": Case(
        LearnedDynamics,
        {"n_state": lambda: 3, "n_ctrl": lambda: 1},
        {
            **dict.fromkeys(("n_state", "n_ctrl", "members"), "count"),
            **dict.fromkeys(("physics", "activation"), "word"),
        },
        none=("physics",),
    ),
    "NeuralDynamics": Case(
        NeuralDynamics,
        {"n_state": lambda: 2, "n_ctrl": lambda: 1},
        {"n_state": "count", "n_ctrl": "count", "hidden": "widths", "activation": "activation"},
    ),
    "LinearDynamics": Case(
        LinearDynamics,
        {"A": lambda: torch.eye(2), "B": lambda: torch.ones(2, 1)},
        {"A": "numbers", "B": "numbers", "offset": "numbers"},
        none=("offset",),
    ),
    "QuadraticCost": Case(
        QuadraticCost,
        {"C": lambda: torch.eye(3)},
        {"C": "numbers", "c": "numbers"},
        none=("c",),
    ),
    "QuadraticCost.diagonal": Case(
        QuadraticCost.diagonal,
        {"weights": lambda: torch.ones(3)},
        {"weights": "numbers", "c": "numbers"},
        none=("c",),
    ),
    "QuadraticCost.from_goal": Case(
        QuadraticCost.from_goal,
        {
            "goal_state": lambda: torch.zeros(2),
            "goal_weights": lambda: torch.ones(2),
            "control_penalty": lambda: 0.1,
        },
        dict.fromkeys(("goal_state", "goal_weights", "control_penalty"), "numbers"),
    ),
    "LinearCost": Case(
        LinearCost,
        {"cost": PendulumCost, "n_state": lambda: 3, "n_ctrl": lambda: 1},
        {"cost": "module", "n_state": "count", "n_ctrl": "count"},
    ),
    "TerminalCost": Case(
        TerminalCost,
        {"cost": PendulumCost, "horizon": lambda: 5, "n_state": lambda: 3},
        {"cost": "module", "horizon": "count", "n_state": "count"},
    ),
    "ContextualCost": Case(
        ContextualCost,
        {"cost": positive_cost, "n_state": lambda: 3, "n_ctrl": lambda: 1},
        {"cost": "module", "n_state": "count", "n_ctrl": "count"},
    ),
    "keep_positive": Case(keep_positive, {"module": PendulumCost}, {"module": "module"}),
    "current_values": Case(current_values, {"module": PendulumCost}, {"module": "module"}),
}


@rows(CASES)
def test_a_bad_argument_is_named_with_what_was_found(case: Case, argument: str) -> None:
    assert not failures(case, argument)
