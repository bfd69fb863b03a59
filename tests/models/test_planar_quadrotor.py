import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from mpc_gym.models import DiscObstacle, PlanarQuadrotorDynamics

PARAMETERS = ["gravity", "mass", "inertia", "arm", "drag"]
PHYSICS = (9.0, 1.3, 0.04, 0.3, 0.2)
angles = st.floats(-math.pi, math.pi)
speeds = st.floats(-5.0, 5.0)
thrusts = st.floats(-4.0, 4.0)
places = st.floats(-3.0, 3.0)


def state_of(x, z, theta, *velocities) -> torch.Tensor:
    entries = [x, z, math.cos(theta), math.sin(theta), *velocities]
    return torch.tensor(entries, dtype=torch.float64)


def control_of(left: float, right: float) -> torch.Tensor:
    return torch.tensor([left, right], dtype=torch.float64)


@given(angles, speeds, speeds, speeds, thrusts, thrusts)
def test_a_step_follows_newtons_equations(theta, x_dot, z_dot, spin, left, right) -> None:
    gravity, mass, inertia, arm, drag = PHYSICS
    force = 2 * 4.905 + left + right

    def derivative(_: float, y: np.ndarray) -> list[float]:
        _, _, tilt, u, w, turn = y
        return [
            u,
            w,
            turn,
            (-force * math.sin(tilt) - drag * u) / mass,
            (force * math.cos(tilt) - drag * w) / mass - gravity,
            arm * (right - left) / inertia,
        ]

    start = [0.3, -0.2, theta, x_dot, z_dot, spin]
    final = solve_ivp(derivative, (0.0, 0.01), start, rtol=1e-10, atol=1e-10).y[:, -1]
    dynamics = PlanarQuadrotorDynamics(*PHYSICS, dt=0.01)
    following = dynamics(state_of(*start), control_of(left, right)).detach()
    torch.testing.assert_close(following, state_of(*final), rtol=1e-7, atol=1e-7)


def test_it_hovers_where_it_carries_its_weight() -> None:
    level = state_of(0.7, -0.4, 0.0, 0.0, 0.0, 0.0)
    following = PlanarQuadrotorDynamics()(level, control_of(0.0, 0.0))
    torch.testing.assert_close(following.detach(), level)


def test_it_falls_as_a_stone_without_thrust_and_drag() -> None:
    dynamics = PlanarQuadrotorDynamics(drag=0.0, trim=0.0)
    state = state_of(0.0, 0.0, 0.5, 2.0, 3.0, -1.0)
    with torch.no_grad():
        for _ in range(20):  # a second
            state = dynamics(state, control_of(0.0, 0.0))
    expected = state_of(2.0, 3.0 - 0.5 * 9.81, -0.5, 2.0, 3.0 - 9.81, -1.0)
    torch.testing.assert_close(state, expected)


@given(angles, speeds, speeds, speeds, thrusts, thrusts)
def test_mirroring_state_and_thrusts_mirrors_the_motion(
    theta, x_dot, z_dot, spin, left, right
) -> None:
    dynamics = PlanarQuadrotorDynamics()
    mirror = torch.tensor([-1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    state = state_of(0.2, 0.1, theta, x_dot, z_dot, spin)
    torch.testing.assert_close(
        dynamics(mirror * state, control_of(right, left)),
        mirror * dynamics(state, control_of(left, right)),
    )


@pytest.mark.parametrize("name", [*PARAMETERS, "state", "control"])
def test_derivatives_match_finite_differences(name: str) -> None:
    dynamics = PlanarQuadrotorDynamics(*PHYSICS)
    inputs = {
        "state": state_of(0.1, -0.2, 2.0, 0.5, -1.0, 0.3),
        "control": control_of(3.0, -1.0),
        **{parameter: getattr(dynamics, parameter).detach() for parameter in PARAMETERS},
    }

    def step(value: torch.Tensor) -> torch.Tensor:
        given_inputs = {**inputs, name: value}
        parameters = {parameter: given_inputs[parameter] for parameter in PARAMETERS}
        return torch.func.functional_call(
            dynamics, parameters, (given_inputs["state"], given_inputs["control"])
        )

    assert torch.autograd.gradcheck(step, inputs[name].clone().requires_grad_())


@given(places, places, st.floats(0.1, 2.0))
def test_the_obstacle_is_where_the_position_is_nearer_than_its_radius(x, z, radius) -> None:
    depth = DiscObstacle(radius, (0.5, -1.0))(state_of(x, z, 0, 0, 0, 0), control_of(0, 0))
    distance = math.hypot(x - 0.5, z + 1.0)
    assert depth.shape == (1,)
    assert abs(depth.item() + distance - radius) <= (distance - radius) ** 2 / radius
    if abs(distance - radius) > 1e-9:
        assert (depth.item() > 0) == (distance < radius)


def test_the_obstacle_is_not_learned_and_not_saved() -> None:
    obstacle = DiscObstacle(0.7, (-1.5, 0.0))
    assert not list(obstacle.parameters())
    assert not obstacle.state_dict()
    assert str(obstacle) == "DiscObstacle(radius=0.7, centre=(-1.5, 0.0))"


def test_a_centre_that_is_no_point_is_refused() -> None:
    with pytest.raises(ValueError, match="centre must be two finite numbers"):
        DiscObstacle(1.0, (0.0, 1.0, 2.0))
