import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpc_gym.models import CarDynamics, ParkingCost, RoadWalls

PARAMETERS = ["front", "rear", "drag"]
angles = st.floats(-math.pi, math.pi)
speeds = st.floats(-3.0, 3.0)
steerings = st.floats(-0.5, 0.5)
places = st.floats(-3.0, 3.0)


def state_of(x: float, y: float, heading: float, speed: float) -> torch.Tensor:
    entries = [x, y, math.cos(heading), math.sin(heading), speed]
    return torch.tensor(entries, dtype=torch.float64)


def control_of(acceleration: float, steering: float) -> torch.Tensor:
    return torch.tensor([acceleration, steering], dtype=torch.float64)


def axle(state: torch.Tensor, along: float) -> np.ndarray:
    """Where a point on the car's axis is, so far before its centre of mass."""
    return (state[:2] + along * state[2:4]).numpy()


@given(angles, speeds, steerings)
def test_no_wheel_slips_sideways(heading, speed, steering) -> None:
    """What is meant by a bicycle: each axle moves along its wheels."""
    front, rear, dt = 0.2, 0.3, 1e-6
    dynamics = CarDynamics(front, rear, drag=0.0, dt=dt)
    start = state_of(0.3, -0.2, heading, speed)
    end = dynamics(start, control_of(0.0, steering)).detach()
    for along, turned in ((front, steering), (-rear, 0.0)):
        velocity = (axle(end, along) - axle(start, along)) / dt
        across = np.array([-math.sin(heading + turned), math.cos(heading + turned)])
        assert velocity @ across == pytest.approx(0.0, abs=1e-4)


@given(st.floats(0.05, 0.5), st.sampled_from([-1, 1]))
def test_it_drives_round_a_circle_under_constant_steering(steering: float, side: int) -> None:
    front, rear = 0.16, 0.17
    dynamics = CarDynamics(front, rear, drag=0.0)
    state = start = state_of(0.0, 0.0, 0.0, 1.0)
    # the axles' normals meet in the middle, which lies beside the rear axle
    middle = np.array([-rear, side * (front + rear) / math.tan(steering)])
    radius = np.linalg.norm(middle)
    with torch.no_grad():
        for _ in range(40):
            state = dynamics(state, control_of(0.0, side * steering))
            assert np.linalg.norm(state[:2].numpy() - middle) == pytest.approx(radius, rel=1e-5)
    assert (state - start).norm() > 0.3


def test_it_rolls_to_a_stop() -> None:
    dynamics = CarDynamics(drag=0.4)
    state = state_of(0.0, 0.0, 0.0, 2.0)
    with torch.no_grad():
        for _ in range(100):  # five seconds
            state = dynamics(state, control_of(0.0, 0.0))
    speed = 2.0 * math.exp(-0.4 * 5.0)
    torch.testing.assert_close(state, state_of((2.0 - speed) / 0.4, 0.0, 0.0, speed))


@given(angles, speeds, st.floats(-2.0, 2.0), steerings, angles, places, places)
def test_turning_and_moving_the_road_map_turns_and_moves_the_motion(
    heading, speed, acceleration, steering, turn, x, y
) -> None:
    dynamics = CarDynamics()
    control = control_of(acceleration, steering)
    near = dynamics(state_of(0.0, 0.0, heading, speed), control).detach()
    far = dynamics(state_of(x, y, heading + turn, speed), control).detach()
    cosine, sine = math.cos(turn), math.sin(turn)
    rotation = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    offset = torch.tensor([x, y], dtype=torch.float64)
    torch.testing.assert_close(far[:2], rotation @ near[:2] + offset)
    torch.testing.assert_close(far[2:4], rotation @ near[2:4])
    torch.testing.assert_close(far[4], near[4])


@pytest.mark.parametrize("name", [*PARAMETERS, "state", "control"])
def test_derivatives_match_finite_differences(name: str) -> None:
    dynamics = CarDynamics(0.2, 0.3, 0.1)
    inputs = {
        "state": state_of(0.1, -0.2, 2.0, 0.5),
        "control": control_of(1.0, -0.3),
        **{parameter: getattr(dynamics, parameter).detach() for parameter in PARAMETERS},
    }

    def step(value: torch.Tensor) -> torch.Tensor:
        given_inputs = {**inputs, name: value}
        parameters = {parameter: given_inputs[parameter] for parameter in PARAMETERS}
        return torch.func.functional_call(
            dynamics, parameters, (given_inputs["state"], given_inputs["control"])
        )

    assert torch.autograd.gradcheck(step, inputs[name].clone().requires_grad_())


@given(places, places, angles, speeds, st.floats(-2.0, 2.0), steerings)
def test_parking_costs_nothing_at_the_place_alone(x, y, heading, speed, pull, steering) -> None:
    cost = ParkingCost()
    parked = cost(state_of(0.0, 0.0, 0.0, 0.0), control_of(0.0, 0.0)).item()
    assert parked == pytest.approx(0.0, abs=1e-15)
    found = cost(state_of(x, y, heading, speed), control_of(pull, steering)).item()
    expected = (
        x**2
        + 5 * (math.hypot(y, 0.1) - 0.1)
        + 2 * (1 - math.cos(heading))
        + 0.05 * speed**2
        + 0.01 * (pull**2 + steering**2)
    )
    assert found == pytest.approx(expected, abs=1e-12)


@given(st.floats(-1.0, 1.0), angles, st.floats(0.2, 1.0))
def test_the_road_holds_where_all_corners_are_between_the_walls(y, heading, half) -> None:
    rows = RoadWalls(half, 0.5, 0.24)(state_of(0.0, y, heading, 1.0), control_of(0.0, 0.0))
    corners = np.array([[a, b] for a in (-0.25, 0.25) for b in (-0.12, 0.12)])
    reach = np.abs(y + corners @ [math.sin(heading), math.cos(heading)]).max()
    assert rows.shape == (8,)
    assert rows.max().item() == pytest.approx(reach - half, abs=1e-12)


def test_the_walls_are_not_learned_and_not_saved() -> None:
    walls = RoadWalls(0.5, 0.5, 0.24)
    assert not list(walls.parameters())
    assert not walls.state_dict()
    assert str(walls) == "RoadWalls(half_width=0.5, length=0.5, width=0.24)"
