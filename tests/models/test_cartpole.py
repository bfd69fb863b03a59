import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from mpc_gym.models import CartPoleDynamics, CartPoleTrack

PARAMETERS = ["gravity", "cart_mass", "pole_mass", "pole_length"]
angles = st.floats(-math.pi, math.pi)
speeds = st.floats(-10.0, 10.0)
forces = st.floats(-100.0, 100.0)


def state_of(x: float, x_dot: float, theta: float, speed: float) -> torch.Tensor:
    return torch.tensor([x, x_dot, math.cos(theta), math.sin(theta), speed], dtype=torch.float64)


def control_of(force: float) -> torch.Tensor:
    return torch.tensor([force], dtype=torch.float64)


def accelerations(theta, speed, force, gravity, cart_mass, pole_mass, half_length):
    """Lagrange's equations of a cart and a uniform rod: a linear system in the accelerations."""
    moment = pole_mass * half_length
    mass = np.array(
        [
            [cart_mass + pole_mass, moment * np.cos(theta)],
            [moment * np.cos(theta), 4 / 3 * moment * half_length],
        ]
    )
    load = [force + moment * speed**2 * np.sin(theta), moment * gravity * np.sin(theta)]
    return np.linalg.solve(mass, load)


@given(speeds, angles, speeds, forces)
def test_a_step_follows_lagranges_equations(x_dot, theta, speed, force) -> None:
    physics = (9.8, 1.0, 0.1, 0.5)
    acceleration, angular = accelerations(theta, speed, force, *physics)
    expected = state_of(
        0.3 + 0.05 * x_dot,
        x_dot + 0.05 * acceleration,
        theta + 0.05 * speed,
        speed + 0.05 * angular,
    )
    following = CartPoleDynamics(*physics)(state_of(0.3, x_dot, theta, speed), control_of(force))
    torch.testing.assert_close(following.detach(), expected)


def test_it_converges_to_the_differential_equation_as_the_step_shrinks() -> None:
    physics, force = (9.0, 1.2, 0.3, 0.7), 3.0

    def derivative(_: float, y: np.ndarray) -> list[float]:
        acceleration, angular = accelerations(y[2], y[3], force, *physics)
        return [y[1], acceleration, y[3], angular]

    start = [0.1, -0.2, 2.0, 0.5]
    final = solve_ivp(derivative, (0.0, 0.5), start, rtol=1e-10, atol=1e-10).y[:, -1]
    exact = state_of(*final)

    def simulated(steps: int) -> torch.Tensor:
        dynamics = CartPoleDynamics(*physics, dt=0.5 / steps)
        state = state_of(*start)
        with torch.no_grad():
            for _ in range(steps):
                state = dynamics(state, control_of(force))
        return state

    coarse, fine = simulated(400), simulated(800)
    ratio = (coarse - exact).norm() / (fine - exact).norm()
    assert ratio.item() == pytest.approx(2.0, rel=0.05)  # first order
    # Richardson's extrapolation removes the first order, and with it nearly all of the error.
    torch.testing.assert_close(2 * fine - coarse, exact, atol=1e-4, rtol=0.0)


def test_energy_is_kept_without_a_force_as_the_step_shrinks() -> None:
    gravity, cart_mass, pole_mass, half = 9.8, 1.0, 0.1, 0.5

    def energy(state: torch.Tensor) -> float:
        _, x_dot, cosine, _, speed = state.tolist()
        kinetic = (
            0.5 * (cart_mass + pole_mass) * x_dot**2
            + pole_mass * half * cosine * x_dot * speed
            + 0.5 * 4 / 3 * pole_mass * half**2 * speed**2
        )
        return kinetic + pole_mass * gravity * half * cosine

    dynamics = CartPoleDynamics(dt=1e-4)
    start = state = state_of(0.0, 0.4, 2.5, 1.0)
    with torch.no_grad():
        for _ in range(2000):
            state = dynamics(state, control_of(0.0))
    assert energy(state) == pytest.approx(energy(start), abs=1e-3)
    assert (state - start).norm() > 0.3


@given(st.floats(-5.0, 5.0), speeds, angles, speeds, forces)
def test_moving_the_origin_moves_the_motion(shift, x_dot, theta, speed, force) -> None:
    dynamics = CartPoleDynamics()
    one = dynamics(state_of(0.0, x_dot, theta, speed), control_of(force))
    other = dynamics(state_of(shift, x_dot, theta, speed), control_of(force))
    offset = torch.tensor([shift, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(other, one + offset)


@given(speeds, angles, speeds, forces)
def test_mirroring_state_and_force_mirrors_the_motion(x_dot, theta, speed, force) -> None:
    dynamics = CartPoleDynamics()
    mirror = torch.tensor([-1.0, -1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    state = state_of(0.2, x_dot, theta, speed)
    torch.testing.assert_close(
        dynamics(mirror * state, -control_of(force)), mirror * dynamics(state, control_of(force))
    )


@given(angles, speeds)
def test_the_angle_stays_on_the_unit_circle(theta: float, speed: float) -> None:
    following = CartPoleDynamics()(state_of(0.0, 0.0, theta, speed), control_of(1.0))
    assert following[2:4].norm().item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", [*PARAMETERS, "state", "control"])
def test_derivatives_match_finite_differences(name: str) -> None:
    dynamics = CartPoleDynamics(9.0, 1.2, 0.3, 0.7)
    inputs = {
        "state": state_of(0.1, -0.2, 2.0, 0.5),
        "control": control_of(3.0),
        **{parameter: getattr(dynamics, parameter).detach() for parameter in PARAMETERS},
    }

    def step(value: torch.Tensor) -> torch.Tensor:
        given_inputs = {**inputs, name: value}
        parameters = {parameter: given_inputs[parameter] for parameter in PARAMETERS}
        return torch.func.functional_call(
            dynamics, parameters, (given_inputs["state"], given_inputs["control"])
        )

    assert torch.autograd.gradcheck(step, inputs[name].clone().requires_grad_())


@pytest.mark.parametrize("shape", [(), (4,), (4, 7)])
def test_any_leading_dimensions_are_rows_of_their_own(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(*shape, 5, generator=generator, dtype=torch.float64)
    controls = torch.randn(*shape, 1, generator=generator, dtype=torch.float64)
    dynamics = CartPoleDynamics()
    following = dynamics(states, controls)
    assert following.shape == states.shape
    for row in np.ndindex(shape):
        torch.testing.assert_close(following[row], dynamics(states[row], controls[row]))


@pytest.mark.parametrize("name", ["cart_mass", "pole_mass", "pole_length", "dt"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_quantities_that_must_be_positive_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        CartPoleDynamics(**{name: value})


@given(st.floats(-5.0, 5.0), st.floats(0.1, 5.0))
def test_the_track_holds_where_the_position_is_between_its_ends(x: float, limit: float) -> None:
    rows = CartPoleTrack(limit)(state_of(x, 9.0, 2.0, 9.0), control_of(99.0))
    assert (rows <= 0).all().item() == (-limit <= x <= limit)
    assert rows.max().item() == pytest.approx(abs(x) - limit)


def test_the_track_is_not_learned_and_not_saved() -> None:
    track = CartPoleTrack(2.4)
    assert not list(track.parameters())
    assert not track.state_dict()
    assert str(track) == "CartPoleTrack(limit=2.4)"
